"""``hoster vm start``, ``stop``, ``start-all``, ``stop-all``, ``show-log``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from hoster.cli.messages import CHANGED, INFO, WARNING, say
from hoster.cli.options import json_option, vm_argument
from hoster.cli.render import finish
from hoster.operations.context import wire
from hoster.operations.inventory import look_around

_F = TypeVar("_F", bound=Callable[..., Any])


def _stop_options(function: _F) -> _F:
    """``--force`` and ``--wait``: how a guest is stopped."""
    wait = click.option(
        "--wait",
        "limit_s",
        type=click.IntRange(min=1),
        default=120,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for the guest.",
    )
    force = click.option(
        "-f", "--force", is_flag=True, help="Do not ask the guest: end its process, like a power cut."
    )
    return force(wait(function))


_isolated_option = click.option(
    "--isolated",
    is_flag=True,
    help="Go ahead although none of the nodes with a copy of it can be asked whether it runs there.",
)


def _ask_person(evidence: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    say(WARNING, evidence, err=True)
    return click.confirm("Start it here all the same?", err=True)


@click.command()
@vm_argument
@click.option("--debug-run", is_flag=True, help="Print the command that would start it; change nothing.")
@_isolated_option
def start(name: str, debug_run: bool, isolated: bool) -> None:
    """Start a VM of this node, and return when it runs. It goes on by itself.

    The nodes that have a copy of it are asked first whether one of them has taken it over.

    Exit codes: 0 it runs now, 2 its configuration asks for what cannot be, 3 it did not come to run or there
    is no such VM, 10 it is not this node's VM, runs already or is in use, 11 somebody is starting or
    stopping it.
    """
    from hoster.operations.permission import Asking
    from hoster.operations.power import hold_power, start_held, start_plan

    context = wire()
    if debug_run:
        plan = start_plan(context, look_around(context, mend=False).named(name))
        click.echo(shlex.join(plan.command))
        for note in plan.notes:
            say(WARNING, f"{name}: {note}", err=True)
        return
    with hold_power(context, name):
        vm = look_around(context).named(name)
        started = start_held(context, vm, Asking(isolated, _ask_person))
    for note in started.notes:
        say(WARNING, f"{name}: {note}")
    say(CHANGED, f"{name}: started, as process {started.running.pid}")


@click.command()
@vm_argument
@_stop_options
def stop(name: str, force: bool, limit_s: int) -> None:
    """Stop a VM: ask its guest to power down, and return when it is seen stopped.

    Exit codes: 0 it is stopped, 3 it still runs or there is no such VM, 10 a process that is not hoster's
    writes to its disks, 11 somebody is starting or stopping it.
    """
    from hoster.operations.power import hold_power, refuse_writers, stop_held

    context = wire()
    with hold_power(context, name):
        ran = stop_held(context, name, force=force, limit_s=limit_s)
        if not ran:
            # Only now: what runs is stopped, whatever has become of its dataset.
            refuse_writers(look_around(context).named(name))
    if ran:
        say(CHANGED, f"{name}: stopped")
    else:
        say(INFO, f"{name}: it does not run")


@click.command()
@click.option("-p", "--production-only", is_flag=True, help="Production VMs only.")
@click.option(
    "-t",
    "--wait",
    "--wait-time",
    "pause_s",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="SECONDS",
    help="Pause so long after each one that was started.",
)
@_isolated_option
@json_option
def start_all(production_only: bool, pause_s: int, isolated: bool, as_json: bool) -> None:
    """Start every VM of this node that does not run, one after the other.

    Exit codes: 0 all run, 3 some did not come to run, 10 some were refused, 11 some were busy.
    """
    from hoster.operations.permission import Asking
    from hoster.operations.power_batches import start_all as start_every_vm

    asking = Asking(isolated)
    report = start_every_vm(wire(), production_only=production_only, pause_s=pause_s, asking=asking)
    finish(report, as_json=as_json)


@click.command()
@_stop_options
@json_option
def stop_all(force: bool, limit_s: int, as_json: bool) -> None:
    """Stop every VM that runs on this node, several at a time.

    Exit codes: 0 none runs any more, 3 some still run, 10 processes that are not hoster's write to the disks
    of some, 11 some were busy.
    """
    from hoster.operations.power_batches import stop_all as stop_every_vm

    finish(stop_every_vm(wire(), force=force, limit_s=limit_s), as_json=as_json)


@click.command()
@vm_argument
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=1),
    default=35,
    show_default=True,
    metavar="N",
    help="How many of the last lines to show.",
)
@click.option("-c", "--console", is_flag=True, help="What the guest printed on its serial line instead.")
def show_log(name: str, lines: int, console: bool) -> None:
    """Show the end of a VM's log: what its process said, and how it was started.

    Exit codes: 0 shown, 3 there is no such VM, or no log of it.
    """
    from hoster.operations.guests import last_lines

    look_around(wire()).named(name)
    click.echo(last_lines(name, lines, console=console), nl=False)
