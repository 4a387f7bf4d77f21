"""Holds a stream to a speed limit by letting it wait, never by sending less at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

MIB = 1024 * 1024

_BURST_S = 0.25
"""How far behind the limit a stream may catch up at once, in seconds of the limit."""


@dataclass(slots=True)
class SpeedLimit:
    """Allows ``bytes_per_s`` on average; every stream of a run asks the same one before it writes."""

    bytes_per_s: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _free_at: float = field(default=0.0, init=False)

    def __call__(self, amount: int) -> None:
        """Waits until ``amount`` more bytes may go."""
        now = self.clock()
        start = max(self._free_at, now - _BURST_S)
        self._free_at = start + amount / self.bytes_per_s
        if self._free_at > now:
            self.sleep(self._free_at - now)
