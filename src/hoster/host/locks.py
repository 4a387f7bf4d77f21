"""Locks that die with their process.

flock(2) on a file under the run directory: the kernel lets go when the holder ends, however it ends, so
nothing ever has to be cleaned by hand. The file says who holds it, a line each, for the message to whoever
must wait, and when it was let go; that it exists means nothing, and a line whose process has gone is passed
over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from hoster.errors import Busy, OperationFailed
from hoster.host.origin import is_gone, own_origin

_POLL_S = 0.2
_LET_GO = "let go at "
_LONG = 64 * 1024
"""A file of more bytes is emptied as soon as nobody holds the lock."""

_MOST_BYTES = 1024 * 1024
"""How much of its end is read, where somebody has been in the way of that for very long."""


class Locks:
    """The locks of this node, kept as files in ``folder``.

    ``command`` is what this process was started as, for whoever has to wait for it. ``progress`` is asked how
    far the process of that number has come, in words; empty where nothing is known.
    """

    def __init__(
        self, folder: Path, command: str = "", progress: Callable[[int], str] = lambda _pid: ""
    ) -> None:
        self._folder = folder
        self._command = command
        self._progress = progress

    @contextlib.contextmanager
    def hold(self, what: str, *, holder: str, wait_s: float = 0.0, shared: bool = False) -> Iterator[float]:
        """Holds the lock on ``what`` for the block; ``holder`` describes this process to others. Gives when
        somebody last let go of it: what was seen before that may have changed since. In Unix seconds; 0 where
        nobody ever had it, infinity where one who had it was killed, or could not write down that he had it.

        Any number may hold it ``shared`` at a time, and then nobody else. Busy, naming all who hold it, since
        when and how far they are, if it cannot be had within ``wait_s`` seconds.
        """
        descriptor, is_new = self._open(what)
        try:
            self._acquire(descriptor, what, wait_s, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            let_go_at = _let_go_at(descriptor, alone=not shared, is_new=is_new)
            self._introduce(descriptor, holder, alone=not shared)
            try:
                yield let_go_at
            finally:
                _let_go(descriptor, _origin_of(os.getpid()))
            if shared:
                _empty_if_long(descriptor)
        finally:
            os.close(descriptor)

    def _open(self, what: str) -> tuple[int, bool]:
        """The lock's file, and whether it was made just now."""
        import hashlib

        digest = hashlib.sha256(what.encode()).hexdigest()[:16]
        path = self._folder / f"{digest}.lock"
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            try:
                return _open_or_make(path)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                _allow_more_files()
                return _open_or_make(path)
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
                    raise self._busy(descriptor, what) from None
                time.sleep(_POLL_S)
            else:
                return

    def _introduce(self, descriptor: int, holder: str, *, alone: bool) -> None:
        """Others that share the lock may introduce themselves at the same moment: each appends a line.

        The kernel has given the lock by then: a disk that takes no words keeps nobody from his work.
        """
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        command = f" ({self._command})" if self._command else ""
        line = f"{_origin_of(os.getpid())}\tprocess {os.getpid()} since {started}: {holder}{command}\n"
        with contextlib.suppress(OSError):
            if alone:
                os.ftruncate(descriptor, 0)
            os.write(descriptor, line.encode())

    def _busy(self, descriptor: int, what: str) -> Busy:
        present = [(_pid_of(origin), words) for origin, words in _told(descriptor)[0] if not is_gone(origin)]
        holders = [self._described(*holder) for holder in present]
        return Busy(
            f"{what} is in use by {'; and by '.join(holders) or 'a process just starting'}",
            hint="try again when it has ended, or wait for it (--help)",
        )

    def _described(self, pid: int, words: str) -> str:
        progress = self._progress(pid)
        return f"{words}; {progress}" if progress else words


def _open_or_make(path: Path) -> tuple[int, bool]:
    flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_EXCL, 0o644), True
    except FileExistsError:
        return os.open(path, flags, 0o644), False


@cache
def _origin_of(_this_process: int) -> str:
    return own_origin()


def _let_go(descriptor: int, origin: str) -> None:
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{origin}\t{_LET_GO}{time.time():.6f}\n".encode())


def _let_go_at(descriptor: int, *, alone: bool, is_new: bool) -> float:
    """When somebody last let go; infinite where somebody never did, which is then done for him, and where he
    could not say that he did, or even that he had it."""
    holders, let_go_at = _told(descriptor)
    if not is_new and os.fstat(descriptor).st_size == 0:
        let_go_at = math.inf
    for origin, _ in holders:
        if is_gone(origin):
            _let_go(descriptor, origin)
        if alone or is_gone(origin):
            let_go_at = math.inf
    return let_go_at


def _told(descriptor: int) -> tuple[list[tuple[str, str]], float]:
    """Those who have introduced themselves and did not let go, as origin and words; and when anybody last let
    go, 0 for never."""
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, _MOST_BYTES, max(0, size - _MOST_BYTES)).decode(errors="replace")
    holders: dict[str, list[str]] = {}
    let_go_at = 0.0
    for line in text.splitlines():
        origin, tab, words = line.partition("\t")
        if words.startswith(_LET_GO):
            if holders.get(origin):
                holders[origin].pop()
            with contextlib.suppress(ValueError):
                let_go_at = float(words.removeprefix(_LET_GO))
        elif tab:
            holders.setdefault(origin, []).append(words)
    return [(origin, words) for origin, of_one in holders.items() for words in of_one], let_go_at


def _pid_of(origin: str) -> int:
    pieces = origin.split("/")
    return int(pieces[2]) if len(pieces) == 4 and pieces[2].isdigit() else 0


def _empty_if_long(descriptor: int) -> None:
    """Empties the file of a lock that was shared, if it has grown long and nobody else shares it now."""
    if os.fstat(descriptor).st_size > _LONG:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            _let_go(descriptor, _origin_of(os.getpid()))


def _allow_more_files() -> None:
    """A run over thousands of VMs holds two locks of each, and each is an open file."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
