"""The branches of VMs: what was set aside when one went back; listed, brought back, or given up by name or by
age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from hoster.errors import Busy, OperationFailed, Refused, UsageError
from hoster.model.anchors import anchor_target
from hoster.model.plan import Destroyed, Ground, Outcome, Refusal, Report, VmReport
from hoster.model.storage import Bookmark, Dataset, Role, Snapshot, View
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.going_back import Course, Power, go_back
from hoster.operations.history import hold_history
from hoster.operations.inventory import (
    look_around,
    look_here,
    missing_from,
    unless_in,
)
from hoster.operations.opening import Reopening
from hoster.operations.swapping import branches_beside, new_stamp, restore
from hoster.planning.refusals import Subject
from hoster.planning.rollback import Restoration, plan_restoration
from hoster.planning.swap import branch_of

_NEVER_DAYS = 365_000
"""The age of a branch that is reached in a thousand years."""


class Branch(Struct, frozen=True):
    """One branch. ``pinned_bytes`` is what its end would free; ``parted_from`` what it is a clone of."""

    name: str
    dataset: str
    vm: str
    branched_at: datetime
    pinned_bytes: int
    snapshots: tuple[str, ...]
    parted_from: str


def list_branches(context: Context, vm: str | None = None, *, seen: View | None = None) -> tuple[Branch, ...]:
    """The branches on this node, of one VM or of all, oldest first. ``seen`` is what the caller has seen of
    it, who then knows which datasets are missing."""
    view = look_here(context) if seen is None else seen
    beside = [dataset for parent in context.datasets for dataset in view.children(parent)]
    found = [branch for dataset in beside if (branch := _branch(dataset)) and (vm is None or branch.vm == vm)]
    return tuple(sorted(found, key=lambda branch: (branch.branched_at, branch.name)))


def restore_branch(context: Context, name: str, power: Power, *, dry_run: bool) -> Report:
    """Lets a branch be the VM again; what the VM is now becomes a branch, and nothing is destroyed.

    OperationFailed where there is no such branch, or no VM any more whose branch it is.
    """
    found = _branch(_tree(context, name)[0])
    assert found is not None, "a tree begins with its branch"

    keys = Reopening(context, found.vm, power.ask_for_key)

    def decide(vm: Vm) -> Course | Refusal:
        course = _restoration(context, found, vm, keys)
        if isinstance(course, Course) and not dry_run:
            keys.prepare(vm)
        return course

    return go_back(context, found.vm, power, decide, dry_run=dry_run)


def destroy_branch(context: Context, name: str, *, dry_run: bool) -> Report:
    """Destroys one branch: each of its snapshots and datasets by its name, and nothing else.

    Refused where a snapshot of it is held, has a clone, or is the last that a target is known to share. Busy
    while its VM goes back or changes its role.
    """
    if dry_run:
        return Report((_destroyed(context, name, dry_run=True),), dry_run=True)
    look_around(context)  # finishes first what was interrupted
    return Report((_destroyed_alone(context, name),))


def branch_vm(name: str) -> str:
    """The VM of a branch by the branch's name, be there one or not; any other name as it is."""
    return (branch_of(name) or (name,))[0]


def _destroyed_alone(context: Context, name: str) -> VmReport:
    with hold_history(context, branch_vm(name), f"hoster vm branches destroy {name}", shared=True):
        return _destroyed(context, name, dry_run=False)


def _destroyed(context: Context, name: str, *, dry_run: bool) -> VmReport:
    tree = _tree(context, name)
    snapshots = [s for dataset in tree for s in dataset.snapshots]
    bookmarks = [b for dataset in tree for b in dataset.bookmarks]
    for snapshot in snapshots:
        if snapshot.holds or snapshot.clones:
            why = "it is held" if snapshot.holds else f"{snapshot.clones[0]} is a clone of it"
            raise Refused(
                f"{snapshot.full_name} cannot be destroyed: {why}",
                hint=f"zfs holds {snapshot.full_name}" if snapshot.holds else "hoster vm branches",
            )
    _refuse_if_needed(context, tree)
    gone = _named(tree, snapshots)
    if not dry_run:
        _destroy(context, tree, snapshots, bookmarks)
    if dry_run:
        return VmReport(name, Outcome.PLANNED, destroyed=gone)
    return VmReport(name, Outcome.DONE, f"gone for good, with {len(snapshots)} snapshots", destroyed=gone)


def expire_branches(
    context: Context, *, older_than: timedelta | None = None, dry_run: bool, say_missing: bool = True
) -> Report:
    """Destroys the branches set aside longer ago than that; what cannot go is reported and stays.

    A dataset that is missing is reported as failed, unless the caller has said so. Without an age, the one of
    the settings; UsageError where they have none.
    """
    if older_than is None:
        days = context.settings.branches.expire_after_days
        if days is None:
            raise UsageError(
                "how old a branch must be is said neither here nor in the configuration",
                hint="add --older-than DAYS, or set expire-after-days in the table [branches] of hoster.toml",
            )
        older_than = age_of(days)
    limit = datetime.now(UTC) - older_than
    view = look_here(context)
    missing = missing_from(context, view.datasets) if say_missing else ()
    due = [branch.name for branch in list_branches(context, seen=view) if branch.branched_at < limit]
    if due and not dry_run:
        look_around(context)  # finishes first what was interrupted
    reports: dict[str, VmReport] = {}
    tried: list[str] = []
    while due != tried:  # what was a clone of another one may be free now that this one is gone
        tried = due
        for name in tried:
            reports[name] = _expired(context, name, dry_run=dry_run)
        due = [name for name in tried if reports[name].outcome is Outcome.REFUSED]
    return Report((*(one.report for one in missing), *reports.values()), dry_run)


def age_of(days: int) -> timedelta:
    """So many days, and of those that no calendar has as many as are never over."""
    return timedelta(days=min(days, _NEVER_DAYS))


def _expired(context: Context, name: str, *, dry_run: bool) -> VmReport:
    try:
        return _destroyed(context, name, dry_run=True) if dry_run else _destroyed_alone(context, name)
    except Refused as error:
        return VmReport(name, Outcome.REFUSED, error.message, error.hint)
    except Busy as error:
        return VmReport(name, Outcome.BUSY, error.message, error.hint)
    except OperationFailed as error:
        return VmReport(name, Outcome.FAILED, error.message, error.hint)


def _restoration(context: Context, branch: Branch, vm: Vm, keys: Reopening) -> Course | Refusal:
    root = vm.dataset.name
    if branch.dataset.rpartition("/")[0] != root.rpartition("/")[0]:
        raise OperationFailed(f"{branch.dataset} is beside another dataset than {root}")
    beside = branches_beside(context.zfs, root)
    view = context.zfs.look_for([root, *beside])
    found = view.get(branch.dataset)
    if found is None or found.marks.role is not Role.BRANCH:
        raise OperationFailed(f"there is no branch {branch.name} any more", hint="hoster vm branches")
    if None not in (mine := {vm.dataset.marks.vm_id, found.marks.vm_id}) and len(mine) > 1:
        return _of_another_vm(vm, found)
    tree = (found, *view.below(branch.dataset))
    subject = Subject(vm.name, vm.dataset, vm.role, vm.parent, vm.descendants)
    plan = plan_restoration(subject, tree, view.datasets)
    if isinstance(plan, Refusal):
        return plan

    def act() -> VmReport:
        stamp, restored = new_stamp(context.now(), root, beside), branch.dataset.rpartition("-")[2]
        aside = restore(context.zfs, root, stamp, restored, vm.everything, plan.anchors, keys)
        return _restored(vm, branch, plan, aside.rpartition("/")[2])

    return Course(_restored(vm, branch, plan, f"{vm.name}.branch-…"), act, (*vm.everything, *tree))


def _of_another_vm(vm: Vm, branch: Dataset) -> Refusal:
    """A VM that gets another name leaves its branches behind; another one may have its former name by now."""
    stamp = branch.name.rpartition("-")[2]
    parent = branch.name.rpartition("/")[0]
    return Refusal(
        vm.name,
        Ground.OF_ANOTHER_VM,
        f"{branch.name} is a branch of another VM that had this name: its hoster:id is {branch.marks.vm_id},"
        f" that of {vm.name} is {vm.dataset.marks.vm_id}",
        f"zfs rename {branch.name} {parent}/ITS_NAME.branch-{stamp}    (what that VM is called now)",
    )


def _restored(vm: Vm, branch: Branch, plan: Restoration, aside: str) -> VmReport:
    return VmReport(
        vm.name,
        Outcome.DONE,
        f"{branch.name} is the VM again; what it was until now is kept in {aside}",
        f"hoster vm branches restore {aside}    (brings it back)",
        branch=aside,
        notes=tuple(str(outlook) for outlook in plan.outlooks),
    )


def _branch(dataset: Dataset) -> Branch | None:
    parsed = branch_of(dataset.name)
    if parsed is None or dataset.marks.role is not Role.BRANCH:
        return None
    root, stamp = parsed
    try:
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return Branch(
        name=dataset.name.rpartition("/")[2],
        dataset=dataset.name,
        vm=root.rpartition("/")[2],
        branched_at=at,
        pinned_bytes=dataset.used,
        snapshots=tuple(s.name for s in dataset.snapshots),
        parted_from=dataset.origin or "",
    )


def _tree(context: Context, name: str) -> list[Dataset]:
    wanted = [f"{parent}/{name}" for parent in context.datasets]
    view = context.zfs.look_for(wanted)
    roots = [root for path in wanted if (root := view.get(path)) is not None]
    if not roots or _branch(roots[0]) is None:
        unless = unless_in(missing_from(context, look_here(context).datasets))
        raise OperationFailed(f"there is no branch {name} on this node{unless}", hint="hoster vm branches")
    return [roots[0], *view.below(roots[0].name)]


def _refuse_if_needed(context: Context, tree: Sequence[Dataset]) -> None:
    """A branch that holds anchors for a target is all that is left for that, if the VM has none for it."""
    parsed = branch_of(tree[0].name)
    root = parsed[0] if parsed is not None else ""
    anchored = {dataset.name: _targets(dataset) for dataset in tree}
    if not any(anchored.values()):
        return
    view = context.zfs.look_for([root])
    now: Mapping[str, Dataset] = view.datasets
    for dataset in tree:
        counterpart = now.get(root + dataset.name.removeprefix(tree[0].name))
        missing = anchored[dataset.name] - (_targets(counterpart) if counterpart is not None else set())
        if missing:
            bookmark = next(b for b in dataset.bookmarks if str(anchor_target(b)) in missing)
            raise Refused(
                f"{dataset.name} is needed: it holds the last version that a target is known to share with"
                f" this VM ({bookmark.name})",
                hint=f"replicate the VM there; or, if that target is gone for good: zfs destroy"
                f" {bookmark.full_name}",
            )


def _targets(dataset: Dataset) -> set[str]:
    return {str(target) for b in dataset.bookmarks if (target := anchor_target(b)) is not None}


def _named(tree: Sequence[Dataset], snapshots: Sequence[Snapshot]) -> tuple[Destroyed, ...]:
    reason = "asked for"
    versions = [Destroyed("local", s.full_name, reason) for s in snapshots]
    return (*versions, *(Destroyed("local", d.name, reason) for d in reversed(tree)))


def _destroy(
    context: Context, tree: Sequence[Dataset], snapshots: Sequence[Snapshot], bookmarks: Sequence[Bookmark]
) -> None:
    context.zfs.destroy_bookmarks(bookmarks)
    for answer in context.zfs.destroy(snapshots):
        if not answer.done:
            raise OperationFailed(f"{answer.name} was not destroyed: {answer.explained}")
    for dataset in reversed(tree):
        context.zfs.destroy_dataset(dataset.name)
