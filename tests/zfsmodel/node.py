"""A node with pools in memory, and what zfs's verbs do to it, in the order in which OpenZFS 2.3.9 checks.

Every verb either does its work or raises :class:`~tests.zfsmodel.state.Failed` with zfs's words. What ends
snapshots or live data tells the watchers first.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.zfsmodel.properties import check_value, mount_of, size_of, value_of
from tests.zfsmodel.state import (
    EMPTY_BYTES,
    Bookmark,
    Content,
    Dataset,
    Failed,
    Kind,
    Snapshot,
    parent_of,
    split,
    written_over,
)

MISSING = "cannot open '{}': dataset does not exist"

Watcher = Callable[["ModelNode", str, Snapshot | None, str], None]
"""Told of the node, the full name, the snapshot (None: live data) and the verb that ends it."""


@dataclass(slots=True)
class ModelNode:
    """Pools and their datasets, by name. Nothing else may write to ``datasets`` than the verbs.

    A pool in ``full`` takes no more data. ``clock`` is the time in seconds that creation and holds bear.
    ``openzfs`` is the release whose words and statuses these are: 2.1, 2.3 and 2.4 are known.
    """

    name: str
    pools: Sequence[str] = ("tank",)
    txg: dict[str, int] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    full: set[str] = field(default_factory=set)
    watchers: list[Watcher] = field(default_factory=list)
    clock: int = 1_704_067_200
    openzfs: tuple[int, int] = (2, 3)
    _stamps: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        for pool in self.pools:
            self.txg.setdefault(pool, 1)
            self.datasets[pool] = self.new_dataset(pool, Kind.FILESYSTEM)
            self.datasets[pool].mounted = True

    def dataset(self, name: str) -> Dataset:
        """The dataset of that name; Failed if there is none."""
        if name not in self.datasets:
            raise Failed(MISSING.format(name))
        return self.datasets[name]

    def snapshot_named(self, full_name: str) -> tuple[Dataset, Snapshot]:
        name, _, short = split(full_name)
        dataset = self.datasets.get(name)
        found = dataset.find(short) if dataset is not None else None
        if dataset is None or found is None:
            raise Failed(MISSING.format(full_name))
        return dataset, found

    def below(self, name: str) -> list[Dataset]:
        """All datasets that lie in ``name``, itself not counted."""
        return [one for one in self.datasets.values() if one.name.startswith(f"{name}/")]

    def owner(self, snapshot: Snapshot) -> Dataset:
        """The dataset that has this snapshot by now: promotion moves them."""
        return next(one for one in self.datasets.values() if snapshot in one.snapshots)

    def clones_of(self, snapshot: Snapshot) -> list[str]:
        """Names of the clones; a receive under way counts as one (``…/%recv``)."""
        owner = self.owner(snapshot)
        clones = [one.name for one in self.datasets.values() if one.origin is snapshot]
        partial = owner.partial
        if partial is not None and not owner.inconsistent and partial.from_guid == snapshot.guid:
            clones.append(f"{owner.name}/%recv")
        return clones

    def next_txg(self, name: str) -> int:
        pool = name.partition("/")[0]
        self.txg[pool] += 1
        return self.txg[pool]

    def stamp(self, what: str) -> int:
        """A number of 64 bits that no other node or call gives."""
        text = f"{self.name} {what} {next(self._stamps)}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") | 1

    def new_dataset(self, name: str, kind: Kind) -> Dataset:
        """A dataset with nothing in it, not yet in the pool."""
        guid = self.stamp(name)
        content = written_over(None, f"{guid}", EMPTY_BYTES)
        return Dataset(name, kind, guid, self.txg[name.partition("/")[0]], content)

    def check_new(self, name: str) -> Dataset:
        """The parent that ``name`` may be made in; Failed if it may not."""
        pool = name.partition("/")[0]
        if pool not in self.pools:
            raise Failed(f"cannot create '{name}': no such pool '{pool}'")
        if name in self.datasets:
            raise Failed(f"cannot create '{name}': dataset already exists")
        parent = self.datasets.get(parent_of(name))
        if parent is None:
            raise Failed(f"cannot create '{name}': parent does not exist")
        if parent.kind is Kind.VOLUME:
            raise Failed(f"cannot create '{name}': parent is not a filesystem")
        return parent

    def create(
        self, name: str, properties: Mapping[str, str], kind: Kind = Kind.FILESYSTEM, *, parents: bool = False
    ) -> None:
        """``zfs create``, with ``-p`` if ``parents``. ``encryption`` among the properties makes a root."""
        if parents and name in self.datasets:
            return
        if parents and parent_of(name) and parent_of(name) not in self.datasets:
            self.create(parent_of(name), {}, parents=True)
        parent = self.check_new(name)
        settings = dict(properties)
        encryption = settings.pop("encryption", "")
        for key in ("keyformat", "keylocation"):
            settings.pop(key, None)
        for key, value in settings.items():
            check_value(key, value, kind, f"cannot create '{name}'")
        if parent.encrypted and not encryption and not parent.key_available:
            raise Failed(f"cannot create '{name}': encryption root's key is not loaded or provided")
        self.next_txg(name)
        dataset = self.new_dataset(name, kind)
        dataset.properties = settings
        dataset.key_root = parent.key_root if encryption != "off" else None
        if encryption not in {"", "off"}:
            dataset.key_root, dataset.key_loaded = dataset, True
            dataset.wrapping = self.stamp(f"key of {name}")
        dataset.master = self.stamp(f"master key of {name}") if dataset.encrypted else 0
        self.datasets[name] = dataset
        self.mount(dataset)

    def mount(self, dataset: Dataset) -> bool:
        """Mounts what mounts by itself; whether it is as it should be."""
        if not mount_of(self.datasets, dataset) or dataset.inconsistent:
            return True
        dataset.mounted = dataset.key_available
        return dataset.mounted

    def write(self, name: str, amount: int) -> None:
        """New data in a dataset, over all that is in it; known to ``written`` at once."""
        dataset = self.dataset(name)
        usable = dataset.mounted or dataset.kind is Kind.VOLUME
        if (
            not usable
            or not dataset.key_available
            or value_of(self.datasets, dataset, "readonly").text == "on"
        ):
            raise Failed(f"cannot write to '{name}'")
        self.next_txg(name)
        dataset.content = written_over(dataset.content, f"{self.stamp(name)}", EMPTY_BYTES + amount)
        dataset.written += amount

    def used(self, name: str) -> int:
        """Bytes of a dataset with its snapshots and all below it."""
        own = self.datasets[name]
        return (
            own.written
            + sum(snapshot.written for snapshot in own.snapshots)
            + sum(self.used(one.name) for one in self.below(name) if parent_of(one.name) == name)
        )

    def lacks_room(self, name: str, amount: int) -> str:
        """Why ``amount`` more bytes do not fit into ``name``, in zfs's words; empty if they do."""
        if name.partition("/")[0] in self.full:
            return "out of space"
        above = name
        while above:
            quota = (
                size_of(self.datasets[above].properties.get("quota", "0")) if above in self.datasets else 0
            )
            if quota and self.used(above) + amount > quota:
                return f"destination {name} space quota exceeded."
            above = parent_of(above)
        return ""

    def snapshot(
        self, full_names: Sequence[str], properties: Mapping[str, str], *, recursive: bool = False
    ) -> None:
        """All or none, all in one transaction group; ``recursive`` changes no more than the words."""
        for full_name in full_names:
            if split(full_name)[0] not in self.datasets:
                raise Failed(MISSING.format(split(full_name)[0]), 2)
        self._check_snapshots(
            full_names, "\nno snapshots were created" if recursive or full_names[1:] else ""
        )
        for pool in {full_name.partition("/")[0].partition("@")[0] for full_name in full_names}:
            self.next_txg(pool)
        for full_name in full_names:
            self.add_snapshot(full_name, self.stamp(full_name), properties)

    def add_snapshot(self, full_name: str, guid: int, properties: Mapping[str, str]) -> Snapshot:
        """Puts a snapshot of the live data where it belongs, without any check."""
        name, _, short = split(full_name)
        dataset = self.datasets[name]
        ivset = self.stamp("ivset") if dataset.encrypted else 0
        txg = self.txg[name.partition("/")[0]]
        made = Snapshot(short, guid, txg, dataset.content, dataset.written, ivset)
        made.properties.update(properties)
        dataset.snapshots.append(made)
        dataset.written = 0
        return made

    def bookmark(self, source: str, target: str) -> None:
        """``zfs bookmark``, of a snapshot or of another bookmark of the same dataset."""
        name, sign, short = split(source)
        holder = self.datasets.get(name)
        origin: Snapshot | Bookmark | None = None
        if holder is not None:
            origin = holder.find(short) if sign == "@" else holder.bookmarks.get(short)
        if origin is None:
            raise Failed(MISSING.format(source), 2)
        where, _, label = split(target)
        if where != name:
            raise Failed(
                f"cannot create bookmark '{target}': source is not an ancestor of the new bookmark's dataset"
            )
        assert holder is not None
        if label in holder.bookmarks:
            raise Failed(f"cannot create bookmark '{target}': bookmark exists")
        self.next_txg(name)
        holder.bookmarks[label] = Bookmark(label, origin.guid, origin.createtxg, origin.ivset)

    def hold(self, tag: str, full_names: Sequence[str]) -> None:
        """Each by itself: one that fails does not keep the others from being held."""
        said = []
        for full_name in full_names:
            found = self._snapshot_or_none(full_name)
            if found is None:
                said.append(f"cannot hold snapshot '{full_name}': dataset does not exist")
            elif tag in found.holds:
                said.append(f"cannot hold snapshot '{full_name}': tag already exists on this dataset")
            else:
                found.holds[tag] = self.clock
        if said:
            raise Failed("\n".join(said))

    def release(self, tag: str, full_names: Sequence[str]) -> None:
        """Each by itself, as with :meth:`hold`."""
        said = []
        for full_name in full_names:
            found = self._snapshot_or_none(full_name)
            if found is None:
                said.append(f"cannot release hold from snapshot '{full_name}': dataset does not exist")
            elif tag not in found.holds:
                said.append(f"cannot release hold from snapshot '{full_name}': no such tag on this dataset")
            else:
                del found.holds[tag]
        if said:
            raise Failed("\n".join(said))

    def tell(self, full_name: str, snapshot: Snapshot | None, verb: str) -> None:
        for watcher in self.watchers:
            watcher(self, full_name, snapshot, verb)

    def drop(self, dataset: Dataset, snapshot: Snapshot, verb: str) -> None:
        """Ends a snapshot, without any check; what was written in it counts for the next one."""
        self.tell(f"{dataset.name}@{snapshot.name}", snapshot, verb)
        later = dataset.since(snapshot)
        if later:
            later[0].written += snapshot.written
        else:
            dataset.written += snapshot.written
        dataset.snapshots.remove(snapshot)

    def set_content(self, dataset: Dataset, content: Content, verb: str) -> None:
        """Puts other data in place of the live data, which are lost unless a snapshot has them."""
        if dataset.written:
            self.tell(dataset.name, None, verb)
        dataset.content, dataset.written = content, 0

    def power_cut(self) -> None:
        """The node goes off and comes back: keys are gone, nothing is busy, all that mounts is mounted."""
        for dataset in self.datasets.values():
            dataset.busy = dataset.key_loaded = dataset.mounted = False
        for dataset in self.datasets.values():
            self.mount(dataset)

    def _check_snapshots(self, full_names: Sequence[str], none: str) -> None:
        names = [split(full_name)[0] for full_name in full_names]
        if len(set(names)) < len(names):
            raise Failed(f"cannot create snapshots : multiple snapshots of same fs not allowed{none}")
        said = []
        for full_name in full_names:
            name, _, short = split(full_name)
            dataset = self.datasets[name]
            if dataset.inconsistent:
                said.append(f"cannot create snapshot '{full_name}': dataset is busy")
            elif dataset.find(short) is not None:
                said.append(f"cannot create snapshot '{full_name}': dataset already exists")
            elif name.partition("/")[0] in self.full:
                said.append(f"cannot create snapshot '{full_name}': out of space")
        if said:
            raise Failed("\n".join(said) + none)

    def _snapshot_or_none(self, full_name: str) -> Snapshot | None:
        name, _, short = split(full_name)
        dataset = self.datasets.get(name)
        return dataset.find(short) if dataset is not None else None
