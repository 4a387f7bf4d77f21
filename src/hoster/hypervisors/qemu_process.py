"""Finds a machine's QEMU process, and ends it. Linux only.

QEMU locks its PID file for as long as it lives (a record lock, fcntl(2); qemu_write_pidfile), and the kernel
names the process that holds a lock. So the process is neither looked up by a name nor by a number that was
written down: no crash, reboot or reuse of a number can make another one be taken for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
from datetime import UTC, datetime
from pathlib import Path

from hoster.errors import OperationFailed

_FLOCK = "hhqqi4x"
"""``struct flock`` of 64-bit Linux: type, whence, start, length, PID."""

_LONGEST_MS = 2**31 - 1
"""As long as poll(2) can wait: 24 days."""


def holder(pid_file: Path) -> int | None:
    """The process that has locked the PID file; None if none has, or there is no such file.

    OperationFailed where the kernel does not tell which (it is in another PID namespace), or does not let
    the file be looked at.
    """
    try:
        descriptor = os.open(pid_file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OperationFailed(f"{pid_file}: {error.strerror}", hint="run hoster as root") from error
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    if kind == fcntl.F_UNLCK:
        return None
    if pid <= 0:
        raise OperationFailed(f"{pid_file} is locked by a process of another container")
    return int(pid)


def started_at(pid: int, proc: Path = Path("/proc")) -> datetime:
    """When that process was started, in UTC and full seconds (proc(5)). OSError if it is gone."""
    # The command's name, in parentheses, may hold anything; field 22 is the 20th after it.
    fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    boot = next(
        int(line.split()[1]) for line in (proc / "stat").read_text().splitlines() if line.startswith("btime ")
    )
    return datetime.fromtimestamp(boot + int(fields[19]) // os.sysconf("SC_CLK_TCK"), UTC)


class Grip:
    """A hold on one process that cannot come to mean another (pidfd_open(2)). Closes with its block."""

    def __init__(self, pid: int) -> None:
        """ProcessLookupError if there is no such process."""
        self._descriptor = os.pidfd_open(pid)

    def __enter__(self) -> Grip:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def kill(self) -> None:
        """Sends SIGKILL; nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def ends_within(self, limit_s: float) -> bool:
        """Waits at most so many seconds for its end; whether it has ended."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(min(limit_s * 1000, _LONGEST_MS)))
