"""Turns what zfs prints into the model. Pure; text becomes types once, here.

The input is the output of :func:`hoster.zfs.argv.look`: lines of name, property, value and source parted
by tabs. User properties may hold tabs and newlines of their own (zfsprops(7)); a line that does not begin
with a known property continues the value before it. Lines before the first property are noise of the far
side's login (an echo in a shell's start-up file) and are passed over.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct

from hoster.errors import ZfsError
from hoster.model.storage import (
    Bookmark,
    Dataset,
    DatasetKind,
    Epoch,
    Intent,
    Marks,
    Mode,
    Role,
    Site,
    Snapshot,
    View,
)
from hoster.zfs.argv import LISTED_PROPERTIES
from hoster.zfs.streams import resume_token

_UNSET = "-"
_KNOWN = frozenset(LISTED_PROPERTIES)
_MOST_LINES = 10_000
"""More than a value can have: it holds no more than 8 KiB (zfsprops(7))."""


class _Row(Struct):
    """The properties of one dataset, snapshot or bookmark as printed; ``local`` holds those set on it."""

    name: str
    values: dict[str, str]
    local: dict[str, str]

    def number(self, key: str) -> int:
        value = self.values.get(key, _UNSET)
        if value == _UNSET:
            return 0
        try:
            return int(value)
        except ValueError:
            raise ZfsError(f"zfs get printed {key} of {self.name} as {value!r}: a number expected") from None

    def identity(self, key: str) -> int:
        """A number that everything has: its GUID or createtxg. Its absence is an error, never 0."""
        if self.text(key) is None:
            raise ZfsError(f"zfs get printed no {key} for {self.name}")
        return self.number(key)

    def text(self, key: str) -> str | None:
        value = self.values.get(key, _UNSET)
        return None if value == _UNSET else value


def parse_view(node: str, output: str) -> View:
    """The view of ``node`` that the whole output of a look gives; ZfsError if it is not such output."""
    return read_view(node, output.removesuffix("\n").split("\n"))


def read_view(node: str, lines: Iterable[str]) -> View:
    """The same from the lines of that output, as they come: no more of the text is held than one record."""
    snapshots: dict[str, list[Snapshot]] = {}
    bookmarks: dict[str, list[Bookmark]] = {}
    containers: list[_Row] = []
    for row in _rows(lines):
        match row.values.get("type"):
            case "snapshot":
                snapshot = _snapshot(row)
                snapshots.setdefault(snapshot.dataset, []).append(snapshot)
            case "bookmark":
                bookmark = _bookmark(row)
                bookmarks.setdefault(bookmark.dataset, []).append(bookmark)
            case "filesystem" | "volume":
                containers.append(row)
            case other:
                raise ZfsError(f"zfs get printed no usable type for {row.name}: {other!r}")
    return View(node, {r.name: _dataset(r, snapshots, bookmarks) for r in containers})


_EPOCH_DIGITS = 18
"""More promotions than that no VM lives to see."""


def parse_epoch(text: str) -> Epoch | None:
    """The epoch written ``3@node1``, or None where the text is not one."""
    number, at, node = text.partition("@")
    is_one = number.isascii() and number.isdigit() and len(number) <= _EPOCH_DIGITS
    return Epoch(int(number), node) if at and node and is_one else None


_INTENT = re.compile(
    r"(?P<stamp>[^/]*)/(?:(?P<in_place>in-place:)?(?P<guid>[0-9a-f]{16})|branch:(?P<restores>[^/]+))"
    r"/(?P<canmount>[^/,]*)(?P<mounted>,mounted)?/(?P<root>.*)",
    re.DOTALL,
)


def parse_sites(text: str) -> tuple[Site, ...]:
    """The sites that :func:`hoster.operations.identity.properties_of` writes; none in any other text."""
    if not text:
        return ()
    try:
        return msgspec.json.decode(text, type=tuple[Site, ...])
    except (msgspec.MsgspecError, RecursionError):
        return ()


def parse_intent(text: str) -> Intent | None:
    """What ``str`` makes of an intent, read back; None where the text is none."""
    found = _INTENT.fullmatch(text)
    if found is None:
        return None
    return Intent(
        found["stamp"],
        int(found["guid"] or "0", 16),
        found["canmount"],
        found["root"],
        mounted=found["mounted"] is not None,
        in_place=found["in_place"] is not None,
        restores=found["restores"] or "",
    )


def _rows(lines: Iterable[str]) -> Iterator[_Row]:
    row: _Row | None = None
    for name, key, value, source in _records(lines):
        if row is None or row.name != name:
            if row is not None:
                yield row
            row = _Row(name, {}, {})
        row.values[key] = value
        if source == "local":
            row.local[key] = value
    if row is not None:
        yield row


def _records(lines: Iterable[str]) -> Iterator[tuple[str, str, str, str]]:
    # A line of four fields is a whole record unless the next one continues it: it is split just once.
    whole: tuple[str, str, str, str] | None = None
    pending: list[str] = []
    for line in lines:
        fields = line.split("\t")
        if len(fields) >= 2 and fields[1] in _KNOWN:
            if whole is not None:
                yield whole
            elif pending:
                yield _record("\n".join(pending))
            whole = (fields[0], fields[1], fields[2], fields[3]) if len(fields) == 4 else None
            pending = [line]
        elif pending:
            if line:
                whole = None
            pending.append(line)
            if len(pending) > _MOST_LINES:
                raise ZfsError(f"zfs get printed a value without end: {pending[0][:120]!r}")
    if whole is not None:
        yield whole
    elif pending:
        yield _record("\n".join(pending).rstrip("\n"))


def _record(text: str) -> tuple[str, str, str, str]:
    fields = text.split("\t")
    if len(fields) < 4:
        raise ZfsError(f"zfs get printed an incomplete line: {text[:120]!r}")
    return fields[0], fields[1], "\t".join(fields[2:-1]), fields[-1]


def _snapshot(row: _Row) -> Snapshot:
    dataset, _, name = row.name.partition("@")
    clones = row.text("clones")
    sent_by = row.local.get("hoster:from")
    return Snapshot(
        # The same for all of a dataset's: of a million snapshots a third of the memory.
        dataset=sys.intern(dataset),
        name=name,
        guid=row.identity("guid"),
        createtxg=row.identity("createtxg"),
        creation=row.number("creation"),
        used=row.number("used"),
        written=row.number("written"),
        holds=row.number("userrefs"),
        clones=tuple(c for c in (clones or "").split(",") if c),
        sent_by=None if sent_by is None else sys.intern(sent_by),
        description=row.local.get("hoster:sdescription", ""),
    )


def _bookmark(row: _Row) -> Bookmark:
    dataset, _, name = row.name.partition("#")
    return Bookmark(dataset, name, row.identity("guid"), row.identity("createtxg"))


def _dataset(
    row: _Row, snapshots: Mapping[str, list[Snapshot]], bookmarks: Mapping[str, list[Bookmark]]
) -> Dataset:
    mountpoint, token = row.text("mountpoint"), row.text("receive_resume_token")
    return Dataset(
        name=row.name,
        kind=DatasetKind(row.values["type"]),
        guid=row.identity("guid"),
        createtxg=row.identity("createtxg"),
        used=row.number("used"),
        written=row.number("written"),
        encrypted=row.text("encryption") not in {None, "off"},
        key_loaded=row.text("keystatus") != "unavailable",
        mounted=row.values.get("mounted") == "yes",
        mountpoint=mountpoint if mountpoint and mountpoint.startswith("/") else None,
        origin=row.text("origin"),
        readonly=row.values.get("readonly") == "on",
        partial=None if token is None else resume_token(token),
        marks=_marks(row.local),
        snapshots=_ordered(snapshots.get(row.name, ())),
        bookmarks=tuple(sorted(bookmarks.get(row.name, ()), key=lambda b: b.createtxg)),
    )


def _ordered(snapshots: Iterable[Snapshot]) -> tuple[Snapshot, ...]:
    return tuple(sorted(snapshots, key=lambda s: s.createtxg))


def _marks(local: Mapping[str, str]) -> Marks:
    role, mode = local.get("hoster:role"), local.get("hoster:mode")
    production = local.get("hoster:production")
    return Marks(
        vm_id=local.get("hoster:id"),
        role=Role(role) if role in set(Role) else None,
        epoch=parse_epoch(local.get("hoster:epoch", "")),
        parent=local.get("hoster:parent"),
        production=None if production is None else production == "yes",
        mode=Mode(mode) if mode in set(Mode) else None,
        key_digest=local.get("hoster:key"),
        swap=parse_intent(local.get("hoster:swap", "")),
        demoted=local.get("hoster:demoted") == "yes",
        sites=parse_sites(local.get("hoster:sites", "")),
    )
