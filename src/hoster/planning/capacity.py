"""When a pool will be full if it goes on filling as it did.

Pure; times in Unix seconds, sizes in bytes. What counts is the least room of each day: what comes and goes
within a day, such as snapshots that are taken and pruned, does not look like filling.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hoster.model.space import PoolSample

DAY_S = 86_400.0
WINDOW_DAYS = 14
"""What was seen longer ago tells nothing of the present rate."""

_FEWEST_DAYS = 4
_FARTHEST_DAYS = 730
_SLOP_SHIFT = 5
_MOST_SLOP = 128 * 2**30


def full_at(samples: Iterable[PoolSample], now: float) -> float | None:
    """The moment at which the pool of these samples will take no more data; None where it is not filling,
    would last for more than two years, or was seen on fewer than four days of the last fourteen.

    The last sample is the present state. ZFS keeps a 32nd part of a pool, at most 128 GiB, for itself
    (``spa_slop_shift``, zfs(4)): a pool is full before nothing is free. A single change that is greater than
    all others together, such as a VM brought here, is no rate and does not count. Days, free: ::

        -4 100   -3 90   -2 80   -1 70   0 60        ->  10 a day: in 6 days
        -4 100   -3 90   -2 80   -1 20   0 10        ->  the same, the jump of 60 being left out: in 1 day
    """
    seen = sorted(
        (s for s in samples if now - WINDOW_DAYS * DAY_S < s.at <= now), key=lambda sample: sample.at
    )
    least: dict[int, int] = {}
    for sample in seen:
        days_ago = int((now - sample.at) // DAY_S)
        least[days_ago] = min(sample.free, least.get(days_ago, sample.free))
    if len(least) < _FEWEST_DAYS:
        return None
    days = sorted(least.items(), reverse=True)
    changes = [(free - before, then - day) for (then, before), (day, free) in pairwise(days)]
    lost_per_day = -_rate(changes)
    room = seen[-1].free - min(seen[-1].size >> _SLOP_SHIFT, _MOST_SLOP)
    if lost_per_day <= 0 or room > lost_per_day * _FARTHEST_DAYS:
        return None
    return seen[-1].at + max(room, 0) / lost_per_day * DAY_S


def _rate(changes: list[tuple[int, int]]) -> float:
    """Bytes a day, of changes in bytes over so many days each."""
    jump = max(changes, key=lambda change: abs(change[0]))
    others = [change for change in changes if change is not jump]
    if abs(jump[0]) > sum(abs(size) for size, _ in others):
        changes = others
    return sum(size for size, _ in changes) / sum(days for _, days in changes)
