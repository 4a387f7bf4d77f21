"""Locks that die with their process.

flock(2) on a file under the run directory: the kernel lets go when the holder ends, however it ends, so
nothing ever has to be cleaned by hand. The file says who holds it, for the message to whoever must wait;
that it exists means nothing.
"""

from __future__ import annotations

import contextlib
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
    def hold(self, what: str, *, holder: str, wait_s: float = 0.0) -> Iterator[None]:
        """Holds the lock on ``what`` for the block; ``holder`` describes this process to others.

        Busy, naming the holder and since when, if it cannot be had within ``wait_s`` seconds.
        """
        descriptor = self._open(what)
        try:
            self._acquire(descriptor, what, wait_s)
            self._introduce(descriptor, holder)
            yield
        finally:
            os.close(descriptor)

    def _open(self, what: str) -> int:
        import hashlib

        digest = hashlib.sha256(what.encode()).hexdigest()[:16]
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            return os.open(self._folder / f"{digest}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise OperationFailed(
                f"{self._folder}: no lock can be made there: {error.strerror}", hint="run hoster as root"
            ) from error

    def _acquire(self, descriptor: int, what: str, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def _busy(descriptor: int, what: str) -> Busy:
    holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "a process just starting"
    return Busy(f"{what} is in use by {holder}", hint="try again when it has ended, or wait for it (--help)")
