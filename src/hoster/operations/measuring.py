"""Puts the metrics together: from the journal of runs, the markers, and what a look at this node has seen.

Decides nothing and never fails: what cannot be found out is left out, and a metric says so.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from hoster import __version__
from hoster.errors import ConfigurationError, DatasetMissing, HosterError, OperationFailed
from hoster.model.names import SnapshotType, snapshot_label
from hoster.model.plan import Outcome
from hoster.model.storage import Dataset, Role, Snapshot, View
from hoster.model.vms import Vm
from hoster.operations.awaited import awaited_samples
from hoster.operations.context import Context
from hoster.operations.inventory import Inventory, look_around, take_stock
from hoster.operations.power import running_now
from hoster.operations.promises import promise_of
from hoster.operations.replicas import branches_of
from hoster.planning.lag import behind_bytes
from hoster.records.journal import Journal
from hoster.records.markers import markers
from hoster.records.metrics import Sample
from hoster.records.runs import JobStanding, Remembered
from hoster.zfs.pools import Pool, pools, scrubs, verified_at
from hoster.zfs.store import pool_of

_OUTCOMES = tuple(outcome for outcome in Outcome if outcome is not Outcome.PLANNED)
_OTHER = "other"


class Measured(Struct, frozen=True):
    """Metrics of this node: what every run knows of, and what only a look at the whole node tells."""

    of_runs: tuple[Sample, ...]
    of_node: tuple[Sample, ...] = ()
    problems: tuple[str, ...] = ()
    """What could not be found out, and why."""


def measure(context: Context) -> Measured:
    """Looks at this node, and measures all there is."""
    problems: list[str] = []
    stock: Inventory | None = None
    try:
        stock = look_around(context, mend=False)
    except HosterError as error:
        problems.append(error.message)
    of_runs = _of_runs(context, stock, problems)
    of_node = _of_pools(context, problems)
    if stock is not None:
        of_node += _original_counters(context, stock)
    return Measured(tuple(of_runs), tuple(of_node), tuple(problems))


def measure_after(context: Context, seen: View | None) -> Measured:
    """What is known at the end of a run which has seen this node so; ZFS is asked only where it has not seen
    it, having ended early."""
    problems: list[str] = []
    stock: Inventory | None = None
    try:
        stock = look_around(context, mend=False) if seen is None else take_stock(context, seen)
    except HosterError as error:
        problems.append(error.message)
    return Measured(tuple(_of_runs(context, stock, problems)), (), tuple(problems))


def _of_runs(context: Context, stock: Inventory | None, problems: list[str]) -> list[Sample]:
    journal = Journal(context.settings.state_dir)
    if stock is not None:
        problems += [f"{one.dataset}: {one.problem}" for one in stock.missing]
    known: tuple[Remembered, ...] | None = None
    jobs: tuple[JobStanding, ...] = ()
    try:
        known, jobs = journal.replicas(), journal.jobs()
    except HosterError as error:
        problems.append(error.message)
    samples = [
        Sample("hoster_build_info", {"version": __version__}, 1),
        Sample("hoster_measured_timestamp_seconds", {}, time.time()),
        Sample("hoster_look_success", {}, stock is not None and not stock.missing),
        Sample("hoster_journal_success", {}, known is not None),
    ]
    by_name = _by_name(stock) if stock is not None else {}
    for replica in _of_this_node(known or (), stock):
        samples += _replica_samples(context, replica, by_name.get(replica.vm))
    if stock is not None and known is not None:
        samples += awaited_samples(context, by_name.values(), _of_this_node(known, stock))
    for job in jobs:
        samples += _job_samples(job)
    samples += _marker_samples(context, problems)
    if stock is not None:
        samples += _vm_samples(stock, known)
    return samples


def _by_name(stock: Inventory) -> dict[str, Vm]:
    """The VMs as labels tell them apart: of several of one name, such as one with a replica in another pool
    here, this node's own."""
    return {vm.name: vm for vm in sorted(stock.vms, key=lambda vm: vm.is_primary)}


def _of_this_node(known: Iterable[Remembered], stock: Inventory | None) -> Iterator[Remembered]:
    """Those of VMs that are here and are not another node's by now: of a VM that is gone nothing is late. One
    that is not seen may be in a dataset that is missing, and is not gone then."""
    if stock is None:
        yield from known
        return
    here = _by_name(stock).values()
    names = {vm.name for vm in here}
    ids = {vm.name: vm.dataset.marks.vm_id for vm in here if vm.role is not Role.SUPERSEDED}
    unusable = {broken.name for broken in stock.unusable}
    for replica in known:
        same = not replica.vm_id or ids.get(replica.vm) in {None, replica.vm_id}
        unseen = bool(stock.missing) and replica.vm not in names
        if unseen or replica.vm in unusable or (replica.vm in ids and same):
            yield replica


def _replica_samples(context: Context, replica: Remembered, vm: Vm | None) -> Iterator[Sample]:
    labels = {"vm": replica.vm, "target": replica.node, "dataset": replica.target}

    def sample(metric: str, value: float, **more: str) -> Sample:
        return Sample(f"hoster_replication_{metric}", {**labels, **more}, value)

    promise = promise_of(context.settings, replica.vm, vm, replica.node, replica.target)
    yield sample("promise_seconds", promise.rpo_s)
    if replica.newest is not None:
        yield sample("newest_version_timestamp_seconds", replica.newest.taken_at)
        behind = None if vm is None else behind_bytes(vm.everything, int(replica.newest.guid))
        if behind is not None:
            yield sample("behind_bytes", behind)
    for metric, moment in (
        ("last_seen_equal_timestamp_seconds", replica.equal_at),
        ("data_timestamp_seconds", replica.data_at),
        ("due_timestamp_seconds", promise.late_at(replica.data_at)),
        ("last_run_timestamp_seconds", replica.run_at),
        ("last_success_timestamp_seconds", replica.success_at),
    ):
        if moment is not None:
            yield sample(metric, moment)
    for outcome in _OUTCOMES:
        yield sample("last_outcome", replica.outcome == outcome, outcome=outcome.value)
    if replica.ground:
        yield sample("refused", 1, ground=replica.ground)
    yield sample("last_duration_seconds", replica.seconds)
    yield sample("last_sent_bytes", replica.sent_bytes)
    yield sample("failures_since_success", replica.failures)


def _job_samples(job: JobStanding) -> Iterator[Sample]:
    labels = {"name": job.job, "kind": job.kind}
    yield Sample("hoster_job_last_run_timestamp_seconds", labels, job.run_at)
    if job.success_at is not None:
        yield Sample("hoster_job_last_success_timestamp_seconds", labels, job.success_at)
    yield Sample("hoster_job_last_exit_code", labels, job.exit_code)
    yield Sample("hoster_job_failures_since_success", labels, job.failures)


def _marker_samples(context: Context, problems: list[str]) -> list[Sample]:
    folder = context.settings.marker_dir
    try:
        return [Sample("hoster_job_error_marker", {"name": marker.job}, 1) for marker in markers(folder)]
    except OSError as error:
        problems.append(f"{folder}: the markers cannot be read: {error.strerror}")
        return []


def _vm_samples(stock: Inventory, known: Sequence[Remembered] | None) -> Iterator[Sample]:
    targets = Counter(one.vm for one in _of_this_node(known or (), stock) if one.newest is not None)
    yield Sample("hoster_vms_unusable", {}, len(stock.unusable))
    for vm in _by_name(stock).values():
        labels = {"vm": vm.name}
        what = {"role": vm.role.value, "parent": vm.parent, "production": "yes" if vm.production else "no"}
        yield Sample("hoster_vm_info", {**labels, **what}, 1)
        if known is not None:
            yield Sample("hoster_vm_targets", labels, targets[vm.name])
        for stype, snapshots in by_type(vm.dataset).items():
            typed = {**labels, "type": stype}
            taken = [snapshot.creation for snapshot in snapshots]
            yield Sample("hoster_vm_snapshots", typed, len(snapshots))
            if snapshots:
                yield Sample("hoster_vm_oldest_snapshot_timestamp_seconds", typed, min(taken))
                yield Sample("hoster_vm_newest_snapshot_timestamp_seconds", typed, max(taken))
        held = [snapshot for snapshot in vm.dataset.snapshots if snapshot.holds]
        yield Sample("hoster_vm_held_snapshots", labels, len(held))
        beside = () if stock.view is None else stock.view.children(vm.dataset.name.rpartition("/")[0])
        branches = branches_of(vm.dataset.name, beside)
        yield Sample("hoster_vm_branches", labels, len(branches))
        yield Sample("hoster_vm_branch_bytes", labels, sum(branch.used for branch in branches))


def by_type(dataset: Dataset) -> dict[str, list[Snapshot]]:
    """The snapshots of a dataset by type, all types; under ``other`` those with names of the user's."""
    found: dict[str, list[Snapshot]] = {stype.value: [] for stype in SnapshotType}
    for snapshot in dataset.snapshots:
        label = snapshot_label(snapshot.name)
        found.setdefault(_OTHER if label is None else label.stype.value, []).append(snapshot)
    return found


def _of_pools(context: Context, problems: list[str]) -> list[Sample]:
    """Each pool is asked by itself: one that is gone, or cannot be asked, takes away no other's metrics."""
    host, runner = context.zfs.host, context.runner
    samples: list[Sample] = []
    for name in sorted({pool_of(dataset) for dataset in context.datasets}):
        try:
            found, scanned = pools(host, runner, [name]), scrubs(host, runner, [name])
        except HosterError as error:
            problems.append(error.message)
            if isinstance(error, DatasetMissing):
                samples.append(Sample("hoster_pool_healthy", {"pool": name}, 0))
        else:
            samples += [*_pool_samples(found), *_scrub_samples(scanned)]
    return samples


def _pool_samples(found: Sequence[Pool]) -> Iterator[Sample]:
    for pool in found:
        labels = {"pool": pool.name}
        yield Sample("hoster_pool_health", {**labels, "state": pool.health}, 1)
        yield Sample("hoster_pool_healthy", labels, pool.healthy)
        yield Sample("hoster_pool_size_bytes", labels, pool.size)
        yield Sample("hoster_pool_allocated_bytes", labels, pool.allocated)
        yield Sample("hoster_pool_free_bytes", labels, pool.free)
        if pool.fragmentation is not None:
            yield Sample("hoster_pool_fragmentation_ratio", labels, pool.fragmentation)
        original = {
            "size": pool.size,
            "allocated": pool.allocated,
            "free": pool.free,
            "fragmentation": round(100 * (pool.fragmentation or 0)),
            "cap": round(100 * pool.capacity),
            "dedup": pool.dedup,
            "healthy": int(pool.healthy),
        }
        for info, value in original.items():
            yield Sample("zpool_info", {**labels, "info": info}, value)


def _scrub_samples(scanned: Mapping[str, str]) -> Iterator[Sample]:
    for pool, scan in scanned.items():
        at = verified_at(scan)
        if at is not None:
            yield Sample("hoster_pool_verified_timestamp_seconds", {"pool": pool}, at)


def _original_counters(context: Context, stock: Inventory) -> Iterator[Sample]:
    running = {vm.dataset.name for vm in stock.vms if _runs(context, vm)}
    own = [vm for vm in stock.vms if vm.is_primary and vm.production]
    counters = {
        "vms_all": len(stock.vms),
        "vms_online": len(running),
        "vms_backup": sum(vm.role is Role.REPLICA for vm in stock.vms),
        "vms_offline_in_production": sum(vm.dataset.name not in running for vm in own),
    }
    for counter, value in counters.items():
        yield Sample("hoster", {"counter": counter}, value)
    yield Sample("hoster", {"version": __version__}, 1)


def _runs(context: Context, vm: Vm) -> bool:
    try:
        return running_now(context, vm) is not None
    except OperationFailed:
        return True  # its process is there and does not answer
    except ConfigurationError:
        return False  # hoster runs no VMs on this system
