"""Anchors: the bookmarks by which a source remembers what each target holds.

Pure. For every target a VM's dataset carries bookmarks named ``hoster-<target key>-<guid>``: one on the
newest version known to be on that target, and, while a transfer is under way or was cut, one on the
version being sent. Being bookmarks they survive a crash at any moment, cost nothing, and carry the GUID
of their snapshot, so they need no other record. Whatever lies between the oldest and the newest anchor
of a target, both included, is needed by that target and is never pruned.
"""

from __future__ import annotations

import re

from msgspec import Struct

from hoster.model.storage import Bookmark, Dataset, Version

_NAME = re.compile(r"hoster-([0-9a-f]{16})-([0-9a-f]{16})")


class TargetKey(Struct, frozen=True):
    """Identity of a target: the GUID of the dataset that its replicas lie in, whatever its address."""

    guid: int

    def __str__(self) -> str:
        return f"{self.guid:016x}"


def anchor_name(target: TargetKey, guid: int) -> str:
    """The bookmark name (after ``#``) that anchors the version of that GUID for ``target``."""
    return f"hoster-{target}-{guid:016x}"


def anchor_target(bookmark: Bookmark) -> TargetKey | None:
    """Whose anchor this bookmark is, or None if it is not one (or its name contradicts its GUID)."""
    match = _NAME.fullmatch(bookmark.name)
    if match is None or int(match[2], 16) != bookmark.guid:
        return None
    return TargetKey(int(match[1], 16))


def anchors_of(dataset: Dataset, target: TargetKey) -> tuple[Bookmark, ...]:
    """The anchors for ``target``, oldest first."""
    return tuple(b for b in dataset.bookmarks if anchor_target(b) == target)


def needed_by_targets(dataset: Dataset) -> frozenset[int]:
    """GUIDs of the snapshots that some target needs: from its oldest anchor to its newest, both included.

    Where somebody has destroyed the snapshot of the oldest anchor, the newest one before it is needed as
    well: it is the last that both ends still share, and going back home would start from it.
    """
    spans: dict[TargetKey, list[int]] = {}
    for bookmark in dataset.bookmarks:
        target = anchor_target(bookmark)
        if target is not None:
            spans.setdefault(target, []).append(bookmark.createtxg)
    needed: set[int] = set()
    for span in spans.values():
        oldest, newest = min(span), max(span)
        upto = [s for s in dataset.snapshots if s.createtxg <= newest]
        start = max((s.createtxg for s in upto if s.createtxg <= oldest), default=oldest)
        needed.update(s.guid for s in upto if s.createtxg >= start)
    return frozenset(needed)


def superseded_anchors(dataset: Dataset, target: TargetKey, arrived: Version | None) -> tuple[Bookmark, ...]:
    """Anchors for ``target`` that are no longer needed once ``arrived`` is known to be its newest version
    (None: it has nothing of this dataset)."""
    return tuple(b for b in anchors_of(dataset, target) if arrived is None or b.guid != arrived.guid)
