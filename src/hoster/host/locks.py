"""Locks that die with their process.

flock(2) on a file under the run directory: the kernel lets go when the holder ends, however it ends, so
nothing ever has to be cleaned by hand. The file says who holds it, for the message to whoever must wait;
that it exists means nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from hoster.errors import Busy, OperationFailed

_POLL_S = 0.2


class Locks:
    """The locks of this node, kept as files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def hold(self, what: str, *, holder: str, wait_s: float = 0.0, shared: bool = False) -> Iterator[None]:
        """Holds the lock on ``what`` for the block; ``holder`` describes this process to others.

        Any number may hold it ``shared`` at a time, and then nobody else. Busy, naming the holder (of several
        the one that came last) and since when, if it cannot be had within ``wait_s`` seconds.
        """
        descriptor = self._open(what)
        try:
            self._acquire(descriptor, what, wait_s, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            self._introduce(descriptor, holder)
            yield
        finally:
            os.close(descriptor)

    def _open(self, what: str) -> int:
        import hashlib

        digest = hashlib.sha256(what.encode()).hexdigest()[:16]
        path = self._folder / f"{digest}.lock"
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            try:
                return os.open(path, flags, 0o644)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                _allow_more_files()
                return os.open(path, flags, 0o644)
        except OSError as error:
            raise OperationFailed(
                f"{self._folder}: no lock can be made there: {error.strerror}", hint="run hoster as root"
            ) from error

    def _acquire(self, descriptor: int, what: str, wait_s: float, kind: int) -> None:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise _busy(descriptor, what) from None
                time.sleep(_POLL_S)
            else:
                return

    def _introduce(self, descriptor: int, holder: str) -> None:
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} since {started}: {holder}\n".encode(), 0)


def _allow_more_files() -> None:
    """A run over thousands of VMs holds two locks of each, and each is an open file."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _busy(descriptor: int, what: str) -> Busy:
    holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "a process just starting"
    return Busy(f"{what} is in use by {holder}", hint="try again when it has ended, or wait for it (--help)")
