"""``hoster change parent`` and ``hoster set parent``: the copy of a VM on this node takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hoster.cli.asking import ask_for_key, confirm
from hoster.cli.options import VM_NAME, complete_vm_name, dry_run_option, json_option, vm_argument
from hoster.cli.recording import finish_recorded, run_about
from hoster.operations.context import Context, wire
from hoster.operations.takeover import TakeoverRequest, take_over
from hoster.records.runs import RunKind

if TYPE_CHECKING:
    from hoster.model.storage import Epoch

_ACCEPT = click.option(
    "--accept-loss", is_flag=True, help="Go ahead although there is evidence that something may be lost."
)


ID_OPTION = click.option(
    "--id", "identity", metavar="ID", help="Only if this is the VM's identity: another may have its name."
)


@click.group()
def change() -> None:
    """Change what a VM belongs to."""


@click.group(name="set")
def set_() -> None:
    """Set what a VM belongs to, in the original's spelling."""


@change.command(name="parent")
@click.option(
    "--vm",
    "name",
    type=VM_NAME,
    required=True,
    metavar="NAME",
    shell_complete=complete_vm_name,
    help="The VM.",
)
@_ACCEPT
@click.option(
    "--handed-over", metavar="EPOCH", help="Of the primary that gives it up; `vm migrate` says so itself."
)
@ID_OPTION
@dry_run_option
@json_option
def change_parent(
    name: str,
    accept_loss: bool,
    handed_over: str | None,
    identity: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make this node the parent of a VM: its replica here takes over, and can be started.

    The replica becomes primary under a new epoch: opened, writable, mounted, also after a reboot; a snapshot
    marks the moment. The other nodes that have a copy are asked first and told afterwards. Without them it
    goes ahead; on evidence that something may be lost it asks, or refuses where nobody is there. A host that
    comes back is refused everywhere it is known.

    Exit codes: 0 this node is the VM's parent, 2 usage, 3 failed, 10 refused, 11 somebody is at work on it.
    """
    request = TakeoverRequest(name, _epoch(handed_over), accept_loss, dry_run, identity)
    _take_over(wire(), request, as_json=as_json)


@set_.command(name="parent")
@vm_argument
@click.option("-p", "--new-parent", metavar="HOST", help="Must be this node, which it is without the option.")
@_ACCEPT
@dry_run_option
@json_option
def set_parent(name: str, new_parent: str | None, accept_loss: bool, dry_run: bool, as_json: bool) -> None:
    """Make this node the parent of a VM: the same as `hoster change parent --vm NAME`.

    Another node is not made a parent from here: it takes over by itself, or gets the VM by
    `hoster vm migrate`.

    Exit codes: 0 this node is the VM's parent, 2 usage, 3 failed, 10 refused, 11 somebody is at work on it.
    """
    context = wire()
    if new_parent is not None and new_parent != context.hostname:
        raise click.UsageError(
            f"{new_parent} is not this node: on {new_parent}, hoster change parent --vm {name}; or from here,"
            f" hoster vm migrate {name} --endpoint {new_parent}"
        )
    _take_over(context, TakeoverRequest(name, None, accept_loss, dry_run), as_json=as_json)


def _take_over(context: Context, request: TakeoverRequest, *, as_json: bool) -> None:
    finish_recorded(
        context,
        run_about(RunKind.TAKEOVER, request.vm),
        lambda _: take_over(context, request, ask_for_key, confirm),
        dry_run=request.dry_run,
        as_json=as_json,
    )


def _epoch(text: str | None) -> Epoch | None:
    from hoster.zfs.parse import parse_epoch

    if text is None:
        return None
    epoch = parse_epoch(text)
    if epoch is None:
        raise click.BadParameter(f"{text!r}: expected an epoch such as 1@node1", param_hint="--handed-over")
    return epoch
