"""How far a replica lags behind its VM, and how much a run has changed of what was seen before it.

Pure. A pair is a dataset of the VM here and its replica there, or None where there is none; those of the VM's
own dataset come first. Datasets of one VM lie in one pool, so their createtxgs can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from hoster.model.plan import Report, VmReport
from hoster.model.storage import Dataset, Snapshot, Version, View

Pair = tuple[Dataset, Dataset | None]


def newest_common(pairs: Sequence[Pair]) -> Snapshot | None:
    """The newest version that is whole on both ends, as the replica has it; None where there is none.

    A version is whole if all datasets that have a snapshot of its name here have the same one there::

        web a b c   disk a b c   there: web a b c, disk a b   ->  b
        web #b c    disk c       there: web a b,   disk -     ->  b: here only a bookmark is left of it
    """
    root, replica = pairs[0]
    if replica is None:
        return None
    there = {s.guid: s for s in replica.snapshots}
    for version in sorted(_versions(root), key=lambda v: v.createtxg, reverse=True):
        found = there.get(version.guid)
        if found is not None and all(_has(below, copy, found.name) for below, copy in pairs[1:]):
            return found
    return None


def is_there(pairs: Sequence[Pair], guid: int) -> bool:
    """Whether the version of that GUID is there whole, as far as this node still knows what it was of."""
    replica = pairs[0][1]
    found = None if replica is None else replica.snapshot_with(guid)
    return found is not None and all(_has(below, copy, found.name) for below, copy in pairs[1:])


def is_equal(pairs: Sequence[Pair]) -> bool:
    """Whether nothing was written here since a version that is there, in any of the VM's datasets."""
    return all(
        dataset.written == 0
        and dataset.newest is not None
        and copy is not None
        and copy.snapshot_with(dataset.newest.guid) is not None
        for dataset, copy in pairs
    )


def behind_bytes(datasets: Sequence[Dataset], guid: int) -> int | None:
    """What was written since the version of that GUID, in snapshots and since the last of them; None where
    the VM's own dataset, the first one, does not know that version."""
    since = next((v.createtxg for v in _versions(datasets[0]) if v.guid == guid), None)
    if since is None:
        return None
    newer = (s.written for dataset in datasets for s in dataset.snapshots if s.createtxg > since)
    return sum(newer) + sum(dataset.written for dataset in datasets)


def seen_after(seen: View, report: Report, now: int) -> View:
    """What a look after the run would have seen here, as far as the report says; ``now`` in Unix seconds."""
    datasets = dict(seen.datasets)
    for vm in report.vms:
        for full_name in vm.taken:
            name, _, short = full_name.partition("@")
            if name in datasets:
                datasets[name] = _with(datasets[name], short, vm, now)
        gone = {one.snapshot for one in vm.destroyed if one.node == "local"}
        for name in {victim.partition("@")[0] for victim in gone} & datasets.keys():
            left = tuple(s for s in datasets[name].snapshots if s.full_name not in gone)
            datasets[name] = replace(datasets[name], snapshots=left)
    return View(seen.node, datasets)


def _with(dataset: Dataset, name: str, vm: VmReport, now: int) -> Dataset:
    """``dataset`` with the snapshot that was taken of it; its GUID is 0 where the report does not tell it."""
    guid = int(vm.newest.guid) if vm.newest is not None and vm.newest.name == name else 0
    txg = max((s.createtxg for s in dataset.snapshots), default=dataset.createtxg) + 1
    taken = Snapshot(dataset.name, name, guid, txg, creation=now, written=dataset.written)
    return replace(dataset, snapshots=(*dataset.snapshots, taken), written=0)


def _versions(dataset: Dataset) -> Iterable[Version]:
    return (*dataset.snapshots, *dataset.bookmarks)


def _has(dataset: Dataset, copy: Dataset | None, name: str) -> bool:
    wanted = next((s.guid for s in dataset.snapshots if s.name == name), None)
    return wanted is None or (copy is not None and copy.snapshot_with(wanted) is not None)
