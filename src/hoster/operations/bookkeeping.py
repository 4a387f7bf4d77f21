"""After the data: says on the target where it came from, and gives up on both sides what nobody needs.

Nothing here can fail a replication: the data has arrived. What could not be done is noted in the report,
and the next run does it, since it sees that it is still to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from hoster.errors import HosterError
from hoster.model.anchors import superseded_anchors
from hoster.model.names import SnapshotType
from hoster.model.plan import Destroyed, DestroySnapshot
from hoster.model.storage import Bookmark, Dataset, Version
from hoster.operations.context import Context
from hoster.operations.job import Job
from hoster.operations.request import ReplicationRequest
from hoster.planning.replication import unmarked
from hoster.planning.retention import plan_retention, plan_target_retention
from hoster.planning.transfers import common_base
from hoster.zfs.store import SnapshotMark, ZfsStore


def keep_books(context: Context, request: ReplicationRequest, target: ZfsStore, jobs: Sequence[Job]) -> None:
    """Marks what arrived, then prunes the target and the source; ``jobs`` have a replica each.

    One command for all VMs each. Where a transfer was cut, what did arrive is marked and anchored just as
    well: the next run starts from there. Only those that are complete are pruned.
    """
    try:
        _mark(target, jobs)
        complete = [job for job in jobs if job.failure is None]
        _prune_target(target, complete, {**context.settings.replication.target_keep, **request.target_keep})
        _prune_source(context, [(job, _newest_common(job)) for job in complete])
    except HosterError as error:
        for job in jobs:
            job.notes.append(f"left for the next run: {error.message}")


def put_right(context: Context, jobs: Sequence[Job]) -> None:
    """Before anything is sent: gives up what runs that failed have left on the source.

    The target was just seen, so an anchor on anything but the newest common version belongs to a transfer
    that did not arrive. Without this, every failed run would leave a snapshot that nothing may prune.
    """
    left = [
        (job, job.clearance.base)
        for job in jobs
        if superseded_anchors(job.source, job.site.key, job.clearance.base)
    ]
    try:
        _prune_source(context, left)
    except HosterError as error:
        for job, _ in left:
            job.notes.append(f"what an earlier run left is still there: {error.message}")


def _mark(target: ZfsStore, jobs: Sequence[Job]) -> None:
    marks: list[SnapshotMark] = []
    for job in jobs:
        replica = _replica(job)
        epoch = job.source.marks.epoch
        value = f"{job.vm_id}/{epoch.number if epoch else 0}"
        new = unmarked(job.source, replica)
        marks += [SnapshotMark(snapshot, "hoster:from", value) for snapshot in new]
        guids = {s.guid for s in new}
        job.replica = replace(
            replica,
            snapshots=tuple(replace(s, sent_by=value) if s.guid in guids else s for s in replica.snapshots),
        )
    if marks:
        target.mark(marks)


def _prune_target(target: ZfsStore, jobs: Sequence[Job], keep: Mapping[SnapshotType, int]) -> None:
    planned: dict[str, tuple[Job, DestroySnapshot]] = {}
    for job in jobs:
        newest = _newest_common(job)
        steps = plan_target_retention(_replica(job), keep, newest_common=newest.guid, sent_by=job.vm_id)
        planned |= {step.victim.full_name: (job, step) for step in steps}
    for answer in target.destroy([step.victim for _, step in planned.values()]):
        job, step = planned[answer.name]
        _record(job, target.node, step, answer.done, answer.explained)


def _prune_source(context: Context, bases: Sequence[tuple[Job, Version | None]]) -> None:
    """Gives up the anchors that each newest common version supersedes, then old replication snapshots."""
    superseded: list[Bookmark] = []
    planned: dict[str, tuple[Job, DestroySnapshot]] = {}
    for job, base in bases:
        old = superseded_anchors(job.source, job.site.key, base)
        bookmarks = tuple(b for b in job.source.bookmarks if b not in old)
        job.subject = replace(job.subject, dataset=replace(job.source, bookmarks=bookmarks))
        retention = plan_retention(
            job.source,
            SnapshotType.REPLICATION,
            context.settings.replication.keep,
            protected=frozenset() if base is None else frozenset({base.guid}),
        )
        superseded += old
        planned |= {step.victim.full_name: (job, step) for step in retention.destroys}
    # The anchors first: a snapshot that still has one is not destroyed.
    context.zfs.destroy_bookmarks(superseded)
    for answer in context.zfs.destroy([step.victim for _, step in planned.values()]):
        job, step = planned[answer.name]
        _record(job, context.zfs.node, step, answer.done, answer.explained)
        if answer.done:
            left = tuple(s for s in job.source.snapshots if s.guid != step.victim.guid)
            job.subject = replace(job.subject, dataset=replace(job.source, snapshots=left))


def _record(job: Job, node: str, step: DestroySnapshot, done: bool, explained: str) -> None:
    if done:
        job.destroyed.append(Destroyed(node, step.victim.full_name, step.reason))
    else:
        job.notes.append(f"kept {step.victim.full_name} on {node}: {explained}")


def _newest_common(job: Job) -> Version:
    base = common_base(job.source, _replica(job))
    assert base is not None, "a complete job has its newest version on both sides"
    return base


def _replica(job: Job) -> Dataset:
    assert job.replica is not None
    return job.replica
