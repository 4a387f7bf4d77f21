"""``hoster config``: whether what was configured makes sense."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hoster.cli.main import LazyGroup
from hoster.cli.messages import ERROR, INFO, say
from hoster.cli.options import json_option
from hoster.cli.render import print_json
from hoster.config.settings import ENVIRONMENT_VARIABLE, find_settings_file
from hoster.errors import ConfigurationError, ExitCode
from hoster.operations.config_check import Checked, Problem, check_node, check_settings
from hoster.operations.context import wire


@click.group(cls=LazyGroup)
def config() -> None:
    """The configuration of this node."""


@config.command()
@click.argument(
    "file", metavar="[FILE]", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@json_option
def check(file: Path | None, as_json: bool) -> None:
    """Check the settings, the networks and the configuration of each VM of this node.

    Says of each thing that is wrong the file, the key, what was found and what was expected. With FILE, those
    settings instead of the node's own: before they take their place.

    Exit codes: 0 nothing is wrong, 2 something is.
    """
    checked = _checked(file)
    if as_json:
        print_json(checked)
    else:
        for problem in checked.problems:
            say(ERROR, problem.problem, hint=problem.hint)
        for note in checked.notes:
            say(INFO, note)
        if not checked.problems:
            say(INFO, f"nothing is wrong: {', '.join(checked.files)}")
    raise click.exceptions.Exit(ExitCode.USAGE if checked.problems else ExitCode.DONE)


def _checked(file: Path | None) -> Checked:
    try:
        path = file or find_settings_file(os.environ)
    except ConfigurationError as error:
        return Checked((), (Problem(error.message, error.hint),))
    found = check_settings(path)
    if isinstance(found, Problem):
        return Checked((str(path),), (found,))
    return check_node(wire({**os.environ, ENVIRONMENT_VARIABLE: str(path)}))
