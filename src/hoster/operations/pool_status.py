"""How the pools stand, here and on the targets: their health, their room, and when they will be full."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence, Set

from msgspec import Struct

from hoster.errors import DatasetMissing, HosterError, OperationFailed
from hoster.model.space import PoolSample
from hoster.model.storage import Site
from hoster.operations.context import Context
from hoster.operations.replicas import Far
from hoster.operations.space import samples_of
from hoster.operations.witnesses import Silent
from hoster.planning.capacity import full_at
from hoster.planning.refusals import LOCAL
from hoster.planning.verdicts import judge_pool
from hoster.records.journal import Journal
from hoster.zfs.pools import Pool, pools, scrubs
from hoster.zfs.store import pool_of


class PoolStatus(Struct, frozen=True):
    """A pool here or on a target; ``scrub`` in the words of ``zpool status``."""

    node: str
    pool: str
    health: str
    size: int
    free: int
    capacity: float
    scrub: str
    full_at: float | None
    """When it will be full at its present rate; None where that is not to be expected."""
    verdict: str
    why: str


def pools_around(
    context: Context, far: Mapping[Site, Far | Silent], now: float, problems: list[str]
) -> list[PoolStatus]:
    """The pools with this node's active datasets, and those in which replicas were seen; what is wrong beside
    them is added to ``problems``."""
    noted = _noted_room(context)
    seen = _each_once([*_own_pools(context, problems), *_far_pools(far)])
    return [_pool(one, noted.get((one.node, one.pool.name), ()), now) for one in seen]


class _SeenPool(Struct, frozen=True):
    node: str
    pool: Pool
    scrub: str


def _own_pools(context: Context, problems: list[str]) -> list[_SeenPool]:
    return _own_pools_of(context, {pool_of(dataset) for dataset in context.datasets}, problems)


def _own_pools_of(context: Context, names: Set[str], problems: list[str]) -> list[_SeenPool]:
    try:
        return _seen_pools(context, names)
    except HosterError as error:
        if not isinstance(error, DatasetMissing) or len(names) == 1:
            problems.append(error.message)
            return []
    # One that is gone takes away none of the others.
    return [seen for name in sorted(names) for seen in _own_pools_of(context, {name}, problems)]


def _seen_pools(context: Context, names: Set[str]) -> list[_SeenPool]:
    host, runner = context.zfs.host, context.runner
    scrubbed = scrubs(host, runner, names)
    return [_SeenPool(LOCAL, pool, scrubbed.get(pool.name, "")) for pool in pools(host, runner, names)]


def _far_pools(far: Mapping[Site, Far | Silent]) -> list[_SeenPool]:
    return [
        _SeenPool(site.endpoint, pool, answer.scrubs.get(pool.name, ""))
        for site, answer in far.items()
        if isinstance(answer, Far)
        for pool in answer.pools
    ]


def _each_once(seen: Iterable[_SeenPool]) -> Iterable[_SeenPool]:
    """One look answers for each of its sites, and a target on this node may lie in a pool of its own."""
    return {(one.node, one.pool.name): one for one in seen}.values()


def _noted_room(context: Context) -> Mapping[tuple[str, str], Sequence[PoolSample]]:
    noted: dict[tuple[str, str], list[PoolSample]] = {}
    with contextlib.suppress(OperationFailed):  # said already: what is remembered could not be read either
        for sample in Journal(context.settings.state_dir).samples():
            noted.setdefault((sample.node, sample.pool), []).append(sample)
    return noted


def _pool(seen: _SeenPool, noted: Sequence[PoolSample], now: float) -> PoolStatus:
    pool = seen.pool
    filled = full_at([*noted, *samples_of(seen.node, [pool], now)], now)
    judgement = judge_pool(pool.health, pool.capacity, None if filled is None else filled - now)
    return PoolStatus(
        seen.node,
        pool.name,
        pool.health,
        pool.size,
        pool.free,
        pool.capacity,
        seen.scrub,
        filled,
        str(judgement.verdict),
        judgement.why,
    )
