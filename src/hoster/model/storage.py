"""What ZFS holds, as it was seen: datasets with their snapshots, bookmarks and hoster's marks.

Pure values, never live objects. A version (snapshot or bookmark) is identified by its GUID; its
createtxg gives its order within one pool and means nothing across pools.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from enum import StrEnum

import msgspec
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


class Mode(StrEnum):
    """How a dataset's streams are made; what a replica was begun with it is continued with, for good.

    Mixing them under one lineage breaks it: a plain stream gives a version another set of initialisation
    vectors under the same GUID, and no raw increment goes on from there (zfs-receive(8)). The value is that
    of the local user property ``hoster:mode`` of a replica.
    """

    PLAIN = "plain"
    """Blocks as compressed on disk, large ones kept (``-L -c``); the target may encrypt them by itself."""

    RAW = "raw"
    """Blocks as encrypted on disk (``-w``): the target never has the key."""


class Epoch(Struct, frozen=True, order=True):
    """Counts promotions of a VM; equal numbers made by different nodes are a split."""

    number: int
    node: str

    def __str__(self) -> str:
        return f"{self.number}@{self.node}"


class Intent(Struct, frozen=True):
    """What is to become of a dataset in a swap (:mod:`hoster.planning.swap`), written on it beforehand.

    ``guid`` is the version that the VM goes back to; ``stamp`` the UTC time from which the branch is named;
    ``root`` the name of the VM's own dataset; ``canmount`` the local value of that property, or ``-``;
    ``mounted`` whether it was mounted. ``in_place``: nothing newer is left, and the dataset itself is rolled
    back. ``restores`` is the stamp of the branch that becomes the VM again (empty: none does); there is no
    version to go back to then, and ``guid`` is 0.
    """

    stamp: str
    guid: int
    canmount: str
    root: str
    mounted: bool = False
    in_place: bool = False
    restores: str = ""

    def __str__(self) -> str:
        version = f"in-place:{self.guid:016x}" if self.in_place else f"{self.guid:016x}"
        what = f"branch:{self.restores}" if self.restores else version
        mount = f"{self.canmount},mounted" if self.mounted else self.canmount
        return f"{self.stamp}/{what}/{mount}/{self.root}"


class Site(Struct, frozen=True):
    """A copy of a VM elsewhere: the endpoint as its source calls it, and the name of the dataset there.

    ``key`` is the path of the ssh key on the node that knows this site, or empty.
    """

    endpoint: str
    dataset: str
    port: int | None = None
    key: str = ""


class Marks(Struct, frozen=True):
    """hoster's local user properties of one dataset; inherited and received values never get here.

    ``vm_id`` is the VM's identity, the same on every replica; ``parent`` names the node whose VM this
    is; ``production`` is what a node that cannot read the VM's configuration goes by; ``mode`` is how a
    replica is sent.
    """

    vm_id: str | None = None
    role: Role | None = None
    epoch: Epoch | None = None
    parent: str | None = None
    production: bool | None = None
    mode: Mode | None = None
    key_digest: str | None = None
    """What stood for the wrapping key in the stream that a raw replica was last continued with."""
    swap: Intent | None = None
    demoted: bool = False
    """This replica was a primary before, and its administrator has given it up: what it wrote alone may be
    set aside."""
    sites: tuple[Site, ...] = ()
    """Where the VM's replicas are, as far as this copy was told."""


class ResumeToken(Struct, frozen=True):
    """What a partly received stream says of itself: ``text`` is what ``zfs send -t`` takes.

    ``to_guid`` and ``to_name`` are of the snapshot that was on its way, ``from_guid`` of the version it
    continues from (None: from nothing). All are None or empty where the text could not be understood.
    """

    text: str
    to_guid: int | None = None
    from_guid: int | None = None
    to_name: str = ""
    raw: bool = False
    received_bytes: int = 0


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
    origin: str | None = None
    """The snapshot that this is a clone of, or None."""
    readonly: bool = False
    partial: ResumeToken | None = None
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
    """What one look at a node saw: evidence, not the present. ``names`` are those of the datasets, sorted."""

    node: str
    datasets: Mapping[str, Dataset]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.datasets):
            msgspec.structs.force_setattr(self, "names", tuple(sorted(self.datasets)))

    def get(self, name: str) -> Dataset | None:
        """The dataset of exactly that name, or None if the look did not find it."""
        return self.datasets.get(name)

    def children(self, parent: str) -> Iterator[Dataset]:
        """The datasets directly below ``parent``, in name order (letter case set aside)."""
        start = len(parent) + 1
        names = [dataset.name for dataset in self.below(parent) if "/" not in dataset.name[start:]]
        for name in sorted(names, key=lambda n: (n.lower(), n)):
            yield self.datasets[name]

    def below(self, ancestor: str) -> Iterator[Dataset]:
        """Every dataset below ``ancestor`` at any depth, itself left out, in name order."""
        after = chr(ord("/") + 1)
        first = bisect_left(self.names, f"{ancestor}/")
        for name in self.names[first : bisect_left(self.names, f"{ancestor}{after}")]:
            yield self.datasets[name]
