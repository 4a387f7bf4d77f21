"""Before and after the data: puts right what runs that failed have left, says on the target where versions
came from, and gives up on both sides what nobody needs.

Nothing here can fail a replication: what could not be done is noted in the report, and the next run does it,
since it sees that it is still to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from hoster.errors import HosterError
from hoster.model.anchors import superseded_anchors
from hoster.model.names import SnapshotType
from hoster.model.plan import Destroyed, DestroySnapshot
from hoster.model.storage import Bookmark, Dataset, Version
from hoster.operations.context import Context
from hoster.operations.identity import origin_of
from hoster.operations.job import Job, Passage, hold_tag
from hoster.operations.request import ReplicationRequest
from hoster.planning.replication import unmarked
from hoster.planning.retention import needed_by_copies, plan_retention, plan_target_retention
from hoster.planning.transfers import common_base, left_anchors
from hoster.zfs.store import SnapshotMark, ZfsStore

Work = Sequence[tuple[Job, Passage]]
"""Single datasets with the job that each belongs to."""


class _Leftover(NamedTuple):
    """Anchors of a dataset that nothing needs any more; ``base`` is what the next increment starts from."""

    job: Job
    passage: Passage
    base: Version | None
    anchors: tuple[Bookmark, ...]


def put_right(context: Context, target: ZfsStore, jobs: Sequence[Job]) -> None:
    """Before anything is sent: gives up what runs that failed have left.

    On the source these are holds and anchors: the target was just seen, so an anchor on anything but the
    newest common version belongs to a transfer that did not arrive. Without this, every failed run would
    leave a snapshot that nothing may prune. On the target it is what arrived of a stream that cannot go on.
    """
    _release_left(context.zfs, jobs)
    left = [
        _Leftover(job, passage, passage.base, old)
        for job, passage in _work(jobs)
        if (old := left_anchors(passage.leg, job.site.key))
    ]
    try:
        _prune_source(context, left)
    except HosterError as error:
        for job in {id(one.job): one.job for one in left}.values():
            job.notes.append(f"what an earlier run left is still there: {error.message}")
    for job, passage in _work(jobs):
        if passage.part.give_up:
            try:
                target.give_up_partial(passage.target)
            except HosterError as error:
                job.fail(error)
            else:
                job.notes.append(f"what had arrived of {passage.target} was given up: {passage.part.give_up}")


def keep_books(context: Context, request: ReplicationRequest, target: ZfsStore, jobs: Sequence[Job]) -> None:
    """Marks what arrived, then prunes the target and the source.

    One command for all VMs each. Where a transfer was cut, what did arrive is marked and anchored just as
    well: the next run starts from there. Only those that are complete are pruned.
    """
    try:
        _mark(target, [(job, passage) for job, passage in _work(jobs) if passage.replica is not None])
        complete = [
            (job, passage) for job, passage in _work(jobs) if job.complete and passage.replica is not None
        ]
        _prune_target(target, complete, {**context.settings.replication.target_keep, **request.target_keep})
        _prune_source(context, [_after(job, passage, _newest_common(passage)) for job, passage in complete])
    except HosterError as error:
        for job in jobs:
            job.notes.append(f"left for the next run: {error.message}")


def _work(jobs: Sequence[Job]) -> list[tuple[Job, Passage]]:
    return [(job, passage) for job in jobs for passage in job.passages]


def _release_left(zfs: ZfsStore, jobs: Sequence[Job]) -> None:
    for job in jobs:
        left = frozenset(job.left_holds)
        try:
            zfs.release(hold_tag(job.site), sorted(left))
        except HosterError as error:
            job.notes.append(f"holds that an earlier run left are still there: {error.message}")
            continue
        for passage in job.passages:
            snapshots = tuple(
                replace(s, holds=s.holds - 1) if s.full_name in left else s for s in passage.source.snapshots
            )
            passage.source = replace(passage.source, snapshots=snapshots)


def _after(job: Job, passage: Passage, base: Version) -> _Leftover:
    return _Leftover(job, passage, base, superseded_anchors(passage.source, job.site.key, base))


def _mark(target: ZfsStore, work: Work) -> None:
    marks: list[SnapshotMark] = []
    for job, passage in work:
        replica = _replica(passage)
        value = origin_of(job.vm_id, job.passages[0].source.marks.epoch)
        new = unmarked(passage.source, replica)
        marks += [SnapshotMark(snapshot, "hoster:from", value) for snapshot in new]
        guids = {s.guid for s in new}
        passage.replica = replace(
            replica,
            snapshots=tuple(replace(s, sent_by=value) if s.guid in guids else s for s in replica.snapshots),
        )
    if marks:
        target.mark(marks)


def _prune_target(target: ZfsStore, work: Work, keep: Mapping[SnapshotType, int]) -> None:
    planned: dict[str, tuple[Job, DestroySnapshot]] = {}
    for job, passage in work:
        newest = _newest_common(passage)
        steps = plan_target_retention(_replica(passage), keep, newest_common=newest.guid, sent_by=job.vm_id)
        planned |= {step.victim.full_name: (job, step) for step in steps}
    for answer in target.destroy([step.victim for _, step in planned.values()]):
        job, step = planned[answer.name]
        _record(job, target.node, step, answer.done, answer.explained)


def _prune_source(context: Context, work: Sequence[_Leftover]) -> None:
    """Gives up the anchors that are left over, then old replication snapshots that nothing needs."""
    planned: dict[str, tuple[Job, Passage, DestroySnapshot]] = {}
    for job, passage, base, old in work:
        bookmarks = tuple(b for b in passage.source.bookmarks if b not in old)
        passage.source = replace(passage.source, bookmarks=bookmarks)
        retention = plan_retention(
            passage.source,
            SnapshotType.REPLICATION,
            context.settings.replication.keep,
            protected=frozenset(
                version.guid
                for version in (base, *needed_by_copies(passage.source, len(job.sites)))
                if version is not None
            ),
        )
        planned |= {step.victim.full_name: (job, passage, step) for step in retention.destroys}
    # The anchors first: a snapshot that still has one is not destroyed.
    context.zfs.destroy_bookmarks([bookmark for leftover in work for bookmark in leftover.anchors])
    gone: set[str] = set()
    for answer in context.zfs.destroy([step.victim for _, _, step in planned.values()]):
        job, passage, step = planned[answer.name]
        _record(job, context.zfs.node, step, answer.done, answer.explained)
        if answer.done:
            gone.add(answer.name)
    for _, passage, _, _ in work:
        left = tuple(s for s in passage.source.snapshots if s.full_name not in gone)
        passage.source = replace(passage.source, snapshots=left)


def _record(job: Job, node: str, step: DestroySnapshot, done: bool, explained: str) -> None:
    if done:
        job.destroyed.append(Destroyed(node, step.victim.full_name, step.reason))
    else:
        job.notes.append(f"kept {step.victim.full_name} on {node}: {explained}")


def _newest_common(passage: Passage) -> Version:
    base = common_base(passage.source, _replica(passage))
    assert base is not None, "a complete job has its newest version on both sides"
    return base


def _replica(passage: Passage) -> Dataset:
    assert passage.replica is not None
    return passage.replica
