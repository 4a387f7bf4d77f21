"""Fakes and a notation for tests of hoster and of what is built on it. No product module imports this.

**The notation.** A history is written oldest first, one word a version:

==========  ==========================================================================================
``h1``      a snapshot with a name that hoster makes: h hourly, d daily, w weekly, m monthly, y yearly,
            f frequent, c custom, r replication; the number is its minute after 2024-01-01
``manual``  any other word is a snapshot with that name, which hoster did not make
``#h1``     a bookmark of h1 and nothing else; with ``@K`` it is the anchor, without it some bookmark
``h1'``     another version under the name of h1 (a second prime, a third one)
``*``       held: ``h1*``
``^``       a clone depends on it: ``h1^``
``!``       marked as sent by the source whose VM has :data:`VM_ID`: ``h1!``
``+8``      8 bytes were written since the snapshot before: ``h1+8``
``@1``      anchored for the target called 1: ``h1@1``, ``h1@1@2``
``~8``      8 bytes were written since the newest snapshot (a word of its own, anywhere)
==========  ==========================================================================================

GUIDs follow from the word, so that the same word on two datasets is the same version; about half of them
are above 2^63. A createtxg follows from the position and the dataset's name, so that no two pools agree.

>>> web = dataset("tank/vm/web", "h1+8 d1* manual #r1@1 r2@1 ~3")
>>> [snapshot.name for snapshot in web.snapshots]
['hourly_2024-01-01_00-01-00', 'daily_2024-01-01_00-01-00', 'manual', 'replication_2024-01-01_00-02-00']
>>> web.snapshots[0].written, web.snapshots[1].holds, web.written
(8, 1, 3)
>>> words(web.snapshots), len(web.bookmarks)
('h1 d1 manual r2', 2)
>>> dataset("backup/web", "h1").snapshots[0].guid == web.snapshots[0].guid == guid_of("h1")
True
>>> dataset("tank/vm/web", "h1'").newest.guid == guid_of("h1")
False
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from hoster.host.process import Completed, Meter, Piped
from hoster.model.anchors import TargetKey, anchor_name
from hoster.model.names import SnapshotType, snapshot_label
from hoster.model.storage import (
    Bookmark,
    Dataset,
    DatasetKind,
    Epoch,
    Marks,
    Role,
    Snapshot,
    Version,
    View,
)
from hoster.operations.identity import properties_of
from hoster.zfs.argv import LISTED_PROPERTIES

T = TypeVar("T")

VM_ID = "5b0e6a52-6a3a-4a0e-9a55-c1f0a9f1b001"
"""The identity that every dataset with a role gets in the notation."""

SENT_BY_US = f"{VM_ID}/1"
"""The ``hoster:from`` of a version marked with ``!``."""

_EPOCH = datetime(2024, 1, 1)
_EPOCH_S = 1_704_067_200
_LETTERS = {stype.value[0]: stype for stype in SnapshotType}
_TYPED = re.compile(r"([a-z])(\d+)")
_WORD = re.compile(r"(?P<only>#?)(?P<label>[A-Za-z][\w.:-]*'*)(?P<signs>(?:[*^!]|\+\d+|@\w+)*)")
_SIGN = re.compile(r"[*^!]|\+\d+|@\w+")


def guid_of(word: str) -> int:
    """The GUID of the version that is written so, without its signs."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")


def name_of(word: str) -> str:
    """The snapshot name of the version that is written so, without its signs."""
    plain = word.rstrip("'")
    match = _TYPED.fullmatch(plain)
    if match is None or match[1] not in _LETTERS:
        return plain
    taken = _EPOCH + timedelta(minutes=int(match[2]))
    return f"{_LETTERS[match[1]].value}_{taken:%Y-%m-%d_%H-%M-%S}"


def target_key(name: str) -> TargetKey:
    """The key of the target that is written ``@name``."""
    return TargetKey(guid_of(f"target {name}"))


def words(versions: Iterable[Version]) -> str:
    """``versions`` in the notation, without signs; an anchor as ``#`` and the end of its GUID."""
    return " ".join(_word(version) for version in versions)


def dataset(
    name: str, history: str = "", role: Role | None = None, kind: DatasetKind = DatasetKind.FILESYSTEM
) -> Dataset:
    """The dataset of that name with that history; with a ``role`` it bears the marks of the VM of node1.

    ValueError for a word that is not in the notation.
    """
    snapshots: list[Snapshot] = []
    bookmarks: list[Bookmark] = []
    written = 0
    positions: dict[str, int] = {}
    for word in history.split():
        if re.fullmatch(r"~\d+", word):
            written = int(word[1:])
            continue
        match = _WORD.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r} is not a word of the notation")
        label, signs = match["label"], _SIGN.findall(match["signs"])
        txg = _txg(name, positions.setdefault(label, len(positions)))
        if not match["only"]:
            snapshots.append(_snapshot(name, label, txg, signs))
        bookmarks += _bookmarks(name, label, txg, signs, plain=bool(match["only"]))
    marks = Marks() if role is None else Marks(VM_ID, role, Epoch(1, "node1"), "node1", True)
    return Dataset(
        name=name,
        kind=kind,
        guid=guid_of(name),
        createtxg=_txg(name, -1),
        written=written,
        marks=marks,
        snapshots=tuple(snapshots),
        bookmarks=tuple(bookmarks),
    )


def view(*datasets: Dataset, node: str = "local") -> View:
    """What a look at ``node`` would have seen."""
    return View(node, {one.name: one for one in datasets})


def listing(*datasets: Dataset) -> str:
    """What ``zfs get`` prints of them, as :func:`hoster.zfs.argv.look` asks for it."""
    lines: list[str] = []
    for one in datasets:
        lines += _lines(one.name, _dataset_values(one), properties_of(one.marks))
        for snapshot in one.snapshots:
            lines += _lines(snapshot.full_name, _snapshot_values(snapshot), _snapshot_marks(snapshot))
        for bookmark in one.bookmarks:
            values = {"type": "bookmark", "guid": bookmark.guid, "createtxg": bookmark.createtxg}
            lines += _lines(bookmark.full_name, values, {})
    return "".join(line + "\n" for line in lines)


class Says(Struct, frozen=True):
    """How a scripted command ends, and what it prints."""

    stdout: str = ""
    stderr: str = ""
    returncode: int = 0


Answer = Says | Callable[[tuple[str, ...], str], Says]
"""What a scripted command does: always the same, or what a function of its argv and input decides."""

Matcher = tuple[str, ...] | Callable[[tuple[str, ...]], bool]
"""Which commands a line of the script is for: those that begin so, or those of which a function says so."""


class Unscripted(AssertionError):
    """A command was run that the script does not know."""


class ScriptedRunner(Struct):
    """A :class:`hoster.host.process.Runner` that starts nothing: it answers from a script, and remembers.

    ``commands`` holds every argv that was run, in order, the producer of a pipe before its consumer, and
    ``inputs`` what each was given on standard input. A command that no line matches raises
    :class:`Unscripted`.

    >>> runner = ScriptedRunner()
    >>> runner.answer(("zfs", "version"), Says("zfs-2.3.9-1\\n"))
    >>> runner.run(["zfs", "version"]).stdout
    'zfs-2.3.9-1\\n'
    >>> runner.commands
    [('zfs', 'version')]
    """

    commands: list[tuple[str, ...]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    _script: list[tuple[Matcher, list[Answer]]] = field(default_factory=list)

    def answer(self, matcher: Matcher, *answers: Answer) -> None:
        """Adds a line to the script: the answers to be given one after the other, the last one for ever.

        The line that was added first and matches is the one that counts.
        """
        self._script.append((matcher, list(answers) or [Says()]))

    def ran(self, *prefix: str) -> list[tuple[str, ...]]:
        """The commands that were run and begin so."""
        return [command for command in self.commands if command[: len(prefix)] == prefix]

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        del timeout_s
        command = tuple(argv)
        said = self._said(command, stdin)
        return Completed(command, said.returncode, said.stdout, said.stderr)

    def read(
        self,
        argv: Sequence[str],
        reader: Callable[[Iterator[str]], T],
        *,
        timeout_s: float | None = None,
    ) -> tuple[T, Completed]:
        """The lines of what the command says."""
        return read_whole(self.run(argv, timeout_s=timeout_s), reader)

    def pipe(self, producer: Sequence[str], consumer: Sequence[str], meter: Meter) -> Piped:
        """Both ends answer by themselves; what the producer says on its output is what goes through."""
        first = self.run(producer)
        size = len(first.stdout.encode())
        if size:
            meter(size)
        last = self.run(consumer, stdin=first.stdout)
        return Piped(Completed(first.argv, first.returncode, "", first.stderr), last, size)

    def head(self, argv: Sequence[str], amount: int) -> bytes:
        """What the command says on its output."""
        return self.run(argv).stdout.encode("latin-1")[:amount]

    def stop(self) -> None:
        """Nothing runs that could be stopped."""

    def _said(self, command: tuple[str, ...], stdin: str) -> Says:
        self.commands.append(command)
        self.inputs.append(stdin)
        for matcher, answers in self._script:
            if _matches(matcher, command):
                found = answers.pop(0) if len(answers) > 1 else answers[0]
                return found if isinstance(found, Says) else found(command, stdin)
        before = "".join(f"\n  {' '.join(c)}" for c in self.commands[:-1])
        raise Unscripted(f"no answer is scripted for: {' '.join(command)}\nrun before it:{before or ' none'}")


def read_whole(done: Completed, reader: Callable[[Iterator[str]], T]) -> tuple[T, Completed]:
    """What :meth:`hoster.host.process.Runner.read` gives for a command that ended so, all of it printed."""
    lines = done.stdout.removesuffix("\n").split("\n") if done.stdout else []
    return reader(iter(lines)), replace(done, stdout="")


class NamedHost(Struct, frozen=True):
    """A :class:`hoster.host.reach.Host` that is nowhere: its commands begin with ``on NAME``."""

    name: str
    machine: str = "another machine"

    def argv(self, command: Sequence[str]) -> tuple[str, ...]:
        return ("on", self.name, *command)


def _matches(matcher: Matcher, command: tuple[str, ...]) -> bool:
    if isinstance(matcher, tuple):
        return command[: len(matcher)] == matcher
    return matcher(command)


def _txg(dataset_name: str, position: int) -> int:
    """Positions in txgs that no other dataset shares: each begins and strides differently."""
    seed = zlib.crc32(dataset_name.encode())
    return 1000 + seed % 100_000 + (position + 1) * (1 + seed % 7)


def _snapshot(dataset_name: str, label: str, txg: int, signs: Sequence[str]) -> Snapshot:
    number = _TYPED.fullmatch(label.rstrip("'"))
    return Snapshot(
        dataset=dataset_name,
        name=name_of(label),
        guid=guid_of(label),
        createtxg=txg,
        creation=_EPOCH_S + (60 * int(number[2]) if number else 0),
        written=sum(int(sign[1:]) for sign in signs if sign[0] == "+"),
        holds=signs.count("*"),
        clones=(f"{dataset_name}-clone-of-{label}",) if "^" in signs else (),
        sent_by=SENT_BY_US if "!" in signs else None,
    )


def _bookmarks(
    dataset_name: str, label: str, txg: int, signs: Sequence[str], *, plain: bool
) -> list[Bookmark]:
    guid = guid_of(label)
    names = [anchor_name(target_key(sign[1:]), guid) for sign in signs if sign[0] == "@"]
    if plain and not names:
        names = [label.rstrip("'")]
    return [Bookmark(dataset_name, name, guid, txg) for name in names]


def _word(version: Version) -> str:
    if isinstance(version, Bookmark):
        return f"#{version.name}" if len(version.name) < 20 else f"#{version.name[-4:]}"
    label = snapshot_label(version.name)
    if label is None:
        return version.name
    return f"{label.stype.value[0]}{(label.taken - _EPOCH) // timedelta(minutes=1)}"


def _lines(name: str, values: Mapping[str, object], local: Mapping[str, str]) -> Iterable[str]:
    for key in LISTED_PROPERTIES:
        if key in local:
            yield f"{name}\t{key}\t{local[key]}\tlocal"
        else:
            yield f"{name}\t{key}\t{values.get(key, '-')}\t-"


def _dataset_values(one: Dataset) -> Mapping[str, object]:
    return {
        "type": one.kind.value,
        "guid": one.guid,
        "createtxg": one.createtxg,
        "creation": _EPOCH_S,
        "used": one.used,
        "written": one.written,
        "encryption": "aes-256-gcm" if one.encrypted else "off",
        "keystatus": ("available" if one.key_loaded else "unavailable") if one.encrypted else "-",
        "mounted": "-" if one.kind is DatasetKind.VOLUME else "yes" if one.mounted else "no",
        "mountpoint": "-" if one.kind is DatasetKind.VOLUME else one.mountpoint or "none",
        "origin": one.origin or "-",
        "readonly": "on" if one.readonly else "off",
        "receive_resume_token": one.partial.text if one.partial else "-",
    }


def _snapshot_values(snapshot: Snapshot) -> Mapping[str, object]:
    return {
        "type": "snapshot",
        "guid": snapshot.guid,
        "createtxg": snapshot.createtxg,
        "creation": snapshot.creation,
        "used": snapshot.used,
        "written": snapshot.written,
        "userrefs": snapshot.holds,
        "clones": ",".join(snapshot.clones) or "-",
        "encryption": "off",
    }


def _snapshot_marks(snapshot: Snapshot) -> dict[str, str]:
    found = {"hoster:from": snapshot.sent_by or "", "hoster:sdescription": snapshot.description}
    return {key: value for key, value in found.items() if value}
