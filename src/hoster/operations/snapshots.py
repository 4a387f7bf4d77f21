"""Snapshots of VMs: new, all, list, destroy. Look, plan, execute, report."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from hoster.errors import Busy, HosterError, OperationFailed, Refused
from hoster.host.usage import flush_volumes
from hoster.model.anchors import anchor_target, needed_by_targets
from hoster.model.names import SnapshotType
from hoster.model.plan import Destroyed, DestroySnapshot, Outcome, Report, TakeSnapshot, VmReport
from hoster.model.storage import Role, Snapshot
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.history import hold_history
from hoster.operations.inventory import Inventory, look_around
from hoster.operations.taking import SNAPSHOTS_LOCK, SNAPSHOTS_WAIT_S, snapshot_steps, take
from hoster.planning.retention import Kept, needed_by_copies, plan_retention
from hoster.planning.snapshots import written_since
from hoster.zfs.programs import Answer
from hoster.zfs.store import pool_of

_MOST_NAMED = 5


class SnapshotRequest(Struct, frozen=True):
    """What to take, and how many of that type to keep (None: prune nothing)."""

    stype: SnapshotType
    keep: int | None
    description: str = ""
    dry_run: bool = False


class _Work(Struct, frozen=True):
    """One VM's part of a run: the snapshots to take and those to give up once they exist."""

    vm: Vm
    takes: tuple[TakeSnapshot, ...]
    destroys: tuple[DestroySnapshot, ...]
    notes: tuple[str, ...]


def snapshot_one(context: Context, name: str, request: SnapshotRequest) -> Report:
    """Takes a snapshot of one VM, changed or not. Refused for a replica."""
    with context.locks.hold(SNAPSHOTS_LOCK, holder=f"hoster snapshot new {name}", wait_s=SNAPSHOTS_WAIT_S):
        stock = look_around(context, mend=not request.dry_run)
        vm = stock.named(name)
        if not vm.is_primary:
            raise Refused(
                f"{name} is marked {vm.role.value} on this node, so its snapshots are taken on {vm.parent}",
                hint=f"on {vm.parent}: hoster snapshot new {name}",
            )
        flush_volumes([vm.dataset.name])
        report = _run(context, [_work(context, vm, request, "asked for")], request, ())
        return replace(report, seen=stock.view)


def snapshot_all(
    context: Context,
    request: SnapshotRequest,
    *,
    names: Collection[str] | None = None,
    production_only: bool = False,
    always: bool = False,
) -> Report:
    """Takes a snapshot of every VM here that is no replica, all at one moment, and prunes that type.

    With ``names`` only of these; one that is no VM of this node is reported as failed. A VM in which nothing
    was written since its newest snapshot of that type gets none, unless ``always``.
    Afterwards, where the settings say so, branches that are old enough are destroyed.
    """
    report = _snapshot_all(context, request, names, production_only=production_only, always=always)
    if context.settings.branches.expire_after_days is None:
        return report
    from hoster.operations.branches import expire_branches

    # That a dataset is missing was said where it matters for these VMs.
    expired = expire_branches(context, dry_run=request.dry_run, say_missing=False).vms
    return replace(report, vms=(*report.vms, *(_stays(vm) for vm in expired)))


def _stays(branch: VmReport) -> VmReport:
    """A branch that something needs is no reason to call a run of snapshots refused."""
    if branch.outcome is not Outcome.REFUSED:
        return branch
    return VmReport(
        branch.vm, Outcome.UNCHANGED, f"old enough to go, and kept: {branch.reason}", branch.remedy
    )


def _snapshot_all(
    context: Context,
    request: SnapshotRequest,
    names: Collection[str] | None,
    *,
    production_only: bool,
    always: bool,
) -> Report:
    with context.locks.hold(
        SNAPSHOTS_LOCK, holder=f"hoster snapshot all --stype {request.stype}", wait_s=SNAPSHOTS_WAIT_S
    ):
        stock = look_around(context, sync=True, mend=not request.dry_run)
        chosen = [vm for vm in stock.vms if vm.is_primary and (vm.production or not production_only)]
        work: list[_Work] = []
        others = [u.report for u in stock.broken]
        if names is not None:
            chosen = [vm for vm in chosen if vm.name in names]
            others = [vm for vm in others if vm.vm in names]
            known = {vm.name for vm in stock.vms} | {vm.vm for vm in others}
            others += [stock.absent(name) for name in sorted({*names} - known)]
        for vm in chosen:
            reason = "asked for" if always else _why(vm, request.stype)
            if reason:
                work.append(_work(context, vm, request, reason))
            else:
                others.append(_unchanged(vm, request.stype))
        return replace(_run(context, work, request, others), seen=stock.view)


def _kept(kept: Sequence[Kept]) -> Iterator[str]:
    """What is to be said of them: of many that are kept for one reason, how many they are."""
    for reason, group in groupby(sorted(kept, key=lambda one: one.reason), key=lambda one: one.reason):
        names = [one.snapshot.full_name for one in group]
        if len(names) <= _MOST_NAMED:
            yield from (f"kept {name}: {reason}" for name in names)
        else:
            yield f"kept {len(names)} of {names[0].partition('@')[0]}: {reason}"


def destroy_snapshot(context: Context, name: str, snapshot: str, *, dry_run: bool = False) -> Report:
    """Destroys one snapshot of a VM, by its short or full name, on all of the VM's datasets that have it.

    Refused where it is held, cloned, or the base that a target's next increment starts from. Busy while it
    is being sent, or the VM goes back or changes its role.
    """
    vm = look_around(context, mend=not dry_run).named(name)
    victims = _resolve(vm, snapshot)
    lock = hold_history(context, name, f"hoster snapshot destroy {name}", shared=True)
    with nullcontext() if dry_run else lock:
        for victim in victims:
            _refuse_while_sent(context, vm, victim)
            _refuse_if_needed(vm, victim)
        for answer in context.zfs.destroy(victims) if not dry_run else ():
            if not answer.done:
                raise OperationFailed(f"{answer.name} was not destroyed: {answer.explained}")
    gone = tuple(Destroyed("local", v.full_name, "asked for") for v in victims)
    if dry_run:
        return Report((VmReport(name, Outcome.PLANNED, destroyed=gone),), dry_run=True)
    return Report((VmReport(name, Outcome.DONE, f"{victims[0].name} is gone for good", destroyed=gone),))


class ListedSnapshot(Struct, frozen=True):
    """One snapshot with the VM it belongs to, and whether a target needs it."""

    vm: str
    snapshot: Snapshot
    needed: bool


def list_snapshots(stock: Inventory, name: str | None = None) -> tuple[ListedSnapshot, ...]:
    """The snapshots of one VM, or of every VM here, replicas included; by createtxg within a dataset."""
    vms = stock.vms if name is None else (stock.named(name),)
    return tuple(
        ListedSnapshot(vm.name, snapshot, snapshot.guid in needed)
        for vm in vms
        for dataset in vm.everything
        for needed in (needed_by_targets(dataset),)
        for snapshot in dataset.snapshots
    )


def _why(vm: Vm, stype: SnapshotType) -> str:
    """Why this VM needs a snapshot of that type; empty where it would only repeat the newest one."""
    amounts = [written_since(dataset, stype) for dataset in vm.everything]
    if any(amount is None for amount in amounts):
        return f"it has no {stype.value} snapshot yet"
    total = sum(amount or 0 for amount in amounts)
    return f"{total} bytes were written since the newest {stype.value} one" if total else ""


def _unchanged(vm: Vm, stype: SnapshotType) -> VmReport:
    return VmReport(
        vm.name, Outcome.UNCHANGED, f"nothing was written since its newest {stype.value} snapshot"
    )


def _work(context: Context, vm: Vm, request: SnapshotRequest, reason: str) -> _Work:
    takes = snapshot_steps(vm, request.stype, context.now(), reason)
    destroys: list[DestroySnapshot] = []
    notes = [vm.problem] if vm.problem else []
    if request.keep is not None:
        for dataset in vm.everything:
            others = frozenset(s.guid for s in needed_by_copies(dataset, len(vm.dataset.marks.sites)))
            retention = plan_retention(dataset, request.stype, request.keep, incoming=1, protected=others)
            destroys.extend(retention.destroys)
            notes.extend(_kept(retention.kept))
    return _Work(vm, takes, tuple(destroys), tuple(notes))


def _run(
    context: Context, work: Sequence[_Work], request: SnapshotRequest, others: Sequence[VmReport]
) -> Report:
    if request.dry_run:
        return _sorted([_planned(w) for w in work], others, dry_run=True)
    properties = {"hoster:sdescription": request.description} if request.description else {}
    # By its dataset: in two active datasets there may be two VMs of one name.
    taken = take(context.zfs, {w.vm.dataset.name: w.takes for w in work}, properties)
    done = [w for w in work if w.vm.dataset.name in taken.steps]
    answers, unpruned = _destroyed(context, [step.victim for w in done for step in w.destroys])
    names = {w.vm.dataset.name: w.vm.name for w in work}
    reports = [VmReport(names[d], Outcome.FAILED, e.message, e.hint) for d, e in taken.failures.items()]
    for w in done:
        known = [(step, answers[name]) for step in w.destroys if (name := step.victim.full_name) in answers]
        error = unpruned.get(w.vm.dataset.pool) if len(known) < len(w.destroys) else None
        failed = error and f"its snapshot was taken, but older ones could not be destroyed: {error.message}"
        reports.append(
            VmReport(
                w.vm.name,
                Outcome.FAILED if failed else Outcome.DONE,
                failed or w.takes[0].reason,
                error.hint if error else "",
                taken=tuple(step.full_name for step in taken.steps[w.vm.dataset.name]),
                destroyed=tuple(
                    Destroyed("local", s.victim.full_name, s.reason) for s, answer in known if answer.done
                ),
                notes=(*w.notes, *(f"kept {a.name}: {a.explained}" for _, a in known if not a.done)),
            )
        )
    return _sorted(reports, others, dry_run=False)


def _destroyed(
    context: Context, victims: Sequence[Snapshot]
) -> tuple[dict[str, Answer], dict[str, HosterError]]:
    """What became of each, by its name; and what went wrong, by the pool in which some have no answer."""
    answers: dict[str, Answer] = {}
    errors: dict[str, HosterError] = {}
    for pool in dict.fromkeys(pool_of(victim.dataset) for victim in victims):
        try:
            found = context.zfs.destroy([victim for victim in victims if pool_of(victim.dataset) == pool])
        except HosterError as error:
            errors[pool] = error
        else:
            answers |= {answer.name: answer for answer in found}
    return answers, errors


def _planned(work: _Work) -> VmReport:
    return VmReport(
        work.vm.name,
        Outcome.PLANNED,
        work.takes[0].reason,
        taken=tuple(step.full_name for step in work.takes),
        destroyed=tuple(Destroyed("local", s.victim.full_name, s.reason) for s in work.destroys),
        notes=work.notes,
    )


def _sorted(reports: Sequence[VmReport], others: Sequence[VmReport], *, dry_run: bool) -> Report:
    return Report(tuple(sorted((*reports, *others), key=lambda r: r.vm.lower())), dry_run)


def _resolve(vm: Vm, snapshot: str) -> list[Snapshot]:
    """The snapshots that a short or full name means, on every dataset of the VM that has it."""
    dataset, at, short = snapshot.rpartition("@")
    if at and dataset != vm.dataset.name:
        raise Refused(
            f"{snapshot} is not a snapshot of {vm.name}, whose dataset is {vm.dataset.name}",
            hint=f"hoster snapshot list {vm.name}",
        )
    found = [s for d in vm.everything for s in d.snapshots if s.name == short]
    if not found:
        raise OperationFailed(f"{vm.name} has no snapshot {short}", hint=f"hoster snapshot list {vm.name}")
    return found


def _refuse_while_sent(context: Context, vm: Vm, victim: Snapshot) -> None:
    """What a target needs may be free once it is up to date: while that is under way, it is said so."""
    dataset = next(d for d in vm.everything if d.name == victim.dataset)
    if victim.guid not in needed_by_targets(dataset):
        return
    from hoster.records.job_states import being_sent, jobs_in

    under_way = being_sent(jobs_in(context.settings.run_dir), vm.name)
    if under_way:
        raise Busy(
            f"{victim.full_name} is needed by a target, and {vm.name} is being sent by {under_way}",
            hint="try again when it has ended: hoster jobs",
        )


def _refuse_if_needed(vm: Vm, victim: Snapshot) -> None:
    if victim.holds:
        raise Refused(f"{victim.full_name} is held", hint=f"zfs holds {victim.full_name}")
    if victim.clones:
        raise Refused(
            f"{victim.full_name} cannot be destroyed: {victim.clones[0]} is a clone of it",
            hint=f"zfs promote {victim.clones[0]}, or destroy the clone first",
        )
    dataset = next(d for d in vm.everything if d.name == victim.dataset)
    received = [s.guid for s in dataset.snapshots if s.sent_by is not None]
    bases = {*received[-1:], *(s.guid for s in dataset.snapshots[-1:])}
    if vm.role is Role.REPLICA and victim.guid in bases:
        raise Refused(
            f"{victim.full_name} is the newest version of this replica: the next increment from {vm.parent}"
            " starts from it",
            hint=f"on {vm.parent}: hoster vm replicate {vm.name} --endpoint …  (brings a newer one)",
        )
    came = needed_by_copies(dataset, len(vm.dataset.marks.sites)) if vm.is_primary else ()
    if victim.guid in {s.guid for s in came[-1:]}:
        raise Refused(
            f"{victim.full_name} is the last version in common with the node that it came from",
            hint=f"hoster vm replicate {vm.name} --endpoint …  (to that node: a newer one takes its place;"
            f" if it is gone for good: hoster vm forget-target {vm.name})",
        )
    if victim.guid in needed_by_targets(dataset):
        anchors = [b.full_name for b in dataset.bookmarks if anchor_target(b) is not None]
        raise Refused(
            f"{victim.full_name} is what a target's next increment starts from",
            hint=f"hoster vm replicate {vm.name} --endpoint …  (the next version then takes its place;"
            f" if that target is gone for good: zfs destroy {anchors[0]})",
        )
