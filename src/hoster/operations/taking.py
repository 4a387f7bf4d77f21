"""Takes snapshots of many VMs at one moment, and keeps one vanished dataset from taking down the rest.

``zfs snapshot`` of several datasets is all or nothing (zfs-snapshot(8); tried on OpenZFS 2.3.9: status 2).
Where it fails, the node is looked at again, what has gone is dropped, and the rest is taken; where that
fails too, each VM is tried by itself, so that only the one at fault goes without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from hoster.errors import OperationFailed, ZfsError
from hoster.model.names import SnapshotType, new_snapshot_name
from hoster.model.plan import TakeSnapshot
from hoster.model.vms import Vm
from hoster.zfs.store import ZfsStore, pool_of


def snapshot_steps(vm: Vm, stype: SnapshotType, now: datetime, reason: str) -> tuple[TakeSnapshot, ...]:
    """One step for each dataset of the VM, all with the same name, which none of them has yet."""
    taken = {s.name for dataset in vm.everything for s in dataset.snapshots}
    name = new_snapshot_name(stype, now, taken)
    return tuple(TakeSnapshot(dataset.name, name, reason) for dataset in vm.everything)


def take(
    zfs: ZfsStore,
    steps: Mapping[str, Sequence[TakeSnapshot]],
    properties: Mapping[str, str] | None = None,
) -> dict[str, OperationFailed]:
    """Takes the snapshots of each VM (``steps`` is keyed by VM name): one command per pool.

    Returns the VMs that went without, and why. A VM's datasets get theirs together or not at all.
    """
    failures: dict[str, OperationFailed] = {}
    for of_pool in _by_pool(steps).values():
        _take_together(zfs, of_pool, properties or {}, failures)
    return failures


def _take_together(
    zfs: ZfsStore,
    steps: Mapping[str, Sequence[TakeSnapshot]],
    properties: Mapping[str, str],
    failures: dict[str, OperationFailed],
) -> None:
    if _attempt(zfs, steps, properties) is None:
        return
    seen = zfs.look_at([s.dataset for of_vm in steps.values() for s in of_vm])
    remaining = dict(steps)
    for vm, of_vm in steps.items():
        gone = [s.dataset for s in of_vm if seen.get(s.dataset) is None]
        if gone:
            failures[vm] = OperationFailed(f"{vm}: {gone[0]} vanished before its snapshot could be taken")
            del remaining[vm]
    if not remaining or (len(remaining) < len(steps) and _attempt(zfs, remaining, properties) is None):
        return
    for vm, of_vm in remaining.items():
        error = _attempt(zfs, {vm: of_vm}, properties)
        if error is not None:
            failures[vm] = error


def _attempt(
    zfs: ZfsStore, steps: Mapping[str, Sequence[TakeSnapshot]], properties: Mapping[str, str]
) -> ZfsError | None:
    """The error if not all of them could be taken; none of them was then."""
    try:
        zfs.take_snapshots(_names(steps), properties)
    except ZfsError as error:
        return error
    return None


def _names(steps: Mapping[str, Sequence[TakeSnapshot]]) -> list[str]:
    return [step.full_name for of_vm in steps.values() for step in of_vm]


def _by_pool(
    steps: Mapping[str, Sequence[TakeSnapshot]],
) -> dict[str, dict[str, Sequence[TakeSnapshot]]]:
    pools: dict[str, dict[str, Sequence[TakeSnapshot]]] = {}
    for vm, of_vm in steps.items():
        if of_vm:
            pools.setdefault(pool_of(of_vm[0].dataset), {})[vm] = of_vm
    return pools
