"""Random traces of commands, made so that both what ZFS allows and what it refuses comes up often.

A trace is made by running it in a model: it depends on the seed alone. ``tank`` holds what is sent,
``backup`` what is received; both lie on one node, so that a real one can run the same trace in one script.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from tests.zfsmodel.command import Said, command, received, sent
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.state import Dataset, Failed, KernelPanicked, Kind
from tests.zfsmodel.streams import cut_after, text_of

POOLS = ("tank", "backup")
CUT_BYTES = 100_000
"""Where streams are cut: beyond one in which nothing was written, before the end of any other."""

WRITE_BYTES = 300_000
KEY = "file:///tmp/key"
"""Where the one key of all that is encrypted lies on a real node: 32 bytes."""

_TOKEN = "TOKEN:"
"""Before a dataset's name it stands for the token that the dataset has when the step is done."""

_SOURCES = ("tank/a", "tank/a/k", "tank/b", "tank/v", "tank/c", "tank/d")
_TARGETS = ("backup/a", "backup/b", "backup/a/k", "backup/v")
_SEALED_SOURCES = ("tank/e", "tank/e/k", "tank/b", "tank/c", "tank/e/c", "tank/p")
_SEALED_TARGETS = ("backup/a", "backup/a/k", "backup/s/a", "backup/s/b")
_SEALED = (
    *("-o", "encryption=on", "-o", "keyformat=raw"),
    *("-o", f"keylocation={KEY}"),
)
_SHORT = ("s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8")
_KEYS = ("hoster:id", "hoster:role", "readonly")

Argv = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """A command, or a ``zfs send`` with the ``zfs receive`` that takes its stream, cut after so many bytes.

    ``write NAME BYTES`` stands for new random data in a mounted filesystem.
    """

    words: Argv
    through: Argv = ()
    cut_bytes: int = 0

    def shell(self) -> str:
        """The step as a line for bash."""
        line = " ".join(_shell_word(word) for word in self.words)
        if self.through:
            cut = f" | head -c {self.cut_bytes}" if self.cut_bytes else ""
            line = f"{line}{cut} | {shlex.join(self.through)}"
        return line


def perform(node: ModelNode, step: Step) -> Said:
    """Does the step in a model; of a pipe, the status is the receiver's."""
    if not step.through:
        return command(node, step.words)
    words = [_token_of(node, word) if word.startswith(_TOKEN) else word for word in step.words]
    try:
        stream = sent(node, words)
    except Failed as error:
        code, out, err = received(node, step.through, None)
        return code, out, f"{error.said}\n{err}"
    cut = cut_after(stream, step.cut_bytes) if step.cut_bytes else None
    return received(node, step.through, stream, cut)


def start(*, sealed: bool = False) -> list[Step]:
    """What every trace begins with; with ``sealed`` there is something encrypted on both sides."""
    options: Sequence[Argv] = (("tank/a",), ("tank/a/k",), ("tank/b",), ("-V", "1M", "tank/v"))
    first = "tank/a"
    if sealed:
        options = ((*_SEALED, "tank/e"), ("tank/e/k",), ("tank/b",), (*_SEALED, "backup/s"))
        first = "tank/e"
    made = [Step(("zfs", "create", *words)) for words in options]
    return [*made, Step(("write", first, str(WRITE_BYTES))), Step(("zfs", "snapshot", "-r", f"{first}@s1"))]


def trace(seed: int, length: int, *, sealed: bool = False) -> list[Step]:
    """The first steps that every trace has, then ``length`` random ones; with ``sealed`` most of what is
    sent is encrypted, and keys come and go.

    What would stop a real kernel is left out.
    """
    begun = start(sealed=sealed)
    maker = (_SealedMaker if sealed else _Maker)(Random(seed))
    for step in begun:
        perform(maker.node, step)
    return [*begun, *(maker.next() for _ in range(length))]


@dataclass(slots=True)
class _Maker:
    random: Random
    node: ModelNode = field(default_factory=lambda: ModelNode("trace", POOLS))
    sources: tuple[str, ...] = _SOURCES
    targets: tuple[str, ...] = _TARGETS

    def next(self) -> Step:
        while True:
            step = self.kind()()
            try:
                perform(self.node, step)
            except KernelPanicked:
                continue
            return step

    def kind(self) -> Callable[[], Step]:
        """What makes the next step."""
        return partial(self.random.choices(_KINDS, _WEIGHTS)[0], self)

    def write(self) -> Step:
        return Step(("write", self.some(filesystem=True), str(self.random.choice([1, 2]) * WRITE_BYTES)))

    def snapshot(self) -> Step:
        name, short = self.some(), self.random.choice(_SHORT)
        if self.random.random() < 0.3:
            other = self.some()
            both = [f"{one}@{short}" for one in dict.fromkeys([name, other])]
            same_pool = len({one.partition("/")[0] for one in both}) == 1
            return Step(("zfs", "snapshot", *(both if same_pool else both[:1])))
        options = ("-o", "hoster:note=yes") if self.random.random() < 0.3 else ()
        deep = ("-r",) if self.random.random() < 0.2 else ()
        return Step(("zfs", "snapshot", *deep, *options, f"{name}@{short}"))

    def bookmark(self) -> Step:
        name, _, short = self.version().partition("@")
        return Step(("zfs", "bookmark", f"{name}@{short}", f"{name}#{self.random.choice(['m', 'n', short])}"))

    def hold(self) -> Step:
        return Step(("zfs", "hold", self.random.choice(["x", "y"]), self.version(), self.version()))

    def release(self) -> Step:
        return Step(("zfs", "release", self.random.choice(["x", "y"]), self.version()))

    def clone(self) -> Step:
        origin = self.version()
        pool = origin.partition("/")[0]
        target = self.random.choice(["tank/c", "tank/d"] if pool == "tank" else ["backup/c", "backup/b"])
        return Step(("zfs", "clone", "-o", "hoster:role=branch", origin, target))

    def promote(self) -> Step:
        clones = [one.name for one in self.node.datasets.values() if one.origin is not None]
        return Step(("zfs", "promote", self.random.choice(clones or [self.some()])))

    def rename(self) -> Step:
        old = self.some()
        return Step(
            ("zfs", "rename", old, self.random.choice(self.sources if old[0] == "t" else self.targets))
        )

    def destroy(self) -> Step:
        marks = [f"{one.name}#{mark}" for one in self.node.datasets.values() for mark in one.bookmarks]
        choices = [self.version(), self.version(), self.random.choice(marks or ["tank/a#none"])]
        choices += [self.some()] if self.random.random() < 0.2 else []
        return Step(("zfs", "destroy", self.random.choice(choices)))

    def rollback(self) -> Step:
        return Step(("zfs", "rollback", self.newest_of(self.some())))

    def set(self) -> Step:
        key = self.random.choice(_KEYS)
        value = self.random.choice(["on", "off"] if key == "readonly" else ["1", "2"])
        return Step(("zfs", "set", f"{key}={value}", self.some()))

    def inherit(self) -> Step:
        return Step(("zfs", "inherit", self.random.choice(_KEYS), self.some()))

    def create(self) -> Step:
        return Step(("zfs", "create", self.random.choice([*self.sources, "backup/a", "tank/none/e"])))

    def abort(self) -> Step:
        partial = [one.name for one in self.node.datasets.values() if one.partial is not None]
        return Step(("zfs", "receive", "-A", self.random.choice(partial or [self.some()])))

    def full(self) -> Step:
        absent = [name for name in self.targets if name not in self.node.datasets]
        target = self.random.choice(absent if absent and self.random.random() < 0.8 else self.targets)
        version = self.version("tank")
        return self.sent_to(("zfs", "send", *self.mode(version), version), target)

    def increment(self) -> Step:
        source, target, base = self.pair()
        if not base:
            return self.full()
        newest = self.newest_of(source.name)
        flag = self.random.choice(["-I", "-I", "-i"])
        return self.sent_to(("zfs", "send", *self.mode(newest), flag, base, newest), target)

    def resume(self) -> Step:
        partial = [one for one in self.node.datasets.values() if one.partial is not None]
        if not partial:
            return self.increment()
        target = self.random.choice(partial)
        return self.sent_to(("zfs", "send", "-t", f"{_TOKEN}{target.name}"), target.name)

    def sent_to(self, send: Argv, target: str) -> Step:
        options: Argv = ("-u", "-o", f"hoster:parent={self.random.choice('pq')}")
        options += ("-s",) if self.random.random() < 0.5 else ()
        options += ("-F",) if self.random.random() < 0.1 else ()
        cut = CUT_BYTES if self.random.random() < 0.35 else 0
        return Step(send, ("zfs", "receive", *options, target), cut)

    def mode(self, version: str) -> Argv:
        """The flags of the stream of a version."""
        return ("-L", "-c")

    def some(self, *, filesystem: bool = False) -> str:
        found = [
            name
            for name, one in self.node.datasets.items()
            if "/" in name and not (filesystem and one.kind is Kind.VOLUME)
        ]
        if self.random.random() < 0.7:
            found = [name for name in found if name.startswith("tank/")]
        missing = self.random.random() < 0.07 or not found
        return self.random.choice(self.sources + self.targets if missing else found)

    def version(self, pool: str = "") -> str:
        return self.random.choice(list(self._versions(pool)) or ["tank/a@none"])

    def newest_of(self, name: str) -> str:
        dataset = self.node.datasets.get(name)
        if dataset is None or not dataset.snapshots:
            return f"{name}@none"
        return f"{name}@{self.random.choice([*dataset.snapshots[-2:], dataset.snapshots[-1]]).name}"

    def pair(self) -> tuple[Dataset, str, str]:
        """A source, a target, and the version of the source to start from: common where there is such."""
        pairs = []
        for source in self.node.datasets.values():
            versions = [(f"{source.name}@{one.name}", one.guid) for one in source.snapshots[:-1]]
            versions += [(f"{source.name}#{one.name}", one.guid) for one in source.bookmarks.values()]
            for target in self.node.datasets.values():
                newest = target.newest
                if target.name.startswith("backup/") and newest is not None and source is not target:
                    common = [name for name, guid in versions if guid == newest.guid]
                    pairs += [(source, target.name, name) for name in common]
        if self.random.random() < 0.85:
            return self.random.choice(pairs) if pairs else (self.node.datasets["tank"], "", "")
        source = self.random.choice([one for one in self.node.datasets.values() if "/" in one.name])
        return source, self.random.choice(self.targets), self.version()

    def _versions(self, pool: str) -> Iterator[str]:
        for one in self.node.datasets.values():
            if one.name.startswith(pool):
                yield from (f"{one.name}@{snapshot.name}" for snapshot in one.snapshots)


@dataclass(slots=True)
class _SealedMaker(_Maker):
    sources: tuple[str, ...] = _SEALED_SOURCES
    targets: tuple[str, ...] = _SEALED_TARGETS

    def kind(self) -> Callable[[], Step]:
        if self.random.random() < 0.8:
            return _Maker.kind(self)
        kinds = (self.unload_key, self.load_key, self.load_key, self.change_key, self.unmount, self.mount)
        return self.random.choice((*kinds, self.seal, self.unseal))

    def mode(self, version: str) -> Argv:
        dataset = self.node.datasets.get(version.partition("@")[0])
        raw = dataset is not None and dataset.encrypted and self.random.random() < 0.8
        return ("-w",) if raw else ("-L", "-c")

    def unload_key(self) -> Step:
        return Step(("zfs", "unload-key", self.root()))

    def load_key(self) -> Step:
        return Step(("zfs", "load-key", "-L", KEY, self.root()))

    def change_key(self) -> Step:
        return Step(("zfs", "change-key", "-o", f"keylocation={KEY}", self.root()))

    def unmount(self) -> Step:
        mounted = [one.name for one in self.node.datasets.values() if one.mounted and one.encrypted]
        return Step(("zfs", "unmount", self.random.choice(mounted or ["tank/e"])))

    def mount(self) -> Step:
        closed = [one.name for one in self.node.datasets.values() if not one.mounted and one.encrypted]
        return Step(("zfs", "mount", self.random.choice(closed or ["tank/e"])))

    def seal(self) -> Step:
        return Step(("zfs", "create", *_SEALED, self.random.choice([*self.sources, "backup/a"])))

    def unseal(self) -> Step:
        """A dataset that is not encrypted, wherever it lies; or one received so."""
        if self.random.random() < 0.5:
            return Step(("zfs", "create", "-o", "encryption=off", self.random.choice(self.sources)))
        step = self.full()
        return replace(step, through=(*step.through[:3], "-o", "encryption=off", *step.through[3:]))

    def root(self) -> str:
        """Something that has a key of its own."""
        return self.random.choice([one.name for one in self.node.datasets.values() if one.key_root is one])


_TABLE: tuple[tuple[Callable[[_Maker], Step], int], ...] = (
    (_Maker.write, 12),
    (_Maker.snapshot, 14),
    (_Maker.bookmark, 4),
    (_Maker.hold, 3),
    (_Maker.release, 3),
    (_Maker.clone, 4),
    (_Maker.promote, 4),
    (_Maker.rename, 4),
    (_Maker.destroy, 7),
    (_Maker.rollback, 4),
    (_Maker.set, 4),
    (_Maker.inherit, 2),
    (_Maker.create, 3),
    (_Maker.abort, 2),
    (_Maker.full, 8),
    (_Maker.increment, 16),
    (_Maker.resume, 8),
)
_KINDS = [kind for kind, _ in _TABLE]
_WEIGHTS = [weight for _, weight in _TABLE]


def _token_of(node: ModelNode, word: str) -> str:
    dataset = node.datasets.get(word.removeprefix(_TOKEN))
    return text_of(dataset.partial) if dataset is not None and dataset.partial is not None else "-"


def _shell_word(word: str) -> str:
    if word.startswith(_TOKEN):
        return f"$(zfs get -H -o value receive_resume_token {shlex.quote(word.removeprefix(_TOKEN))})"
    return shlex.quote(word)
