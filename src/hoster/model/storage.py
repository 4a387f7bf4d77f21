"""What ZFS holds, as it was seen: datasets with their snapshots, bookmarks and hoster's marks.

Pure values, never live objects. A version (snapshot or bookmark) is identified by its GUID; its
createtxg gives its order within one pool and means nothing across pools.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

from msgspec import Struct, field


class DatasetKind(StrEnum):
    """What ``zfs get type`` says of a dataset that can hold data."""

    FILESYSTEM = "filesystem"
    VOLUME = "volume"


class Role(StrEnum):
    """What a copy of a VM is for; kept in the local user property ``hoster:role``."""

    PRIMARY = "primary"
    REPLICA = "replica"
    SUPERSEDED = "superseded"
    BRANCH = "branch"


class Epoch(Struct, frozen=True, order=True):
    """Counts promotions of a VM; equal numbers made by different nodes are a split."""

    number: int
    node: str

    def __str__(self) -> str:
        return f"{self.number}@{self.node}"


class Marks(Struct, frozen=True):
    """hoster's local user properties of one dataset; inherited and received values never get here.

    ``vm_id`` is the VM's identity, the same on every replica; ``parent`` names the node whose VM this
    is; ``production`` is what a node that cannot read the VM's configuration goes by.
    """

    vm_id: str | None = None
    role: Role | None = None
    epoch: Epoch | None = None
    parent: str | None = None
    production: bool | None = None


class Snapshot(Struct, frozen=True):
    """One snapshot. Sizes in bytes; ``creation`` in Unix seconds by the clock of whoever took it."""

    dataset: str
    name: str
    guid: int
    createtxg: int
    creation: int = 0
    used: int = 0
    written: int = 0
    holds: int = 0
    clones: tuple[str, ...] = ()
    sent_by: str | None = None
    """``hoster:from``: ``<vm id>/<epoch number>`` of the source that sent it; None where hoster did not."""
    description: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.dataset}@{self.name}"


class Bookmark(Struct, frozen=True):
    """One bookmark; it carries its snapshot's GUID and createtxg, and outlives it."""

    dataset: str
    name: str
    guid: int
    createtxg: int

    @property
    def full_name(self) -> str:
        return f"{self.dataset}#{self.name}"


Version = Snapshot | Bookmark


class Dataset(Struct, frozen=True):
    """One filesystem or volume. ``snapshots`` and ``bookmarks`` are ordered oldest first, by createtxg.

    ``written`` is what changed since the newest snapshot, in bytes, as of the last transaction group.
    ``mountpoint`` is None where there is none to mount (volumes, ``none``, ``legacy``).
    """

    name: str
    kind: DatasetKind
    guid: int
    createtxg: int = 0
    used: int = 0
    written: int = 0
    encrypted: bool = False
    key_loaded: bool = True
    mounted: bool = False
    mountpoint: str | None = None
    readonly: bool = False
    resume_token: str | None = None
    marks: Marks = field(default_factory=Marks)
    snapshots: tuple[Snapshot, ...] = ()
    bookmarks: tuple[Bookmark, ...] = ()

    @property
    def pool(self) -> str:
        return self.name.partition("/")[0]

    @property
    def newest(self) -> Snapshot | None:
        """The snapshot with the highest createtxg, or None."""
        return self.snapshots[-1] if self.snapshots else None

    def snapshot_with(self, guid: int) -> Snapshot | None:
        """The snapshot of that GUID, or None."""
        return next((s for s in self.snapshots if s.guid == guid), None)


class View(Struct, frozen=True):
    """What one look at a node saw: evidence, not the present."""

    node: str
    datasets: Mapping[str, Dataset]

    def get(self, name: str) -> Dataset | None:
        """The dataset of exactly that name, or None if the look did not find it."""
        return self.datasets.get(name)

    def children(self, parent: str) -> Iterator[Dataset]:
        """The datasets directly below ``parent``, in name order (letter case set aside)."""
        prefix = parent + "/"
        names = [n for n in self.datasets if n.startswith(prefix) and "/" not in n[len(prefix) :]]
        for name in sorted(names, key=lambda n: (n.lower(), n)):
            yield self.datasets[name]

    def below(self, ancestor: str) -> Iterator[Dataset]:
        """Every dataset below ``ancestor`` at any depth, itself left out, in name order."""
        prefix = ancestor + "/"
        for name in sorted(n for n in self.datasets if n.startswith(prefix)):
            yield self.datasets[name]
