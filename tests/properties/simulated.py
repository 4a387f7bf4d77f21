"""A few nodes with ZFS's rules in memory, behind the commands that hoster runs.

The rules are those of OpenZFS that replication depends on: identity by GUID, a createtxg per pool, held and
cloned snapshots that cannot be destroyed, bookmarks that carry GUID and createtxg, a full stream that needs
absence, an increment that needs its base's GUID to be the newest on the target or followed only by
snapshots that changed nothing, ``-I`` that needs a snapshot, and a receive without ``-s`` that keeps whole
snapshots only. Data is one number for each write, so that two versions with one GUID can be compared.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from hoster.host.process import Completed, Meter, Piped
from hoster.model.storage import Bookmark, Dataset, DatasetKind, Epoch, Marks, Role, Snapshot
from hoster.testing import guid_of, listing
from hoster.zfs.programs import ANCHOR, DESTROY, MARK, digits

LINK_LOST = "mux_client_request_session: read from master failed: Broken pipe"
MISSING = "cannot open '{}': dataset does not exist"


class Killed(BaseException):
    """hoster was killed here: nothing in it may catch this."""


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
        if held.holds or held.clones:
            return "error 16" if held.holds else "error 17"
        volume.snapshots.remove(held)
        self.destroyed.append(full_name)
        return "done"

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
                    holds=s.holds,
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


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at the command numbered ``at``, counted from 0 in one run of hoster.

    ``before`` and ``after`` kill hoster there; ``link`` lets every command to another node fail from there
    on; ``stream`` cuts the next stream after ``arrives`` versions, and ``stream-killed`` hoster with it;
    ``meanwhile`` lets something else on the source happen first.
    """

    kind: str
    at: int
    arrives: int = 0


@dataclass(slots=True)
class Cluster:
    """The nodes, and a :class:`hoster.host.process.Runner` for hoster on the one called ``local``."""

    nodes: dict[str, SimulatedNode]
    fault: Fault | None = None
    meanwhile: Callable[[], object] = lambda: None
    count: int = 0
    commands: list[tuple[str, ...]] = field(default_factory=list)

    def begin(self, fault: Fault | None = None) -> None:
        """A new run of hoster begins; its commands are counted from 0."""
        self.fault, self.count = fault, 0

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        del timeout_s
        node, command = self._route(tuple(argv))
        self.commands.append(tuple(argv))
        self._pass("before")
        if self._link_lost(node):
            return Completed(tuple(argv), 255, "", LINK_LOST)
        code, out, err = self._carry_out(node, command, stdin)
        self._pass("after")
        self.count += 1
        return Completed(tuple(argv), code, out, err)

    def pipe(self, producer: Sequence[str], consumer: Sequence[str], meter: Meter) -> Piped:
        source, send = self._route(tuple(producer))
        target, receive = self._route(tuple(consumer))
        self._pass("before")
        stream = source.send(*_send_words(send))
        cut = self.fault if self.fault and self.fault.kind.startswith("stream") else None
        lost = self._link_lost(target)
        at_most = 0 if lost else cut.arrives if cut and cut.at <= self.count else 10**6
        said = "failed to read from stream"
        if isinstance(stream, Stream):
            meter(100 * len(stream.versions))
            name, marks = _receive_words(receive)
            said = target.receive(name, stream, marks, at_most)
        if cut is not None and cut.at <= self.count and said:
            self.fault = None
            if cut.kind == "stream-killed":
                raise Killed
        self._pass("after")
        self.count += 1
        failed = isinstance(stream, str)
        return Piped(
            Completed(tuple(producer), int(failed), "", stream if isinstance(stream, str) else ""),
            Completed(tuple(consumer), 255 if lost else int(bool(said)), "", LINK_LOST if lost else said),
            100,
        )

    def _pass(self, moment: str) -> None:
        if self.fault is None or self.fault.at != self.count:
            return
        if self.fault.kind == moment:
            self.fault = None
            raise Killed
        if self.fault.kind == "meanwhile" and moment == "before":
            count, self.fault = self.count, None
            self.meanwhile()
            self.count = count

    def _link_lost(self, node: SimulatedNode) -> bool:
        fault = self.fault
        return fault is not None and fault.kind == "link" and node.name != "local" and fault.at <= self.count

    def _route(self, argv: tuple[str, ...]) -> tuple[SimulatedNode, tuple[str, ...]]:
        return (self.nodes[argv[1]], argv[2:]) if argv[0] == "on" else (self.nodes["local"], argv)

    def _carry_out(self, node: SimulatedNode, command: tuple[str, ...], stdin: str) -> tuple[int, str, str]:
        match command:
            case ("zpool", "sync", *_):
                return 0, "", ""
            case ("zfs", "get", "-Hp", *rest):
                names = list(rest[rest.index("-o") + 3 :])
                out, said = node.listed(names, deep="-r" in rest)
                return int(bool(said)), out, said
            case ("zfs", "snapshot", *names):
                error = node.snapshot([name for name in names if "@" in name])
                return int(bool(error)), "", error
            case ("zfs", "destroy", bookmark):
                error = node.destroy_bookmark(bookmark)
                return int(bool(error)), "", error
            case ("zfs", "program", "-j", _, "-", *arguments):
                node.txg += 1
                return 0, json.dumps({"return": dict(_answers(node, stdin, arguments))}), ""
            case _:
                raise AssertionError(f"the simulation does not know this command: {command}")


def _answers(node: SimulatedNode, lua: str, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    programs: dict[str, tuple[Callable[..., str], int]] = {
        DESTROY: (node.destroy, 2),
        ANCHOR: (node.anchor, 3),
        MARK: (node.mark, 4),
    }
    act, size = programs[lua]
    for start in range(0, len(words), size):
        yield words[start], act(*words[start : start + size])


def _send_words(command: tuple[str, ...]) -> tuple[str | None, str, bool]:
    match command:
        case ("zfs", "send", "-L", "-c", through):
            return None, through, False
        case ("zfs", "send", "-L", "-c", ("-i" | "-I") as flag, base, through):
            return base, through, flag == "-I"
        case _:
            raise AssertionError(f"the simulation does not know this stream: {command}")


def _receive_words(command: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    assert command[:3] == ("zfs", "receive", "-u"), command
    assert "-F" not in command
    settings = [command[i + 1] for i, word in enumerate(command) if word == "-o"]
    pairs = (setting.partition("=") for setting in settings)
    return command[-1], {key: value for key, _, value in pairs if key.startswith("hoster:")}


def _marks(local: dict[str, str]) -> Marks:
    role, epoch = local.get("hoster:role"), local.get("hoster:epoch", "")
    return Marks(
        local.get("hoster:id"),
        Role(role) if role else None,
        Epoch(int(epoch.partition("@")[0]), epoch.partition("@")[2]) if epoch else None,
        local.get("hoster:parent"),
        local.get("hoster:production") == "yes",
    )
