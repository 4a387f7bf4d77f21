"""JSON as text: read strictly, written in Hoster's layout.

Reading refuses what other readers would quietly resolve in different ways (a key given twice, NaN) and
says where it is. Nothing is lost between reading and writing: the order of keys is kept, and numbers
that a float could not hold exactly keep their digits. The layout is that of Go's ``json.MarshalIndent``
with an indent of three spaces, which is how Hoster writes its files.
"""

from __future__ import annotations

import json
import re
from typing import TypeAlias

from msgspec import Struct

from hoster.errors import ConfigurationError

MAX_DEPTH = 64
"""How many levels of lists and objects are accepted; real files have three."""

_INDENT = "   "
_ESCAPED = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN_CHARACTERS = 60


class Number(Struct, frozen=True):
    """A number that is not a plain whole one, by its digits as they were read."""

    digits: str


JsonValue: TypeAlias = "bool | int | str | Number | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]


class Place(Struct, frozen=True):
    """A place in a file, for messages: the file and the path of keys such as ``disks[1].disk_type``."""

    file: str
    path: str = ""

    def key(self, name: str) -> Place:
        shown = name if _PLAIN_KEY.fullmatch(name) else json.dumps(name)
        return Place(self.file, f"{self.path}.{shown}" if self.path else shown)

    def item(self, index: int) -> Place:
        return Place(self.file, f"{self.path}[{index}]")

    def error(self, text: str, *, hint: str = "") -> ConfigurationError:
        """What is wrong here, as an error that names the file and the path."""
        return ConfigurationError(": ".join(filter(None, (self.file, self.path, text))), hint=hint)

    def unexpected(self, found: object, expected: str) -> ConfigurationError:
        """Found one thing, expected another. What a password is set to is not shown."""
        shown = kind_of(found) if "password" in self.path else described(found)
        return self.error(f"found {shown}, expected {expected}")


def kind_of(value: object) -> str:
    """What sort of value this is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
        case int() | float() | Number():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"


def described(value: object) -> str:
    """What this value is, in words and, where it is short, as it was written."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case Number(digits):
            return f"the number {digits[:_SHOWN_CHARACTERS]}"
        case "":
            return "an empty text"
        case str():
            more = "…" if len(value) > _SHOWN_CHARACTERS else ""
            return f"the text {json.dumps(value[:_SHOWN_CHARACTERS])}{more}"
        case _:
            return kind_of(value)


def decoded_text(data: bytes, where: str) -> str:
    """``data`` as UTF-8, less a byte order mark. ConfigurationError names the line of the first bad byte."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{where}:{line}: found the byte 0x{data[error.start]:02x}, expected text in UTF-8"
        ) from None


def decoded_object(data: bytes, where: str) -> JsonObject:
    """The one JSON object that ``data`` holds.

    ConfigurationError, naming ``where`` and the line or the path of keys, for anything that is not
    strictly JSON, for a key that appears twice in one object, for more than MAX_DEPTH levels, and for a
    document that is not an object.
    """
    value = _decoded(data, where, "a JSON object")
    if not isinstance(value, dict):
        raise Place(where).unexpected(value, "an object")
    return value


def decoded_list(data: bytes, where: str) -> list[JsonValue]:
    """The one JSON list that ``data`` holds; ConfigurationError as for :func:`decoded_object`."""
    value = _decoded(data, where, "a JSON list")
    if not isinstance(value, list):
        raise Place(where).unexpected(value, "a list")
    return value


def encoded_object(document: JsonObject) -> bytes:
    """``document`` in Hoster's layout, without a final newline.

    >>> encoded_object({"tags": [], "memory": "<2G>"}).decode()
    '{\\n   "tags": [],\\n   "memory": "\\\\u003c2G\\\\u003e"\\n}'
    """
    return _text(document, "").encode()


_TOO_DEEP = f"found more than {MAX_DEPTH} levels of lists and objects, expected fewer"


class _Fault(Struct, frozen=True):
    """Stands in for a value that JSON does not have, until its path is known."""

    text: str


def _decoded(data: bytes, where: str, expected: str) -> JsonValue:
    text = decoded_text(data, where)
    if not text.strip():
        raise ConfigurationError(f"{where}: found an empty file, expected {expected}")
    try:
        value: JsonValue = json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=Number,
            parse_int=_whole_number,
            parse_constant=_Fault,
        )
    except json.JSONDecodeError as error:
        found = "the end of the file" if not text[error.pos :].strip() else "something that is not JSON"
        raise ConfigurationError(
            f"{where}:{error.lineno}:{error.colno}: found {found}: {error.msg}"
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{where}: {_TOO_DEEP}") from None
    _refuse_faults(value, Place(where), 1)
    return value


def _object(pairs: list[tuple[str, JsonValue]]) -> JsonObject | _Fault:
    """An object of JSON, or the fault that a key appears twice in it."""
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    return _Fault(f"the key {json.dumps(twice)} more than once")


def _whole_number(digits: str) -> int | Number:
    """An int where that is what the digits say and nothing else; ``-0`` and huge ones keep their digits."""
    return Number(digits) if len(digits) > 19 or digits == "-0" else int(digits)


def _refuse_faults(value: object, place: Place, depth: int) -> None:
    if depth > MAX_DEPTH and isinstance(value, list | dict):
        raise ConfigurationError(f"{place.file}: {_TOO_DEEP}")
    match value:
        case _Fault(text):
            raise place.error(f"found {text}, expected strict JSON")
        case list():
            for index, item in enumerate(value):
                _refuse_faults(item, place.item(index), depth + 1)
        case dict():
            for name, item in value.items():
                _refuse_faults(item, place.key(name), depth + 1)


def _text(value: JsonValue, margin: str) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case Number(digits):
            return digits
        case str():
            return _quoted(value)
        case list():
            return _block("[", [_text(item, margin + _INDENT) for item in value], "]", margin)
        case dict():
            inner = margin + _INDENT
            return _block("{", [f"{_quoted(k)}: {_text(v, inner)}" for k, v in value.items()], "}", margin)


def _block(opening: str, items: list[str], closing: str, margin: str) -> str:
    if not items:
        return opening + closing
    inner = f"\n{margin}{_INDENT}"
    return f"{opening}{inner}{f',{inner}'.join(items)}\n{margin}{closing}"


def _quoted(text: str) -> str:
    """A JSON string with the escapes of Go's encoder; a lone surrogate, which UTF-8 lacks, is escaped too."""
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))
