"""Turns what zfs and zpool say on standard error into typed errors.

The patterns are OpenZFS's words in the C locale, with the release on which each was seen. First match wins.
"""

from __future__ import annotations

import re

from hoster.errors import (
    AlreadyThere,
    DatasetBusy,
    DatasetMissing,
    NoSpace,
    NotPermitted,
    OperationFailed,
    TargetModified,
    Unreachable,
    ZfsError,
)
from hoster.host.process import Completed

_PATTERNS: tuple[tuple[str, type[ZfsError]], ...] = (
    ("dataset does not exist", DatasetMissing),  # 2.3.9
    ("no such pool", DatasetMissing),  # 2.3.9
    ("' does not exist.", DatasetMissing),  # 2.3.9: "bookmark 'tank/vm/web#b' does not exist."
    ("could not find any snapshots to destroy", DatasetMissing),  # 2.3.9
    ("most recent snapshot of", TargetModified),  # 2.3.9: "... does not match incremental source"
    ("has been modified", TargetModified),  # 2.3.9
    ("already exists", AlreadyThere),  # 2.3.9
    ("exists must specify -F", AlreadyThere),  # 2.3.9
    ("out of space", NoSpace),  # 2.3.9
    ("quota exceeded", NoSpace),  # 2.3.9
    ("dataset is busy", DatasetBusy),  # 2.3.9
    ("pool or dataset is busy", DatasetBusy),  # 2.3.9
    ("permission denied", NotPermitted),  # 2.3.9
    ("Permission denied the ZFS", NotPermitted),  # 2.3.9
    ("must be superuser", NotPermitted),  # 2.3.9
)

_GONE = ("mux_client", "Control socket connect", "Connection closed by", "Broken pipe", "client_loop")
"""What an ssh client of a shared connection says when that connection has gone (OpenSSH 9.2, 10.0)."""

_COMPLAINT = re.compile(
    r"^cannot |^bad |^invalid |internal error|denied|superuser|modules|I/O error|suspended|not found",
    re.IGNORECASE,
)
"""How a line of zfs's that tells of a failure begins, or what it holds (2.3.9)."""

_HINTS: dict[type[ZfsError], str] = {
    NotPermitted: "run hoster as root on both nodes",
    NoSpace: "make room in the pool (zpool list), or raise the quota (zfs get quota,refquota)",
}


def zfs_error(node: str, what: str, completed: Completed) -> OperationFailed | Unreachable:
    """The error for a command that failed on ``node`` while doing ``what``, with zfs's own words kept."""
    said = completed.stderr.strip() or completed.stdout.strip()
    words = " ".join(said.split()) or f"exit status {completed.returncode}"
    if completed.returncode == 255 and any(sign in said for sign in _GONE):
        return Unreachable(f"{node}: the connection was lost while {what} ({words})", hint="run it again")
    kind = next((kind for pattern, kind in _PATTERNS if pattern in words), ZfsError)
    if kind is DatasetMissing and completed.returncode not in {1, 2}:
        # A signal or the connection ended it: what it had said until then is not the reason. (Of other errors
        # that cannot be told: zfs set ends with 255 where there is no room.)
        kind = ZfsError
    return kind(f"{node}: {what}: {words}", hint=_HINTS.get(kind, ""))


def is_missing_only(stderr: str) -> bool:
    """Whether all that zfs complains of is that some dataset does not exist (so the rest was listed).

    Lines that are not zfs's, such as a warning of ssh or of the far side's login, do not count.
    """
    complaints = [line for line in stderr.splitlines() if _COMPLAINT.search(line)]
    return bool(complaints) and all("dataset does not exist" in line for line in complaints)
