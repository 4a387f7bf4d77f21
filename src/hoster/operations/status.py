"""How this node's VMs stand: what each target has of them, seen there or else remembered, and what is wrong.

Looks and judges; changes nothing. This node is looked at once, and so is each node with a replica.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from hoster.errors import OperationFailed
from hoster.model.plan import Common, Ground
from hoster.model.storage import Dataset, Role, Site
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.inventory import Inventory, look_around
from hoster.operations.job import newest_of
from hoster.operations.measuring import by_type
from hoster.operations.pool_status import PoolStatus, pools_around
from hoster.operations.promises import promise_of
from hoster.operations.replicas import Far, branches_of, look_at_replicas
from hoster.operations.witnesses import Silent
from hoster.planning.lag import behind_bytes, is_equal, is_there
from hoster.planning.schedules import targets_of
from hoster.planning.succession import Standing, standing
from hoster.planning.verdicts import (
    Judgement,
    ReplicaFacts,
    Verdict,
    judge_replica,
    worst,
)
from hoster.records.journal import Journal
from hoster.records.runs import Remembered

_Look = Callable[[Sequence[Site]], Mapping[Site, Far | Silent]]


class TargetStatus(Struct, frozen=True):
    """A VM's replica on one target. ``trouble`` is why the target could not be asked: what is told of its
    data is remembered then. Times in Unix seconds, sizes in bytes."""

    node: str
    dataset: str
    trouble: str
    newest: Common | None
    equal: bool
    data_at: float | None
    promise_s: float
    late_at: float | None
    behind_bytes: int | None
    partly_received: bool
    success_at: float | None
    failure_at: float | None
    failure: str
    failures: int
    branches: int
    branch_bytes: int
    verdict: str
    why: str


class OfType(Struct, frozen=True):
    """The snapshots of one type: how many, and when the oldest and the newest were taken."""

    stype: str
    count: int
    oldest: int
    newest: int


class VmStatus(Struct, frozen=True):
    """One VM of this node, with its replicas elsewhere."""

    vm: str
    dataset: str
    role: str
    parent: str
    epoch: str
    production: bool
    snapshots: tuple[OfType, ...]
    branches: int
    branch_bytes: int
    targets: tuple[TargetStatus, ...]
    verdict: str
    why: str


class NodeStatus(Struct, frozen=True):
    """How everything stands; ``problems`` are what is wrong beside what the VMs and pools say."""

    node: str
    vms: tuple[VmStatus, ...]
    pools: tuple[PoolStatus, ...]
    problems: tuple[str, ...]
    verdict: str


def node_status(context: Context, name: str | None = None) -> NodeStatus:
    """How the VMs of this node stand, or the one of that name (OperationFailed if there is none)."""
    stock = look_around(context, mend=False)
    if name is not None:
        stock = Inventory((stock.named(name),), (), view=stock.view)
    return _status(context, stock, lambda sites: look_at_replicas(context, sites))


def remembered_status(context: Context, stock: Inventory) -> NodeStatus:
    """How the VMs in ``stock`` stand as far as this node knows: no target is asked, so that what is told of
    them is remembered from the last run."""
    return _status(context, stock, lambda sites: {site: Silent(site.endpoint, "not asked") for site in sites})


def _status(context: Context, stock: Inventory, look: _Look) -> NodeStatus:
    problems: list[str] = []
    known = _remembered(context, problems)
    sites = {vm.dataset.name: _sites(context, vm, known) for vm in stock.vms}
    far = look([site for of_vm in sites.values() for site in of_vm])
    now = time.time()
    found = [_vm(context, stock, vm, sites[vm.dataset.name], far, known, now) for vm in stock.vms]
    around = pools_around(context, far, now, problems)
    broken = [f"{one.name}: {one.problem}" for one in stock.broken]
    judged = [Judgement(_verdict(one.verdict)) for one in found]
    judged += [Judgement(_verdict(one.verdict)) for one in around]
    judged += [Judgement(Verdict.WARNING if one.busy else Verdict.CRITICAL) for one in stock.broken]
    judged += [Judgement(Verdict.WARNING) for _ in problems]
    return NodeStatus(
        context.hostname,
        tuple(found),
        tuple(around),
        (*broken, *problems),
        str(worst(judged).verdict),
    )


def _remembered(context: Context, problems: list[str]) -> Mapping[tuple[str, str, str], Remembered]:
    try:
        known = Journal(context.settings.state_dir).replicas()
    except OperationFailed as error:
        problems.append(error.message)
        return {}
    return {(one.vm, one.node, one.target): one for one in known}


def _sites(context: Context, vm: Vm, known: Mapping[tuple[str, str, str], Remembered]) -> tuple[Site, ...]:
    """Where the VM's replicas are: what its marks know of, what runs here have sent it to, and where
    schedules are to send it.

    A copy that is another node's replica knows its source by its marks, too: that is none of its targets.
    """
    marked = vm.dataset.marks.sites if vm.is_primary else ()
    names = {(site.endpoint, site.dataset) for site in marked}
    ours = vm.dataset.marks.vm_id
    others = [
        Site(one.node, one.target)
        for one in known.values()
        if one.vm == vm.name
        and one.target
        and (one.node, one.target) not in names
        and (not one.vm_id or one.vm_id == ours)
    ]
    names |= {(site.endpoint, site.dataset) for site in others}
    scheduled = targets_of(context.settings.schedules, vm) if vm.is_primary else {}
    awaited = [target.place_of(vm) for place, target in scheduled.items() if place not in names]
    return (*marked, *others, *awaited) if vm.role is not Role.SUPERSEDED else ()


def _vm(
    context: Context,
    stock: Inventory,
    vm: Vm,
    sites: Sequence[Site],
    far: Mapping[Site, Far | Silent],
    known: Mapping[tuple[str, str, str], Remembered],
    now: float,
) -> VmStatus:
    targets = []
    for site in sites:
        answer = far[site]
        if (
            isinstance(answer, Far)
            and answer.machine == context.zfs.machine
            and site.dataset == vm.dataset.name
        ):
            continue  # another name of this very node: the VM is no replica of itself
        memory = known.get((vm.name, site.endpoint, site.dataset))
        targets.append(_target(context, vm, site, answer, memory, now))
    judged = [Judgement(_verdict(target.verdict), f"{target.node}: {target.why}") for target in targets]
    own = worst([*_own_judgements(context, vm, targets), *judged])
    beside = () if stock.view is None else stock.view.children(vm.dataset.name.rpartition("/")[0])
    branches = branches_of(vm.dataset.name, beside)
    return VmStatus(
        vm.name,
        vm.dataset.name,
        vm.role.value,
        vm.parent,
        "" if vm.dataset.marks.epoch is None else str(vm.dataset.marks.epoch),
        vm.production,
        tuple(
            OfType(stype, len(some), min(s.creation for s in some), max(s.creation for s in some))
            for stype, some in by_type(vm.dataset).items()
            if some
        ),
        len(branches),
        sum(branch.used for branch in branches),
        tuple(targets),
        str(own.verdict),
        own.why if own.verdict is not Verdict.OK else "",
    )


def _own_judgements(context: Context, vm: Vm, targets: Sequence[TargetStatus]) -> Iterable[Judgement]:
    """What is wrong with the VM itself."""
    if vm.role is Role.SUPERSEDED:
        yield Judgement(
            Verdict.WARNING,
            f"{vm.parent} has taken it over; the copy here waits for: hoster vm demote {vm.name}",
        )
    if not vm.is_primary:
        return
    if vm.problem:
        yield Judgement(Verdict.WARNING, vm.problem)
    if vm.config is not None and vm.config.parent_host != context.hostname:
        yield Judgement(
            Verdict.WARNING,
            f"its mark says that it is this node's, its vm_config.json names {vm.config.parent_host}",
        )
    if vm.production and not targets:
        yield Judgement(Verdict.WARNING, "it has never been replicated")


class _Replica(Struct, frozen=True):
    """What is known of a replica, by a look or by the journal."""

    newest: Common | None = None
    had_some: bool = False
    equal: bool = False
    data_at: float | None = None
    standing: Standing = Standing.CURRENT
    partial: bool = False
    branches: tuple[Dataset, ...] = ()


def _target(
    context: Context, vm: Vm, site: Site, answer: Far | Silent, memory: Remembered | None, now: float
) -> TargetStatus:
    promise = promise_of(context.settings, vm.name, vm, site.endpoint, site.dataset)
    if isinstance(answer, Far):
        trouble, replica = "", _seen(vm, site, answer, memory, now)
    else:
        trouble, replica = answer.reason, _remembered_replica(memory)
    failures, failure = (0, "") if memory is None else (memory.failures, memory.failure)
    facts = ReplicaFacts(
        promise_s=promise.rpo_s,
        data_at=replica.data_at,
        had_some=replica.had_some,
        standing=replica.standing,
        failures=failures,
        failure=failure,
        windows=promise.windows,
    )
    judgement = judge_replica(facts, now)
    behind = None if replica.newest is None else behind_bytes(vm.everything, int(replica.newest.guid))
    return TargetStatus(
        node=site.endpoint,
        dataset=site.dataset,
        trouble=trouble,
        newest=replica.newest,
        equal=replica.equal,
        data_at=replica.data_at,
        promise_s=promise.rpo_s,
        late_at=promise.late_at(replica.data_at),
        behind_bytes=behind,
        partly_received=replica.partial,
        success_at=None if memory is None else memory.success_at,
        failure_at=None if memory is None else memory.failure_at,
        failure=failure,
        failures=failures,
        branches=len(replica.branches),
        branch_bytes=sum(branch.used for branch in replica.branches),
        verdict=str(judgement.verdict),
        why=judgement.why,
    )


def _seen(vm: Vm, site: Site, far: Far, memory: Remembered | None, now: float) -> _Replica:
    tree = {dataset.name: dataset for dataset in far.tree(site.dataset)}
    pairs = [(d, tree.get(site.dataset + d.name.removeprefix(vm.dataset.name))) for d in vm.everything]
    root, newest, equal = pairs[0][1], newest_of(pairs), is_equal(pairs)
    moments = [] if newest is None else [float(newest.taken_at)]
    known = None if memory is None else memory.newest
    if memory is not None and memory.equal_at is not None and known is not None and root is not None:
        # Equal they were as of a version that is still there; if it is gone, so is what was equal.
        moments += [memory.equal_at] if is_there(pairs, int(known.guid)) else []
    return _Replica(
        newest,
        had_some=known is not None,
        equal=equal,
        data_at=now if equal else max(moments, default=None),
        standing=standing(vm.dataset.marks.epoch, None if root is None else root.marks.epoch),
        partial=any(dataset.partial is not None for dataset in tree.values()),
        branches=branches_of(site.dataset, far.beside.datasets.values()),
    )


def _remembered_replica(memory: Remembered | None) -> _Replica:
    if memory is None:
        return _Replica()
    # That another node has taken it over was seen by a run, if it was; the marks say so from then on.
    split = memory.ground == Ground.SPLIT
    return _Replica(
        memory.newest,
        data_at=memory.data_at,
        standing=Standing.SPLIT if split else Standing.CURRENT,
    )


def _verdict(name: str) -> Verdict:
    return Verdict[name.upper()]
