"""``hoster init`` and ``hoster version``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hoster import __version__
from hoster.cli.messages import CHANGED, ERROR, INFO, say
from hoster.cli.options import json_option
from hoster.cli.render import print_json
from hoster.errors import ExitCode
from hoster.host.process import SystemRunner
from hoster.host.reach import LocalHost
from hoster.operations.initialise import initialise
from hoster.zfs.store import ZfsStore

DEFAULT_PLACE = Path("/etc/hoster")


@click.command()
@click.option(
    "-d", "--dataset", "datasets", multiple=True, metavar="DATASET", help="Holds VMs; may be repeated."
)
@click.option(
    "--config-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_PLACE,
    show_default=True,
    help="Where hoster.toml goes.",
)
@json_option
def init(datasets: tuple[str, ...], config_dir: Path, as_json: bool) -> None:
    """Check that this node can do the work, and write its first configuration.

    Looks at the rights, the OpenZFS release, the datasets and the host name, and says of each what is
    wrong and how to mend it. Nothing is written while something is wrong, and a configuration that is
    there is never overwritten: it is checked.

    Exit codes: 0 all is well, 2 the configuration is malformed, 3 something is wrong with the node.
    """
    zfs = ZfsStore(LocalHost(), SystemRunner())
    result = initialise(zfs, datasets, config_dir, os.uname().nodename)
    if as_json:
        print_json(
            {
                "passed": result.passed,
                "checks": result.checks,
                "written": None if result.written is None else str(result.written),
                "existing": None if result.existing is None else str(result.existing),
            }
        )
    else:
        for check in result.checks:
            say(INFO if check.passed else ERROR, f"{check.what}: {check.found}", hint=check.remedy)
        if result.written is not None:
            say(CHANGED, f"{result.written} was written")
        elif result.existing is not None:
            say(INFO, f"{result.existing} is this node's configuration, and was left as it is")
    raise click.exceptions.Exit(ExitCode.DONE if result.passed else ExitCode.FAILED)


@click.command()
def version() -> None:
    """Print hoster's version."""
    click.echo(__version__)
