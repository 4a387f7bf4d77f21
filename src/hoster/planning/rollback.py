"""Decides how a VM goes back to one of its versions, or to a branch, and what becomes of all that is newer.

Pure. By default nothing is destroyed: what is newer becomes a branch. Where it is to be destroyed, all that
dies is in the plan, and nothing that is held, cloned or needed by a target ever is. A VM is all of its
datasets: one that cannot go back stops the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from hoster.model.anchors import TargetKey, anchor_target, anchors_of, needed_by_targets
from hoster.model.names import MAX_DATASET_NAME, shown
from hoster.model.plan import Anchor, DestroySnapshot, Ground, Refusal
from hoster.model.storage import Bookmark, Dataset, Role, Snapshot
from hoster.planning.promotions import Hop, hops
from hoster.planning.refusals import Subject
from hoster.planning.retention import needed_by_copies
from hoster.planning.swap import branch_name, branch_of, parting_anchors

Wanted = tuple[tuple[Dataset, Snapshot], ...]

_STAMP = "20240131T235959Z"
"""As long as any."""


class Outlook(Struct, frozen=True):
    """What the next replication to a target will do: go on from ``base``, and before it, where ``parts``, set
    aside there what is newer than that."""

    target: TargetKey
    base: str
    parts: bool

    def __str__(self) -> str:
        if not self.parts:
            return f"the next replication to the target {self.target} goes on from {self.base}"
        return (
            f"the target {self.target} has newer versions than {self.base}: the next replication sets them"
            " aside there as a branch, and goes on from the newest version that both have"
        )


class Rollback(Struct, frozen=True):
    """A VM can go back: each of its datasets to its own of the ``wanted`` versions, the VM's own first.

    ``left`` are the datasets that have no such version and take no part. ``destroys`` and ``bookmarks`` are
    what dies first, oldest first; they are empty unless that was asked for.
    """

    version: str
    wanted: Wanted
    left: tuple[str, ...] = ()
    destroys: tuple[DestroySnapshot, ...] = ()
    bookmarks: tuple[Bookmark, ...] = ()
    outlooks: tuple[Outlook, ...] = ()

    @property
    def is_there(self) -> bool:
        """The VM is at that version: nothing newer, nothing written since."""
        at = all(d.newest is not None and d.newest.guid == v.guid and d.written == 0 for d, v in self.wanted)
        return at and not self.left

    @property
    def is_one_moment(self) -> bool:
        """The versions were taken together. Where not, the VM's disks are of different moments."""
        return len({version.createtxg for _, version in self.wanted}) == 1


class Restoration(Struct, frozen=True):
    """A branch can become the VM again. ``anchors`` keep the bases of targets; ``parted`` is the version of
    the VM's own dataset from which the branch parted (empty: they share none)."""

    parted: str
    anchors: tuple[Anchor, ...] = ()
    outlooks: tuple[Outlook, ...] = ()


def left_out(subject: Subject, disks: Collection[str]) -> frozenset[str]:
    """The datasets that ``disks`` name, by their full names or by what comes after the VM's, with all below
    them; ValueError for a word that names none."""
    root = subject.dataset.name
    found: set[str] = set()
    for disk in disks:
        name = disk if disk.startswith(f"{root}/") else f"{root}/{disk}"
        below = {d.name for d in subject.descendants if d.name == name or d.name.startswith(f"{name}/")}
        if not below:
            raise ValueError(f"{subject.name} has no dataset {shown(name)} below its own")
        found |= below
    return frozenset(found)


def plan_rollback(
    subject: Subject, version: str, *, without: frozenset[str] = frozenset(), destroy_newer: bool = False
) -> Rollback | Refusal:
    """How ``subject`` goes back to the version of that short name; ``without`` are datasets to leave out.

    The name is resolved on each dataset by itself, to the one snapshot there that has it. With histories
    written oldest first, ``@`` an anchor::

        a b c       back to b                 ->  a b, and c becomes a branch
        a b c       back to b, destroy newer  ->  c dies
        a b c@      back to b, destroy newer  ->  refused: a target needs c
    """
    refusal = _not_ours(subject, f"hoster snapshot rollback {subject.name} {version}")
    refusal = refusal or _partly_received(subject, subject.everything)
    if refusal is not None:
        return refusal
    wanted: list[tuple[Dataset, Snapshot]] = []
    for dataset in subject.everything:
        if dataset.name in without:
            continue
        found = next((s for s in dataset.snapshots if s.name == version), None)
        if found is None:
            return _version_missing(subject, dataset, version)
        wanted.append((dataset, found))
    left = tuple(d.name for d in subject.everything if d.name in without)
    outlooks = tuple(_outlooks(wanted))
    if not destroy_newer:
        refusal = _name_is_too_long(subject, subject.everything)
        return refusal or Rollback(version, tuple(wanted), left, outlooks=outlooks)
    destroys: list[DestroySnapshot] = []
    bookmarks: list[Bookmark] = []
    for dataset, found in wanted:
        refusal = _needed(subject, dataset, found)
        if refusal is not None:
            return refusal
        reason = f"newer than {version}"
        destroys += [DestroySnapshot(s, reason) for s in dataset.snapshots if s.createtxg > found.createtxg]
        bookmarks += [b for b in dataset.bookmarks if b.createtxg > found.createtxg]
    return Rollback(version, tuple(wanted), left, tuple(destroys), tuple(bookmarks), outlooks)


def plan_restoration(
    subject: Subject, branch: Sequence[Dataset], family: Mapping[str, Dataset]
) -> Restoration | Refusal:
    """How ``branch``, its own dataset first, becomes ``subject`` again. ``family`` are the datasets of the VM
    and of all of its branches, by name."""
    root, coming = subject.dataset.name, branch[0].name
    refusal = _not_ours(subject, f"hoster vm branches {subject.name}")
    refusal = refusal or _partly_received(subject, (*subject.everything, *branch))
    refusal = refusal or _name_is_too_long(subject, subject.everything)
    if refusal is not None:
        return refusal
    names = [root, *(name for name in family if (of := branch_of(name)) is not None and of[0] == root)]
    anchors: list[Anchor] = []
    parted: list[tuple[Dataset, Snapshot]] = []
    common = ""
    for dataset in branch:
        suffix = dataset.name.removeprefix(coming)
        shared = list(hops(dataset, suffix, family, names))
        refusal = _name_taken(subject, dataset, shared)
        if refusal is not None:
            return refusal
        now = family.get(root + suffix)
        if now is None:
            continue
        for hop in (*shared, *hops(now, suffix, family, names)):
            if hop.owner.name in {now.name, dataset.name}:
                anchors += _anchors_at(now, hop)
                parted.append((now, hop.origin))
                common = hop.origin.name if suffix == "" else common
    return Restoration(common, tuple(anchors), tuple(_outlooks(parted)))


def _anchors_at(now: Dataset, hop: Hop) -> tuple[Anchor, ...]:
    """The anchors for what the VM is now, on the dataset that has the shared versions."""
    history = now if hop.owner.name == now.name else _joined(now, hop)
    return parting_anchors(history, hop.origin)


def _joined(now: Dataset, hop: Hop) -> Dataset:
    """The owner of the shared versions with the bookmarks of ``now``, which are all newer than those."""
    newer = tuple(b for b in now.bookmarks if b.createtxg > hop.origin.createtxg)
    return replace(hop.owner, snapshots=hop.snapshots, bookmarks=(*hop.bookmarks, *newer))


def _outlooks(wanted: Sequence[tuple[Dataset, Snapshot]]) -> Iterator[Outlook]:
    """One for each target that the VM has anchors for, as its datasets tell, the VM's own first."""
    keys = [anchor_target(bookmark) for dataset, _ in wanted for bookmark in dataset.bookmarks]
    for key in dict.fromkeys(key for key in keys if key is not None):
        anchored = [(anchors_of(d, key)[-1], d, v) for d, v in wanted if anchors_of(d, key)]
        newest, dataset, version = anchored[0]
        parts = any(anchor.createtxg > of.createtxg for anchor, _, of in anchored)
        base = dataset.snapshot_with(newest.guid)
        name = version.name if parts else newest.name if base is None else base.name
        yield Outlook(key, name, parts)


def _not_ours(subject: Subject, command: str) -> Refusal | None:
    if subject.role is Role.PRIMARY:
        return None
    return Refusal(
        subject.name,
        Ground.IS_REPLICA,
        f"here it is a {subject.role.value}: its state is decided where it is the primary, on"
        f" {subject.parent or 'its parent'}",
        f"on {subject.parent or 'its parent'}: {command}",
    )


def _partly_received(subject: Subject, datasets: Sequence[Dataset]) -> Refusal | None:
    part = next((dataset for dataset in datasets if dataset.partial is not None), None)
    if part is None:
        return None
    return Refusal(
        subject.name,
        Ground.PARTLY_RECEIVED,
        f"{part.name} holds a part of a stream that broke off, which would go along with it",
        f"zfs receive -A {part.name}    (gives up that part; no snapshot is harmed)",
    )


def _version_missing(subject: Subject, dataset: Dataset, version: str) -> Refusal:
    if dataset.name == subject.dataset.name:
        remedy = f"hoster snapshot list {subject.name}"
    else:
        disk = dataset.name.removeprefix(f"{subject.dataset.name}/")
        remedy = f"add --without {disk}    (it then takes no part)"
    return Refusal(subject.name, Ground.VERSION_MISSING, f"{dataset.name} has no snapshot {version}", remedy)


def _name_is_too_long(subject: Subject, datasets: Sequence[Dataset]) -> Refusal | None:
    added = len(branch_name("", _STAMP))
    for dataset in datasets:
        snapshots = [snapshot.full_name for snapshot in dataset.snapshots]
        bookmarks = [bookmark.full_name for bookmark in dataset.bookmarks]
        longest = max([dataset.name, *snapshots, *bookmarks], key=len)
        if len(longest) + added > MAX_DATASET_NAME:
            return Refusal(
                subject.name,
                Ground.NAME_TOO_LONG,
                f"as a branch, {longest} would have a name of {len(longest) + added} characters,"
                f" and ZFS allows {MAX_DATASET_NAME}",
                "give it a shorter name with zfs rename",
            )
    return None


def _name_taken(subject: Subject, dataset: Dataset, shared: Sequence[Hop]) -> Refusal | None:
    """A promotion fails where both have a snapshot of one name (zfs-promote(8))."""
    own = {snapshot.name: snapshot for snapshot in dataset.snapshots}
    for hop in shared:
        for coming in hop.snapshots:
            if coming.name in own:
                theirs = f"{dataset.name}@{coming.name}"
                return Refusal(
                    subject.name,
                    Ground.NAME_TAKEN,
                    f"{theirs} and {coming.full_name} are two versions, and would both be in one dataset",
                    f"zfs rename {theirs} {theirs}.{own[coming.name].guid:016x}    (it is kept)",
                )
        own |= {snapshot.name: snapshot for snapshot in hop.snapshots}
    return None


def _needed(subject: Subject, dataset: Dataset, version: Snapshot) -> Refusal | None:
    """What keeps something newer than ``version`` from being destroyed, if anything."""
    instead = "leave out --destroy-newer    (what is newer is then kept as a branch)"
    came = needed_by_copies(dataset, len(subject.dataset.marks.sites))
    needed = needed_by_targets(dataset) | {version.guid for version in came[-1:]}
    for snapshot in dataset.snapshots:
        if snapshot.createtxg <= version.createtxg:
            continue
        if snapshot.holds:
            evidence = f"{snapshot.full_name}, which would be destroyed, is held"
            return Refusal(
                subject.name, Ground.HELD, evidence, f"zfs holds {snapshot.full_name}, or {instead}"
            )
        if snapshot.clones:
            evidence = f"{snapshot.clones[0]} is a clone of {snapshot.full_name}, which would be destroyed"
            return Refusal(subject.name, Ground.CLONED, evidence, instead)
        if snapshot.guid in needed:
            evidence = f"a target's next increment starts from {snapshot.full_name}, which would be destroyed"
            return Refusal(subject.name, Ground.NEEDED_BY_TARGET, evidence, instead)
    anchors = [
        b for b in dataset.bookmarks if b.createtxg > version.createtxg and anchor_target(b) is not None
    ]
    if anchors:
        evidence = f"a target's next increment starts from {anchors[0].full_name}, which would be destroyed"
        return Refusal(subject.name, Ground.NEEDED_BY_TARGET, evidence, instead)
    return None
