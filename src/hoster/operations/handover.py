"""Moves the right to run a VM between two nodes: going home after a takeover, and moving a VM that lives.

The commit point is one command on the node that takes over: its copy becomes primary under the next epoch.
Until then only this node's copy can be started; from then on, whoever starts this one is told of that epoch
by the other node and does not get it started.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from hoster.errors import HosterError, OperationFailed, Refused
from hoster.model.plan import Outcome, Report
from hoster.model.storage import Role
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.demotion import demote
from hoster.operations.far import run_there
from hoster.operations.inventory import look_around
from hoster.operations.power import hold_power, start_held, stop_held
from hoster.operations.replicate import replicate
from hoster.operations.request import Observer, ReplicationRequest
from hoster.planning.succession import Standing, standing
from hoster.zfs.store import ZfsStore

Say = Callable[[str], None]
"""Is told, one line at a time, what was done."""


class Migration(Struct, frozen=True):
    """A VM that is to be moved; ``force_stop`` ends a guest that has not powered down in ``limit_s``
    seconds."""

    request: ReplicationRequest
    force_stop: bool = False
    limit_s: float = 120.0

    @property
    def vm(self) -> str:
        assert self.request.names is not None
        return self.request.names[0]


def failback(context: Context, request: ReplicationRequest, observer: Observer, say: Say) -> Report:
    """Makes the copy of an old host a replica of this node's VM again; what it wrote alone is kept there.

    Refused where this copy is not primary, or that one was promoted after it.
    """
    assert request.names is not None
    vm = _own(context, request.names[0])
    with context.reach(request.ssh) as connection:
        there = connection()
        _refuse_later_promotion(vm, there, request)
        if not request.dry_run and _is_to_give_way(there, _target(vm, request)):
            for note in run_there(context, there, ("vm", "demote", vm.name, "--id", _id(vm), "--json")):
                say(f"{there.node}: {vm.name}: {note}")
    return replicate(context, request, observer)


def migrate(context: Context, migration: Migration, observer: Observer, say: Say) -> Report:
    """Moves a VM to another node: replicates, stops it, replicates the rest, promotes it and starts it there.

    Where a step fails before the promotion, the VM stays here and runs again if it ran. OperationFailed says
    on which side it can be started.
    """
    name, request = migration.vm, migration.request
    _own(context, name)
    first = replicate(context, request, observer)
    if request.dry_run or _went_wrong(first):
        return first
    with hold_power(context, name):
        vm = _own(context, name)
        ran = _stop(context, vm, migration)
        if ran:
            say(f"{name}: stopped here")
        try:
            last = replicate(context, replace(request, final=True), observer)
            if _went_wrong(last):
                raise OperationFailed(
                    f"{name}: the last of it could not be sent: {last.vms[0].reason}", hint=last.vms[0].remedy
                )
            notes = _promote_there(context, migration, vm)
        except HosterError as error:
            raise _stays_here(context, vm, ran, error) from error
    for note in notes:
        say(f"{request.node}: {name}: {note}")
    return _after(context, migration, ran, last, say)


def _promote_there(context: Context, migration: Migration, vm: Vm) -> tuple[str, ...]:
    request = migration.request
    epoch = str(vm.dataset.marks.epoch)
    words = ("change", "parent", "--vm", vm.name, "--id", _id(vm), "--handed-over", epoch, "--json")
    with context.reach(request.ssh) as connection:
        there = connection()
        try:
            return run_there(context, there, words)
        except OperationFailed:
            # It may have been done all the same: what counts is what is there.
            if _promoted(there, _target(vm, request), vm):
                return ("promoted, though its answer was lost",)
            raise


def _after(context: Context, migration: Migration, ran: bool, last: Report, say: Say) -> Report:
    """The VM is the other node's: this copy becomes a replica, and it is started there if it ran here."""
    name, node = migration.vm, migration.request.node
    problems: list[str] = []
    try:
        demote(context, name)
        say(f"{name}: the copy here is a replica now")
    except HosterError as error:
        problems.append(f"the copy here did not become a replica: {error.message} (hoster vm demote {name})")
    if ran:
        try:
            with context.reach(migration.request.ssh) as connection:
                run_there(context, connection(), ("vm", "start", name))
            say(f"{node}: {name} is started")
        except HosterError as error:
            problems.append(f"it is {node}'s VM now and is not started: {error.message}")
    vm = replace(last.vms[0], notes=(*last.vms[0].notes, f"{name} is {node}'s VM now", *problems))
    if problems:
        vm = replace(
            vm, outcome=Outcome.FAILED, reason=problems[0], remedy=f"on {node}: hoster vm start {name}"
        )
    return Report((vm,), last.dry_run)


def _stays_here(context: Context, vm: Vm, ran: bool, error: HosterError) -> OperationFailed:
    """The start asks the other node: if it was promoted after all, that is found out here."""
    if not ran:
        where = f"{vm.name} stays this node's VM, unless a start here says otherwise"
        return OperationFailed(f"{error.message}; {where}", hint=error.hint)
    try:
        start_held(context, vm)
    except HosterError as failure:
        where = f"{vm.name} could not be started here again: {failure.message}"
        return OperationFailed(f"{error.message}; {where}", hint=failure.hint or error.hint)
    where = f"{vm.name} stays this node's VM and runs here again"
    return OperationFailed(f"{error.message}; {where}", hint=error.hint)


def _stop(context: Context, vm: Vm, migration: Migration) -> bool:
    try:
        return stop_held(context, vm, force=False, limit_s=migration.limit_s)
    except OperationFailed:
        if not migration.force_stop:
            raise
        return stop_held(context, vm, force=True)


def _is_to_give_way(there: ZfsStore, dataset: str) -> bool:
    """Whether the copy there is to be asked to. One that is half set aside, and may have no name at the
    moment, has given way, and the replication finishes that."""
    copy = there.look_at([dataset]).get(dataset)
    return copy is not None and copy.marks.swap is None


def _own(context: Context, name: str) -> Vm:
    vm = look_around(context).named(name)
    if not vm.is_primary:
        raise Refused(
            f"{name} is not this node's own VM: here it is marked {vm.role.value}",
            hint=f"on {vm.parent or 'the node that runs it'}: the same command",
        )
    return vm


def _refuse_later_promotion(vm: Vm, there: ZfsStore, request: ReplicationRequest) -> None:
    seen = there.look_at([_target(vm, request)]).get(_target(vm, request))
    if seen is not None and seen.marks.vm_id != vm.dataset.marks.vm_id:
        raise Refused(
            f"{seen.name} on {there.node} is another VM: its hoster:id is {seen.marks.vm_id or 'not set'}",
            hint="--target-dataset DATASET, if this VM's copy lies elsewhere there",
        )
    if seen is None or seen.marks.role is not Role.PRIMARY:
        return
    if standing(vm.dataset.marks.epoch, seen.marks.epoch) is not Standing.CURRENT:
        raise Refused(
            f"the copy on {there.node} was promoted too: epoch {seen.marks.epoch}, this one's is"
            f" {vm.dataset.marks.epoch}",
            hint=f"hoster change parent --vm {vm.name}    (on the node whose copy is to go on)",
        )


def _promoted(there: ZfsStore, dataset: str, vm: Vm) -> bool:
    seen = there.look_at([dataset]).get(dataset)
    return (
        seen is not None
        and seen.marks.vm_id == vm.dataset.marks.vm_id
        and seen.marks.role is Role.PRIMARY
        and standing(vm.dataset.marks.epoch, seen.marks.epoch) is Standing.SUPERSEDED
    )


def _id(vm: Vm) -> str:
    """The VM's identity, by which the other node knows that the same VM is meant."""
    if vm.dataset.marks.vm_id is None:
        raise Refused(f"{vm.name} has no identity yet", hint=f"hoster vm adopt {vm.name}")
    return vm.dataset.marks.vm_id


def _target(vm: Vm, request: ReplicationRequest) -> str:
    parent = request.target_dataset or vm.dataset.name.rpartition("/")[0]
    return f"{parent}/{vm.name}"


def _went_wrong(report: Report) -> bool:
    return any(vm.outcome in {Outcome.FAILED, Outcome.REFUSED, Outcome.BUSY} for vm in report.vms)
