"""``hoster jobs`` and ``hoster jobs watch``: what runs on this node right now."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from hoster.cli.history import local_time
from hoster.cli.messages import INFO, WARNING, say
from hoster.cli.options import json_option, unix_option
from hoster.cli.render import human_size, print_json, print_table
from hoster.errors import OperationFailed
from hoster.model.names import shown
from hoster.operations.context import Context, wire
from hoster.operations.jobs import how_it_ended, jobs_now
from hoster.records.job_states import JobState, Phase

if TYPE_CHECKING:
    from rich.table import Table

_HEADER = ("Job", "Process", "Since", "Target", "VMs Through", "Sent", "About")
_EVERY_S = 1.0


@click.group(invoke_without_command=True)
@unix_option
@json_option
@click.pass_context
def jobs(context: click.Context, unix: bool, as_json: bool) -> None:
    """Show the replications and snapshots that run on this node right now.

    Exit codes: 0 shown, also where none runs, 3 they cannot be found out.
    """
    if context.invoked_subcommand is not None:
        return
    states = jobs_now(wire())
    if as_json:
        print_json(states)
        return
    print_table("Jobs", _HEADER, [_row(state) for state in states], unix=unix)


@jobs.command()
@click.argument("job", metavar="[JOB]", required=False)
def watch(job: str | None) -> None:
    """Follow a job, or all that run now, until they end; ending this does nothing to them.

    Exit codes: 0 they ended, however that was, or none ran, 3 JOB does not run, 130 the watching was ended.
    """
    context = wire()
    states = jobs_now(context, job)
    if not states:
        if job is not None:
            raise OperationFailed(f"the job {shown(job)} does not run", hint="hoster jobs, hoster history")
        say(INFO, "no job runs")
        return
    if sys.stdout.isatty():
        _watch_screen(context, states)
    else:
        _watch_lines(context, states)
    for state in states:
        _show_end(context, state)


def _watch_screen(context: Context, states: tuple[JobState, ...]) -> None:
    from rich.live import Live

    with Live(_table(states), auto_refresh=False) as live:
        while states := _still(context, states):
            live.update(_table(states), refresh=True)
            time.sleep(_EVERY_S)


def _watch_lines(context: Context, states: tuple[JobState, ...]) -> None:
    shown: dict[int, JobState] = {}
    while states := _still(context, states):
        for state in states:
            before = shown.get(state.pid)
            if before is None or before.vms != state.vms:
                click.echo(" ".join(_row(state)))
                shown[state.pid] = state
        sys.stdout.flush()
        time.sleep(_EVERY_S)


def _still(context: Context, states: tuple[JobState, ...]) -> tuple[JobState, ...]:
    known = {(state.pid, state.since) for state in states}
    return tuple(state for state in jobs_now(context) if (state.pid, state.since) in known)


def _show_end(context: Context, state: JobState) -> None:
    run = how_it_ended(context, state)
    if run is None:
        say(
            WARNING,
            f"{state.job}: it has ended, and left no word of how",
            hint=f"hoster history --job {state.job}",
        )
        return
    outcomes = {"done": run.done, "unchanged": run.unchanged, "refused": run.refused, "failed": run.failed}
    words = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items() if count)
    reason = f": {run.reason}" if run.reason else f": {words}" if words else ""
    say(INFO if run.exit_code == 0 else WARNING, f"{state.job} ended with exit code {run.exit_code}{reason}")


def _row(state: JobState) -> tuple[str, ...]:
    through = sum(1 for vm in state.vms if _is_through(vm))
    return (
        *(state.job, str(state.pid), local_time(state.since), state.node or "-"),
        f"{through}/{len(state.vms)}" if state.vms else "-",
        human_size(state.sent_bytes),
        human_size(state.estimated_bytes) if state.vms else "-",
    )


def _is_through(vm: Phase) -> bool:
    return bool(vm.outcome) or (vm.estimated_bytes > 0 and vm.sent_bytes >= vm.estimated_bytes)


def _table(states: tuple[JobState, ...]) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for state in states:
        age = time.time() - state.since
        table.add_row(state.job, state.node, f"for {age:.0f} s", human_size(state.sent_bytes), "")
        for vm in state.vms:
            bar = ProgressBar(total=max(vm.estimated_bytes, 1), completed=vm.sent_bytes, width=30)
            about = f"{human_size(vm.sent_bytes)} of about {human_size(vm.estimated_bytes)}"
            table.add_row("", vm.vm, vm.outcome, about, bar)
    return table
