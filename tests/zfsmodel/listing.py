"""What ``zfs get``, ``zfs list`` and ``zfs holds`` print of a model node, always as with ``-H``."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.zfsmodel.node import MISSING, ModelNode
from tests.zfsmodel.properties import NATIVES, READ_ONLY, Value, is_user, value_of
from tests.zfsmodel.state import Bookmark, Dataset, Failed, Kind, Snapshot, parent_of, split
from tests.zfsmodel.streams import text_of

_TYPES = {"all": ("filesystem", "volume", "snapshot", "bookmark"), "fs": ("filesystem",), "vol": ("volume",)}
_USUAL = ("name", "property", "value", "source")
_NONE = Value()


@dataclass(frozen=True, slots=True)
class Row:
    """One dataset, snapshot or bookmark that is listed."""

    name: str
    type: str
    dataset: Dataset
    version: Snapshot | Bookmark | None = None


@dataclass(slots=True)
class Question:
    """What is asked for: the roots, how deep below them (None: all), the types, the columns or keys."""

    roots: list[str] = field(default_factory=list)
    depth: int | None = 0
    types: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    sort: str = ""


def types_of(text: str) -> tuple[str, ...]:
    """The types that ``-t`` names."""
    return tuple(name for word in text.split(",") for name in _TYPES.get(word, (word,)))


def got(node: ModelNode, asked: Question, shuffle: random.Random | None = None) -> tuple[int, str, str]:
    """``zfs get``: status, output, messages. ``shuffle`` orders names as it likes, as ZFS may.

    ``all`` stands for everything that can be set and the user's own; what zfs alone decides is left out.
    """
    for key in asked.keys:
        if key != "all" and not is_user(key) and key not in NATIVES and key not in READ_ONLY:
            raise Failed(f"bad property list: invalid property '{key}'", 2)
    default = () if asked.depth == 0 else ("filesystem", "volume", "snapshot")
    rows, said = _rows(node, asked, asked.types or default)
    if shuffle is not None:
        shuffle.shuffle(rows)
    lines: list[str] = []
    clones = _clones(node)
    inherited: dict[tuple[str, str], Value] = {}
    for row in rows:
        fixed = _fixed_values(node, row, clones)
        keys = _all_keys(row) if asked.keys == ("all",) else asked.keys
        if asked.sources or asked.columns != _USUAL:
            values = [(key, _value(node, row, key, fixed, inherited)) for key in keys]
            wanted = [pair for pair in values if not asked.sources or _kind_of(pair[1]) in asked.sources]
            lines += [_line(row.name, key, value, asked.columns) for key, value in wanted]
        else:
            lines += _usual_lines(node, row, keys, fixed, inherited)
    return int(bool(said)), "".join(lines), "\n".join(said)


def _usual_lines(
    node: ModelNode,
    row: Row,
    keys: Sequence[str],
    fixed: Mapping[str, object],
    inherited: dict[tuple[str, str], Value],
) -> Iterator[str]:
    """All four columns of every key: what hoster asks for, and most of the time that a run takes."""
    name, version, dataset = row.name, row.version, row.dataset
    own = dataset.properties if version is None else getattr(version, "properties", {})
    above = parent_of(dataset.name) if version is None else dataset.name
    is_mark = isinstance(version, Bookmark)
    for key in keys:
        if key in fixed:
            yield f"{name}\t{key}\t{fixed[key]}\t-\n"
        elif is_mark or (version is not None and ":" not in key):
            yield f"{name}\t{key}\t-\t-\n"
        elif key in own:
            yield f"{name}\t{key}\t{own[key]}\tlocal\n"
        else:
            known = inherited.get((above, key)) if version is not None or not dataset.received else None
            value = _value(node, row, key, fixed, inherited) if known is None else known
            yield f"{name}\t{key}\t{value.text}\t{value.source}\n"


def _line(name: str, key: str, value: Value, columns: Sequence[str]) -> str:
    cells = {"name": name, "property": key, "value": value.text, "source": value.source}
    return "\t".join([cells[column] for column in columns]) + "\n"


def listed(node: ModelNode, asked: Question) -> tuple[int, str, str]:
    """``zfs list``: status, output, messages; user properties that are inherited look like local ones."""
    for key in asked.columns:
        if not is_user(key) and key not in NATIVES and key not in READ_ONLY:
            raise Failed(f"bad property list: invalid property '{key}'", 2)
    rows, said = _rows(node, asked, asked.types or ("filesystem", "volume"))
    clones = _clones(node)
    fixed = {row.name: _fixed_values(node, row, clones) for row in rows}
    if asked.sort:
        rows.sort(key=lambda row: _order(_value(node, row, asked.sort, fixed[row.name], {}).text))
    lines = [
        "\t".join(_value(node, row, key, fixed[row.name], {}).text for key in asked.columns) for row in rows
    ]
    return int(bool(said)), "".join(f"{line}\n" for line in lines), "\n".join(said)


def holds(node: ModelNode, names: Sequence[str]) -> tuple[int, str, str]:
    """``zfs holds -Hp``: full name, tag and time in seconds."""
    lines, said = [], []
    for full_name in names:
        try:
            _, snapshot = node.snapshot_named(full_name)
        except Failed as error:
            said.append(error.said)
            continue
        lines += [f"{full_name}\t{tag}\t{at}\n" for tag, at in snapshot.holds.items()]
    if said and not lines:
        said.append("no datasets available")
    return int(bool(said)), "".join(lines), "\n".join(said)


def _rows(node: ModelNode, asked: Question, types: Sequence[str]) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    said = []
    for root in asked.roots or list(node.pools):
        try:
            found = _root(node, root)
        except Failed as error:
            said.append(error.said)
            continue
        if found.version is not None or asked.depth == 0:
            rows += [found] if not types or found.type in types or found.version is not None else []
        if found.version is None and (asked.depth != 0 or asked.types):
            depth = asked.depth if asked.depth != 0 else 1 if "snapshot" in types else 0
            below = _tree(node, found.dataset, depth)
            rows += [row for row in below if row.type in types and row not in rows]
    return rows, said


def _root(node: ModelNode, root: str) -> Row:
    name, sign, short = split(root)
    dataset = node.datasets.get(name)
    if dataset is not None and not sign:
        return Row(name, dataset.kind.value, dataset)
    version: Snapshot | Bookmark | None = None
    if dataset is not None:
        version = dataset.find(short) if sign == "@" else dataset.bookmarks.get(short)
    if dataset is None or version is None:
        raise Failed(MISSING.format(root))
    return Row(root, "snapshot" if sign == "@" else "bookmark", dataset, version)


def _tree(node: ModelNode, root: Dataset, depth: int | None) -> Iterator[Row]:
    for dataset in [root, *sorted(node.below(root.name), key=lambda one: one.name)]:
        level = dataset.name[len(root.name) :].count("/")
        if depth is None or level <= depth:
            yield Row(dataset.name, dataset.kind.value, dataset)
        if depth is None or level + 1 <= depth:
            for snapshot in dataset.snapshots:
                yield Row(f"{dataset.name}@{snapshot.name}", "snapshot", dataset, snapshot)
            for mark in dataset.bookmarks.values():
                yield Row(f"{dataset.name}#{mark.name}", "bookmark", dataset, mark)


def _value(
    node: ModelNode,
    row: Row,
    key: str,
    fixed: Mapping[str, object],
    inherited: dict[tuple[str, str], Value],
) -> Value:
    """``inherited`` remembers what a dataset passes on to its snapshots and to what lies in it, by its name
    and the key."""
    if key in fixed:
        return Value(str(fixed[key]))
    dataset, version = row.dataset, row.version
    if isinstance(version, Bookmark) or key in READ_ONLY or (version is not None and not is_user(key)):
        return _NONE
    if not is_user(key):
        return value_of(node.datasets, dataset, key)
    own = dataset.properties if version is None else version.properties
    if key in own:
        return Value(own[key], "local")
    if version is None and key in dataset.received:
        return Value(dataset.received[key], "received")
    where = (dataset.name if version is not None else parent_of(dataset.name), key)
    found = inherited.get(where)
    if found is None:
        above = node.datasets.get(where[0])
        found = inherited[where] = _NONE if above is None else _inherited_value(node, above, key)
    return found


def _fixed_values(node: ModelNode, row: Row, clones: Mapping[int, Sequence[str]]) -> Mapping[str, object]:
    """What zfs alone decides of a row."""
    match row.version:
        case Bookmark() as mark:
            return _common(node, row, mark)
        case Snapshot() as snapshot:
            return _snapshot_values(node, row, snapshot, clones.get(id(snapshot), ()))
        case _:
            return _dataset_values(node, row)


def _clones(node: ModelNode) -> Mapping[int, Sequence[str]]:
    """The clones of snapshots that have some, by their ``id()``: a pool may hold a GUID twice."""
    origins = {id(one.origin): one.origin for one in node.datasets.values() if one.origin is not None}
    found = {key: node.clones_of(one) for key, one in origins.items()}
    for dataset in node.datasets.values():
        base = dataset.by_guid(dataset.partial.from_guid) if dataset.partial is not None else None
        if base is not None:
            found[id(base)] = node.clones_of(base)
    return found


def _all_keys(row: Row) -> list[str]:
    own = (*row.dataset.properties, *row.dataset.received)
    return [*NATIVES, *dict.fromkeys(key for key in own if is_user(key))]


def _inherited_value(node: ModelNode, dataset: Dataset, key: str) -> Value:
    """A user property of a snapshot on which it is not set."""
    found = value_of(node.datasets, dataset, key)
    if found.source in {"local", "received"}:
        return Value(found.text, f"inherited from {dataset.name}")
    return found


def _common(node: ModelNode, row: Row, one: Dataset | Snapshot | Bookmark) -> dict[str, object]:
    return {
        "name": row.name,
        "type": row.type,
        "guid": one.guid,
        "createtxg": one.createtxg,
        "creation": node.clock,
    }


def _snapshot_values(
    node: ModelNode, row: Row, snapshot: Snapshot, clones: Sequence[str]
) -> dict[str, object]:
    return {
        **_common(node, row, snapshot),
        "used": snapshot.written,
        "written": snapshot.written,
        "referenced": snapshot.content.referenced,
        "userrefs": len(snapshot.holds),
        "clones": ",".join(clones) or "-",
        **_encryption(row.dataset),
    }


def _dataset_values(node: ModelNode, row: Row) -> dict[str, object]:
    dataset = row.dataset
    origin = dataset.origin
    mounted = "-" if dataset.kind is Kind.VOLUME else "yes" if dataset.mounted else "no"
    return {
        **_common(node, row, dataset),
        "used": node.used(dataset.name),
        "written": dataset.written,
        "referenced": dataset.content.referenced,
        "available": 0 if dataset.name.partition("/")[0] in node.full else 2**30,
        "origin": f"{node.owner(origin).name}@{origin.name}" if origin is not None else "-",
        "mounted": mounted,
        "receive_resume_token": text_of(dataset.partial) if dataset.partial is not None else "-",
        **_encryption(dataset),
    }


def _encryption(dataset: Dataset) -> dict[str, object]:
    if dataset.key_root is None:
        return {"encryption": "off"}
    return {
        "encryption": "aes-256-gcm",
        "encryptionroot": dataset.key_root.name,
        "keylocation": "prompt" if dataset.key_root is dataset else "none",
        "keyformat": "passphrase",
        "keystatus": "available" if dataset.key_available else "unavailable",
    }


def _kind_of(value: Value) -> str:
    """The source of a value, in one word."""
    return {"-": "none"}.get(value.source, value.source.partition(" ")[0])


def _order(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if text.isdigit() else (1, 0, text)
