"""Holds streams to one speed limit by letting them wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MIB = 1024 * 1024

_BURST_S = 0.2
"""How far behind the limit the streams may catch up at once, in seconds of the limit."""


class SpeedLimit:
    """Allows ``bytes_per_s`` on average: one budget for all streams of a run, from whatever threads.

    Who asks first is served first; those that wait at the same time therefore get the same number of turns.
    In any ten seconds no more goes through than the limit allows, plus 2 % and what is asked for at a time.
    """

    def __init__(
        self,
        bytes_per_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        # When, by the clock, what was allowed so far has passed. Nothing is saved up before the first byte.
        self._free_at = clock()

    def __call__(self, amount: int) -> None:
        """Returns when ``amount`` bytes more have had the time that the limit gives them."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - _BURST_S) + amount / self._bytes_per_s
            wait_s = self._free_at - now
        if wait_s > 0:
            self._sleep(wait_s)
