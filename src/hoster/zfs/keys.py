"""The keys of encrypted datasets: which dataset is opened by itself, and with what.

``zfs load-key`` works on encryption roots only; each dataset that was received raw is one (seen on OpenZFS
2.3.9), while those made in place share that of a dataset above them.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from hoster.errors import ZfsError


class KeyState(Struct, frozen=True):
    """An encryption root. ``location`` is its ``keylocation``: ``prompt``, or where its key lies."""

    name: str
    location: str
    format: str
    loaded: bool


ASKED = ("encryptionroot", "keylocation", "keyformat", "keystatus")


def listing(datasets: Sequence[str]) -> tuple[str, ...]:
    """What prints the state of the keys of these datasets."""
    return ("zfs", "get", "-Hp", "-o", "name,property,value", ",".join(ASKED), *datasets)


def roots(printed: str) -> tuple[str, ...]:
    """The encryption roots of the datasets listed, each once, in order; they need not be among those."""
    values = [value for _, key, value in _rows(printed) if key == "encryptionroot" and value not in {"-", ""}]
    return tuple(dict.fromkeys(values))


def states(printed: str) -> tuple[KeyState, ...]:
    """The encryption roots among the datasets listed. ZfsError if it is no such listing."""
    found: dict[str, dict[str, str]] = {}
    for name, key, value in _rows(printed):
        found.setdefault(name, {})[key] = value
    return tuple(
        KeyState(name, of["keylocation"], of["keyformat"], of["keystatus"] == "available")
        for name, of in found.items()
        if of["encryptionroot"] == name
    )


def load(name: str, location: str | None, *, only_try: bool = False) -> tuple[str, ...]:
    """Loads a key; without ``location`` from where the dataset says, which for a prompt is standard input.

    ``only_try`` only tells whether it is the right one, also while it is loaded.
    """
    trial = ("-n",) if only_try else ()
    return ("zfs", "load-key", *trial, *(("-L", location) if location else ()), name)


def unload(name: str) -> tuple[str, ...]:
    """Forgets a key, which nothing may be using."""
    return ("zfs", "unload-key", name)


def _rows(printed: str) -> list[tuple[str, str, str]]:
    rows = []
    for line in printed.splitlines():
        fields = line.split("\t")
        if len(fields) != 3 or fields[1] not in ASKED:
            raise ZfsError(f"zfs get printed {line!r}: the state of a key expected")
        rows.append((fields[0], fields[1], fields[2]))
    return rows
