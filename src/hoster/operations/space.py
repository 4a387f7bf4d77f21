"""Notes now and then how much room pools have, so that it can be told later when they will be full.

A record like the others: what cannot be found out is left out, and nothing fails by it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from hoster.errors import HosterError
from hoster.model.space import PoolSample
from hoster.operations.context import Context
from hoster.planning.refusals import LOCAL
from hoster.records.journal import Journal
from hoster.zfs.pools import Pool, imported
from hoster.zfs.store import ZfsStore, pool_of

EVERY_S = 1800.0
"""A pool is asked at most so often, however many runs there are: its room of each day is what counts."""


def room_now(context: Context, node: str, zfs: ZfsStore, datasets: Iterable[str]) -> tuple[PoolSample, ...]:
    """How much room there is in the pools of these datasets, those that were noted lately left out."""
    now = time.time()
    try:
        noted = Journal(context.settings.state_dir).sampled_at()
        names = {pool_of(dataset) for dataset in datasets}
        due = [name for name in names if not 0 <= now - noted.get((node, name), 0.0) < EVERY_S]
        return samples_of(node, imported(zfs.host, context.runner, due), now)
    except HosterError:
        return ()


def own_room(context: Context) -> tuple[PoolSample, ...]:
    """The same of the pools with this node's active datasets."""
    return room_now(context, LOCAL, context.zfs, context.datasets)


def samples_of(node: str, seen: Iterable[Pool], at: float) -> tuple[PoolSample, ...]:
    """What was seen of these pools, as samples."""
    return tuple(PoolSample(node, pool.name, at, pool.size, pool.free) for pool in seen)
