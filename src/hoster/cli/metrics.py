"""``hoster metrics`` and ``hoster node_exporter``: this node's metrics, in Prometheus' text format."""

from __future__ import annotations

from pathlib import Path

import click

from hoster.cli.messages import INFO, WARNING, say
from hoster.operations.context import wire


@click.command()
@click.option(
    "--textfile-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Write them there, for node_exporter's textfile collector.",
)
def metrics(textfile_dir: Path | None) -> None:
    """Look at this node and print its metrics, or write them for node_exporter's textfile collector.

    Exit codes: 0 printed or written, 3 something could not be found out (the rest is there) or written.
    """
    from hoster.operations.measuring import measure
    from hoster.records.metrics import NODE_FILE, RUN_FILE, exposition, write_metrics

    measured = measure(wire())
    problems = list(measured.problems)
    if textfile_dir is None:
        click.echo(exposition((*measured.of_runs, *measured.of_node)).decode(), nl=False)
    else:
        problems.append(write_metrics(textfile_dir, RUN_FILE, measured.of_runs))
        problems.append(write_metrics(textfile_dir, NODE_FILE, measured.of_node))
    for problem in filter(None, problems):
        say(WARNING, problem, err=True)
    if any(problems):
        raise click.exceptions.Exit(3)


def _address(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, int]:
    """``ADDRESS:PORT``, an IPv6 address in brackets."""
    from ipaddress import ip_address

    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        address, number = str(ip_address(host)), int(port)
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise click.BadParameter(f"{text!r}: expected an IP address, a colon and a port")
    return address, number


@click.group()
def node_exporter() -> None:
    """Serve this node's metrics over HTTP."""


@node_exporter.command()
@click.option(
    "--listen",
    default="127.0.0.1:9101",
    show_default=True,
    metavar="ADDRESS:PORT",
    callback=_address,
    help="Where to answer; whoever reaches it may read.",
)
def start(listen: tuple[str, int]) -> None:
    """Answer each GET of /metrics with a new look at this node, until it is ended; in the foreground.

    Exit codes: 2 usage or configuration, 3 it cannot listen there, 130 ended by Ctrl-C.
    """
    from hoster.operations.exporting import serve

    context = wire()
    host, port = listen
    shown = f"[{host}]" if ":" in host else host
    serve(context, host, port, lambda: say(INFO, f"metrics are at http://{shown}:{port}/metrics", err=True))
