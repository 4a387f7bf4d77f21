"""The keys of a vm_config.json, in Hoster's order, and the way between a document and typed values.

The tables say everything: the name in the file, the field it becomes, its kind, and whether Hoster leaves
it out when it is empty. Source: the struct that Hoster reads and writes. Its order has changed over the
years; a file with an older order is put into this one by its first rewrite.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from msgspec import Struct

from hoster.config.json_text import JsonObject, JsonValue, Place
from hoster.model.machines import Disk, MachineConfig, NetworkCard, SharedFolder, SshKey, failover_strategy

_LEGACY_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Kind(Enum):
    """What a key holds, in the words of an error message."""

    FLAG = "true or false"
    NUMBER = "a whole number"
    TEXT = "a text"
    TEXTS = "a list of texts"
    ENTRIES = "a list of objects"


class Key(Struct, frozen=True):
    """One known key: its name in the file, the field that it becomes, and what it holds."""

    name: str
    field: str
    kind: Kind
    omit_empty: bool = False
    entry: Record | None = None
    typed: Callable[[Any], Any] = lambda value: value


class Record(Struct, frozen=True):
    """An object with known keys, the type it becomes, and the keys that are understood and not kept."""

    make: Callable[..., Any]
    keys: tuple[Key, ...]
    dropped: frozenset[str] = frozenset()


_SIZE_FIELDS = frozenset({"total_bytes", "total_human", "used_bytes", "used_human"})

_NETWORK = Record(
    NetworkCard,
    (
        Key("network_adaptor_type", "adaptor_type", Kind.TEXT),
        Key("network_bridge", "bridge", Kind.TEXT),
        Key("network_mac", "mac", Kind.TEXT),
        Key("ip_address", "ip_address", Kind.TEXT),
        Key("comment", "comment", Kind.TEXT),
    ),
)
_DISK = Record(
    Disk,
    (
        Key("disk_type", "type", Kind.TEXT),
        Key("disk_location", "location", Kind.TEXT),
        Key("disk_image", "image", Kind.TEXT),
        Key("disk_input_size", "input_size", Kind.NUMBER, omit_empty=True),
        Key("comment", "comment", Kind.TEXT),
    ),
    dropped=_SIZE_FIELDS,
)
_SSH_KEY = Record(
    SshKey,
    (
        Key("key_owner", "owner", Kind.TEXT),
        Key("key_value", "value", Kind.TEXT),
        Key("comment", "comment", Kind.TEXT),
    ),
)
_SHARE = Record(
    SharedFolder,
    (
        Key("share_name", "name", Kind.TEXT),
        Key("share_location", "location", Kind.TEXT),
        Key("read_only", "read_only", Kind.FLAG),
    ),
)
MACHINE = Record(
    MachineConfig,
    (
        Key("production", "production", Kind.FLAG),
        Key("ignore_host_clock", "ignore_host_clock", Kind.FLAG, omit_empty=True),
        Key("include_host_ssh_keys", "include_host_ssh_keys", Kind.FLAG),
        Key("disable_xhci", "disable_xhci", Kind.FLAG, omit_empty=True),
        Key("cpu_sockets", "cpu_sockets", Kind.NUMBER),
        Key("cpu_cores", "cpu_cores", Kind.NUMBER),
        Key("cpu_threads", "cpu_threads", Kind.NUMBER, omit_empty=True),
        Key("vnc_resolution", "vnc_resolution", Kind.NUMBER, omit_empty=True),
        Key("vnc_port", "vnc_port", Kind.NUMBER),
        Key("vnc_password", "vnc_password", Kind.TEXT),
        Key("memory", "memory", Kind.TEXT),
        Key("loader", "loader", Kind.TEXT),
        Key("os_type", "os_type", Kind.TEXT),
        Key("os_comment", "os_comment", Kind.TEXT),
        Key("owner", "owner", Kind.TEXT),
        Key("parent_host", "parent_host", Kind.TEXT),
        Key("failover_strategy", "failover_strategy", Kind.TEXT, omit_empty=True, typed=failover_strategy),
        Key("vga", "vga", Kind.TEXT, omit_empty=True),
        Key("uuid", "uuid", Kind.TEXT, omit_empty=True),
        Key("description", "description", Kind.TEXT),
        Key("dns_search_domain", "dns_search_domain", Kind.TEXT, omit_empty=True),
        Key("networks", "networks", Kind.ENTRIES, entry=_NETWORK),
        Key("disks", "disks", Kind.ENTRIES, entry=_DISK),
        Key("vm_ssh_keys", "ssh_keys", Kind.ENTRIES, entry=_SSH_KEY),
        Key("tags", "tags", Kind.TEXTS),
        Key("passthru", "passthru", Kind.TEXTS, omit_empty=True),
        Key("9p_shares", "shares", Kind.ENTRIES, omit_empty=True, entry=_SHARE),
        Key("custom_options", "custom_options", Kind.TEXTS, omit_empty=True),
    ),
)


def canonical(record: Record, found: Mapping[str, JsonValue], place: Place) -> JsonObject:
    """``found`` as Hoster would write it, with the unknown keys kept after the known ones.

    Absent keys get Hoster's default, unless it leaves them out when empty. A known key in other letters
    (``Production``) counts, as it does for Hoster. ConfigurationError for a known key that holds something
    of another kind.
    """
    spelled = _in_known_letters(record, found, place)
    result: JsonObject = {}
    for key in record.keys:
        value = _checked(key, spelled.pop(key.name, None), place.key(key.name))
        if value or not key.omit_empty:
            result[key.name] = value
    return result | {name: value for name, value in spelled.items() if name not in record.dropped}


def typed(record: Record, document: Mapping[str, Any]) -> Any:
    """The typed value of a canonical document."""
    return record.make(**{key.field: _typed_value(key, document.get(key.name)) for key in record.keys})


def plain(key: Key, value: Any, before: JsonValue) -> JsonValue:
    """What to write for the typed ``value`` of ``key``, where the document held ``before``.

    Unknown keys inside an entry stay with it: with the first equal entry, or else, if the list kept its
    length, with the entry at the same place.
    """
    match key.kind:
        case Kind.TEXTS:
            return [str(text) for text in value]
        case Kind.ENTRIES:
            assert key.entry is not None
            old = [entry for entry in before if isinstance(entry, dict)] if isinstance(before, list) else []
            return [*_plain_entries(key.entry, list(value), old)]
        case _:
            return str(value) if isinstance(value, str) else value


def _in_known_letters(record: Record, found: Mapping[str, JsonValue], place: Place) -> JsonObject:
    known = {key.name for key in record.keys} | record.dropped
    result: JsonObject = {}
    for name, value in found.items():
        meant = name.lower() if name.lower() in known else name
        if meant in result:
            raise place.error(f"found the key {meant} in two spellings, expected it once")
        result[meant] = value
    return result


def _checked(key: Key, value: JsonValue, place: Place) -> JsonValue:
    """``value`` if it is of the key's kind, with null and the old spelling of numbers resolved."""
    match key.kind, value:
        case ((Kind.TEXTS | Kind.ENTRIES), None):
            return None
        case Kind.FLAG, bool() | None:
            return bool(value)
        case Kind.NUMBER, bool():
            pass
        case Kind.NUMBER, int() | None:
            return value or 0
        case Kind.NUMBER, str() if _LEGACY_NUMBER.fullmatch(value):
            return int(value)
        case Kind.TEXT, str() | None:
            return _checked_text(value or "", place)
        case Kind.TEXTS, list():
            return [_checked_item(item, place.item(index)) for index, item in enumerate(value)]
        case Kind.ENTRIES, list():
            return [_checked_entry(key, item, place.item(index)) for index, item in enumerate(value)]
    raise place.unexpected(value, key.kind.value)


def _checked_text(value: str, place: Place) -> str:
    if _SURROGATE.search(value):
        raise place.error("found half of a character (a lone surrogate), expected text that UTF-8 can hold")
    return value


def _checked_item(value: JsonValue, place: Place) -> JsonValue:
    if not isinstance(value, str):
        raise place.unexpected(value, Kind.TEXT.value)
    return _checked_text(value, place)


def _checked_entry(key: Key, value: JsonValue, place: Place) -> JsonValue:
    assert key.entry is not None
    if not isinstance(value, dict):
        raise place.unexpected(value, "an object")
    return canonical(key.entry, value, place)


def _typed_value(key: Key, value: Any) -> Any:
    match key.kind:
        case Kind.FLAG:
            return bool(value)
        case Kind.NUMBER:
            return value or 0
        case Kind.TEXT:
            return key.typed(value or "")
        case Kind.TEXTS:
            return tuple(value or ())
        case Kind.ENTRIES:
            return tuple(typed(key.entry, entry) for entry in value or ()) if key.entry else ()


def _plain_entries(record: Record, values: list[Any], before: list[JsonObject]) -> list[JsonObject]:
    """The entries to write: each over the old entry that it comes from, so that nothing unknown is lost."""
    left: dict[int, Any] = {index: typed(record, entry) for index, entry in enumerate(before)}
    origins: list[int | None] = [None] * len(values)
    if len(values) == len(before):
        # Two entries may be equal but for what is unknown: each stays where it was.
        origins = [index if left[index] == value else None for index, value in enumerate(values)]
        left = {index: old for index, old in left.items() if origins[index] is None}
    for at, value in enumerate(values):
        equal = next((index for index, old in left.items() if old == value), None)
        if origins[at] is None and equal is not None:
            origins[at] = equal
            del left[equal]
    if len(values) == len(before):
        origins = [
            index if origin is None and index in left else origin for index, origin in enumerate(origins)
        ]
    return [
        ({} if origin is None else before[origin]) | _plain_fields(record, value)
        for origin, value in zip(origins, values, strict=True)
    ]


def _plain_fields(record: Record, value: Any) -> JsonObject:
    return {key.name: plain(key, getattr(value, key.field), None) for key in record.keys}
