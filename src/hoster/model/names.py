"""Names of VMs, datasets, snapshots and endpoints: what is legal, and what a snapshot's name says.

Pure. A name is a label for people: identity is by GUID and order by createtxg, never by what is
parsed here. What ZFS itself allows in names was tried on OpenZFS 2.3.9: letters, digits and
``- _ . :`` and space, at most 255 characters in all; hoster leaves out the space and a leading
hyphen or dot, which no command line handles well.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

MAX_DATASET_NAME = 255
"""Longest name that ZFS accepts, snapshot or bookmark part included (ZFS_MAX_DATASET_NAME_LEN - 1)."""

LONGEST_SUFFIX = len("#hoster-0123456789abcdef-0123456789abcdef")
"""What a dataset's name must leave free: hoster's bookmarks have the longest names it makes."""

LONGEST_HOST = 253
"""Characters of a host name (RFC 1035)."""

LONGEST_JOB = 200
"""A job's name becomes part of the names of files, which have at most 255 characters."""

_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_EXISTING = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.:][A-Za-z0-9_.: -]{0,254}")
_EXISTING_SNAPSHOT = re.compile(
    r"(?:[A-Za-z0-9_.:-][A-Za-z0-9_.:/ -]*@)?(?!\.{1,2}\Z)[A-Za-z0-9_.:][A-Za-z0-9_.: -]*"
)
_SET_ASIDE = re.compile(r"\.(branch|swap)-[0-9]")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_DASHED = re.compile(r"([a-z]+)_(\d{4})-(\d\d)-(\d\d)_(\d\d)-(\d\d)-(\d\d)(?:_(\d+))?", re.ASCII)
_COMPACT = re.compile(r"([a-z]+)_(\d{4})(\d\d)(\d\d)_(\d\d)(\d\d)(\d\d)\.(\d{1,6})", re.ASCII)


class SnapshotType(StrEnum):
    """The word before the date in a snapshot's name."""

    CUSTOM = "custom"
    FREQUENT = "frequent"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"
    REPLICATION = "replication"


_TYPE_WORDS = frozenset(stype.value for stype in SnapshotType)


class SnapshotLabel(Struct, frozen=True):
    """What a hoster snapshot's name says: its type, and the local time on the node that took it."""

    stype: SnapshotType
    taken: datetime


def snapshot_label(short_name: str) -> SnapshotLabel | None:
    """What the part after ``@`` says, or None where hoster did not make the name (it is the user's then).

    Two forms are understood: ``hourly_2023-08-12_13-21-36`` (with ``_2`` and so on for further ones in
    the same second), and the scheduler's ``hourly_20230812_132136.123456`` of the original tool.

    >>> snapshot_label("daily_2023-08-12_13-33-55")
    SnapshotLabel(stype=<SnapshotType.DAILY: 'daily'>, taken=datetime.datetime(2023, 8, 12, 13, 33, 55))
    """
    match = _DASHED.fullmatch(short_name) or _COMPACT.fullmatch(short_name)
    if match is None or match[1] not in _TYPE_WORDS:
        return None
    year, month, day, hour, minute, second = (int(match[i]) for i in range(2, 8))
    try:
        taken = datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None
    return SnapshotLabel(SnapshotType(match[1]), taken)


def new_snapshot_name(stype: SnapshotType, local_now: datetime, taken: Collection[str]) -> str:
    """The name for a snapshot taken now, different from every short name in ``taken``.

    The second one in a second (or after a clock that went back) gets ``_2``, the third ``_3``.

    >>> new_snapshot_name(SnapshotType.CUSTOM, datetime(2023, 8, 12, 13, 21, 36), set())
    'custom_2023-08-12_13-21-36'
    """
    name = f"{stype.value}_{local_now:%Y-%m-%d_%H-%M-%S}"
    while name in taken:
        name = next_snapshot_name(name)
    return name


def next_snapshot_name(name: str) -> str:
    """The name to try where ``name`` is taken; ValueError if hoster did not make it.

    >>> next_snapshot_name("custom_2023-08-12_13-21-36"), next_snapshot_name("custom_2023-08-12_13-21-36_2")
    ('custom_2023-08-12_13-21-36_2', 'custom_2023-08-12_13-21-36_3')
    """
    match = _DASHED.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not a name that hoster gives")
    plain = name if match[8] is None else name[: -len(match[8]) - 1]
    return f"{plain}_{int(match[8] or 1) + 1}"


def snapshot_type(text: str) -> SnapshotType:
    """The type called ``text``; ValueError names the ones there are."""
    try:
        return SnapshotType(text)
    except ValueError:
        known = ", ".join(SnapshotType)
        raise ValueError(f"{shown(text)} is not a snapshot type (one of: {known})") from None


def vm_name(text: str) -> str:
    """``text`` if it can name a VM; ValueError with the reason otherwise."""
    if not _COMPONENT.fullmatch(text):
        raise ValueError(
            f"{shown(text)} cannot name a VM: letters, digits and _ . : - are allowed,"
            " the first a letter, digit or _"
        )
    if _SET_ASIDE.search(text):
        raise ValueError(
            f"{shown(text)} cannot name a VM: names with .branch-<date> and .swap-<date> are kept for"
            " set-aside states"
        )
    return text


def existing_vm_name(text: str) -> str:
    """``text`` if a VM or a branch that exists can be called so; ValueError with the reason otherwise.

    More than :func:`vm_name` allows for new ones, and nothing that ZFS has no names with.
    """
    if not _EXISTING.fullmatch(text):
        raise ValueError(
            f"{shown(text)} is no name of a VM: ZFS has names of letters, digits, blanks and _ . : -"
        )
    return text


def existing_snapshot_name(text: str) -> str:
    """``text`` if a snapshot that exists can be called so, in short or in full; ValueError otherwise."""
    if len(text) > MAX_DATASET_NAME or not _EXISTING_SNAPSHOT.fullmatch(text):
        raise ValueError(
            f"{shown(text)} is no name of a snapshot: ZFS has names of letters, digits, blanks and _ . : -"
        )
    return text


def dataset_name(text: str) -> str:
    """``text`` if it can name a dataset that hoster works with; ValueError with the reason otherwise."""
    for component in text.split("/"):
        if not _COMPONENT.fullmatch(component):
            raise ValueError(
                f"{shown(text)} is not a dataset name: {component!r} is empty, or has characters"
                " other than letters, digits and _ . : -, or begins with . : or -"
            )
    room = MAX_DATASET_NAME - LONGEST_SUFFIX
    if len(text) > room:
        raise ValueError(
            f"dataset name of {len(text)} characters is too long: more than {room}"
            f" leave no room for the names of snapshots and bookmarks (ZFS allows {MAX_DATASET_NAME} in all)"
        )
    return text


class Endpoint(Struct, frozen=True):
    """A node to reach over ssh: a host name or address as the user's ssh configuration knows it."""

    host: str
    user: str = ""

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host


def endpoint(text: str) -> Endpoint:
    """The endpoint ``[user@]host``; ValueError for anything that ssh could take for something else.

    Nothing that begins with a hyphen, holds a blank, a quote, a control character or a port passes.

    >>> str(endpoint("root@10.5.199.85"))
    'root@10.5.199.85'
    """
    user, at, host = text.rpartition("@")
    legal = _HOST.fullmatch(host) and (not at or _USER.fullmatch(user))
    if not legal or len(host) > LONGEST_HOST:
        raise ValueError(
            f"{shown(text)} is not an endpoint: expected HOST or USER@HOST"
            " (a name, an IPv4 or an IPv6 address; the port goes into --port)"
        )
    return Endpoint(host, user)


def job_name(text: str) -> str:
    """``text`` if it can name a replication job (``--script-name``): one path component, nothing hidden."""
    if not _COMPONENT.fullmatch(text) or len(text) > LONGEST_JOB:
        raise ValueError(
            f"{shown(text)} cannot name a job: letters, digits and _ . : - are allowed, {LONGEST_JOB} of them"
            " at most, the first a letter, digit or _"
        )
    return text


def shown(text: str) -> str:
    """``text`` for a message: control characters made visible, the rest of a very long one left out."""
    return repr(text) if len(text) <= 80 else f"{text[:60]!r}… ({len(text)} characters)"
