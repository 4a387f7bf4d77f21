"""The two settings files as they are written: which keys there are, and of what type each is.

Turns bytes into checked structures and knows nothing of what the settings mean. Every error names the file
and the line, or the key with what was found and what was expected.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from hoster.config.json_text import Place, decoded_object, decoded_text
from hoster.errors import ConfigurationError

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
NotEmpty = Annotated[str, msgspec.Meta(min_length=1)]


class Table(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """A table of hoster.toml."""


class TargetKeep(Table, frozen=True):
    """``[replication.target-keep]``: one key for each type of snapshot."""

    custom: AtLeastOne | None = None
    frequent: AtLeastOne | None = None
    hourly: AtLeastOne | None = None
    daily: AtLeastOne | None = None
    weekly: AtLeastOne | None = None
    monthly: AtLeastOne | None = None
    yearly: AtLeastOne | None = None
    replication: AtLeastOne | None = None


class Replication(Table, frozen=True):
    """``[replication]``."""

    keep: AtLeastOne | None = None
    target_keep: TargetKeep = TargetKeep()
    speed_limit: AtLeastOne | None = None
    connect_timeout: AtLeastOne | None = None


class Branches(Table, frozen=True):
    """``[branches]``."""

    expire_after_days: AtLeastOne | None = None


class Promises(Table, frozen=True):
    """``[promises]``."""

    rpo: AtLeastOne | None = None
    vms: dict[str, AtLeastOne] = {}
    tags: dict[str, AtLeastOne] = {}


class Document(Table, frozen=True):
    """hoster.toml."""

    datasets: tuple[str, ...]
    hostname: NotEmpty | None = None
    tags: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    dns_servers: tuple[str, ...] = ()
    dns_search_domain: str = ""
    state_dir: NotEmpty | None = None
    run_dir: NotEmpty | None = None
    hypervisor: NotEmpty | None = None
    vnc_address: NotEmpty | None = None
    key_location: NotEmpty | None = None
    replication: Replication = Replication()
    branches: Branches = Branches()
    marker_dir: NotEmpty | None = None
    textfile_dir: NotEmpty | None = None
    promises: Promises = Promises()
    schedules: dict[str, dict[str, Any]] = {}


class HostSshKey(msgspec.Struct, frozen=True):
    """One of the ``host_ssh_keys``."""

    key_value: str = ""
    comment: str | None = None


class HostConfig(msgspec.Struct, frozen=True):
    """What hoster uses of Hoster's host_config.json; any list may be null there."""

    active_datasets: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    host_ssh_keys: tuple[HostSshKey, ...] | None = None
    dns_servers: tuple[str, ...] | None = None
    dns_search_domain: str | None = None


_T = TypeVar("_T", bound=msgspec.Struct)

_TOML_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_MISMATCH = re.compile(r"Expected `(.+?)`,? ?(.*?)(?: - at `\$\.?(.*)`)?")
_PATH_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_BOUNDS = {
    ">= 1": " of at least 1",
    "<= 65535": " of at most 65535",
    "of length >= 1": " that is not empty",
}
_WORDS = {
    "array": "a list",
    "bool": "true or false",
    "int": "a whole number",
    "null": "nothing",
    "object": "a table",
    "str": "a text",
}


def settings_document(data: bytes, where: str) -> Document:
    """hoster.toml, checked. ConfigurationError for malformed TOML, unknown keys or values of wrong types."""
    text = decoded_text(data, where)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(text, where, str(error)) from None
    except RecursionError:
        raise ConfigurationError(f"{where}: found too many levels of lists, expected fewer") from None
    place = Place(where)
    _refuse_unknown(table, Document, place)
    if "datasets" not in table:
        hint = 'name the datasets that hold VMs: datasets = ["POOL/DATASET"]'
        raise place.key("datasets").error("found nothing, expected a list of texts", hint=hint)
    return _converted(table, Document, place)


def converted_table(found: Mapping[str, Any], schema: type[_T], place: Place) -> _T:
    """A table within hoster.toml, checked. ConfigurationError for unknown keys or values of wrong types."""
    _refuse_unknown(found, schema, place)
    return _converted(found, schema, place)


def host_config(data: bytes, where: str) -> HostConfig:
    """host_config.json, checked. ConfigurationError for malformed JSON and values of wrong types."""
    return _converted(decoded_object(data, where), HostConfig, Place(where))


def _not_toml(text: str, where: str, message: str) -> ConfigurationError:
    match = _TOML_POSITION.search(message)
    reason = message[: match.start()] if match else message
    if match and match[1]:
        line, column = match[1], match[2]
    else:
        lines = text.split("\n")
        line, column = str(len(lines)), str(len(lines[-1]) + 1)
    return ConfigurationError(f"{where}:{line}:{column}: not TOML: {reason}")


def _refuse_unknown(table: Mapping[str, Any], schema: type[msgspec.Struct], place: Place) -> None:
    """ConfigurationError for the first key that ``schema`` does not have, with the ones that it has."""
    fields = {info.encode_name: info.type for info in msgspec.structs.fields(schema)}
    for name, value in table.items():
        if name not in fields:
            import difflib

            near = difflib.get_close_matches(name, fields, n=1)
            raise place.key(name).error(
                f"found an unknown key, expected one of: {', '.join(sorted(fields))}",
                hint=f"did you mean {near[0]}?" if near else "",
            )
        inner = fields[name]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, dict):
            _refuse_unknown(value, inner, place.key(name))


def _converted(found: Mapping[str, Any], schema: type[_T], place: Place) -> _T:
    try:
        return msgspec.convert(found, schema, strict=True)
    except msgspec.ValidationError as error:
        raise _mismatch(found, str(error), place) from None


def _mismatch(found: Any, message: str, place: Place) -> ConfigurationError:
    """msgspec's complaint, with the place in our words and what was found there.

    It says, for instance, "Expected `int | null`, got `str` - at `$.replication.keep`" or "Expected `int`
    >= 1 - at `$.replication.keep`" (msgspec 0.22).
    """
    match = _MISMATCH.fullmatch(message)
    if match is None:
        return place.error(message)
    kinds, rest, path = match[1], match[2], match[3] or ""
    for step in _steps(path):
        found = found[step]
        place = place.item(step) if isinstance(step, int) else place.key(step)
    kinds = " or ".join(_WORDS.get(kind, kind) for kind in kinds.split(" | ") if kind != "null")
    each = " for each key" if path.endswith("[...]") else ""
    return place.unexpected(found, kinds + _BOUNDS.get(rest, "") + each)


def _steps(path: str) -> Iterator[str | int]:
    for name, index in _PATH_STEP.findall(path):
        yield int(index) if index else name
