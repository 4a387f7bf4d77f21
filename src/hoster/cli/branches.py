"""``hoster vm branches``: list, restore, destroy, expire."""

from __future__ import annotations

import click

from hoster.cli.asking import ask_for_key
from hoster.cli.options import (
    VM_NAME,
    complete_vm_name,
    dry_run_option,
    json_option,
    power_options,
    unix_option,
)
from hoster.cli.recording import finish_recorded, run_about
from hoster.cli.render import human_size, print_json, print_table, say_missing
from hoster.operations.branches import (
    age_of,
    branch_vm,
    destroy_branch,
    expire_branches,
    list_branches,
    restore_branch,
)
from hoster.operations.context import wire
from hoster.operations.going_back import Power
from hoster.operations.inventory import look_here, missing_from
from hoster.records.runs import Run, RunKind

_HEADER = ("Branch", "VM Name", "Set Aside (UTC)", "Size", "Parted From", "Snapshots")


class _Branches(click.Group):
    """A group whose first word may also be the name of a VM, which then goes to ``list``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if first not in self.commands and first not in ctx.help_option_names:
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Branches)
def branches() -> None:
    """Show what was set aside when a VM went back (`branches [NAME]`), bring it back, or give it up by name.

    A branch holds the versions and the data that were newer than what the VM went back to. It is a dataset
    beside the VM, keeps its versions' identity, and is never used by schedules or replication.
    """


@branches.command(name="list")
@click.argument("name", type=VM_NAME, metavar="[NAME]", required=False, shell_complete=complete_vm_name)
@unix_option
@json_option
def list_(name: str | None, unix: bool, as_json: bool) -> None:
    """List the branches of one VM, or of all on this node.

    Exit codes: 0 listed, also where there are none, 3 a dataset is missing, or they cannot be listed.
    """
    context = wire()
    view = look_here(context)
    found = list_branches(context, name, seen=view)
    missing = () if name is not None and found else missing_from(context, view.datasets)
    if as_json:
        print_json(found)
        say_missing(missing)
        return
    rows = [
        (
            branch.name,
            branch.vm,
            f"{branch.branched_at:%Y-%m-%d %H:%M:%S}",
            human_size(branch.pinned_bytes),
            branch.parted_from.partition("@")[2] or "-",
            str(len(branch.snapshots)),
        )
        for branch in found
    ]
    print_table("Branches", _HEADER, rows, unix=unix)
    say_missing(missing)


@branches.command()
@click.argument("branch", type=VM_NAME, metavar="BRANCH")
@power_options
@dry_run_option
@json_option
def restore(branch: str, force_stop: bool, force_start: bool, dry_run: bool, as_json: bool) -> None:
    """Let a branch be the VM again; what the VM is now becomes a branch. Nothing is destroyed.

    Exit codes: 0 done, 3 there is no such branch, or it failed, 10 refused: the VM runs, something uses it,
    or it is a replica, 11 it is being replicated, started or stopped.
    """
    power = Power(force_stop, force_start, ask_for_key=ask_for_key)
    context = wire()
    finish_recorded(
        context,
        run_about(RunKind.BRANCH_RESTORE, branch_vm(branch)),
        lambda _: restore_branch(context, branch, power, dry_run=dry_run),
        dry_run=dry_run,
        as_json=as_json,
    )


@branches.command()
@click.argument("branch", type=VM_NAME, metavar="BRANCH")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@json_option
def destroy(branch: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Destroy a branch for good: what dies is listed, and asked about, first.

    Exit codes: 0 destroyed, 3 there is no such branch or it could not be destroyed, 10 something needs it,
    11 its VM is going back.
    """
    context = wire()
    if not dry_run and not yes:
        planned = destroy_branch(context, branch, dry_run=True).vms[0]
        for gone in planned.destroyed:
            click.echo(gone.snapshot, err=True)
        click.confirm(f"Destroy these {len(planned.destroyed)} for good?", abort=True, err=True)
    finish_recorded(
        context,
        run_about(RunKind.DESTRUCTION, branch_vm(branch)),
        lambda _: destroy_branch(context, branch, dry_run=dry_run),
        dry_run=dry_run,
        as_json=as_json,
    )


@branches.command()
@click.option(
    "--older-than",
    "days",
    type=click.IntRange(min=1),
    metavar="DAYS",
    help="The age at which they go. Without it, what the configuration says.",
)
@dry_run_option
@json_option
def expire(days: int | None, dry_run: bool, as_json: bool) -> None:
    """Destroy the branches that were set aside more than so many days ago; for schedules, asks nothing.

    Exit codes: 0 done, 2 the age is said nowhere, 3 some failed, 10 something needs some of them, 11 the VM
    of one is going back.
    """
    context = wire()
    older_than = None if days is None else age_of(days)
    finish_recorded(
        context,
        Run(RunKind.DESTRUCTION, "branches_expire"),
        lambda _: expire_branches(context, older_than=older_than, dry_run=dry_run),
        dry_run=dry_run,
        as_json=as_json,
    )
