"""The log of this machine: syslog, or systemd's journal, by a datagram to the socket that it listens on.

Nothing waits for it: one that takes no message within a second has none. The protocols: RFC 3164 as
syslog(3) of glibc and FreeBSD write it; systemd's "Native Journal Protocol".
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
SYSLOG_SOCKETS = (Path("/dev/log"), Path("/var/run/log"))

_TIMEOUT_S = 1.0
_FACILITY_DAEMON = 3 << 3
_NAME = "hoster"
_LONGEST = 8000
"""Most bytes of one text; rsyslog, for one, takes 8 KiB unless told otherwise."""


def has_terminal() -> bool:
    """Whether this process has a controlling terminal. What cron, systemd or ssh without a terminal have
    started has none, wherever its output goes; what a person has started has one, redirected or not."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def is_of_systemd(environment: Mapping[str, str]) -> bool:
    """Whether a unit of systemd has started this process (INVOCATION_ID, JOURNAL_STREAM: systemd.exec(5))."""
    return bool(environment.get("INVOCATION_ID") or environment.get("JOURNAL_STREAM"))


def send_to_syslog(path: Path, priority: int, text: str) -> None:
    """Logs one line; OSError where it was not taken."""
    head = f"<{_FACILITY_DAEMON | priority}>{time.strftime('%b %e %H:%M:%S')} {_NAME}[{os.getpid()}]: "
    _send(path, head.encode() + _cut(text))


def send_to_journal(path: Path, fields: Mapping[str, str]) -> None:
    """Logs an entry with these fields, and what names hoster; OSError where it was not taken."""
    entry = {**fields, "SYSLOG_IDENTIFIER": _NAME, "SYSLOG_FACILITY": str(_FACILITY_DAEMON >> 3)}
    _send(path, b"".join(_field(name, value) for name, value in entry.items()))


def _field(name: str, value: str) -> bytes:
    data = _cut(value)
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def _cut(text: str) -> bytes:
    data = text.encode(errors="replace")
    return data if len(data) <= _LONGEST else data[:_LONGEST].decode(errors="ignore").encode()


def _send(path: Path, data: bytes) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.settimeout(_TIMEOUT_S)
        sending.connect(str(path))
        sending.send(data)
