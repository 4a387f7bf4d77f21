"""Makes the copy of a VM on this node the one that may run: a replica takes over when its host has died.

What can fail without harm comes first: asking the other nodes, opening what is encrypted, giving up a stream
that broke off, going back to the newest version that is whole. One command then makes the copy primary under
a new epoch. All that follows is derived from what is there, so whoever comes after a crash finishes it by
giving the same command again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from uuid import uuid4

from msgspec import Struct

from hoster.host.usage import bhyve_machines
from hoster.model.plan import Ground, Outcome, Refusal, Report, VmReport
from hoster.model.storage import Epoch, Marks, Role
from hoster.model.vms import Vm
from hoster.operations.arriving import end_arrivals, finish_parting
from hoster.operations.context import Context
from hoster.operations.history import hold_history
from hoster.operations.identity import properties_of
from hoster.operations.inventory import look_around
from hoster.operations.opening import AskForKey, load_keys
from hoster.operations.power import hold_power, running_now
from hoster.operations.primacy import finish, is_whole
from hoster.operations.swapping import branches_beside, new_stamp, swap
from hoster.operations.witnesses import ask, tell
from hoster.planning.succession import Standing, Takeover, Witness, plan_takeover, standing
from hoster.planning.swap import branch_name

Confirm = Callable[[Sequence[str]], bool]
"""Shows a person the evidence that something may be lost, and asks; False where nobody is there."""


class TakeoverRequest(Struct, frozen=True):
    """Which VM takes over here, and how. ``accept_loss``: evidence of loss is shown and does not stop it;
    ``handed_over``: the epoch of the primary that gives it up to this copy; ``identity``: the VM that is
    meant, if another one has its name here."""

    vm: str
    handed_over: Epoch | None = None
    accept_loss: bool = False
    dry_run: bool = False
    identity: str | None = None


def take_over(context: Context, request: TakeoverRequest, ask_for_key: AskForKey, confirm: Confirm) -> Report:
    """Makes this node's copy of the VM primary, or finishes what an earlier call has begun.

    Reported as refused where evidence of loss is not accepted, or nothing whole has ever arrived; Refused
    where its key cannot be had. Busy while somebody starts or stops it, or a source that answers sends to it.
    """
    holder = f"hoster, which makes {request.vm} this node's own VM"
    with hold_power(context, request.vm), hold_history(context, request.vm, holder):
        stock = look_around(context, sync=True, held=request.vm)
        there = stock.view.datasets if stock.view is not None else {}
        if parted := finish_parting(context, request.vm, there, dry_run=request.dry_run):
            if request.dry_run:
                return Report((VmReport(request.vm, Outcome.PLANNED, done=tuple(parted)),), dry_run=True)
            stock = look_around(context, sync=True, held=request.vm)
        vm = stock.named(request.vm)
        if request.identity not in {None, vm.dataset.marks.vm_id}:
            return _refused(another_vm(vm, request.identity))
        witnesses, silent = ask(context, vm.dataset.marks)
        notes = [*parted, *(f"{one.node} could not be asked: {one.reason}" for one in silent)]
        if vm.is_primary and not _is_overtaken(vm, witnesses):
            return _finish_only(context, vm, witnesses, request.dry_run)
        ended = end_arrivals(context, vm, witnesses, dry_run=request.dry_run)
        if ended:
            notes += ended
            vm = look_around(context, sync=True, held=request.vm).named(request.vm)
        plan = plan_takeover(vm.name, vm.everything, context.hostname, witnesses, request.handed_over)
        if isinstance(plan, Refusal):
            return _refused(plan)
        runs = running_now(context, vm) is not None or vm.name in bhyve_machines()
        if runs and not vm.is_primary:
            return _refused(
                Refusal(
                    vm.name,
                    Ground.RUNNING,
                    "it runs here, though it is not this node's own VM",
                    f"hoster vm stop {vm.name}",
                )
            )
        warnings = [*plan.evidence, *notes]
        if request.dry_run:
            return _report(vm, Outcome.PLANNED, warnings, [_age(context, plan)], dry_run=True)
        if plan.evidence and not request.accept_loss and not confirm(plan.evidence):
            return _refused(
                Refusal(
                    vm.name,
                    Ground.MAY_LOSE_DATA,
                    "; ".join(plan.evidence),
                    f"hoster change parent --vm {vm.name} --accept-loss    (if this copy is to go on)",
                )
            )
        done = [_age(context, plan), *_promote(context, vm, plan, ask_for_key)]
        done += finish(context, vm.name)
        told, untold = _tell(context, witnesses, plan.epoch)
    return _report(vm, Outcome.DONE, [*warnings, *untold], [*done, *told])


def _promote(context: Context, vm: Vm, plan: Takeover, ask_for_key: AskForKey) -> list[str]:
    done = []
    ask = cache(ask_for_key)
    encrypted = [dataset.name for dataset in vm.everything if dataset.encrypted]
    opened = load_keys(context, vm.name, encrypted, ask)
    if opened:
        done.append(f"loaded the key of {', '.join(opened)}")
    for dataset in plan.give_up:
        context.zfs.give_up_partial(dataset)
    if plan.set_aside:
        root = vm.dataset.name
        stamp = new_stamp(context.now(), root, branches_beside(context.zfs, root))
        swap(context.zfs, root, stamp, plan.versions)
        load_keys(context, vm.name, encrypted, ask)  # the promoted clones have none (seen on 2.3.9)
        done.append(f"set aside as {branch_name(vm.name, stamp)}: what was newer than {_version(plan)}")
    has = vm.dataset.marks
    own = Marks(
        has.vm_id or str(uuid4()),
        Role.PRIMARY,
        plan.epoch,
        context.hostname,
        vm.production if has.production is None else has.production,
    )
    context.zfs.set_properties(properties_of(own), [vm.dataset.name])
    return [*done, f"it is this node's own VM now, epoch {plan.epoch}"]


def _finish_only(context: Context, vm: Vm, witnesses: Sequence[Witness], dry_run: bool) -> Report:
    """The copy is primary already; an earlier takeover may have been cut short."""
    if is_whole(context, vm):
        reason = "it is this node's own VM already"
        return Report((VmReport(vm.name, Outcome.UNCHANGED, reason),), dry_run)
    if dry_run:
        return _report(
            vm, Outcome.PLANNED, [], ["a takeover that was cut short would be finished"], dry_run=True
        )
    done = ["finished a takeover that was cut short", *finish(context, vm.name)]
    epoch = vm.dataset.marks.epoch
    told, untold = _tell(context, witnesses, epoch) if epoch else ([], [])
    return _report(vm, Outcome.DONE, untold, [*done, *told])


def _is_overtaken(vm: Vm, witnesses: Sequence[Witness]) -> bool:
    mine = vm.dataset.marks.epoch
    return any(standing(mine, witness.epoch) is not Standing.CURRENT for witness in witnesses)


def _tell(context: Context, witnesses: Sequence[Witness], epoch: Epoch) -> tuple[list[str], list[str]]:
    """Tells the other replicas, so that the old host is refused there as well: who knows now, and who does
    not."""
    others = {
        witness.site: witness.datasets[0]
        for witness in witnesses
        if witness.site is not None
        and witness.datasets
        and witness.datasets[0].marks.role is Role.REPLICA
        and standing(witness.epoch, epoch) is Standing.SUPERSEDED
    }
    problems = tell(context, others, {"hoster:epoch": str(epoch), "hoster:parent": context.hostname})
    told = [f"told {site.endpoint}" for site in others if site not in problems]
    return told, [f"{site.endpoint} could not be told: {why}" for site, why in problems.items()]


def _version(plan: Takeover) -> str:
    return plan.versions[0][1].name


def _age(context: Context, plan: Takeover) -> str:
    taken_at = datetime.fromtimestamp(plan.taken_at)
    seconds = max(0, int((context.now() - taken_at).total_seconds()))
    hours, minutes = divmod(seconds // 60, 60)
    age = f"{hours} h {minutes} min ago" if hours else f"{minutes} min {seconds % 60} s ago"
    return f"goes on from {_version(plan)}, taken {taken_at:%Y-%m-%d %H:%M:%S}, {age}"


def another_vm(vm: Vm, meant: str | None) -> Refusal:
    """What has the name here is not the VM that is meant."""
    return Refusal(
        vm.name,
        Ground.FOREIGN_DATASET,
        f"{vm.dataset.name} is another VM: its hoster:id is {vm.dataset.marks.vm_id}, meant is {meant}",
        "the replica must lie in an active dataset of this node, under a name that no other VM has",
    )


def _refused(refusal: Refusal) -> Report:
    vm = VmReport(refusal.vm, Outcome.REFUSED, refusal.evidence, refusal.remedy, ground=refusal.ground)
    return Report((vm,))


def _report(
    vm: Vm, outcome: Outcome, notes: Sequence[str], done: Sequence[str], *, dry_run: bool = False
) -> Report:
    return Report((VmReport(vm.name, outcome, done=tuple(done), notes=tuple(notes)),), dry_run)
