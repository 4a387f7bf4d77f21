"""A node with ZFS's rules in memory.

The rules are those of OpenZFS that replication depends on: identity by GUID, a createtxg per pool, held and
cloned snapshots that cannot be destroyed, bookmarks that carry GUID and createtxg, a full stream that needs
absence, an increment that needs its base's GUID to be the newest on the target or followed only by
snapshots that changed nothing, ``-I`` that needs a snapshot, and a receive without ``-s`` that keeps whole
snapshots only. Data is one number for each write, so that two versions with one GUID can be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from hoster.model.storage import Bookmark, Dataset, DatasetKind, Epoch, Marks, Role, Snapshot
from hoster.testing import guid_of, listing
from hoster.zfs.parse import parse_intent, parse_sites
from hoster.zfs.programs import TOLD, digits

MISSING = "cannot open '{}': dataset does not exist"


@dataclass(slots=True)
class Held:
    """A snapshot as a node holds it. ``total`` is all that was ever written up to it, in bytes."""

    name: str
    guid: int
    createtxg: int
    content: int
    total: int
    holds: int = 0
    clones: tuple[str, ...] = ()
    sent_by: str | None = None
    tags: set[str] = field(default_factory=set)

    @property
    def userrefs(self) -> int:
        """Holds in all: those of others, and hoster's own by their tags."""
        return self.holds + len(self.tags)


@dataclass(slots=True)
class Volume:
    """A dataset as a node holds it, with its live data."""

    name: str
    guid: int
    content: int = 0
    total: int = 0
    marks: dict[str, str] = field(default_factory=dict)
    snapshots: list[Held] = field(default_factory=list)
    bookmarks: dict[str, tuple[int, int]] = field(default_factory=dict)

    def find(self, name: str) -> Held | None:
        return next((s for s in self.snapshots if s.name == name), None)

    @property
    def guids(self) -> set[int]:
        return {s.guid for s in self.snapshots}


@dataclass(frozen=True, slots=True)
class Stream:
    """What ``zfs send`` makes: versions to be received one after the other, from ``base`` (None: in full)."""

    base: int | None
    versions: tuple[Held, ...]


Watcher = Callable[["SimulatedNode", Volume, Held], None]
"""Told of every attempt to destroy a snapshot, before ZFS's own rules are asked."""


@dataclass(slots=True)
class SimulatedNode:
    """One pool and its datasets. ``shuffle`` orders listings as it likes, as ZFS may."""

    name: str
    shuffle: Random
    txg: int = 0
    volumes: dict[str, Volume] = field(default_factory=dict)
    watch: Watcher = lambda node, volume, victim: None
    destroyed: list[str] = field(default_factory=list)
    writes: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    guids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def create(self, name: str, marks: dict[str, str] | None = None) -> Volume:
        volume = Volume(name, guid_of(f"{self.name} {name}"), marks=dict(marks or {}))
        self.volumes[name] = volume
        return volume

    def write(self, name: str, size: int) -> None:
        volume = self.volumes[name]
        volume.content = next(self.writes)
        volume.total += size

    def snapshot(self, full_names: Sequence[str]) -> str:
        """All or none; the text of the error, or nothing."""
        for full_name in full_names:
            name, _, short = full_name.partition("@")
            if name not in self.volumes:
                return MISSING.format(name)
            if self.volumes[name].find(short) is not None:
                return f"cannot create snapshot '{full_name}': dataset already exists"
        self.txg += 1
        for full_name in full_names:
            name, _, short = full_name.partition("@")
            volume = self.volumes[name]
            guid = guid_of(f"version {self.name} {next(self.guids)}")
            volume.snapshots.append(Held(short, guid, self.txg, volume.content, volume.total))
        return ""

    def destroy(self, full_name: str, guid: str) -> str:
        volume, held, _ = self._find(full_name)
        if held is None or digits(held.guid) != guid:
            return "gone" if held is None else "changed"
        if any(name.startswith("hoster-") and name.endswith(f"-{guid}") for name in volume.bookmarks):
            return "anchored"
        self.watch(self, volume, held)
        if held.userrefs or held.clones:
            return "error 16" if held.userrefs else "error 17"
        volume.snapshots.remove(held)
        self.destroyed.append(full_name)
        return "done"

    def hold(self, tag: str, full_names: Sequence[str]) -> str:
        """All or none; the text of the error, or nothing."""
        found = [self._find(name)[1] for name in full_names]
        for name, held in zip(full_names, found, strict=True):
            if held is None:
                return f"cannot hold snapshot '{name}': dataset does not exist"
            if tag in held.tags:
                return f"cannot hold snapshot '{name}': tag already exists on this dataset"
        for held in found:
            assert held is not None
            held.tags.add(tag)
        return ""

    def release(self, tag: str, full_names: Sequence[str]) -> str:
        """All that are there; the text of the error, or nothing."""
        for name in full_names:
            held = self._find(name)[1]
            if held is None:
                return f"cannot release hold from snapshot '{name}': dataset does not exist"
            if tag not in held.tags:
                return f"cannot release hold from snapshot '{name}': no such tag on this dataset"
            held.tags.remove(tag)
        return ""

    def holds(self, full_names: Sequence[str]) -> str:
        """The tags, as ``zfs holds -H`` prints them."""
        rows = [(name, tag) for name in full_names if (held := self._find(name)[1]) for tag in held.tags]
        return "".join(f"{name}\t{tag}\tMon Jan  1 00:00 2024\n" for name, tag in rows)

    def destroy_bookmark(self, full_name: str) -> str:
        volume, _, bookmark = self._find(full_name)
        assert "#" in full_name, full_name
        if bookmark is None:
            return f"bookmark '{full_name}' does not exist."
        del volume.bookmarks[full_name.partition("#")[2]]
        return ""

    def anchor(self, full_name: str, guid: str, key: str) -> str:
        volume, held, _ = self._find(full_name)
        if held is None:
            return "gone"
        if guid not in {"-", digits(held.guid)}:
            return "changed"
        volume.bookmarks.setdefault(f"hoster-{key}-{held.guid:016x}", (held.guid, held.createtxg))
        return f"done {digits(held.guid)} {held.createtxg}"

    def mark(self, full_name: str, guid: str, key: str, value: str) -> str:
        _, held, _ = self._find(full_name)
        if held is None or digits(held.guid) != guid:
            return "gone" if held is None else "changed"
        assert key == "hoster:from", key
        held.sent_by = value
        return "done"

    def told(self, name: str, guid: str, role: str, epoch: str, *values: str) -> str:
        volume = self.volumes.get(name)
        if volume is None or digits(volume.guid) != guid:
            return "gone" if volume is None else "changed"
        if (volume.marks.get("hoster:role", "-"), volume.marks.get("hoster:epoch", "-")) != (role, epoch):
            return "promoted"
        volume.marks.update({key: value for key, value in zip(TOLD, values, strict=True) if value != "-"})
        return "done"

    def send(self, base: str | None, through: str, intermediate: bool) -> Stream | str:
        volume, newest, _ = self._find(through)
        if newest is None:
            return MISSING.format(through)
        if base is None:
            return Stream(None, (newest,))
        _, held, bookmark = self._find(base)
        if held is None and (bookmark is None or intermediate):
            return f"cannot send '{through}': incremental source ({base}) does not exist"
        start = held.createtxg if held is not None else (bookmark or (0, 0))[1]
        guid = held.guid if held is not None else (bookmark or (0, 0))[0]
        if start >= newest.createtxg:
            return f"cannot send '{through}': not an earlier snapshot from the same fs"
        between = [s for s in volume.snapshots if start < s.createtxg < newest.createtxg]
        return Stream(guid, (*(between if intermediate else ()), newest))

    def receive(self, target: str, stream: Stream, marks: dict[str, str], at_most: int) -> str:
        """Takes in whole versions, no more than ``at_most``; the text of the error, or nothing."""
        for index, version in enumerate(stream.versions):
            if index >= at_most:
                return "cannot receive: failed to read from stream"
            base = stream.base if index == 0 else stream.versions[index - 1].guid
            error = self._receive_one(target, base, version, marks)
            if error:
                return error
        return ""

    def seen(self, name: str) -> Dataset:
        """The dataset as a look would see it."""
        volume = self.volumes[name]
        snapshots: list[Snapshot] = []
        total = 0
        for s in volume.snapshots:
            snapshots.append(
                Snapshot(
                    name,
                    s.name,
                    s.guid,
                    s.createtxg,
                    written=s.total - total,
                    holds=s.userrefs,
                    clones=s.clones,
                    sent_by=s.sent_by,
                )
            )
            total = s.total
        return Dataset(
            name,
            DatasetKind.FILESYSTEM,
            volume.guid,
            written=volume.total - total,
            marks=_marks(volume.marks),
            snapshots=tuple(snapshots),
            bookmarks=tuple(Bookmark(name, short, *ids) for short, ids in volume.bookmarks.items()),
        )

    def listed(self, names: Sequence[str], *, deep: bool) -> tuple[str, str]:
        """What a look prints, and what it complains of."""
        said = [MISSING.format(name) for name in names if name not in self.volumes]
        wanted = [
            name
            for name in self.volumes
            if name in names or (deep and any(name.startswith(f"{root}/") for root in names))
        ]
        lines = listing(*(self.seen(name) for name in wanted)).splitlines()
        if not deep:
            lines = [line for line in lines if "@" not in line.split("\t")[0] and "#" not in line]
        rows = [list(row) for _, row in itertools.groupby(lines, key=lambda line: line.split("\t")[0])]
        self.shuffle.shuffle(rows)
        return "".join(f"{line}\n" for row in rows for line in row), "\n".join(said)

    def _receive_one(self, target: str, base: int | None, version: Held, marks: dict[str, str]) -> str:
        volume = self.volumes.get(target)
        self.txg += 1
        if base is None:
            if volume is not None:
                return f"cannot receive new filesystem stream: destination '{target}' exists"
            if target.rpartition("/")[0] not in self.volumes:
                return f"cannot receive new filesystem stream: {MISSING.format(target)}"
            volume = self.create(target, marks)
        elif volume is None:
            return f"cannot receive incremental stream: destination '{target}' does not exist"
        elif version.guid in volume.guids:
            return ""
        elif not volume.snapshots or base not in volume.guids:
            return f"cannot receive incremental stream: most recent snapshot of {target} does not match"
        else:
            own = next(s for s in volume.snapshots if s.guid == base)
            if volume.total != own.total or volume.content != own.content:
                return f"cannot receive incremental stream: destination {target} has been modified"
        if volume.find(version.name) is not None:
            return f"cannot restore to {target}@{version.name}: destination already exists"
        volume.content, volume.total = version.content, version.total
        volume.snapshots.append(Held(version.name, version.guid, self.txg, version.content, version.total))
        return ""

    def _find(self, full_name: str) -> tuple[Volume, Held | None, tuple[int, int] | None]:
        name = full_name.partition("@")[0].partition("#")[0]
        volume = self.volumes.get(name) or Volume(name, 0)
        if "#" in full_name:
            return volume, None, volume.bookmarks.get(full_name.partition("#")[2])
        return volume, volume.find(full_name.partition("@")[2]), None


def _marks(local: dict[str, str]) -> Marks:
    role, epoch = local.get("hoster:role"), local.get("hoster:epoch", "")
    return Marks(
        local.get("hoster:id"),
        Role(role) if role else None,
        Epoch(int(epoch.partition("@")[0]), epoch.partition("@")[2]) if epoch else None,
        local.get("hoster:parent"),
        local.get("hoster:production") == "yes",
        swap=parse_intent(local.get("hoster:swap", "")),
        demoted=local.get("hoster:demoted") == "yes",
        sites=parse_sites(local.get("hoster:sites", "")),
    )
