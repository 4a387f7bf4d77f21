"""What streams say of themselves: resume tokens, and the key material at the head of a raw stream.

Pure. Both hold name-value lists in the form that the kernel packs them in on the machine that made them
(``nvlist_pack`` with ``NV_ENCODE_NATIVE``; module/nvpair/nvpair.c in OpenZFS, seen on 2.3.9): pairs of a
16-byte header, the name padded to eight bytes, and the value. Nothing of a stream is ever passed on from
here; what cannot be understood is None.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator

from hoster.model.storage import ResumeToken

HEAD_BYTES = 64 * 1024
"""How much of a raw stream holds its key material for certain: it comes before the first block."""

_LARGEST_LIST = 1024 * 1024
_HEADER = struct.Struct("<ihhii")
_UINT64, _STRING, _UINT8_ARRAY = 8, 9, 26
_KEY_PARTS = (b"DSL_CRYPTO_MASTER_KEY_1", b"DSL_CRYPTO_IV", b"DSL_CRYPTO_MAC")


def resume_token(text: str) -> ResumeToken:
    """What the property ``receive_resume_token`` says; all but its text is empty if it cannot be read.

    The text is ``1-CHECKSUM-SIZE-HEX``: the version of the form, and a list compressed with zlib.
    """
    pieces = text.split("-")
    if len(pieces) != 4 or pieces[0] != "1":
        return ResumeToken(text)
    try:
        packed = zlib.decompressobj().decompress(bytes.fromhex(pieces[3]), _LARGEST_LIST)
        found = dict(_pairs(packed[12:]))
    except (ValueError, zlib.error, struct.error):
        return ResumeToken(text)
    to_guid, to_name = found.get("toguid"), found.get("toname")
    if not isinstance(to_guid, int) or not isinstance(to_name, str):
        return ResumeToken(text)
    from_guid, received = found.get("fromguid"), found.get("bytes")
    return ResumeToken(
        text,
        to_guid=to_guid,
        from_guid=from_guid if isinstance(from_guid, int) else None,
        to_name=to_name,
        raw="rawok" in found,
        received_bytes=received if isinstance(received, int) else 0,
    )


def key_digest(head: bytes) -> str | None:
    """A digest of the wrapped master key at the beginning of a raw stream; None where there is none.

    It changes when the wrapping key does (``zfs change-key``), whatever its format, and with nothing else.
    """
    digest = hashlib.sha256()
    for name in _KEY_PARTS:
        at = head.find(name + b"\0")
        start = at - _HEADER.size
        if start < 0:
            return None
        size, name_size, _, count, kind = _HEADER.unpack_from(head, start)
        value = _aligned(_HEADER.size + name_size)
        if kind != _UINT8_ARRAY or name_size != len(name) + 1 or value + count > size:
            return None
        if start + value + count > len(head):
            return None
        digest.update(head[start + value : start + value + count])
    return digest.hexdigest()[:16]


def _pairs(data: bytes) -> Iterator[tuple[str, int | str | None]]:
    """The pairs of a packed list after its header; values of kinds that hoster does not read are None."""
    at = 0
    while True:
        (size,) = struct.unpack_from("<i", data, at)
        if size == 0:
            return
        size, name_size, _, _, kind = _HEADER.unpack_from(data, at)
        value = at + _aligned(_HEADER.size + name_size)
        if size < _HEADER.size or name_size < 1 or at + size > len(data):
            raise ValueError("a pair reaches beyond its list")
        name = data[at + _HEADER.size : at + _HEADER.size + name_size - 1].decode()
        if kind == _UINT64:
            yield name, struct.unpack_from("<Q", data, value)[0]
        elif kind == _STRING:
            yield name, data[value : at + size].partition(b"\0")[0].decode()
        else:
            yield name, None
        at += size


def _aligned(size: int) -> int:
    return (size + 7) & ~7
