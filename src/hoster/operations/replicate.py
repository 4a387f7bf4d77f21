"""Replicates VMs to another node: look at both, judge each VM, take, anchor, send, verify, mark, prune.

One look at each node and one connection for all VMs, and nothing more for those that did not change. A
VM that must not be replicated is refused with its evidence, one that fails is reported; the others go on.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from hoster.errors import Busy, HosterError, UsageError
from hoster.model.anchors import TargetKey
from hoster.model.names import SnapshotType, dataset_name
from hoster.model.plan import GiveUp, Ground, Outcome, Refusal, Report, Send, TakeSnapshot, VmReport
from hoster.model.space import PoolSample
from hoster.model.storage import Dataset, Role, View
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.history import hold_history
from hoster.operations.inventory import Inventory, look_around
from hoster.operations.job import Job, hold_tag, job_of, newest_of
from hoster.operations.request import Observer, ReplicationRequest
from hoster.operations.sending import run_jobs
from hoster.operations.space import room_now
from hoster.operations.swapping import finish_left
from hoster.operations.taking import snapshot_steps
from hoster.operations.telling import is_told, replica_marks, sites_with, superseded
from hoster.planning.refusals import Subject, TargetSite, taken_over_beside
from hoster.planning.replication import Clearance, is_up_to_date, judge, preview
from hoster.planning.swap import unfinished
from hoster.zfs.store import ZfsStore, pool_of

_FINISHED_FIRST = (
    "setting aside the newer part of {} was interrupted, and would be finished first: only then can be seen"
    " what is to be sent"
)
"""What a dry run says of a VM whose replica is half set aside: whatever it showed would be wrong."""


class _Case(Struct, frozen=True):
    """One VM with what is to be decided about it."""

    vm: Vm
    parent: str
    target: str


class _Queue:
    """Takes locks for a block, and waits for all of them together no longer than asked."""

    def __init__(self, stack: contextlib.ExitStack, wait_s: float) -> None:
        self._stack = stack
        self._until = time.monotonic() + wait_s
        self.let_go_at = 0.0
        """When the last of those who had one of these locks let go of it."""

    def enter(self, lock: Callable[..., AbstractContextManager[float]]) -> None:
        """Takes what ``lock(wait_s=…)`` gives, at once or after waiting; Busy as that."""
        try:
            let_go_at = self._stack.enter_context(lock(wait_s=0.0))
        except Busy:
            left_s = self._until - time.monotonic()
            if left_s <= 0:
                raise
            let_go_at = self._stack.enter_context(lock(wait_s=left_s))
        self.let_go_at = max(self.let_go_at, let_go_at)


def replicate(context: Context, request: ReplicationRequest, observer: Observer) -> Report:
    """Brings the target fully up to date for every VM asked for; one report for all.

    Busy where another run of the same job is under way (after waiting as asked); Unreachable where the
    node cannot be had.
    """
    holder = f"hoster vm replicate, job {request.job_name}"
    with contextlib.ExitStack() as stack:
        if not request.dry_run:
            lock = f"the replication job {request.job_name}"
            stack.enter_context(context.locks.hold(lock, holder=holder, wait_s=request.wait_s))
        connection = stack.enter_context(context.reach(request.ssh))
        looked_at = time.time()
        stock = look_around(context, sync=True, mend=not request.dry_run)
        chosen, reports = _choose(stock, request)
        if not chosen:
            return Report(tuple(reports), request.dry_run, seen=stock.view)
        queue = _Queue(stack, request.wait_s)
        cases, busy = _locked(context, request, chosen, queue, holder)
        target = connection() if cases else None
        room: tuple[PoolSample, ...] = ()
        if target is not None:
            parents = sorted({case.parent for case in cases})
            homes = target.look_beside(parents)
            if not request.dry_run:
                cases, elsewhere = _alone_there(context, cases, homes, queue, holder)
                busy += elsewhere
            if queue.let_go_at >= looked_at:
                # Whoever had one of the locks until then has changed what was seen.
                stock = look_around(context, sync=True)
                chosen, reports = _choose(stock, request)
                cases = [replace(case, vm=vm) for vm in chosen for case in cases if case.vm.name == vm.name]
                homes = target.look_beside(parents)
            if cases:
                reports += _run(context, request, target, cases, observer, homes)
            if not request.dry_run:
                room = room_now(context, request.node, target, parents)
        reports += busy
    in_order = tuple(sorted(reports, key=lambda r: r.vm.lower()))
    return Report(in_order, request.dry_run, seen=stock.view, pools=room)


def _choose(stock: Inventory, request: ReplicationRequest) -> tuple[list[Vm], list[VmReport]]:
    """The VMs asked for, and reports on those that cannot be used at all."""
    broken = {u.name: u.report for u in stock.broken}
    own = {vm.name for vm in stock.vms if vm.role is Role.PRIMARY}
    wanted = [
        vm
        for vm in stock.vms
        if vm.role is Role.PRIMARY or (request.names is not None and vm.name not in own)
    ]
    twice = {name for name, times in Counter(vm.name for vm in wanted).items() if times > 1}
    for name in twice - broken.keys():
        broken[name] = _not_unique(name, [vm.dataset.name for vm in wanted if vm.name == name])
    stock = replace(stock, vms=tuple(vm for vm in stock.vms if vm.name not in twice))
    if request.names is not None:
        by_name = {vm.name: vm for vm in wanted if vm.name not in twice}
        unknown = [n for n in request.names if n not in by_name and n not in broken]
        reports = [stock.absent(n) for n in unknown]
        reports += [broken[n] for n in request.names if n in broken]
        return [by_name[n] for n in dict.fromkeys(request.names) if n in by_name], reports
    chosen = [
        vm
        for vm in stock.vms
        if vm.role is Role.PRIMARY and (vm.production or request.include_non_production)
    ]
    given_up = [_superseded(vm) for vm in stock.vms if vm.role is Role.SUPERSEDED]
    return chosen, [*broken.values(), *given_up]


def _not_unique(name: str, where: Sequence[str]) -> VmReport:
    remedy = f"rename one of them, for example: zfs rename {where[0]} {where[0]}-2"
    return VmReport(name, Outcome.FAILED, f"{name} is not unique: {', '.join(where)}", remedy)


def _superseded(vm: Vm) -> VmReport:
    """Said at every run until somebody has settled it: this copy is not replicated any more."""
    return VmReport(
        vm.name,
        Outcome.REFUSED,
        f"{vm.parent} has taken this VM over; the copy here is superseded",
        f"hoster vm demote {vm.name}    (this copy becomes a replica; what it wrote alone is kept)",
        ground=Ground.SUPERSEDED,
    )


def _locked(
    context: Context,
    request: ReplicationRequest,
    chosen: Sequence[Vm],
    queue: _Queue,
    holder: str,
) -> tuple[list[_Case], list[VmReport]]:
    """The VMs whose locks could be had, and reports on those that another run is busy with."""
    cases: list[_Case] = []
    busy: list[VmReport] = []
    for vm in sorted(chosen, key=lambda vm: vm.dataset.name):
        parent = request.target_dataset or vm.dataset.name.rpartition("/")[0]
        try:
            target = dataset_name(f"{parent}/{vm.name}")
        except ValueError as error:
            raise UsageError(f"--target-dataset: {error}") from None
        if not request.dry_run:
            try:
                queue.enter(
                    partial(
                        context.locks.hold, f"the replication of {vm.name} to {request.node}", holder=holder
                    )
                )
                queue.enter(partial(hold_history, context, vm.name, holder, shared=True))
            except Busy as error:
                busy.append(VmReport(vm.name, Outcome.BUSY, error.message, error.hint))
                continue
        cases.append(_Case(vm, parent, target))
    return cases, busy


def _alone_there(
    context: Context, cases: Sequence[_Case], homes: View, queue: _Queue, holder: str
) -> tuple[list[_Case], list[VmReport]]:
    """The VMs that no other run sends to the same target, whatever that calls it: the anchors and holds of a
    target are one run's alone."""
    left: list[_Case] = []
    busy: list[VmReport] = []
    for case in cases:
        home = homes.get(case.parent)
        try:
            if home is not None:
                lock = f"the replication of {case.vm.name} to the target {TargetKey(home.guid)}"
                queue.enter(partial(context.locks.hold, lock, holder=holder))
        except Busy as error:
            busy.append(VmReport(case.vm.name, Outcome.BUSY, error.message, error.hint))
        else:
            left.append(case)
    return left, busy


def _run(
    context: Context,
    request: ReplicationRequest,
    target: ZfsStore,
    cases: Sequence[_Case],
    observer: Observer,
    homes: View,
) -> list[VmReport]:
    reports: list[VmReport] = []
    sites, there, finished, beside = _look_there(context, request, target, cases, homes)
    snapshots = [s for case in cases for d in case.vm.everything for s in d.snapshots]
    holds = context.zfs.holds([s.full_name for s in snapshots if s.holds])
    jobs: list[Job] = []
    for case in cases:
        site = sites[case.parent, pool_of(case.vm.dataset.name)]
        left = _left(holds, case.vm, site) if site.parent_guid is not None else ()
        match finished.get(case.target, ""):
            case HosterError() as error:
                reports.append(VmReport(case.vm.name, Outcome.FAILED, error.message, error.hint))
                continue
            case words:
                note = words
        if request.dry_run and note:
            reports.append(VmReport(case.vm.name, Outcome.PLANNED, notes=(note,)))
            continue
        match _decided(context, request, case, site, _at_and_below(there, case.target), left, beside):
            case VmReport() as report:
                reports.append(replace(report, notes=(*report.notes, note)) if note else report)
            case Job() as job:
                jobs.append(job)
                job.notes += [note] if note else []
    if jobs:
        reports += run_jobs(context, request, target, jobs, observer)
    targets = {case.vm.name: case.target for case in cases}
    return [replace(report, target=targets[report.vm]) for report in reports]


def _decided(
    context: Context,
    request: ReplicationRequest,
    case: _Case,
    site: TargetSite,
    there: Sequence[Dataset],
    left_holds: tuple[str, ...],
    beside: Sequence[Dataset],
) -> VmReport | Job:
    """The job for one VM, or the report where there is none to do."""
    vm = case.vm
    subject = Subject(vm.name, vm.dataset, vm.role, vm.parent, vm.descendants)
    origins = {dataset.origin for dataset in beside if dataset.origin is not None}
    copy, renamed = taken_over_beside(subject, site, case.target, beside) or (None, None)
    match renamed or judge(subject, site, case.target, there, request.terms, origins):
        case Refusal() as refusal:
            found = there if copy is None else [copy]
            notes = superseded(context, vm, refusal, found, dry_run=request.dry_run)
            return VmReport(
                vm.name,
                Outcome.REFUSED,
                refusal.evidence,
                refusal.remedy,
                ground=refusal.ground,
                notes=notes,
            )
        case Clearance() as clearance if request.dry_run and not is_up_to_date(clearance):
            return _planned(context, vm, subject, clearance)
        case clearance:
            if request.final and not clearance.needs_snapshot:
                clearance = replace(clearance, needs_snapshot=True)
            job = job_of(vm, site, clearance, left_holds)
    job.sites = sites_with(vm, request, case.target)
    job.told = replica_marks(context, vm, job.sites, request.node, case.target)
    if request.dry_run or (is_up_to_date(clearance) and not left_holds and is_told(job)):
        newest = newest_of([(part.source, part.replica) for part in clearance.parts])
        return VmReport(
            vm.name, Outcome.UNCHANGED, f"{site.node} has everything", vm_id=job.vm_id, newest=newest
        )
    return job


def _look_there(
    context: Context, request: ReplicationRequest, target: ZfsStore, cases: Sequence[_Case], seen: View
) -> tuple[dict[tuple[str, str], TargetSite], View, dict[str, str | HosterError], tuple[Dataset, ...]]:
    """What the target has of these VMs, and of the datasets that replicas lie in; what was done there, or
    in a dry run would be, about swaps that a crash has left half done; and what lies near the replicas, of
    which ``seen`` is a first look."""
    parents = sorted({case.parent for case in cases})
    beside = tuple(seen.datasets.values())
    roots = {case.target for case in cases}
    finished: dict[str, str | HosterError]
    if request.dry_run:
        finished = {root: _FINISHED_FIRST.format(root) for root, _ in unfinished(beside) if root in roots}
    else:
        finished = finish_left(target, beside, roots)
        if finished:
            beside = tuple(target.look_beside(parents).datasets.values())
    if request.create_parent and not request.dry_run:
        missing = [p for p in parents if seen.get(p) is None]
        for parent in missing:
            target.create_unmounted(parent)
        seen = target.look_at(parents) if missing else seen
    there = target.look_for([case.target for case in cases])
    if not request.dry_run and _end_abandoned(target, there):
        there = target.look_for([case.target for case in cases])
    sites: dict[tuple[str, str], TargetSite] = {}
    for case in cases:
        home = seen.get(case.parent)
        pool = pool_of(case.vm.dataset.name)
        same = target.machine == context.zfs.machine and pool_of(case.parent) == pool
        guid = None if home is None else home.guid
        encrypted = home is not None and home.encrypted
        sites[case.parent, pool] = TargetSite(
            target.node, case.parent, guid, same_pool=same, encrypted=encrypted
        )
    return sites, there, finished, beside


def _end_abandoned(target: ZfsStore, there: View) -> bool:
    """Ends what still waits there for a run that is gone, so that its streams can go on; whether any was.

    Where that cannot be found out, the streams will say that something is in their way.
    """
    begun = [name for name, dataset in there.datasets.items() if dataset.partial is not None]
    if not begun:
        return False
    try:
        return bool(target.end_abandoned_receives(begun))
    except HosterError:
        return False


def _left(holds: frozenset[tuple[str, str]], vm: Vm, site: TargetSite) -> tuple[str, ...]:
    """The snapshots of a VM that a run to this target which ended badly has left held."""
    own = {dataset.name for dataset in vm.everything}
    tag = hold_tag(site)
    return tuple(sorted(name for name, of in holds if of == tag and name.partition("@")[0] in own))


def _at_and_below(view: View, name: str) -> list[Dataset]:
    root = view.get(name)
    return [] if root is None else [root, *view.below(name)]


def _planned(context: Context, vm: Vm, subject: Subject, clearance: Clearance) -> VmReport:
    name = snapshot_steps(vm, SnapshotType.REPLICATION, context.now(), "")[0].name
    plan = preview(subject, clearance, name)
    takes = tuple(step.full_name for step in plan.steps if isinstance(step, TakeSnapshot))
    notes = [
        f"what has arrived of {step.target} would be given up: {step.reason}"
        for step in plan.steps
        if isinstance(step, GiveUp)
    ]
    if clearance.parting:
        notes.append("it was rolled back here: what is newer on the target would be set aside as a branch")
    sent = tuple(described(step) for step in plan.sends)
    return VmReport(vm.name, Outcome.PLANNED, taken=takes, sent=sent, notes=tuple(notes))


def described(step: Send) -> str:
    """One stream in words, as the plan and the report show it."""
    if step.resume is not None:
        return f"the rest of {step.through.full_name}, of which a part has arrived"
    if step.base is None:
        return f"{step.through.full_name} in full"
    reach = "with all in between, " if step.intermediate else ""
    return f"{step.base.name} → {step.through.full_name}, {reach}{step.reason}"
