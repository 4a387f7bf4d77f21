"""Replicas that a schedule wants and that have no data yet: when they are late, though no run ever said so.

A job that was never started leaves no trace. What tells of it is the schedule, from the moment at which the
settings were changed last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.promises import promise_of
from hoster.planning.schedules import targets_of
from hoster.records.metrics import Sample
from hoster.records.runs import Remembered


def awaited_samples(context: Context, vms: Iterable[Vm], known: Iterable[Remembered]) -> Iterator[Sample]:
    """When each of them is late, and the promise for those that no run has been to; of this node's own VMs.

    Nothing where it cannot be told when the settings were changed.
    """
    try:
        since = context.settings.read_from.stat().st_mtime
    except OSError:
        return
    remembered = {(one.vm, one.node, one.target): one for one in known}
    for vm in vms:
        wanted = targets_of(context.settings.schedules, vm) if vm.is_primary else {}
        for node, dataset in wanted:
            before = remembered.get((vm.name, node, dataset))
            if before is not None and before.data_at is not None:
                continue
            promise = promise_of(context.settings, vm.name, vm, node, dataset)
            labels = {"vm": vm.name, "target": node, "dataset": dataset}
            if before is None:
                yield Sample("hoster_replication_promise_seconds", labels, promise.rpo_s)
            due = promise.late_at(since)
            assert due is not None, "there is a moment to count from"
            yield Sample("hoster_replication_due_timestamp_seconds", labels, due)
