"""Forgets a target of a VM that is gone for good: gives up here what is kept for it.

Nothing on the other node is touched, and of the VM nothing is destroyed but the anchors of that target.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from msgspec import Struct

from hoster.errors import OperationFailed, Refused, UsageError
from hoster.model.anchors import TargetKey
from hoster.model.plan import Destroyed, Outcome, Report, VmReport
from hoster.model.storage import Dataset, Marks, Site
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.history import hold_history
from hoster.operations.identity import properties_of
from hoster.operations.inventory import Inventory, look_around, refuse_missing
from hoster.operations.replicas import Far, branches_of, look_at_replicas
from hoster.planning.forgetting import (
    Forgetting,
    KnownTarget,
    Undecided,
    key_to_forget,
    plan_forgetting,
)
from hoster.records.journal import Journal
from hoster.records.markers import clear_marker
from hoster.records.runs import Remembered


class ForgetRequest(Struct, frozen=True):
    """Which target of which VM. ``parent`` is the dataset there in which replicas lie (None: the only one
    that is known there); ``key`` the target's own, for what cannot be told apart otherwise. ``agreed`` are
    the anchors that somebody has agreed to lose (None: whatever the plan says)."""

    vm: str
    endpoint: str
    parent: str | None = None
    key: TargetKey | None = None
    agreed: frozenset[str] | None = None
    dry_run: bool = False


class _Subject(Struct, frozen=True):
    """The VM, the target, and all that bears anchors: its datasets, and those of its branches."""

    vm: Vm
    datasets: tuple[Dataset, ...]
    site: Site
    memory: tuple[Remembered, ...]
    answers: bool


def forget_target(context: Context, request: ForgetRequest) -> Report:
    """Gives up the anchors of the target, its holds, its site mark and what is remembered of it.

    OperationFailed where the VM has no such target; UsageError where it has several there; Refused where its
    anchors cannot be told from another target's, and while an active dataset is missing, in which another VM
    of that name may be. Busy while the VM is replicated or goes back.
    """
    name = request.vm
    lock = hold_history(context, name, f"hoster vm forget-target {name}")
    with nullcontext() if request.dry_run else lock:
        stock = look_around(context, mend=not request.dry_run, held=name)
        refuse_missing(stock.missing)
        subject, key = _look(context, request, stock)
        plan = plan_forgetting(subject.datasets, key)
        unexpected = {anchor.full_name for anchor in plan.anchors} - (request.agreed or frozenset())
        if request.agreed is not None and unexpected:
            raise OperationFailed(
                f"{min(unexpected)} was not among what was shown and agreed to; nothing was changed",
                hint="run it again",
            )
        held = _held(context, subject, key)
        done = _words(subject, held)
        if not request.dry_run:
            # The anchors before the site: what tells whose they are goes last.
            context.zfs.release(f"hoster-{key}", held)
            context.zfs.destroy_bookmarks(plan.anchors)
            _forget_site(context, subject)
            done += _forget_memory(context, request.endpoint, subject)
    return Report((_report(request, subject, key, plan, done),), request.dry_run)


def _look(context: Context, request: ForgetRequest, stock: Inventory) -> tuple[_Subject, TargetKey | None]:
    vm = stock.named(request.vm)
    memory = _memory(context, vm)
    sites = {*vm.dataset.marks.sites} if vm.is_primary else set()
    marked = {(site.endpoint, site.dataset) for site in sites}
    sites |= {Site(m.node, m.target) for m in memory if m.target and (m.node, m.target) not in marked}
    site = _chosen(request, sites, memory)
    newest = {(m.node, m.target): int(m.newest.guid) for m in memory if m.newest is not None}
    far = look_at_replicas(context, sorted((one for one in sites | {site} if one.dataset), key=str))
    known = {}
    for one in (*sites, site):
        answer = far.get(one)
        parent = answer.beside.get(one.dataset.rpartition("/")[0]) if isinstance(answer, Far) else None
        key = None if parent is None else TargetKey(parent.guid)
        known[one] = KnownTarget(one, key, newest.get((one.endpoint, one.dataset)))
    target = known.pop(site)
    datasets = (*vm.everything, *_of_branches(stock, vm))
    forgotten = tuple(m for m in memory if m.node == site.endpoint and m.target in {site.dataset, ""})
    subject = _Subject(vm, datasets, site, forgotten, isinstance(far.get(site), Far))
    if request.key is not None:
        return subject, request.key
    found = key_to_forget(target, tuple(known.values()), datasets)
    if isinstance(found, Undecided):
        raise _undecided(request, found)
    return subject, found


def _memory(context: Context, vm: Vm) -> tuple[Remembered, ...]:
    known = Journal(context.settings.state_dir).replicas()
    return tuple(m for m in known if m.vm == vm.name and m.vm_id in {"", vm.dataset.marks.vm_id})


def _chosen(request: ForgetRequest, sites: set[Site], memory: Sequence[Remembered]) -> Site:
    """The target that is meant."""
    there = [site for site in sites if site.endpoint == request.endpoint]
    if request.parent is not None:
        wanted = f"{request.parent}/{request.vm}"
        there = [site for site in there if site.dataset == wanted]
        if not there and request.key is not None:
            return Site(request.endpoint, wanted)
    if len(there) > 1:
        parents = " or ".join(sorted(site.dataset.rpartition("/")[0] for site in there))
        raise UsageError(f"{request.vm} has {len(there)} targets there: add --target-dataset {parents}")
    if there:
        return there[0]
    if request.parent is None and any(m.node == request.endpoint and not m.target for m in memory):
        return Site(request.endpoint, "")  # no run has got so far as to know its dataset
    known = sorted(f"{site.endpoint} ({site.dataset.rpartition('/')[0]})" for site in sites)
    raise OperationFailed(
        f"{request.vm} has no such target: {request.endpoint}",
        hint=f"its targets: {', '.join(known)}" if known else f"hoster status {request.vm}",
    )


def _undecided(request: ForgetRequest, found: Undecided) -> Refused:
    keys = ", ".join(map(str, found.candidates))
    silent = ", ".join(sorted({site.endpoint for site in found.rivals}))
    why = f" while {silent} cannot be asked" if silent else ""
    return Refused(
        f"{request.vm}: which anchors are of {request.endpoint} cannot be told{why}: those of {keys} may be",
        hint=f"say which with --target-guid, as in the names of the bookmarks: zfs list -t bookmark -r"
        f" DATASET; {'or when it answers' if silent else 'if none is, any other GUID forgets the rest'}",
    )


def _of_branches(stock: Inventory, vm: Vm) -> list[Dataset]:
    if stock.view is None:
        return []
    beside = stock.view.children(vm.dataset.name.rpartition("/")[0])
    roots = branches_of(vm.dataset.name, tuple(beside))
    return [dataset for root in roots for dataset in (root, *stock.view.below(root.name))]


def _held(context: Context, subject: _Subject, key: TargetKey | None) -> tuple[str, ...]:
    """The snapshots that a transfer to the target has left held."""
    held = [s.full_name for dataset in subject.datasets for s in dataset.snapshots if s.holds]
    if key is None or not held:
        return ()
    return tuple(sorted(name for name, tag in context.zfs.holds(held) if tag == f"hoster-{key}"))


def _words(subject: _Subject, held: Sequence[str]) -> list[str]:
    site = subject.site
    words = [f"its holds on {', '.join(held)}"] if held else []
    if site in subject.vm.dataset.marks.sites and subject.vm.is_primary:
        words.append(f"the mark that a replica is in {site.dataset} on {site.endpoint}")
    if subject.memory:
        words.append("what is remembered of it, in status and metrics")
    return [f"gives up {word}" for word in words]


def _forget_site(context: Context, subject: _Subject) -> None:
    own = subject.vm.dataset
    if not subject.vm.is_primary or subject.site not in own.marks.sites:
        return
    left = tuple(site for site in own.marks.sites if site != subject.site)
    if left:
        context.zfs.set_properties(properties_of(Marks(sites=left)), [own.name])
    else:
        context.zfs.inherit("hoster:sites", [own.name])


def _forget_memory(context: Context, endpoint: str, subject: _Subject) -> list[str]:
    """Also of the jobs to that node, if it is no VM's target any more; what more there is to say."""
    targets = tuple(memory.target for memory in subject.memory)
    jobs, problem = Journal(context.settings.state_dir).forget(subject.vm.name, endpoint, targets)
    said = [f"gives up how the job {job} stands" for job in jobs]
    problems = [problem, *(clear_marker(context.settings.marker_dir, job) for job in jobs)]
    return [*said, *(f"but {one}" for one in problems if one)]


def _report(
    request: ForgetRequest,
    subject: _Subject,
    key: TargetKey | None,
    plan: Forgetting,
    done: Sequence[str],
) -> VmReport:
    site = subject.site
    notes = [f"nothing on {site.endpoint} was touched: what is there is still a replica of {request.vm}"]
    if subject.answers:
        notes.append(f"{site.endpoint} answers; a replication to it goes on where both ends still agree")
    if key is None:
        notes.append("no anchor of it is here")
    if plan.freed:
        names = ", ".join(snapshot.full_name for snapshot in plan.freed)
        notes.append(f"no longer kept for it, and left to retention: {names}")
    return VmReport(
        request.vm,
        Outcome.PLANNED if request.dry_run else Outcome.DONE,
        destroyed=tuple(
            Destroyed("local", anchor.full_name, f"anchor of {site.endpoint}") for anchor in plan.anchors
        ),
        done=tuple(done),
        notes=tuple(notes),
        vm_id=subject.vm.dataset.marks.vm_id or "",
    )
