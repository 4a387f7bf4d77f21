"""Streams: what ``zfs send`` makes of a node's versions, and what a resume token says."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass, replace

from hoster.zfs.streams import resume_token
from tests.zfsmodel.node import MISSING, ModelNode
from tests.zfsmodel.state import Bookmark, Content, Dataset, Failed, Kind, Snapshot, Token, split

_OVERHEAD_BYTES = 3000
_HEADER = struct.Struct("<ihhii")
_LIST_HEAD = b"\0\1\0\0" + bytes(8)
"""How the list is packed (natively, little-endian), its version and its flags."""

_BOOLEAN, _UINT64, _STRING, _UINT8_ARRAY = 1, 8, 9, 26
_KEY_PARTS = (("DSL_CRYPTO_MASTER_KEY_1", 32), ("DSL_CRYPTO_IV", 12), ("DSL_CRYPTO_MAC", 16))
_INVALID = Failed("cannot resume send: resume token is corrupt (invalid format)", 255)


@dataclass(frozen=True, slots=True)
class Version:
    """One snapshot in a stream, as an increment from ``from_guid`` (0: in full). ``size`` is bytes."""

    full_name: str
    guid: int
    from_guid: int
    content: Content
    size: int
    ivset: int
    from_ivset: int

    @property
    def name(self) -> str:
        return self.full_name.partition("@")[2]


@dataclass(frozen=True, slots=True)
class Stream:
    """Versions to be received one after the other. ``raw`` is true of encrypted data sent as it lies;
    ``master`` and ``wrapping`` are then the numbers of the keys that go along (0: none do)."""

    versions: tuple[Version, ...]
    kind: Kind
    raw: bool = False
    volsize: str = ""
    resumed: bool = False
    embedded: bool = False
    master: int = 0
    wrapping: int = 0

    @property
    def size(self) -> int:
        return sum(version.size for version in self.versions)


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a stream ends too early: ``fraction`` (0 to 1) into the version after ``versions`` whole ones."""

    versions: int
    fraction: float


def cut_after(stream: Stream, amount: int) -> Cut | None:
    """The cut that ``amount`` bytes of a stream mean; None if that is all of it."""
    left = amount
    for index, version in enumerate(stream.versions):
        if left < version.size:
            return Cut(index, left / version.size)
        left -= version.size
    return None


def send(
    node: ModelNode, base: str, through: str, *, intermediate: bool, raw: bool, embedded: bool
) -> Stream:
    """``zfs send [-i BASE | -I BASE] THROUGH``; empty ``base`` for a full stream. Failed in zfs's words."""
    dataset, newest = _opened(node, through)
    if not base:
        return _stream(dataset, None, (newest,), raw=raw, embedded=embedded)
    source = _base_of(node, base, through, intermediate=intermediate)
    between = [one for one in dataset.snapshots if source.createtxg < one.createtxg < newest.createtxg]
    chain = (*(between if intermediate else ()), newest)
    return _stream(dataset, source, chain, raw=raw, embedded=embedded)


def send_resumed(node: ModelNode, text: str) -> Stream:
    """``zfs send -t TOKEN``: the rest of one version, found by GUID wherever in its pool it is by now."""
    token = token_from(text)
    dataset, newest = _find_again(node, token)
    source: Snapshot | Bookmark | None = None
    if token.from_guid:
        marks = dataset.bookmarks.values()
        source = dataset.by_guid(token.from_guid) or dataset.origin
        source = source or next((one for one in marks if one.guid == token.from_guid), None)
        if source is None or source.guid != token.from_guid:
            raise Failed(f"cannot resume send: incremental source {token.from_guid:#x} no longer exists", 255)
    made = _stream(dataset, source, (newest,), raw=token.raw, embedded=False)
    return replace(made, resumed=True)


def described(node: ModelNode, text: str) -> str:
    """What ``zfs send -nvt TOKEN`` prints."""
    token = token_from(text)
    rows = ["resume token contents:", "nvlist version: 0"]
    if token.from_guid:
        rows.append(f"\tfromguid = {token.from_guid:#x}")
    rows += ["\tobject = 0x2", "\toffset = 0x0", f"\tbytes = {token.received_bytes:#x}"]
    rows += [f"\ttoguid = {token.to_guid:#x}", f"\ttoname = {token.to_name}"]
    rows += ["\trawok = 1"] if token.raw else []
    size = send_resumed(node, text).size
    what = f"full send of {token.to_name}" if not token.from_guid else f"send to {token.to_name}"
    rows += [f"{what} estimated size is {size}", f"total estimated size is {size}"]
    return "".join(f"{row}\n" for row in rows)


def head_of(stream: Stream) -> bytes:
    """The beginning of a stream: of a raw one, a list with its wrapped master key. All else is left out."""
    if not stream.raw:
        return b""
    wrapped = {
        name: hashlib.sha256(f"{name} {stream.master} {stream.wrapping}".encode()).digest()[:size]
        for name, size in _KEY_PARTS
    }
    pairs = [_pair(name, _UINT8_ARRAY, len(value), value) for name, value in wrapped.items()]
    return _LIST_HEAD + b"".join(pairs) + bytes(4)


def text_of(token: Token) -> str:
    """The token as it is printed and typed: the list that the kernel packs, as OpenZFS 2.3.9 does."""
    pairs = [_number("object", 2), _number("offset", 0), _number("bytes", token.received_bytes)]
    pairs += [_number("toguid", token.to_guid), _pair("toname", _STRING, 1, token.to_name.encode() + b"\0")]
    pairs += [_number("fromguid", token.from_guid)] if token.from_guid else []
    pairs += [_pair("rawok", _BOOLEAN, 0, b"")] if token.raw else []
    plain = _LIST_HEAD + b"".join(pairs) + bytes(4)
    return f"1-{zlib.adler32(plain):x}-{len(plain):x}-{zlib.compress(plain).hex()}"


def token_from(text: str) -> Token:
    """What a printed token says; Failed if it is none."""
    found = resume_token(text)
    if found.to_guid is None:
        raise _INVALID
    return Token(found.to_name, found.to_guid, found.from_guid or 0, found.received_bytes, found.raw)


def _number(name: str, value: int) -> bytes:
    return _pair(name, _UINT64, 1, struct.pack("<Q", value))


def _pair(name: str, kind: int, count: int, value: bytes) -> bytes:
    named = name.encode() + b"\0"
    head = _aligned(bytes(_HEADER.size) + named)[_HEADER.size :] + _aligned(value)
    return _HEADER.pack(_HEADER.size + len(head), len(named), 0, count, kind) + head


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def _opened(node: ModelNode, through: str) -> tuple[Dataset, Snapshot]:
    name, _, short = split(through)
    dataset = node.datasets.get(name)
    found = dataset.find(short) if dataset is not None else None
    if dataset is None or found is None:
        raise Failed(MISSING.format(through if dataset is not None else name))
    return dataset, found


def _base_of(node: ModelNode, base: str, through: str, *, intermediate: bool) -> Snapshot | Bookmark:
    name, sign, short = split(base if split(base)[1] else f"@{base}")
    dataset, newest = _opened(node, through)
    holder = node.datasets.get(name) if name else dataset
    if intermediate and sign == "@" and name not in {"", dataset.name}:
        raise Failed("incremental source must be in same filesystem", 2)
    if sign == "#":
        if intermediate:
            raise Failed("Error: multiple snapshots cannot be sent from a bookmark.")
        mark = holder.bookmarks.get(short) if holder is dataset else None
        if mark is None:
            raise Failed(f"warning: cannot send '{through}': incremental source ({base}) does not exist")
        return _earlier(mark, newest, through)
    found = holder.find(short) if holder is not None else None
    if holder is None or found is None:
        raise Failed(MISSING.format(base))
    if holder is not dataset and dataset.origin is not found:
        raise Failed(f"warning: cannot send '{through}': not an earlier snapshot from the same fs")
    if not intermediate:
        return _earlier(found, newest, through)
    if found is newest:
        raise Failed(
            f"WARNING: could not send {through}:\nincremental source ({base}) is not earlier than it"
        )
    if found.createtxg > newest.createtxg:
        raise Failed(f"WARNING: could not send {through}:\nincremental source ({base}) does not exist")
    return found


def _earlier(base: Snapshot | Bookmark, newest: Snapshot, through: str) -> Snapshot | Bookmark:
    if base.createtxg >= newest.createtxg:
        raise Failed(f"warning: cannot send '{through}': not an earlier snapshot from the same fs")
    return base


def _stream(
    dataset: Dataset,
    base: Snapshot | Bookmark | None,
    chain: tuple[Snapshot, ...],
    *,
    raw: bool,
    embedded: bool,
) -> Stream:
    raw_data = raw and dataset.encrypted
    if dataset.encrypted and not raw and not dataset.key_available:
        full_name = f"{dataset.name}@{chain[-1].name}"
        raise Failed(f"warning: cannot send '{full_name}': dataset key must be loaded")
    versions = []
    before = base
    for one in chain:
        unchanged = isinstance(before, Snapshot) and before.content.digest == one.content.digest
        size = _OVERHEAD_BYTES + (0 if unchanged else one.content.referenced)
        versions.append(
            Version(
                f"{dataset.name}@{one.name}",
                one.guid,
                before.guid if before is not None else 0,
                one.content,
                size,
                one.ivset,
                before.ivset if before is not None else 0,
            )
        )
        before = one
    return Stream(
        tuple(versions),
        dataset.kind,
        raw_data,
        dataset.properties.get("volsize", ""),
        embedded=(embedded or raw) and not raw_data,
        master=dataset.master if raw_data else 0,
        wrapping=dataset.key_root.wrapping if raw_data and dataset.key_root is not None else 0,
    )


def _find_again(node: ModelNode, token: Token) -> tuple[Dataset, Snapshot]:
    named = node.datasets.get(split(token.to_name)[0])
    pool = token.to_name.partition("/")[0]
    others = [one for one in node.datasets.values() if one.name.partition("/")[0] == pool]
    for dataset in ([named] if named is not None else []) + others:
        found = dataset.by_guid(token.to_guid)
        if found is not None:
            return dataset, found
    raise Failed(f"cannot resume send: '{token.to_name}' used in the initial send no longer exists", 255)
