"""Carries out what replication has decided: take, anchor, send, verify by GUID, mark, prune.

Success is the GUID seen on the target, never an exit status. A crash between any two steps leaves nothing
that the next ordinary run does not put right: the anchors say what was under way, the looks what arrived.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec.structs import replace

from hoster.errors import HosterError, OperationFailed
from hoster.host.process import Meter
from hoster.host.throttle import SpeedLimit
from hoster.model.anchors import anchor_name
from hoster.model.names import SnapshotType
from hoster.model.plan import Anchor, Outcome, VmReport
from hoster.model.storage import Bookmark, Dataset, Role, Snapshot
from hoster.operations.bookkeeping import keep_books, put_right
from hoster.operations.context import Context
from hoster.operations.identity import first_marks, properties_of
from hoster.operations.job import Job
from hoster.operations.request import Observer, ReplicationRequest
from hoster.operations.taking import snapshot_steps, take
from hoster.planning.replication import why_taken
from hoster.planning.transfers import plan_anchors, plan_sends, unsent
from hoster.zfs.programs import Answer
from hoster.zfs.store import ZfsStore, transfer


def run_jobs(
    context: Context,
    request: ReplicationRequest,
    target: ZfsStore,
    jobs: Sequence[Job],
    observer: Observer,
) -> list[VmReport]:
    """Sends every job's VM and reports on each; a job that fails takes no part in the steps after."""
    zfs = context.zfs
    _identify(context, jobs)
    put_right(context, _alive(jobs))
    _take(context, _alive(jobs))
    _anchor(zfs, _alive(jobs))
    observer.begin({job.vm.name: job.estimated_bytes for job in _alive(jobs)})
    limit = SpeedLimit(request.speed_limit) if request.speed_limit else None
    for job in _alive(jobs):
        _send(context, target, job, observer, limit)
    _verify(target, jobs)
    keep_books(context, request, target, [job for job in jobs if job.replica is not None])
    reports = [_report(job) for job in jobs]
    for report in reports:
        observer.finish(report)
    return reports


def _alive(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if job.failure is None]


def _identify(context: Context, jobs: Sequence[Job]) -> None:
    """Gives an identity to VMs that have none yet: those made by the original tool."""
    for job in jobs:
        if job.source.marks.vm_id is not None:
            continue
        marks = first_marks(context.hostname, production=job.vm.production)
        try:
            context.zfs.set_properties(properties_of(marks), [job.source.name])
        except HosterError as error:
            job.fail(error)
            continue
        job.subject = replace(job.subject, dataset=replace(job.source, marks=marks))
        job.notes.append(f"identified as {marks.vm_id}")


def _take(context: Context, jobs: Sequence[Job]) -> None:
    steps = {}
    for job in jobs:
        if job.clearance.needs_snapshot:
            reason = why_taken(job.source)
            steps[job.vm.name] = snapshot_steps(
                job.vm, SnapshotType.REPLICATION, context.now(), reason, job.replica
            )
    taken = take(context.zfs, steps)
    for job in jobs:
        if job.vm.name in taken.failures:
            job.fail(taken.failures[job.vm.name])
        elif job.vm.name in taken.steps:
            job.taken = taken.steps[job.vm.name][0].name


def _anchor(zfs: ZfsStore, jobs: Sequence[Job]) -> None:
    """Anchors both ends of every transfer and learns the GUIDs of the snapshots just taken, in one act."""
    planned = {
        job.vm.name: plan_anchors(job.source, job.clearance.base, job.site.key, job.taken or None)
        for job in jobs
    }
    wanted = [anchor for anchors in planned.values() for anchor in anchors]
    try:
        answers = {answer.name: answer for answer in zfs.anchor(wanted)}
    except HosterError as error:
        for job in jobs:
            job.fail(error)
        return
    for job in jobs:
        for anchor in planned[job.vm.name]:
            answer = answers.get(anchor.full_name, Answer(anchor.full_name, "gone"))
            if not answer.done:
                job.fail(OperationFailed(f"{anchor.full_name} cannot be sent: {answer.explained}"))
            else:
                job.subject = replace(job.subject, dataset=_anchored(job.source, anchor, answer))
        job.chain = unsent(job.source, job.clearance.base)
        job.sends = plan_sends(job.source, job.clearance.base, job.target)


def _anchored(source: Dataset, anchor: Anchor, answer: Answer) -> Dataset:
    """``source`` with the anchor that was made, and with its snapshot if that was taken just now."""
    guid, createtxg = answer.version
    bookmark = Bookmark(source.name, anchor_name(anchor.target, guid), guid, createtxg)
    source = replace(source, bookmarks=(*source.bookmarks, bookmark))
    if anchor.guid is not None:
        return source
    taken = Snapshot(source.name, anchor.name, guid, createtxg, written=source.written)
    return replace(source, snapshots=(*source.snapshots, taken), written=0)


def _send(context: Context, target: ZfsStore, job: Job, observer: Observer, limit: SpeedLimit | None) -> None:
    started = time.monotonic()
    marks = replace(job.source.marks, role=Role.REPLICA, parent=context.hostname)
    meter = _meter(job, observer, limit)
    try:
        for step in job.sends:
            transfer(context.runner, context.zfs, target, step, properties_of(marks), meter)
    except HosterError as error:
        job.fail(error)
    job.seconds = time.monotonic() - started


def _meter(job: Job, observer: Observer, limit: SpeedLimit | None) -> Meter:
    def meter(amount: int) -> None:
        if limit is not None:
            limit(amount)
        job.sent_bytes += amount
        observer.advance(job.vm.name, amount)

    return meter


def _verify(target: ZfsStore, jobs: Sequence[Job]) -> None:
    """Looks at the target again: what is listed there by GUID has arrived, and nothing else has."""
    attempted = [job for job in jobs if job.sends]
    if not attempted:
        return
    try:
        seen = target.look_for([job.target for job in attempted])
    except HosterError as error:
        for job in attempted:
            job.fail(error)
        return
    for job in attempted:
        job.replica = seen.get(job.target)
        there = {s.guid for s in job.replica.snapshots} if job.replica else set()
        job.arrived = tuple(s for s in job.chain if s.guid in there)
        newest = job.chain[-1]
        if newest.guid in there and job.failure is not None:
            job.notes.append(f"everything arrived, though the stream ended badly: {job.failure.message}")
            job.failure = None
        if newest.guid not in there:
            job.fail(
                OperationFailed(
                    f"{target.node} does not list {newest.name} (guid {newest.guid:016x}) of {job.target}"
                    " after it was sent",
                    hint="run it again; if it stays so, compare both: zfs list -t snapshot -o name,guid",
                )
            )
        elif len(job.arrived) < len(job.chain):
            lost = ", ".join(s.name for s in job.chain if s.guid not in there)
            job.notes.append(f"gone here before they could be sent: {lost}")


def _report(job: Job) -> VmReport:
    reason = "" if job.chain else "the marks of an earlier run were put right"
    outcome, remedy = Outcome.DONE, ""
    if job.failure is not None:
        outcome, reason, remedy = Outcome.FAILED, job.failure.message, job.failure.hint
    return VmReport(
        job.vm.name,
        outcome,
        reason,
        remedy,
        taken=(f"{job.source.name}@{job.taken}",) if job.taken else (),
        sent=tuple(s.full_name for s in job.arrived),
        sent_bytes=job.sent_bytes,
        seconds=round(job.seconds, 3),
        destroyed=tuple(job.destroyed),
        notes=tuple(job.notes),
    )
