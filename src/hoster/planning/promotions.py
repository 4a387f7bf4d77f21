"""How a branch becomes the one that holds the versions it shares with the VM, however often they parted.

Pure. ``zfs promote`` gives a clone the versions of its origin up to the one they have in common, with their
bookmarks. The kernel panics where one of these has the name of a bookmark that the clone has already (seen on
OpenZFS 2.3.9: VERIFY0 in ``dsl_bookmark_node_add()``), so no step that could lead there is ever planned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct

from hoster.model.storage import Bookmark, Dataset, Snapshot


class Promote(Struct, frozen=True):
    """Make the clone ``name`` the one that holds the versions it shares with its origin."""

    name: str


class KeepBookmark(Struct, frozen=True):
    """Make a bookmark of the same version under a name that nothing else has."""

    bookmark: Bookmark
    name: str

    @property
    def full_name(self) -> str:
        return f"{self.bookmark.dataset}#{self.name}"


class DropBookmark(Struct, frozen=True):
    """Destroy a bookmark of which there is another: of the same version, in the same dataset before long."""

    bookmark: Bookmark


class Hop(Struct, frozen=True):
    """One promotion: from ``owner`` a clone gets all up to ``origin``."""

    owner: Dataset
    origin: Snapshot

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The snapshots that move."""
        return tuple(s for s in self.owner.snapshots if s.createtxg <= self.origin.createtxg)

    @property
    def bookmarks(self) -> tuple[Bookmark, ...]:
        """The bookmarks that move."""
        return tuple(b for b in self.owner.bookmarks if b.createtxg <= self.origin.createtxg)


def hops(dataset: Dataset, suffix: str, seen: Mapping[str, Dataset], roots: Collection[str]) -> Iterator[Hop]:
    """The promotions by which ``dataset`` gets everything that it has in common with the same dataset of the
    VM and its branches, the ``roots``; ``suffix`` is what its name has after that of its own root.

    What the VM itself is a clone of, a template for instance, stays what it is.
    """
    origin = dataset.origin
    while origin is not None:
        name, _, short = origin.partition("@")
        owner = seen.get(name)
        if owner is None or not any(name == root + suffix for root in roots):
            return
        shared = next((s for s in owner.snapshots if s.name == short), None)
        if shared is None:
            return
        yield Hop(owner, shared)
        origin = owner.origin


def promotions(
    dataset: Dataset, suffix: str, seen: Mapping[str, Dataset], roots: Collection[str]
) -> tuple[KeepBookmark | DropBookmark | Promote, ...]:
    """The steps of :func:`hops`, with what has to be done about bookmarks before each.

    Of two bookmarks of one name, that of the clone gives way: it is dropped if it is of the very same
    version, and gets another name otherwise::

        web a#x | branch b, cloned from a, with #x of b  ->  bookmark #x as #x.2, drop #x, promote
    """
    steps: list[KeepBookmark | DropBookmark | Promote] = []
    own = {bookmark.name: bookmark for bookmark in dataset.bookmarks}
    for hop in hops(dataset, suffix, seen, roots):
        coming = {bookmark.name: bookmark for bookmark in hop.bookmarks}
        for name in sorted(own.keys() & coming.keys()):
            mine = Bookmark(dataset.name, name, own[name].guid, own[name].createtxg)
            if mine.guid != coming[name].guid:
                free = _free_name(mine, own, coming)
                if free not in own:
                    steps.append(KeepBookmark(mine, free))
                own[free] = Bookmark(dataset.name, free, mine.guid, mine.createtxg)
            steps.append(DropBookmark(mine))
        own |= coming
        steps.append(Promote(dataset.name))
    return tuple(steps)


def _free_name(bookmark: Bookmark, own: Mapping[str, Bookmark], coming: Collection[str]) -> str:
    """The first name that is free, or that the same version has been given already (before a crash)."""
    number = 2
    while True:
        name = f"{bookmark.name}.{number}"
        if name not in coming and (name not in own or own[name].guid == bookmark.guid):
            return name
        number += 1
