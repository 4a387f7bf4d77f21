"""Moves the right to run a VM between two nodes: going home after a takeover, and moving a VM that lives.

The commit point is one command on the node that takes over: its copy becomes primary under the next epoch.
Until then only this node's copy can be started; from then on, whoever starts this one is told of that epoch
by the other node and does not get it started. Where it cannot be known whether that point was reached, this
copy takes a later epoch than the other one can have got, and stays the one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from msgspec import Struct
from msgspec.structs import replace

from hoster.errors import HosterError, Interrupted, OperationFailed, Refused
from hoster.hypervisors.protocol import StillRuns
from hoster.model.plan import Ground, Outcome, Report, VmReport
from hoster.model.storage import Epoch, Role
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.demotion import demote
from hoster.operations.far import run_there
from hoster.operations.inventory import look_around
from hoster.operations.permission import Asking
from hoster.operations.power import hold_power, refuse_writers, running_now, start_held, stop_held
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

    Refused where another process writes to its disks. Where a step fails before the promotion, the VM stays
    here and runs again if it ran; OperationFailed, or Interrupted, says on which side it can be started. A
    move that was cut short after it is finished.
    """
    name, request = migration.vm, migration.request
    if not (request.dry_run or look_around(context).named(name).is_primary):
        finished = _finish_earlier(context, migration)
        if finished is not None:
            return finished
    _own(context, name)
    first = replicate(context, request, observer)
    if _is_theirs(first) and not request.dry_run:
        return _finish_earlier(context, migration) or first
    if request.dry_run or _went_wrong(first):
        return first
    with hold_power(context, name):
        vm = _own(context, name)
        refuse_writers(vm, running_now(context, vm))
        ran = _stop(context, vm, migration, say)
        last = _send_the_rest(context, migration, vm, ran, observer, say)
        notes = _hand_over(context, migration, vm, ran, say)
    for note in notes:
        say(f"{request.node}: {name}: {note}")
    try:
        return _after(context, migration, ran, _together(first, last), say)
    except (KeyboardInterrupt, SystemExit) as interrupt:
        may_not = ", and may not have been started there" if ran else ""
        _pass_on(interrupt, f"{name} is {request.node}'s VM now{may_not}", _start_there(migration), say)


def _send_the_rest(
    context: Context, migration: Migration, vm: Vm, ran: bool, observer: Observer, say: Say
) -> Report:
    if ran:
        say(f"{vm.name}: stopped here")
    try:
        last = replicate(context, replace(migration.request, final=True), observer)
        if _went_wrong(last):
            raise OperationFailed(
                f"{vm.name}: the last of it could not be sent: {last.vms[0].reason}", hint=last.vms[0].remedy
            )
    except HosterError as error:
        raise _stays_here(context, vm, ran, error) from error
    except (KeyboardInterrupt, SystemExit) as interrupt:
        kept = _stays_here(context, vm, ran, Interrupted("interrupted"))
        _pass_on(interrupt, kept.message, kept.hint, say)
    return last


def _hand_over(context: Context, migration: Migration, vm: Vm, ran: bool, say: Say) -> tuple[str, ...]:
    """Promotes the copy there; what was done. Where that cannot be known, this copy goes before it."""
    try:
        return _promote_there(context, migration, vm)
    except Refused as error:
        raise _stays_here(context, vm, ran, error) from error
    except HosterError as error:
        raise _stays_here(context, vm, ran, error, unknown=True) from error
    except (KeyboardInterrupt, SystemExit) as interrupt:
        kept = _stays_here(context, vm, ran, Interrupted("interrupted"), unknown=True)
        _pass_on(interrupt, kept.message, kept.hint, say)


def _pass_on(interrupt: KeyboardInterrupt | SystemExit, message: str, hint: str, say: Say) -> NoReturn:
    """Lets whoever interrupted this know how the VM stands; a request to end keeps its exit code."""
    if isinstance(interrupt, SystemExit):
        say(f"{message} ({hint})" if hint else message)
        raise interrupt
    raise Interrupted(message, hint=hint) from interrupt


def _finish_earlier(context: Context, migration: Migration) -> Report | None:
    """Does what is left of a move that was cut short after the promotion there; None where there was none.

    The copy there is made ready, and the one here a replica; what that may have written alone is kept, as
    after any demotion.
    """
    vm = look_around(context).named(migration.vm)
    with context.reach(migration.request.ssh) as connection:
        there = connection()
        if not _promoted(there, _target(vm, migration.request), vm):
            return None
        ready = _make_ready(context, there, vm)
    done = demote(context, vm.name).vms[0].done
    node = migration.request.node
    found = f"{vm.name} was {node}'s VM already"
    notes = (found, *ready, f"it is not started by this: {_start_there(migration)}")
    return Report((VmReport(vm.name, Outcome.DONE, done=done, notes=notes),))


def _start_there(migration: Migration) -> str:
    return f"on {migration.request.node}: hoster vm start {migration.vm}"


def _promote_there(context: Context, migration: Migration, vm: Vm) -> tuple[str, ...]:
    request = migration.request
    with context.reach(request.ssh) as connection:
        there = connection()
        try:
            return run_there(context, there, _promotion(vm))
        except OperationFailed:
            # It may have been done all the same: what counts is what is there.
            if _promoted(there, _target(vm, request), vm):
                return ("promoted, though its answer was lost", *_make_ready(context, there, vm))
            raise


def _make_ready(context: Context, there: ZfsStore, vm: Vm) -> tuple[str, ...]:
    """Lets the copy there, which is primary, become all that it must be; a start of it would do the same."""
    try:
        return run_there(context, there, _promotion(vm))
    except HosterError as error:
        return (
            f"the promotion there is not finished: {error.message} (hoster change parent --vm {vm.name})",
        )


def _promotion(vm: Vm) -> tuple[str, ...]:
    epoch = str(vm.dataset.marks.epoch)
    return ("change", "parent", "--vm", vm.name, "--id", _id(vm), "--handed-over", epoch, "--json")


def _together(first: Report, last: Report) -> Report:
    """The report on the last of it, with all that was sent."""
    before, vm = first.vms[0], last.vms[0]
    whole = replace(
        vm,
        sent=(*before.sent, *vm.sent),
        sent_bytes=before.sent_bytes + vm.sent_bytes,
        seconds=before.seconds + vm.seconds,
    )
    return replace(last, vms=(whole,))


def _after(context: Context, migration: Migration, ran: bool, last: Report, say: Say) -> Report:
    """The VM is the other node's: this copy becomes a replica, and it is started there if it ran here."""
    name, node = migration.vm, migration.request.node
    notes: list[str] = []
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
    else:
        notes.append(f"it did not run here, and is not started there: {_start_there(migration)}")
    vm = replace(last.vms[0], notes=(*last.vms[0].notes, f"{name} is {node}'s VM now", *notes, *problems))
    if problems:
        vm = replace(vm, outcome=Outcome.FAILED, reason=problems[0], remedy=_start_there(migration))
    return Report((vm,), last.dry_run)


def _stays_here(
    context: Context, vm: Vm, ran: bool, error: HosterError, *, unknown: bool = False
) -> OperationFailed:
    """Starts the VM here again if it ran, and says how it stands; ``unknown``: whether the copy there was
    promoted, or will be yet by what still runs there, cannot be known.

    It ran here by right a moment ago, and nobody but this would start it there. So a node that cannot be
    asked does not keep it from running; one that answers, and was promoted by somebody else, does.
    """
    stays = f"{vm.name} stays this node's VM"
    try:
        if unknown:
            _go_before(context, vm)
        if ran:
            start_held(context, look_around(context).named(vm.name), Asking(isolated=True))
            stays += " and runs here again"
    except HosterError as failure:
        where = f"{vm.name} is not running, and is not started here: {failure.message}"
        return OperationFailed(f"{error.message}; {where}", hint=failure.hint or error.hint)
    return OperationFailed(f"{error.message}; {stays}", hint=error.hint)


def _go_before(context: Context, vm: Vm) -> None:
    """Gives the copy here an epoch after the one that a promotion there makes of this one's."""
    number = vm.dataset.marks.epoch.number if vm.dataset.marks.epoch else 1
    epoch = Epoch(number + 2, context.hostname)
    context.zfs.set_properties({"hoster:epoch": str(epoch)}, [vm.dataset.name])


def _stays(vm: Vm) -> str:
    return f"{vm.name} stays this node's VM, and may still power down, as it was asked to"


def _stop(context: Context, vm: Vm, migration: Migration, say: Say) -> bool:
    """Whether it ran."""
    try:
        return stop_held(context, vm.name, force=False, limit_s=migration.limit_s)
    except StillRuns as error:
        if not migration.force_stop:
            raise OperationFailed(
                f"{error.message}; {_stays(vm)}", hint=f"hoster vm start {vm.name}, if it did; {error.hint}"
            ) from error
        return stop_held(context, vm.name, force=True)
    except (KeyboardInterrupt, SystemExit) as interrupt:
        message = f"interrupted; {_stays(vm)}"
        _pass_on(interrupt, message, f"hoster vm start {vm.name}, if it did", say)


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


def _is_theirs(report: Report) -> bool:
    """Whether the replication was refused because another node has the VM now."""
    return any(vm.ground is Ground.SUPERSEDED for vm in report.vms)


def _went_wrong(report: Report) -> bool:
    return any(vm.outcome in {Outcome.FAILED, Outcome.REFUSED, Outcome.BUSY} for vm in report.vms)
