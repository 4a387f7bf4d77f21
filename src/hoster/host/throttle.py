"""Holds a stream to a speed limit by letting it wait, never by sending less at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

MIB = 1024 * 1024

_BURST_S = 0.25
"""How far behind the limit a stream may catch up at once, in seconds of the limit."""


class SpeedLimit(Struct):
    """Allows ``bytes_per_s`` on average; every stream of a run asks the same one before it writes."""

    bytes_per_s: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    free_at: float = 0.0
    """When, by ``clock``, what was allowed so far has passed."""

    def __call__(self, amount: int) -> None:
        """Waits until ``amount`` more bytes may go."""
        now = self.clock()
        start = max(self.free_at, now - _BURST_S)
        self.free_at = start + amount / self.bytes_per_s
        if self.free_at > now:
            self.sleep(self.free_at - now)
