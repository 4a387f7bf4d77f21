"""Which values properties have on a dataset, and where from: the rules of inheritance of zfsprops(7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.zfsmodel.state import Dataset, Failed, Kind, parent_of

_SUFFIXES = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class Native:
    """A property that zfs itself knows and that can be set. ``kinds`` are those that have it."""

    default: str
    inherited: bool = True
    kinds: frozenset[Kind] = frozenset(Kind)
    choices: tuple[str, ...] = ()


_FILESYSTEM = frozenset({Kind.FILESYSTEM})
_VOLUME = frozenset({Kind.VOLUME})

NATIVES: Mapping[str, Native] = {
    "readonly": Native("off", choices=("on", "off")),
    "canmount": Native("on", False, _FILESYSTEM, ("on", "off", "noauto")),
    "mountpoint": Native("", True, _FILESYSTEM),
    "atime": Native("on", True, _FILESYSTEM, ("on", "off")),
    "compression": Native("on"),
    "recordsize": Native("131072", True, _FILESYSTEM),
    "quota": Native("0", False, _FILESYSTEM),
    "refquota": Native("0", False, _FILESYSTEM),
    "reservation": Native("0", False),
    "refreservation": Native("0", False),
    "volmode": Native("default"),
    "volsize": Native("0", False, _VOLUME),
    "snapdev": Native("hidden"),
    "snapdir": Native("hidden", True, _FILESYSTEM),
    "sync": Native("standard"),
    "copies": Native("1"),
}
"""Those that hoster or its tests set; a value that is none of ``choices`` is refused where there are some."""

READ_ONLY = frozenset(
    {"type", "guid", "createtxg", "creation", "used", "written", "referenced", "available", "userrefs"}
    | {"clones", "origin", "encryption", "encryptionroot", "keystatus", "mounted", "name"}
    | {"receive_resume_token", "keylocation", "keyformat"}
)
"""What zfs alone decides."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value as ``zfs get`` prints it, with its source."""

    text: str = "-"
    source: str = "-"


def is_user(key: str) -> bool:
    """Whether a property is one of the user's own."""
    return ":" in key


def value_of(datasets: Mapping[str, Dataset], dataset: Dataset, key: str) -> Value:
    """The value of a property that can be set, on a dataset."""
    native = NATIVES.get(key)
    if native is not None and dataset.kind not in native.kinds:
        return Value()
    if key in dataset.properties:
        return Value(dataset.properties[key], "local")
    if key in dataset.received:
        return Value(dataset.received[key], "received")
    above = parent_of(dataset.name)
    while (native is None or native.inherited) and above in datasets:
        found = datasets[above]
        text = found.properties.get(key, found.received.get(key))
        if text is not None:
            if key == "mountpoint" and text not in {"none", "legacy"}:
                text = f"{text.rstrip('/')}{dataset.name[len(above) :]}"
            return Value(text, f"inherited from {above}")
        above = parent_of(above)
    if native is None:
        return Value()
    return Value(f"/{dataset.name}" if key == "mountpoint" else native.default, "default")


def mount_of(datasets: Mapping[str, Dataset], dataset: Dataset) -> bool:
    """Whether a dataset is mounted when it is made, or when its node starts."""
    if dataset.kind is Kind.VOLUME or value_of(datasets, dataset, "canmount").text != "on":
        return False
    return value_of(datasets, dataset, "mountpoint").text not in {"none", "legacy"}


def check_value(key: str, value: str, kind: Kind, refused: str, status: int = 1) -> None:
    """Failed, beginning with ``refused``, if ``key`` cannot be set to ``value`` on such a dataset."""
    if is_user(key):
        return
    if key in READ_ONLY:
        raise Failed(f"{refused}: '{key}' is readonly", status)
    native = NATIVES.get(key)
    if native is None:
        raise Failed(f"{refused}: invalid property '{key}'", status)
    if kind not in native.kinds:
        raise Failed(f"{refused}: '{key}' does not apply to datasets of this type", status)
    if native.choices and value not in native.choices:
        words = f"'{key}' must be one of '{' | '.join(native.choices)}'"
        raise Failed(f"{refused}: {words}", status)


def size_of(text: str) -> int:
    """Bytes of a size as it is typed: ``1048576``, ``1M``, ``none``."""
    if text == "none":
        return 0
    factor = _SUFFIXES.get(text[-1].upper(), 1)
    return int(text[:-1] if factor > 1 else text) * factor
