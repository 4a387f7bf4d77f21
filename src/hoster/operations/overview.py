"""The node at a glance: what it is and has, how its replicas stand as far as is remembered, what is wrong.

Looks and judges; changes nothing, asks no other node, and never fails as a whole: a part that cannot be read
is among what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from msgspec import Struct

from hoster.errors import DatasetMissing, HosterError
from hoster.host.facts import machine_facts
from hoster.hypervisors.resources import memory_available_kib
from hoster.operations.context import Context
from hoster.operations.inventory import datasets_here, look_around
from hoster.operations.jobs import jobs_now
from hoster.operations.machines import ListedVm, Machines, State, machines_in
from hoster.operations.pool_status import PoolStatus
from hoster.operations.status import NodeStatus, TargetStatus, VmStatus, remembered_status
from hoster.planning.verdicts import Verdict
from hoster.records.job_states import JobState
from hoster.records.markers import markers
from hoster.zfs.rooms import Room, rooms

_T = TypeVar("_T")


class VmGlance(Struct, frozen=True):
    """One VM, in short. ``since`` is when it was started (ISO 8601), empty while it does not run."""

    name: str
    state: str
    role: str
    production: bool
    encrypted: bool
    since: str
    used_bytes: int
    description: str
    icons: str


class TargetGlance(Struct, frozen=True):
    """One other node, by its endpoint: how many VMs have a replica there, the age of the oldest data as a
    moment (None: there are none), and the worst of what is wrong with them."""

    node: str
    vms: int
    oldest_data_at: float | None
    verdict: str
    why: str


class Wrong(Struct, frozen=True):
    """Something that is wrong, and the command that helps or tells more."""

    what: str
    hint: str


class Overview(Struct, frozen=True):
    """This node at a glance. Sizes in bytes, times in Unix seconds, None for what cannot be known.

    The counts of VMs, ``vcpu_2_pcpu_ratio`` and ``zpool_list`` are called what the original calls them.
    """

    hostname: str
    system: str
    openzfs: str
    uptime_s: float | None
    cpus: int | None
    memory_bytes: int | None
    memory_available_bytes: int | None
    cache_bytes: int | None
    all_vms: int | None
    live_vms: int | None
    backup_vms: int | None
    offline_vms: int | None
    offline_vms_prod: int | None
    vcpu_2_pcpu_ratio: float | None
    datasets: tuple[Room, ...]
    vms: tuple[VmGlance, ...]
    replication: tuple[TargetGlance, ...]
    zpool_list: tuple[PoolStatus, ...]
    jobs: tuple[JobState, ...]
    wrong: tuple[Wrong, ...]


def overview(context: Context) -> Overview:
    """Looks at this node, once. Replicas are told of from memory: no target is asked."""
    wrong: list[Wrong] = []

    def part(read: Callable[[], _T], hint: str) -> _T | None:
        try:
            return read()
        except HosterError as error:
            wrong.append(Wrong(error.message, error.hint or hint))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            wrong.append(Wrong(f"{where}{error.strerror or error}", hint))
        return None

    openzfs = part(context.zfs.version, "hoster init") or ""
    datasets = part(lambda: rooms_here(context), "zfs list") or ()
    stock = part(lambda: look_around(context, mend=False), "hoster vm list")
    machines: Machines | None = None
    status: NodeStatus | None = None
    if stock is not None:
        machines = part(partial(machines_in, context, stock), "hoster vm list")
        status = part(partial(remembered_status, context, stock), "hoster status")
    jobs = part(lambda: jobs_now(context), "hoster jobs") or ()
    wrong += _wrong(datasets, machines, status)
    wrong += part(lambda: _marked(context), "hoster history") or ()
    return _overview(context, openzfs, datasets, machines, status, jobs, wrong)


def rooms_here(context: Context) -> tuple[Room, ...]:
    """The room of those active datasets that exist; DatasetMissing where none does."""
    host, runner, names = context.zfs.host, context.runner, context.datasets
    try:
        return rooms(host, runner, names)
    except DatasetMissing:
        here = datasets_here(context)
        if len(here) in {0, len(names)}:
            raise
    return rooms(host, runner, here)


def _overview(
    context: Context,
    openzfs: str,
    datasets: tuple[Room, ...],
    machines: Machines | None,
    status: NodeStatus | None,
    jobs: tuple[JobState, ...],
    wrong: Sequence[Wrong],
) -> Overview:
    facts = machine_facts()
    available = memory_available_kib()
    listed = None if machines is None else machines.vms
    live = None if listed is None else [vm for vm in listed if vm.state is State.RUNNING]
    own = None if listed is None else [vm for vm in listed if vm.vm.is_primary]
    offline = None if own is None else [vm for vm in own if vm.state is State.STOPPED]
    return Overview(
        hostname=context.hostname,
        system=facts.system,
        openzfs=openzfs,
        uptime_s=facts.uptime_s,
        cpus=facts.cpus,
        memory_bytes=facts.memory_bytes,
        memory_available_bytes=None if available is None else available * 1024,
        cache_bytes=facts.cache_bytes,
        all_vms=_count(listed),
        live_vms=_count(live),
        backup_vms=None if listed is None or own is None else len(listed) - len(own),
        offline_vms=_count(offline),
        offline_vms_prod=None if offline is None else sum(vm.vm.production for vm in offline),
        vcpu_2_pcpu_ratio=None if live is None or not facts.cpus else _vcpus(live) / facts.cpus,
        datasets=datasets,
        vms=tuple(_glance(vm) for vm in listed or ()),
        replication=() if status is None else tuple(_targets(status.vms)),
        zpool_list=() if status is None else status.pools,
        jobs=jobs,
        wrong=tuple(wrong),
    )


def _count(found: Sequence[ListedVm] | None) -> int | None:
    return None if found is None else len(found)


def _vcpus(machines: Sequence[ListedVm]) -> int:
    configs = (machine.vm.config for machine in machines)
    return sum(c.cpu_sockets * c.cpu_cores * max(c.cpu_threads, 1) for c in configs if c is not None)


def _glance(listed: ListedVm) -> VmGlance:
    vm = listed.vm
    return VmGlance(
        vm.name,
        listed.state.value,
        vm.role.value,
        vm.production,
        vm.dataset.encrypted,
        listed.running.since.astimezone().isoformat(timespec="seconds") if listed.running else "",
        sum(dataset.used for dataset in vm.everything),
        listed.description,
        listed.icons,
    )


def _targets(vms: Sequence[VmStatus]) -> Iterator[TargetGlance]:
    of_nodes: dict[str, list[tuple[str, TargetStatus]]] = {}
    for vm in vms:
        for target in vm.targets:
            of_nodes.setdefault(target.node, []).append((vm.vm, target))
    for node, found in sorted(of_nodes.items()):
        name, worst = max(found, key=lambda one: Verdict[one[1].verdict.upper()])
        moments = [target.data_at for _, target in found if target.data_at is not None]
        why = "" if worst.verdict == "ok" else f"{name}: {worst.why}"
        yield TargetGlance(node, len({vm for vm, _ in found}), min(moments, default=None), worst.verdict, why)


def _wrong(
    datasets: Sequence[Room],
    machines: Machines | None,
    status: NodeStatus | None,
) -> Iterator[Wrong]:
    for room in datasets:
        if not room.key_loaded:
            yield Wrong(f"the key of {room.name} is not loaded", f"zfs load-key {room.name}")
    for listed in machines.vms if machines is not None else ():
        if listed.trouble:
            yield Wrong(listed.trouble, f"hoster vm info {listed.vm.name}")
    if status is None:
        return
    for vm in status.vms:
        if vm.verdict != "ok":
            yield Wrong(f"{vm.vm}: {vm.why}", f"hoster status {vm.vm}")
    for pool in status.pools:
        if pool.verdict != "ok":
            yield Wrong(f"pool {pool.pool}: {pool.why}", f"zpool status -v {pool.pool}")
    for problem in status.problems:
        yield Wrong(problem, "hoster status")


def _marked(context: Context) -> tuple[Wrong, ...]:
    """The jobs whose last run failed, by their markers."""
    found = markers(context.settings.marker_dir)
    return tuple(Wrong(_first_words(one.job, one.text), f"hoster history --job {one.job}") for one in found)


def _first_words(job: str, text: str) -> str:
    """Of a marker: when its job failed, and the reason that says most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = next((line for line in lines[1:] if not line.startswith("exit code ")), "")
    head = lines[0] if lines else f"{job} failed"
    return f"{head}: {reason}" if reason else head
