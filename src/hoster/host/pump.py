"""Carries a stream from one pipe into another, counts it, and hears what is said beside it.

Knows descriptors, not processes. Everything is waited for in one poll(2), so that no side can block another
and no thread is needed. On Linux the kernel hands the pages on (splice(2)) and nothing is copied; elsewhere
1 MiB at a time is read and written. Either way no more is held than what the two pipes and one piece hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct

from hoster.errors import OperationFailed

Meter = Callable[[int], None]
"""Told the size of each piece just after it was written; may sleep to hold a speed limit."""

TALK_LIMIT = 64 * 1024
"""How much is kept of what is said beside the stream, in bytes: the end of it."""

_LARGEST = 1024 * 1024
_SMALLEST = 4096
_STEP = 16 * 1024
_FIRST = 64 * 1024
_HELD_S = 0.05
_SMALL = 64 * 1024
_PAUSE_S = 0.0001
_ORPHAN_S = 10.0
"""How long a producer that gives nothing may go on after its consumer has gone, to end by itself."""
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Ending(Enum):
    """Why a stream came to its end. The last three are stalls."""

    COMPLETE = "the producer has given everything, and it was written"
    BROKEN = "the consumer takes no more"
    SILENT = "the producer gave nothing for too long"
    STUCK = "the consumer took nothing for too long"
    UNFINISHED = "the stream was over, and producer or consumer went on for too long"


class Flow(Struct, frozen=True):
    """How a stream ended, and how many bytes of it were written."""

    ending: Ending
    sent_bytes: int


class Cancellation:
    """Ends, from any thread, everything that watches it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: set[int] = set()
        self._cancelled = False

    def cancel(self) -> None:
        """Ends what is under way at once, and for good: what watches from now on ends as well."""
        with self._lock:
            self._cancelled = True
            for descriptor in self._watched:
                os.write(descriptor, b"\0")
            self._watched.clear()

    @contextlib.contextmanager
    def watch(self) -> Iterator[int]:
        """A descriptor that can be read from once this is cancelled; OperationFailed if it is by now."""
        reading, writing = os.pipe()
        try:
            with self._lock:
                if self._cancelled:
                    raise interrupted()
                self._watched.add(writing)
            yield reading
        finally:
            with self._lock:
                self._watched.discard(writing)
            os.close(reading)
            os.close(writing)


def interrupted() -> OperationFailed:
    """The error for a transfer that was told to end."""
    return OperationFailed("interrupted")


class Listener:
    """Collects the end of what is said on ``streams`` while something else is waited for.

    Whatever waits here raises OperationFailed as soon as ``cancelled`` can be read from.
    """

    def __init__(self, streams: Sequence[int], cancelled: int) -> None:
        self._said = dict.fromkeys(streams, b"")
        self._cancelled = cancelled
        self._poll = select.poll()
        for descriptor in (*streams, cancelled):
            self._poll.register(descriptor, select.POLLIN)

    def wait(self, wanted: Mapping[int, int], timeout_s: float) -> dict[int, int]:
        """Waits for any of the ``wanted`` events (of poll(2), by descriptor), but also returns early when
        something was said. What has happened by descriptor: nothing, after ``timeout_s`` at the latest."""
        for descriptor, events in wanted.items():
            self._poll.register(descriptor, events)
        happened = dict(self._poll.poll(max(timeout_s, 0.0) * 1000))
        for descriptor in wanted:
            self._poll.unregister(descriptor)
        if self._cancelled in happened:
            raise interrupted()
        for descriptor in happened.keys() & self._said.keys():
            self._hear(descriptor)
        return {descriptor: events for descriptor, events in happened.items() if descriptor in wanted}

    def until(self, over: Callable[[], bool], timeout_s: float) -> bool:
        """Listens until ``over`` says so, and to what was said by then; False if ``timeout_s`` passes first.

        ``over`` is asked again whenever something was said, and besides at growing intervals.
        """
        deadline = time.monotonic() + timeout_s
        pause_s = 0.0005
        while not over():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self.wait({}, min(pause_s, left_s))
            pause_s = min(2 * pause_s, 0.1)
        self.wait({}, 0.0)
        return True

    def said(self) -> tuple[bytes, ...]:
        """The last of what was said on each of the streams, in their order; at most ``TALK_LIMIT`` bytes."""
        return tuple(self._said.values())

    def _hear(self, descriptor: int) -> None:
        words = os.read(descriptor, TALK_LIMIT)
        if not words:
            self._poll.unregister(descriptor)
        self._said[descriptor] = (self._said[descriptor] + words)[-TALK_LIMIT:]


ZERO_COPY = hasattr(os, "splice")


def pump(
    source: int,
    sink: int,
    meter: Meter,
    listener: Listener,
    stall_s: float,
    *,
    zero_copy: bool = ZERO_COPY,
) -> Flow:
    """Carries everything from ``source`` to ``sink``, both of them ends of pipes, through ``meter``.

    Gives up when no byte has moved for ``stall_s`` seconds, those spent in the meter not counted. A meter
    that lets it wait gets smaller pieces, down to 4 KiB, until each wait is about 50 ms: a limit is then
    held smoothly, and pumps that share it come to equal shares, as all of them yield by halves and regain
    by equal steps. Closes nothing.
    """
    for descriptor in (source, sink):
        os.set_blocking(descriptor, False)
    roomy = min(_enlarged(source), _enlarged(sink)) >= _LARGEST
    mover: _Mover = _Splicer(source, sink) if zero_copy else _Copier(source, sink)
    sent_bytes, size = 0, _FIRST
    moved_at = time.monotonic()
    while True:
        ending = _ready(source, sink, mover, listener, moved_at + stall_s)
        if ending is not None:
            return Flow(ending, sent_bytes)
        try:
            amount = mover.move(size)
        except BlockingIOError:
            continue
        except BrokenPipeError:
            return Flow(Ending.BROKEN, sent_bytes)
        if not amount:
            return Flow(Ending.COMPLETE, sent_bytes)
        sent_bytes += amount
        written_at = time.monotonic()
        meter(amount)
        moved_at = time.monotonic()
        size = next_size(size, moved_at - written_at)
        if roomy and amount < _SMALL:
            # Looking again at once would find a single page; measured, this halves the effort for a stream.
            time.sleep(_PAUSE_S)


def next_size(size: int, held_s: float) -> int:
    """How many bytes to move at most after ``size`` at most, for which the meter let us wait ``held_s``."""
    return max(size // 2, _SMALLEST) if held_s > _HELD_S else min(size + _STEP, _LARGEST)


def _ready(source: int, sink: int, mover: _Mover, listener: Listener, deadline: float) -> Ending | None:
    """Waits until a piece can be moved (None), or until it is certain that none will be."""
    wanted = {sink: select.POLLOUT}
    if not mover.holding:
        wanted[source] = select.POLLIN
    room = False
    while True:
        happened = listener.wait(wanted, deadline - time.monotonic())
        if happened.get(source) == select.POLLHUP:
            # Only asked here: splice(2) would report a consumer that has gone before the end of the data.
            return Ending.COMPLETE
        if source in happened:
            del wanted[source]
        if happened.get(sink, 0) & _GONE:
            if source not in wanted:
                return Ending.BROKEN
            # It may have had all it wanted, and the producer be about to end just as well.
            del wanted[sink]
            room = True
            deadline = min(deadline, time.monotonic() + _ORPHAN_S)
        elif sink in happened:
            wanted[sink] = 0
            room = True
        if room and source not in wanted:
            return None
        if time.monotonic() >= deadline:
            if room:
                return Ending.SILENT if sink in wanted else Ending.BROKEN
            return Ending.STUCK


class _Mover(Protocol):
    """Moves what can be moved without waiting."""

    @property
    def holding(self) -> bool:
        """Something was taken from the source and is not written yet."""
        ...

    def move(self, size: int) -> int:
        """Writes at most ``size`` bytes and says how many, 0 at the end of the source; BlockingIOError where
        nothing can be read or written now, BrokenPipeError where the consumer has gone."""
        ...


class _Splicer:
    """The kernel moves the pages from pipe to pipe: splice(2)."""

    holding = False

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink

    def move(self, size: int) -> int:
        return os.splice(self._source, self._sink, size)


class _Copier:
    """Reads and writes, holding what did not fit."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._rest = memoryview(b"")

    @property
    def holding(self) -> bool:
        return bool(self._rest)

    def move(self, size: int) -> int:
        if not self._rest:
            self._rest = memoryview(os.read(self._source, size))
        if not self._rest:
            return 0
        written = os.write(self._sink, self._rest[:size])
        self._rest = self._rest[written:]
        return written


def _enlarged(descriptor: int) -> int:
    """Makes the pipe as large as one piece where that can be done, and says how large it is (0: unknown)."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        # Refused to a user whose pipes take up too much already (pipe(7)); the stream flows all the same.
        with contextlib.suppress(OSError):
            return fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _LARGEST)
    return 0
