"""Takes snapshots of many VMs at one moment, and keeps one vanished dataset from taking down the rest.

``zfs snapshot`` of several datasets is all or nothing (zfs-snapshot(8); tried on OpenZFS 2.3.9: status 2).
Where it fails, the node is looked at again, what has gone is dropped, and the rest is taken; where that
fails too, each VM is tried by itself, so that only the one at fault goes without. A name that another run
has taken in the same second gets an ordinal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct, field
from msgspec.structs import replace

from hoster.errors import AlreadyThere, OperationFailed, ZfsError
from hoster.model.names import SnapshotType, new_snapshot_name, next_snapshot_name
from hoster.model.plan import TakeSnapshot
from hoster.model.storage import Dataset
from hoster.model.vms import Vm
from hoster.zfs.batches import in_commands
from hoster.zfs.store import ZfsStore, pool_of

Steps = Mapping[str, Sequence[TakeSnapshot]]
"""The snapshots to take of each VM, by a word that is its own: its name where that is, else its dataset."""

SNAPSHOTS_LOCK = "the taking of snapshots on this node"
SNAPSHOTS_WAIT_S = 60.0
"""Whoever takes snapshots here, or gives datasets other names, waits so long for another one."""

_RENAMES = 20
"""How often a name that is taken gives way to the next, before something else must be wrong."""


class Taken(Struct):
    """The snapshots that were taken of each VM, under the names that they got, and who went without."""

    steps: dict[str, tuple[TakeSnapshot, ...]] = field(default_factory=dict)
    failures: dict[str, OperationFailed] = field(default_factory=dict)


def snapshot_steps(
    vm: Vm, stype: SnapshotType, now: datetime, reason: str, replicas: Sequence[Dataset] = ()
) -> tuple[TakeSnapshot, ...]:
    """One step for each dataset of the VM, all with the same name, which none of them has yet; nor have
    ``replicas``, to which they are to be sent and where older names live longer."""
    known = (*vm.everything, *replicas)
    taken = {s.name for dataset in known for s in dataset.snapshots}
    name = new_snapshot_name(stype, now, taken)
    return tuple(TakeSnapshot(dataset.name, name, reason) for dataset in vm.everything)


def take(zfs: ZfsStore, steps: Steps, properties: Mapping[str, str] | None = None) -> Taken:
    """Takes the snapshots of each VM: one command per pool, or as many as the names need. A VM's datasets get
    theirs together or not at all."""
    taken = Taken()
    for of_pool in _by_pool(steps).values():
        names = {vm: [step.full_name for step in of_vm] for vm, of_vm in of_pool.items()}
        for together in in_commands(names):
            _take_together(zfs, {vm: of_pool[vm] for vm in together}, properties or {}, taken)
    return taken


def _take_together(zfs: ZfsStore, steps: Steps, properties: Mapping[str, str], taken: Taken) -> None:
    if _attempt(zfs, steps, properties, taken) is None:
        return
    seen = zfs.look_at([s.dataset for of_vm in steps.values() for s in of_vm])
    remaining = dict(steps)
    for vm, of_vm in steps.items():
        gone = [s.dataset for s in of_vm if seen.get(s.dataset) is None]
        if gone:
            taken.failures[vm] = OperationFailed(f"{gone[0]} vanished before its snapshot could be taken")
            del remaining[vm]
    if not remaining:
        return
    if len(remaining) < len(steps) and _attempt(zfs, remaining, properties, taken) is None:
        return
    for vm, of_vm in remaining.items():
        error = _attempt(zfs, {vm: of_vm}, properties, taken)
        if error is not None:
            taken.failures[vm] = error


def _attempt(zfs: ZfsStore, steps: Steps, properties: Mapping[str, str], taken: Taken) -> ZfsError | None:
    """The error if not all of them could be taken; none of them was then."""
    for _ in range(_RENAMES):
        try:
            zfs.take_snapshots([step.full_name for of_vm in steps.values() for step in of_vm], properties)
        except AlreadyThere as error:
            last: ZfsError = error
            steps = {vm: [_renamed(step) for step in of_vm] for vm, of_vm in steps.items()}
        except ZfsError as error:
            return error
        else:
            taken.steps |= {vm: tuple(of_vm) for vm, of_vm in steps.items()}
            return None
    return last


def _renamed(step: TakeSnapshot) -> TakeSnapshot:
    return replace(step, name=next_snapshot_name(step.name))


def _by_pool(steps: Steps) -> dict[str, dict[str, Sequence[TakeSnapshot]]]:
    pools: dict[str, dict[str, Sequence[TakeSnapshot]]] = {}
    for vm, of_vm in steps.items():
        if of_vm:
            pools.setdefault(pool_of(of_vm[0].dataset), {})[vm] = of_vm
    return pools
