"""``hoster snapshot``: new, all, list, list-all, rollback, destroy."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import click
from msgspec.structs import replace

from hoster.cli.main import LazyGroup
from hoster.cli.messages import WARNING, say
from hoster.cli.options import (
    SNAPSHOT_NAME,
    dry_run_option,
    json_option,
    keep_option,
    power_options,
    type_option,
    unix_option,
    vm_argument,
)
from hoster.cli.recording import finish_recorded, run_about
from hoster.cli.render import exit_code, finish, human_size, print_json, print_table, say_missing
from hoster.model.names import SnapshotType
from hoster.model.plan import Outcome, VmReport
from hoster.operations.context import wire
from hoster.operations.inventory import look_around
from hoster.operations.recording import recorded
from hoster.operations.snapshots import (
    ListedSnapshot,
    SnapshotRequest,
    destroy_snapshot,
    list_snapshots,
    snapshot_all,
    snapshot_one,
)
from hoster.records.runs import Run, RunKind


@click.group(cls=LazyGroup)
def snapshot() -> None:
    """Take, list and destroy snapshots of VMs, and let a VM go back to one."""


@snapshot.command()
@vm_argument
@type_option(SnapshotType.CUSTOM)
@keep_option(required=False)
@click.option("-d", "--description", default="", help="Words to find it by, shown by list.")
@dry_run_option
@json_option
def new(
    name: str, stype: SnapshotType, keep: int | None, description: str, dry_run: bool, as_json: bool
) -> None:
    """Take a snapshot of one VM, of all its disks at one moment; the VM may run.

    Exit codes: 0 taken, 2 usage, 3 failed, 10 refused (a replica is snapshotted by its source),
    11 another hoster was taking snapshots for over a minute.
    """
    request = SnapshotRequest(stype, keep, description, dry_run)
    context = wire()
    run = Run(RunKind.SNAPSHOT, f"snapshot_{name}_{stype}")
    with recorded(context, run, partial(say, WARNING, err=True), dry_run=dry_run) as recorder:
        report = snapshot_one(context, name, request)
        recorder.report(report, exit_code(report))
    finish(report, as_json=as_json)


def all_options(function: click.decorators.FC) -> click.decorators.FC:
    """The options of ``snapshot all`` and ``scheduler snapshot-all``, which are one command."""
    for option in reversed(
        (
            type_option(SnapshotType.CUSTOM),
            keep_option(required=False),
            click.option("-p", "--production-only", is_flag=True, help="Only VMs marked as production."),
            click.option("--always", is_flag=True, help="Also of VMs in which nothing was written."),
            dry_run_option,
            json_option,
        )
    ):
        function = option(function)
    return function


def run_all(
    stype: SnapshotType,
    keep: int | None,
    production_only: bool,
    always: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """What both spellings do."""
    request = SnapshotRequest(stype, keep, dry_run=dry_run)
    context = wire()
    run = Run(RunKind.SNAPSHOT, f"snapshot_all_{stype}")
    with recorded(context, run, partial(say, WARNING, err=True), dry_run=dry_run) as recorder:
        report = snapshot_all(context, request, production_only=production_only, always=always)
        recorder.report(report, exit_code(report))
    finish(report, as_json=as_json)


@snapshot.command(name="all")
@all_options
def all_(
    stype: SnapshotType,
    keep: int | None,
    production_only: bool,
    always: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take a snapshot of every VM of this node at one moment, and prune that type.

    Replicas are left to their source. A VM in which nothing was written since its newest snapshot of
    the type gets none. With --keep N the newest N of the type stay; never destroyed are snapshots of other
    types, names that hoster did not make, held or cloned ones, and what a target needs.

    Exit codes: 0 done, 2 usage, 3 some VMs failed, 11 another hoster was taking snapshots.
    """
    run_all(stype, keep, production_only, always, dry_run, as_json)


@snapshot.command(name="list")
@vm_argument
@unix_option
@json_option
def list_(name: str, unix: bool, as_json: bool) -> None:
    """List the snapshots of one VM, oldest first.

    Exit codes: 0 listed, 3 there is no such VM.
    """
    _show(list_snapshots(look_around(wire()), name), unix=unix, as_json=as_json)


@snapshot.command(name="list-all")
@unix_option
@json_option
def list_all(unix: bool, as_json: bool) -> None:
    """List the snapshots of all VMs of this node, replicas included, oldest first within a VM.

    Exit codes: 0 listed, 3 a dataset is missing (the rest is listed), or they cannot be listed.
    """
    stock = look_around(wire())
    _show(list_snapshots(stock), unix=unix, as_json=as_json)
    say_missing(stock.missing)


@snapshot.command()
@vm_argument
@click.argument("snapshot_name", type=SNAPSHOT_NAME, metavar="SNAPSHOT")
@power_options
@click.option(
    "--destroy-newer", is_flag=True, help="Destroy what is newer, in place of keeping it as a branch."
)
@click.option(
    "--without", multiple=True, metavar="DISK", help="A dataset of the VM that does not have SNAPSHOT."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before anything is destroyed.")
@dry_run_option
@json_option
def rollback(
    name: str,
    snapshot_name: str,
    force_stop: bool,
    force_start: bool,
    destroy_newer: bool,
    without: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let a VM go back to one of its snapshots, by its short or full name, with all of its disks.

    Nothing is lost and nothing is asked: what is newer is kept as a branch (`hoster vm branches`). A VM that
    runs is refused unless --force-stop is given.

    Exit codes: 0 done, 2 usage, 3 there is no such VM or snapshot, or it failed, 10 refused, 11 the VM is
    being replicated, started or stopped.
    """
    from hoster.cli.asking import ask_for_key
    from hoster.operations.going_back import Power
    from hoster.operations.rollback import RollbackRequest, roll_back

    context = wire()
    power = Power(force_stop, force_start, ask_for_key=ask_for_key)
    request = RollbackRequest(name, snapshot_name, power, without, destroy_newer, dry_run=dry_run)
    if destroy_newer and not dry_run and not yes:
        request = replace(request, agreed=_agreed(roll_back(context, replace(request, dry_run=True)).vms[0]))
    run = run_about(RunKind.ROLLBACK, name)
    finish_recorded(context, run, lambda _: roll_back(context, request), dry_run=dry_run, as_json=as_json)


def _agreed(planned: VmReport) -> frozenset[str]:
    """The names of what would be destroyed, once somebody has said yes to it."""
    names = [gone.snapshot for gone in planned.destroyed]
    if planned.outcome is Outcome.PLANNED:
        for name in names:
            click.echo(name, err=True)
        what = f"Destroy these {len(names)}, and what" if names else "Destroy what"
        click.confirm(f"{what} was written since, for good?", abort=True, err=True)
    return frozenset(names)


@snapshot.command()
@vm_argument
@click.argument("snapshot_name", type=SNAPSHOT_NAME, metavar="SNAPSHOT")
@dry_run_option
@json_option
def destroy(name: str, snapshot_name: str, dry_run: bool, as_json: bool) -> None:
    """Destroy one snapshot of a VM, by its short or full name, on all of the VM's disks.

    Exit codes: 0 destroyed, 3 there is no such VM or snapshot, 10 refused: it is held, cloned, of another
    VM, or what a target's next increment starts from, 11 it is being sent, or somebody is at work on the VM.
    """
    context = wire()
    run = run_about(RunKind.DESTRUCTION, name)
    finish_recorded(
        context,
        run,
        lambda _: destroy_snapshot(context, name, snapshot_name, dry_run=dry_run),
        dry_run=dry_run,
        as_json=as_json,
    )


_HEADER = (
    "#",
    "VM Name",
    "Snapshot Name",
    "Snapshot Size Human",
    "Snapshot Size Bytes",
    "Created",
    "Snapshot Locked",
    "Snapshot Dependents",
    "Snapshot Description",
)


def _show(listed: tuple[ListedSnapshot, ...], *, unix: bool, as_json: bool) -> None:
    if as_json:
        print_json([_document(item) for item in listed])
        return
    rows = [_row(number, item) for number, item in enumerate(listed, start=1)]
    print_table("Hoster ZFS Snapshots", _HEADER, rows, unix=unix)


def _row(number: int, item: ListedSnapshot) -> tuple[str, ...]:
    snapshot = item.snapshot
    return (
        str(number),
        item.vm,
        snapshot.full_name,
        human_size(snapshot.used),
        str(snapshot.used),
        f"{datetime.fromtimestamp(snapshot.creation):%Y-%m-%d %H:%M:%S}",
        "true" if snapshot.holds else "false",
        str(len(snapshot.clones)),
        snapshot.description,
    )


def _document(item: ListedSnapshot) -> dict[str, object]:
    snapshot = item.snapshot
    return {
        "vm_name": item.vm,
        "snapshot_name": snapshot.full_name,
        "snapshot_short_name": snapshot.name,
        "dataset": snapshot.dataset,
        "guid": str(snapshot.guid),
        "createtxg": snapshot.createtxg,
        "creation": snapshot.creation,
        "size_bytes": snapshot.used,
        "size_human": human_size(snapshot.used),
        "locked": snapshot.holds > 0,
        "dependents": list(snapshot.clones),
        "needed_by_target": item.needed,
        "description": snapshot.description,
    }
