"""The branches of VMs: what was set aside when one went back; listed, or given up by name or by age."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from hoster.errors import OperationFailed, Refused
from hoster.model.plan import Destroyed, Outcome, Report, VmReport
from hoster.model.storage import Bookmark, Dataset, Role, Snapshot
from hoster.operations.context import Context
from hoster.planning.swap import branch_of


class Branch(Struct, frozen=True):
    """One branch. ``pinned_bytes`` is what its end would free; ``parted_from`` what it is a clone of."""

    name: str
    dataset: str
    vm: str
    branched_at: datetime
    pinned_bytes: int
    snapshots: tuple[str, ...]
    parted_from: str


def list_branches(context: Context, vm: str | None = None) -> tuple[Branch, ...]:
    """The branches on this node, of one VM or of all, oldest first."""
    view = context.zfs.look(context.datasets)
    beside = [dataset for parent in context.datasets for dataset in view.children(parent)]
    found = [branch for dataset in beside if (branch := _branch(dataset)) and (vm is None or branch.vm == vm)]
    return tuple(sorted(found, key=lambda branch: (branch.branched_at, branch.name)))


def destroy_branch(context: Context, name: str, *, dry_run: bool) -> Report:
    """Destroys one branch: each of its snapshots and datasets by its name, and nothing else.

    Refused where a snapshot of it is held or has a clone.
    """
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
    gone = _named(tree, snapshots)
    if not dry_run:
        _destroy(context, tree, snapshots, bookmarks)
    outcome = Outcome.PLANNED if dry_run else Outcome.DONE
    return Report((VmReport(name, outcome, destroyed=gone),), dry_run)


def expire_branches(context: Context, *, older_than: timedelta, dry_run: bool) -> Report:
    """Destroys the branches set aside longer ago than that; what cannot go is reported and stays."""
    limit = datetime.now(UTC) - older_than
    reports: list[VmReport] = []
    for branch in list_branches(context):
        if branch.branched_at >= limit:
            continue
        try:
            reports += destroy_branch(context, branch.name, dry_run=dry_run).vms
        except Refused as error:
            reports.append(VmReport(branch.name, Outcome.REFUSED, error.message, error.hint))
        except OperationFailed as error:
            reports.append(VmReport(branch.name, Outcome.FAILED, error.message, error.hint))
    return Report(tuple(reports), dry_run)


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
        raise OperationFailed(f"there is no branch {name} on this node", hint="hoster vm branches")
    return [roots[0], *view.below(roots[0].name)]


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
