"""What bare ``hoster`` prints: the node at a glance."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from hoster.cli.messages import INFO, WARNING, say
from hoster.cli.render import human_size, print_table
from hoster.operations.context import wire
from hoster.operations.overview import Overview, overview
from hoster.planning.verdicts import duration
from hoster.zfs.rooms import Room

SIGNS = {"ok": "🟢", "warning": "🟡", "critical": "🔴"}
DATASETS = ("#", "ZFS Dataset", "Space Used", "Space Available", "Encrypted")
POOLS = ("Pool", "Health", "Full", "Free", "State")
_VMS = ("VM Name", "VM Status", "Running Since", "Disk Used", "VM Description")
_TARGETS = ("Target", "VMs", "Oldest Data", "State")


def show_overview() -> None:
    """Prints everything; ConfigurationError where there is no configuration."""
    seen = overview(wire())
    show_node(seen)
    print_table("Datasets", DATASETS, [dataset_row(n, room) for n, room in _numbered(seen)], unix=False)
    if seen.vms:
        print_table("VMs", _VMS, _vm_rows(seen), unix=False)
    elif seen.all_vms == 0:
        say(INFO, "there is no VM on this node", hint="hoster vm deploy --name NAME, or hoster vm adopt NAME")
    if seen.replication:
        print_table("Replication, as remembered", _TARGETS, _target_rows(seen), unix=False)
    elif seen.vms:
        say(INFO, "nothing is replicated from here", hint="hoster vm replicate-all --endpoint HOST")
    for job in seen.jobs:
        since = datetime.fromtimestamp(job.since)
        to = f" to {job.node}" if job.node else ""
        say(INFO, f"{job.job} runs{to} since {since:%Y-%m-%d %H:%M:%S}", hint=f"hoster jobs watch {job.job}")
    for wrong in seen.wrong:
        say(WARNING, wrong.what, hint=wrong.hint)
    if not seen.wrong:
        say(INFO, "nothing is wrong, as far as this node knows", hint="hoster status asks the targets, too")


def show_node(seen: Overview) -> None:
    """What the node is."""
    print_table("Node", ("What", "How"), node_rows(seen), unix=False)


def node_rows(seen: Overview) -> list[tuple[str, str]]:
    """What the node is, what of its memory is free, how many of its VMs run."""
    free = _known(seen.memory_available_bytes, lambda size: f", {human_size(size)} available")
    cache = _known(seen.cache_bytes, lambda size: f", {human_size(size)} of it ZFS's cache")
    vms = "unknown" if seen.all_vms is None else f"{seen.all_vms}, {seen.live_vms} of them running"
    ratio = _known(seen.vcpu_2_pcpu_ratio, lambda ratio: f", {ratio:.1f} virtual ones in use for each")
    return [
        ("Hostname", seen.hostname),
        ("System", seen.system),
        ("OpenZFS", seen.openzfs or "unknown"),
        ("Uptime", _known(seen.uptime_s, duration) or "unknown"),
        ("Memory", f"{_known(seen.memory_bytes, human_size) or 'unknown'}{free}{cache}"),
        ("CPUs", f"{_known(seen.cpus, str) or 'unknown'}{ratio}"),
        ("VMs", vms),
    ]


def dataset_row(number: int, room: Room) -> tuple[str, ...]:
    """One dataset, as the original lists it."""
    encrypted = ("yes" if room.key_loaded else "yes, the key is not loaded") if room.encrypted else "no"
    return (str(number), room.name, human_size(room.used), human_size(room.available), encrypted)


def pool_rows(seen: Overview) -> list[tuple[str, ...]]:
    """The pools of the datasets."""
    return [
        (
            *(pool.pool, pool.health, f"{pool.capacity:.0%}", human_size(pool.free)),
            f"{SIGNS[pool.verdict]} {pool.why or pool.verdict}",
        )
        for pool in seen.zpool_list
    ]


def _numbered(seen: Overview) -> list[tuple[int, Room]]:
    return list(enumerate(seen.datasets, start=1))


def _vm_rows(seen: Overview) -> list[tuple[str, ...]]:
    return [
        (vm.name, vm.icons, vm.since or "-", human_size(vm.used_bytes), vm.description) for vm in seen.vms
    ]


def _target_rows(seen: Overview) -> list[tuple[str, ...]]:
    now = time.time()
    return [
        (
            *(target.node, str(target.vms)),
            _known(target.oldest_data_at, lambda at: duration(now - at)) or "-",
            f"{SIGNS[target.verdict]} {target.why or target.verdict}",
        )
        for target in seen.replication
    ]


_Number = int | float


def _known(value: _Number | None, text: Callable[..., str]) -> str:
    return "" if value is None else text(value)
