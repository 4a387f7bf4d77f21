"""What the head of a qcow2 image says: how large its disk is, and whether the image is all of it.

Source: QEMU's docs/interop/qcow2.rst. Nothing else of an image is read, and nothing that it names is opened.
"""

from __future__ import annotations

import struct
from typing import IO

from msgspec import Struct

_MAGIC = b"QFI\xfb"
_HEAD = struct.Struct(">4sIQIIQ")
"""Magic, version, where the backing file's name is, its length, bits of a cluster, the size of the disk."""

_FEATURES_AT = 72
_LENGTH_AT = 100
_EXTERNAL_DATA = 1 << 2
_NAME_OF_DATA = 0x44415441
"""The type of the extension of the head that names the file with the data."""

_MOST_BYTES = 64 * 1024
"""The head lies in the first cluster, which has so many bytes by default."""


class Qcow2(Struct, frozen=True):
    """``size`` is that of the disk, in bytes. ``leans_on`` are the files in which what is not in the image is
    looked for, by the names that the image gives them; empty where it is whole."""

    size: int
    leans_on: tuple[str, ...] = ()


def qcow2_head(image: IO[bytes]) -> Qcow2 | None:
    """What the image says of itself; None if it is none. It is left at its beginning."""
    image.seek(0)
    head = image.read(_MOST_BYTES)
    image.seek(0)
    if len(head) < _HEAD.size or not head.startswith(_MAGIC):
        return None
    _, version, name_at, name_length, _, size = _HEAD.unpack_from(head)
    names = [head[name_at : name_at + name_length]] if name_at else []
    if version >= 3 and _number(head, _FEATURES_AT, 8) & _EXTERNAL_DATA:
        names.append(_name_of_data(head))
    return Qcow2(size, tuple(name.decode(errors="replace") for name in names))


def _name_of_data(head: bytes) -> bytes:
    at = _number(head, _LENGTH_AT, 4)
    while (kind := _number(head, at, 4)) != 0:
        length = _number(head, at + 4, 4)
        if kind == _NAME_OF_DATA:
            return head[at + 8 : at + 8 + length]
        at += 8 + -(-length // 8) * 8
    return b"an external data file"


def _number(head: bytes, at: int, length: int) -> int:
    return int.from_bytes(head[at : at + length])
