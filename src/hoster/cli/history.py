"""``hoster history``: what ran, and what became of it."""

from __future__ import annotations

from datetime import datetime

import click

from hoster.cli.options import VM_NAME, complete_vm_name, json_option, unix_option
from hoster.cli.render import human_size, print_json, print_table
from hoster.operations.context import wire
from hoster.records.journal import Journal
from hoster.records.runs import PastRun, PastVm

_RUNS = (
    *("Run", "Started", "Job", "Target", "Exit Code", "Seconds"),
    *("Done", "Unchanged", "Refused", "Busy", "Failed", "Sent", "Reason"),
)
_VMS = ("Run", "Started", "VM Name", "Job", "Target", "Outcome", "Seconds", "Sent", "Newest There", "Reason")


@click.command()
@click.argument("name", type=VM_NAME, metavar="[NAME]", required=False, shell_complete=complete_vm_name)
@click.option("--job", metavar="JOB", help="Only runs of this job.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="So many of the last ones.",
)
@unix_option
@json_option
def history(name: str | None, job: str | None, limit: int, unix: bool, as_json: bool) -> None:
    """Show the last runs (replications, snapshots, takeovers and their like), or what they did to one VM.

    Exit codes: 0 shown, also where nothing ran yet, 3 the journal of runs cannot be read.
    """
    journal = Journal(wire().settings.state_dir)
    if name is not None:
        vms = journal.vm_runs(name, job=job, limit=limit)
        if as_json:
            print_json(vms)
        else:
            print_table("Runs", _VMS, [_vm_row(vm) for vm in vms], unix=unix)
        return
    runs = journal.runs(job=job, limit=limit)
    if as_json:
        print_json(runs)
    else:
        print_table("Runs", _RUNS, [_run_row(run) for run in runs], unix=unix)


def _run_row(run: PastRun) -> tuple[str, ...]:
    return (
        *(str(run.number), local_time(run.started), run.job, run.node, str(run.exit_code)),
        f"{run.ended - run.started:.1f}",
        *(str(count) for count in (run.done, run.unchanged, run.refused, run.busy, run.failed)),
        human_size(run.sent_bytes),
        run.reason,
    )


def _vm_row(vm: PastVm) -> tuple[str, ...]:
    newest = "" if vm.newest is None else vm.newest.name
    return (
        *(str(vm.run), local_time(vm.started), vm.vm, vm.job, vm.node, vm.outcome),
        *(f"{vm.seconds:.1f}", human_size(vm.sent_bytes), newest, vm.reason),
    )


def local_time(moment: float) -> str:
    """Unix seconds as people read them here."""
    return f"{datetime.fromtimestamp(moment):%Y-%m-%d %H:%M:%S}"
