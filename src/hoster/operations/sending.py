"""Carries out what replication has decided: take, anchor, hold, send, verify by GUID, mark, prune.

Success is the GUID seen on the target, never an exit status. A crash between any two steps leaves nothing
that the next ordinary run does not put right: the anchors say what was under way, the looks what arrived.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from hoster.errors import HosterError, OperationFailed
from hoster.host.process import Meter
from hoster.host.throttle import SpeedLimit
from hoster.model.anchors import anchor_name
from hoster.model.names import SnapshotType
from hoster.model.plan import Anchor, Outcome, Refusal, VmReport
from hoster.model.storage import Bookmark, Dataset, Mode, Role, Snapshot
from hoster.operations.bookkeeping import keep_books, put_right
from hoster.operations.context import Context
from hoster.operations.identity import first_marks, properties_of
from hoster.operations.job import Job, Passage, hold_tag, newest_of
from hoster.operations.keys import check_key
from hoster.operations.request import Observer, ReplicationRequest
from hoster.operations.swapping import branches_beside, new_stamp, swap
from hoster.operations.taking import snapshot_steps, take
from hoster.operations.telling import promotion, tell_copies
from hoster.planning.replication import why_taken
from hoster.planning.transfers import ahead_of_base, plan_anchors, plan_sends, unsent
from hoster.zfs.programs import Answer
from hoster.zfs.store import ZfsStore, pool_of, transfer


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
    put_right(context, target, _alive(jobs))
    _part_ways(context, target, _alive(jobs))
    _take(context, _alive(jobs))
    _anchor(zfs, _alive(jobs))
    with _holding(zfs, _alive(jobs)):
        observer.begin({job.vm.name: job.estimated_bytes for job in _alive(jobs)})
        _send_all(context, request, target, _alive(jobs), observer)
        _verify(target, jobs)
    keep_books(context, request, target, jobs)
    tell_copies(context, target, jobs)
    reports = [_report(job) for job in jobs]
    for report in reports:
        observer.finish(report)
    return reports


def _alive(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if job.failure is None]


def _identify(context: Context, jobs: Sequence[Job]) -> None:
    """Gives an identity to VMs that have none yet: those made by the original tool."""
    for job in jobs:
        if job.vm_id:
            continue
        marks = replace(first_marks(context.hostname, production=job.vm.production), sites=job.sites)
        root = job.passages[0]
        try:
            context.zfs.set_properties(properties_of(marks), [root.source.name])
        except HosterError as error:
            job.fail(error)
            continue
        root.source = replace(root.source, marks=marks)
        job.vm_id = marks.vm_id or ""
        job.told = replace(marks, sites=job.told.sites)
        job.notes.append(f"identified as {marks.vm_id}")


def _part_ways(context: Context, target: ZfsStore, jobs: Sequence[Job]) -> None:
    """Where a VM was rolled back, sets aside on the target what is newer there; nothing is destroyed."""
    for job in jobs:
        if not any(passage.part.diverged for passage in job.passages):
            continue
        wanted: list[tuple[Dataset, Snapshot]] = []
        newer = 0
        for passage in job.passages:
            replica, base = passage.replica, passage.base
            version = None if replica is None or base is None else replica.snapshot_with(base.guid)
            if replica is not None and base is not None and version is not None:
                wanted.append((replica, version))
                newer += len(ahead_of_base(replica, base))
        root = job.passages[0].target
        try:
            stamp = new_stamp(context.now(), root, branches_beside(target, root))
            branch = swap(target, root, stamp, wanted)
            seen = target.look_for([root])
        except HosterError as error:
            job.fail(error)
            continue
        for passage in job.passages:
            passage.replica = seen.get(passage.target)
        demoted = job.passages[0].part.replica is not None and job.passages[0].part.replica.marks.demoted
        if demoted:
            job.notes.append(f"{target.node} gave way: what it wrote alone is kept there in {branch}")
        else:
            rest = f"{newer} newer version(s) on {target.node} are kept in {branch}"
            job.notes.append(f"it was rolled back here: {rest}")


def _take(context: Context, jobs: Sequence[Job]) -> None:
    steps = {}
    for job in jobs:
        if job.needs_snapshot:
            replicas = [p.replica for p in job.passages if p.replica is not None]
            reasons = {p.source.name: why_taken(p.source) for p in job.passages}
            planned = snapshot_steps(job.vm, SnapshotType.REPLICATION, context.now(), "", replicas)
            steps[job.vm.name] = [replace(step, reason=reasons[step.dataset]) for step in planned]
    taken = take(context.zfs, steps)
    for job in jobs:
        if job.vm.name in taken.failures:
            job.fail(taken.failures[job.vm.name])
        elif job.vm.name in taken.steps:
            job.taken = taken.steps[job.vm.name][0].name


def _anchor(zfs: ZfsStore, jobs: Sequence[Job]) -> None:
    """Anchors both ends of every transfer and learns the GUIDs of the snapshots just taken, in one act."""
    planned = [
        (job, passage, plan_anchors(passage.source, passage.base, job.site.key, job.taken or None))
        for job in jobs
        for passage in job.passages
    ]
    try:
        answers = {a.name: a for a in zfs.anchor([anchor for _, _, some in planned for anchor in some])}
    except HosterError as error:
        for job in jobs:
            job.fail(error)
        return
    for job, passage, anchors in planned:
        for anchor in anchors:
            answer = answers.get(anchor.full_name, Answer(anchor.full_name, "gone"))
            if not answer.done:
                job.fail(OperationFailed(f"{anchor.full_name} cannot be sent: {answer.explained}"))
            else:
                passage.source = _anchored(passage.source, anchor, answer)
        passage.chain = unsent(passage.source, passage.base)
        passage.sends = plan_sends(passage.leg)


def _anchored(source: Dataset, anchor: Anchor, answer: Answer) -> Dataset:
    """``source`` with the anchor that was made, and with its snapshot if that was taken just now."""
    guid, createtxg = answer.version
    bookmark = Bookmark(source.name, anchor_name(anchor.target, guid), guid, createtxg)
    source = replace(source, bookmarks=(*source.bookmarks, bookmark))
    if anchor.guid is not None:
        return source
    taken = Snapshot(source.name, anchor.name, guid, createtxg, written=source.written)
    return replace(source, snapshots=(*source.snapshots, taken), written=0)


@contextlib.contextmanager
def _holding(zfs: ZfsStore, jobs: Sequence[Job]) -> Iterator[None]:
    """Holds both ends of every stream while it lasts, so that nobody else destroys them meanwhile."""
    held: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        if any(passage.sends for passage in job.passages):
            held.setdefault((hold_tag(job.site), pool_of(job.passages[0].source.name)), []).append(job)
    try:
        for (tag, _), of_tag in held.items():
            _hold(zfs, tag, of_tag)
        yield
    finally:
        for (tag, _), of_tag in held.items():
            with contextlib.suppress(HosterError):  # the next run finds them and releases them
                zfs.release(tag, [name for job in of_tag for name in job.ends])


def _hold(zfs: ZfsStore, tag: str, jobs: Sequence[Job]) -> None:
    """One command for all; where that fails, one for each VM, so that only the one at fault goes without."""
    try:
        zfs.hold(tag, [name for job in jobs for name in job.ends])
    except OperationFailed as error:
        if len(jobs) == 1:
            jobs[0].fail(error)
            return
        with contextlib.suppress(HosterError):
            zfs.release(tag, [name for job in jobs for name in job.ends])
        for job in jobs:
            _hold(zfs, tag, [job])


def _send_all(
    context: Context, request: ReplicationRequest, target: ZfsStore, jobs: Sequence[Job], observer: Observer
) -> None:
    """Sends some VMs at a time, all under one speed limit; an interrupt ends every stream at once."""
    from concurrent.futures import ThreadPoolExecutor

    limit = SpeedLimit(request.speed_limit) if request.speed_limit else None
    with ThreadPoolExecutor(max(1, min(request.parallel, len(jobs) or 1)), "send") as pool:
        running = [pool.submit(_send, context, target, job, observer, limit) for job in jobs]
        try:
            for one in running:
                one.result()
        except BaseException:
            for one in running:
                one.cancel()
            context.runner.stop()
            raise


def _send(context: Context, target: ZfsStore, job: Job, observer: Observer, limit: SpeedLimit | None) -> None:
    started = time.monotonic()
    meter = _meter(job, observer, limit)
    keys: dict[str, str] = {}
    raw = {passage.target for passage in job.passages if passage.mode is Mode.RAW}
    try:
        for passage in job.passages:
            if passage.mode is Mode.RAW and passage.sends:
                match check_key(context.zfs, target, job, passage):
                    case Refusal() as refusal:
                        job.refusal = refusal
                        return
                    case digest:
                        keys[passage.target] = digest
        # The VM's own dataset last, if it is there already: a version of that is whole then.
        first, *others = job.passages
        for passage in (*others, first) if first.replica is not None else job.passages:
            own_mode = {"mode": passage.mode, "key_digest": keys.get(passage.target), "swap": None}
            sites = job.told.sites if passage is job.passages[0] else ()
            marks = replace(job.told, role=Role.REPLICA, demoted=False, sites=sites, **own_mode)
            properties = properties_of(marks)
            if passage.mode is Mode.PLAIN and passage.target.rpartition("/")[0] in raw:
                # Below a dataset whose key is not loaded it could not be received otherwise (2.3.9).
                properties["encryption"] = "off"
            for step in passage.sends:
                transfer(context.runner, context.zfs, target, step, properties, meter)
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
    attempted = [job for job in jobs if any(passage.sends for passage in job.passages)]
    if not attempted:
        return
    try:
        seen = target.look_for([job.passages[0].target for job in attempted])
    except HosterError as error:
        for job in attempted:
            job.fail(error)
        return
    for job in attempted:
        promoted = promotion(target, job, seen.get(job.passages[0].target))
        if promoted is not None:
            job.fail(promoted)
            continue
        missing: list[str] = []
        for passage in job.passages:
            passage.replica = seen.get(passage.target)
            missing += _arrived(job, passage)
        if missing and job.refusal is None:
            job.fail(
                OperationFailed(
                    f"{target.node} does not list {missing[0]} after it was sent",
                    hint="run it again; if it stays so, compare both: zfs list -t snapshot -o name,guid",
                )
            )
        elif job.failure is not None and not missing:
            job.notes.append(f"everything arrived, though the stream ended badly: {job.failure.message}")
            job.failure = None


def _arrived(job: Job, passage: Passage) -> list[str]:
    """Notes what has arrived of one dataset; what is missing there, as words."""
    if not passage.chain:
        return []
    there = {s.guid for s in passage.replica.snapshots} if passage.replica else set()
    passage.arrived = tuple(s for s in passage.chain if s.guid in there)
    newest = passage.chain[-1]
    if newest.guid not in there:
        if passage.replica is not None and passage.replica.partial is not None:
            job.notes.append(f"what has arrived of {passage.target} is kept: the next run goes on from there")
        return [f"{newest.name} (guid {newest.guid:016x}) of {passage.target}"]
    if len(passage.arrived) < len(passage.chain):
        lost = ", ".join(s.name for s in passage.chain if s.guid not in there)
        job.notes.append(f"gone here before they could be sent: {lost}")
    return []


def _report(job: Job) -> VmReport:
    sent = tuple(s.full_name for passage in job.passages for s in passage.arrived)
    reason = "" if any(p.chain for p in job.passages) else "what an earlier run left was put right"
    outcome, remedy, ground = Outcome.DONE, "", None
    if job.refusal is not None:
        outcome, ground = Outcome.REFUSED, job.refusal.ground
        reason, remedy = job.refusal.evidence, job.refusal.remedy
    elif job.failure is not None:
        outcome, reason, remedy = Outcome.FAILED, job.failure.message, job.failure.hint
    return VmReport(
        job.vm.name,
        outcome,
        reason,
        remedy,
        ground=ground,
        taken=tuple(f"{p.source.name}@{job.taken}" for p in job.passages) if job.taken else (),
        sent=sent,
        sent_bytes=job.sent_bytes,
        seconds=round(job.seconds, 3),
        destroyed=tuple(job.destroyed),
        notes=tuple(job.notes),
        vm_id=job.vm_id,
        newest=newest_of([(passage.source, passage.replica) for passage in job.passages]),
    )
