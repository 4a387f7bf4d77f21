"""Decides what is kept here for a target that is gone for good, and which anchors are its own.

Pure: no clock, no processes. Anchors name their target by the GUID of the dataset there, which a node that is
gone tells nobody. So they are told apart by what is remembered of each target, and where that is not enough
nothing is decided: another target's anchors are never taken for those of this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from hoster.model.anchors import TargetKey, anchor_target, needed_by_targets
from hoster.model.storage import Bookmark, Dataset, Site, Snapshot


class KnownTarget(Struct, frozen=True):
    """A target of a VM: where it is, its key if its node could be asked (None: it is silent, or has no such
    dataset), and the GUID of the newest version that is remembered to be there."""

    site: Site
    key: TargetKey | None = None
    newest: int | None = None


class Undecided(Struct, frozen=True):
    """Several targets' anchors could be those; ``rivals`` are silent ones whose they could be as well."""

    candidates: tuple[TargetKey, ...]
    rivals: tuple[Site, ...]


class Forgetting(Struct, frozen=True):
    """What goes: the anchors of a target, and which snapshots nothing needs any more without them."""

    anchors: tuple[Bookmark, ...]
    freed: tuple[Snapshot, ...]


def key_to_forget(
    target: KnownTarget, others: Sequence[KnownTarget], datasets: Sequence[Dataset]
) -> TargetKey | Undecided | None:
    """Which of the keys that have anchors on ``datasets`` is the target's; None if none can be.

    >>> site = Site("b", "tank/vm/web")
    >>> key_to_forget(KnownTarget(site), [], []) is None
    True
    """
    bookmarks = [bookmark for dataset in datasets for bookmark in dataset.bookmarks]
    anchored = {key for bookmark in bookmarks if (key := anchor_target(bookmark)) is not None}
    if target.key in anchored:
        return target.key
    left = anchored - {other.key for other in others}
    fitting = _with_anchor_on(target.newest, bookmarks, left)
    candidates = fitting or left
    if not candidates:
        return None
    silent = [other for other in others if other.key is None]
    rivals = [other.site for other in silent if _may_own(other, bookmarks, candidates)]
    is_sure = bool(fitting) or target.newest is None
    if len(candidates) > 1 or rivals or not is_sure:
        return Undecided(tuple(sorted(candidates, key=str)), tuple(rivals))
    return next(iter(candidates))


def plan_forgetting(datasets: Iterable[Dataset], key: TargetKey | None) -> Forgetting:
    """The anchors of ``key`` on these datasets, and the snapshots that were kept for it alone."""
    anchors: list[Bookmark] = []
    freed: list[Snapshot] = []
    for dataset in datasets:
        own = tuple(b for b in dataset.bookmarks if key is not None and anchor_target(b) == key)
        rest = replace(dataset, bookmarks=tuple(b for b in dataset.bookmarks if b not in own))
        no_longer = needed_by_targets(dataset) - needed_by_targets(rest)
        anchors += own
        freed += (snapshot for snapshot in dataset.snapshots if snapshot.guid in no_longer)
    return Forgetting(tuple(anchors), tuple(freed))


def _with_anchor_on(
    guid: int | None, bookmarks: Iterable[Bookmark], keys: Iterable[TargetKey]
) -> set[TargetKey]:
    found = {anchor_target(bookmark) for bookmark in bookmarks if bookmark.guid == guid}
    return {key for key in keys if key in found}


def _may_own(other: KnownTarget, bookmarks: Sequence[Bookmark], keys: Iterable[TargetKey]) -> bool:
    """Whether one of ``keys`` could be that silent target's, as far as is remembered of it."""
    return other.newest is None or bool(_with_anchor_on(other.newest, bookmarks, keys))
