"""What a model node holds: datasets, snapshots, bookmarks, partial receives. Values and lookups, no rules.

Sizes are bytes. Content is opaque: one link for each write, so that two states can be compared and a later
state shows which earlier ones it was written over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

EMPTY_BYTES = 24576
"""What a dataset holds that nothing was ever written to."""


class Kind(Enum):
    """What a dataset is, in zfs's own words."""

    FILESYSTEM = "filesystem"
    VOLUME = "volume"


class Failed(Exception):
    """A command was refused, or done in part: what it prints on standard error, and its status."""

    def __init__(self, said: str, status: int = 1) -> None:
        super().__init__(said)
        self.said = said
        self.status = status


class KernelPanicked(Exception):
    """What was asked for stops a real kernel: the pool answers nothing until the node is restarted."""


@dataclass(frozen=True, slots=True)
class Content:
    """One state of a dataset's data. ``before`` is the state it was written over, None for the first."""

    digest: str
    referenced: int
    before: Content | None = field(default=None, repr=False, compare=False)

    def lineage(self) -> Iterator[str]:
        """The digests of this state and of all that it was written over."""
        state: Content | None = self
        while state is not None:
            yield state.digest
            state = state.before


@dataclass(slots=True, eq=False)
class Snapshot:
    """A snapshot. ``holds`` maps tags to times; ``ivset`` is 0 unless it is encrypted."""

    name: str
    guid: int
    createtxg: int
    content: Content
    written: int
    ivset: int = 0
    holds: dict[str, int] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What is left of a snapshot when it is gone, and may stand beside it before."""

    name: str
    guid: int
    createtxg: int
    ivset: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """What a resume token says. ``to_name`` is the sender's full name of the snapshot."""

    to_name: str
    to_guid: int
    from_guid: int
    received_bytes: int
    raw: bool = False


@dataclass(slots=True, eq=False)
class Dataset:
    """A filesystem or volume. ``properties`` are the local values, ``received`` those from a stream.

    ``key_root`` is the dataset whose key encrypts this one (None: not encrypted); ``key_loaded`` and
    ``wrapping``, a number for that key, count on the root only. ``master`` is a number for the key that
    encrypts the data, which clones share and raw streams bring along. ``partial`` is what ``zfs receive -s``
    has left, and ``partial_after`` the GUID of the newest snapshot that there was then (0: none); where
    ``inconsistent`` is true too, the dataset is nothing but that.
    """

    name: str
    kind: Kind
    guid: int
    createtxg: int
    content: Content
    written: int = EMPTY_BYTES
    snapshots: list[Snapshot] = field(default_factory=list)
    bookmarks: dict[str, Bookmark] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    received: dict[str, str] = field(default_factory=dict)
    origin: Snapshot | None = None
    mounted: bool = False
    busy: bool = False
    key_root: Dataset | None = None
    key_loaded: bool = False
    wrapping: int = 0
    master: int = 0
    partial: Token | None = None
    partial_after: int = 0
    inconsistent: bool = False

    @property
    def encrypted(self) -> bool:
        return self.key_root is not None

    @property
    def key_available(self) -> bool:
        """True where no key is needed, too."""
        return self.key_root is None or self.key_root.key_loaded

    @property
    def newest(self) -> Snapshot | None:
        return self.snapshots[-1] if self.snapshots else None

    def find(self, name: str) -> Snapshot | None:
        return next((snapshot for snapshot in self.snapshots if snapshot.name == name), None)

    def by_guid(self, guid: int) -> Snapshot | None:
        return next((snapshot for snapshot in self.snapshots if snapshot.guid == guid), None)

    def since(self, snapshot: Snapshot) -> list[Snapshot]:
        """The snapshots after this one of its own, oldest first."""
        return self.snapshots[self.snapshots.index(snapshot) + 1 :]


def written_over(before: Content | None, stamp: str, referenced: int) -> Content:
    """The state that a write makes; ``stamp`` tells it from every other write."""
    base = before.digest if before is not None else ""
    return Content(hashlib.sha256(f"{base} {stamp}".encode()).hexdigest()[:16], referenced, before)


def split(full_name: str) -> tuple[str, str, str]:
    """Dataset, sign (``@``, ``#`` or nothing) and short name."""
    for sign in "@#":
        dataset, found, short = full_name.partition(sign)
        if found:
            return dataset, sign, short
    return full_name, "", ""


def parent_of(name: str) -> str:
    """The dataset that one lies in; empty for a pool."""
    return name.rpartition("/")[0]


def is_below(name: str, root: str) -> bool:
    """Whether ``name`` is ``root`` or lies in it, however deep."""
    return name == root or name.startswith(f"{root}/")
