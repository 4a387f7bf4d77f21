"""``hoster host`` and ``hoster dataset list``: the node and its datasets, in the original's spelling."""

from __future__ import annotations

import click

from hoster.cli.main import LazyGroup
from hoster.cli.messages import WARNING, say
from hoster.cli.options import json_option, unix_option
from hoster.cli.overview import DATASETS, POOLS, dataset_row, pool_rows, show_node
from hoster.cli.render import print_json, print_table, say_missing
from hoster.operations.context import wire
from hoster.operations.inventory import missing_from
from hoster.operations.overview import overview, rooms_here


@click.command()
@json_option
@click.option("--json-pretty", is_flag=True, help="The same, indented.")
def host(as_json: bool, json_pretty: bool) -> None:
    """Show this node: its system, memory, processors and pools; as JSON, all that bare `hoster` shows.

    No other node is asked: what is told of replicas is remembered.

    Exit codes: 0 shown; what cannot be read is among what is wrong.
    """
    seen = overview(wire())
    if as_json or json_pretty:
        print_json(seen, pretty=json_pretty)
        return
    show_node(seen)
    print_table("Pools", POOLS, pool_rows(seen), unix=False)
    for wrong in seen.wrong:
        say(WARNING, wrong.what, hint=wrong.hint)


@click.group(cls=LazyGroup)
def dataset() -> None:
    """Show the datasets that hold VMs."""


@dataset.command(name="list")
@unix_option
@json_option
def list_(unix: bool, as_json: bool) -> None:
    """List the active datasets: their room, and whether they are encrypted.

    Exit codes: 0 listed, 3 one of them does not exist (the others are listed), or they cannot be listed.
    """
    context = wire()
    found = rooms_here(context)
    listed = {room.name for room in found}
    missing = missing_from(context, listed)
    if as_json:
        print_json(found)
        say_missing(missing)
        return
    rows = [dataset_row(number, room) for number, room in enumerate(found, start=1)]
    print_table("Hoster ZFS Datasets", DATASETS, rows, unix=unix)
    say_missing(missing)
