"""Looks at the replicas of many VMs: each node is asked the same few things, however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from hoster.errors import HosterError
from hoster.model.storage import Dataset, Role, Site, View
from hoster.operations.context import Context
from hoster.operations.witnesses import Silent, ssh_options
from hoster.planning.swap import branch_of
from hoster.zfs.pools import Pool, pools, scrubs
from hoster.zfs.store import pool_of

_AT_ONCE = 8


class Far(Struct, frozen=True):
    """What one look at another node saw: the replicas, what lies beside them, and the pools they lie in."""

    machine: str
    view: View
    beside: View
    pools: tuple[Pool, ...]
    scrubs: Mapping[str, str]

    def tree(self, root: str) -> tuple[Dataset, ...]:
        """The dataset of a replica and all below it; empty where it is not there."""
        found = self.view.get(root)
        return () if found is None else (found, *self.view.below(root))


def look_at_replicas(context: Context, sites: Iterable[Site]) -> Mapping[Site, Far | Silent]:
    """What the nodes of these sites have of them, all nodes at once; or why one could not be asked."""
    nodes: dict[tuple[str, int | None, str], list[Site]] = {}
    for site in sites:
        nodes.setdefault((site.endpoint, site.port, site.key), []).append(site)
    if not nodes:
        return {}
    with ThreadPoolExecutor(_AT_ONCE, "look") as pool:
        answers = list(pool.map(lambda some: _look(context, some), nodes.values()))
    of_nodes = zip(nodes.values(), answers, strict=True)
    return {site: answer for some, answer in of_nodes for site in some}


def branches_of(root: str, datasets: Iterable[Dataset]) -> tuple[Dataset, ...]:
    """Those of ``datasets`` that are branches of ``root``."""
    return tuple(
        dataset
        for dataset in datasets
        if dataset.marks.role is Role.BRANCH
        and (parsed := branch_of(dataset.name)) is not None
        and parsed[0] == root
    )


def _look(context: Context, sites: Sequence[Site]) -> Far | Silent:
    names = sorted({site.dataset for site in sites})
    try:
        with context.reach(ssh_options(context, sites[0])) as connection:
            there = connection()
            view = there.look_for(names)
            beside = there.look_beside(sorted({name.rpartition("/")[0] for name in names}))
            of_these = {pool_of(name) for name in view.datasets}
            return Far(
                there.machine,
                view,
                beside,
                pools(there.host, context.runner, of_these),
                scrubs(there.host, context.runner, of_these),
            )
    except HosterError as error:
        return Silent(sites[0].endpoint, error.message)
    except ValueError as error:
        return Silent(sites[0].endpoint, str(error))
