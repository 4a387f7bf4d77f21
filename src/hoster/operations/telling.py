"""Keeps the marks of a VM's copies in step: where its replicas are, under which epoch, and who its parent is.

Costs nothing while nothing changes: what both ends have is in the listings that replication takes anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from hoster.errors import HosterError, OperationFailed
from hoster.model.plan import Ground, Refusal
from hoster.model.storage import Dataset, Marks, Role, Site
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.identity import properties_of
from hoster.operations.job import Job
from hoster.operations.permission import mark_superseded
from hoster.operations.power import running_now
from hoster.operations.request import ReplicationRequest
from hoster.planning.refusals import LOCAL
from hoster.planning.succession import Standing, standing
from hoster.zfs.store import ZfsStore


def sites_with(vm: Vm, request: ReplicationRequest, target: str) -> tuple[Site, ...]:
    """The sites that the VM's source is to know: those it knows, and this target."""
    known = vm.dataset.marks.sites
    if vm.role is not Role.PRIMARY or request.node == LOCAL:
        return known
    key = str(request.ssh.key.resolve()) if request.ssh.key else ""
    site = Site(request.node, target, request.ssh.port, key)
    # The old host is known by its name from before the takeover, without the user that it is called with now.
    host = request.node.rpartition("@")[2]
    others = [s for s in known if (s.endpoint.rpartition("@")[2], s.dataset) != (host, target)]
    return tuple(sorted([*others, site], key=lambda s: (s.endpoint, s.dataset)))


def replica_marks(context: Context, vm: Vm, sites: tuple[Site, ...], node: str, target: str) -> Marks:
    """What the VM's own dataset is to be marked with on the target ``node``, so that its source and its other
    copies can be found from there."""
    own = vm.dataset.marks
    if vm.role is not Role.PRIMARY:
        return own
    here = Site(context.hostname, vm.dataset.name)
    elsewhere = tuple(
        Site(site.endpoint, site.dataset, site.port)
        for site in sites
        if (site.endpoint, site.dataset) != (node, target)
    )
    return replace(own, parent=context.hostname, sites=(here, *elsewhere))


def is_told(job: Job) -> bool:
    """Whether both ends know all that they should, as they were last seen."""
    root = job.passages[0]
    return root.replica is not None and not _is_behind(root.replica, job.told) and _knows_sites(job)


def tell_copies(context: Context, target: ZfsStore, jobs: Sequence[Job]) -> None:
    """Marks both ends of the jobs that are complete with what they do not know yet."""
    _tell_replicas(target, [job for job in jobs if job.complete and _has_to_be_told(job)])
    for job in jobs:
        if not job.complete or _knows_sites(job):
            continue
        try:
            own = properties_of(Marks(sites=job.sites))
            context.zfs.set_properties(own, [job.vm.dataset.name])
        except HosterError as error:
            job.fail(error)


def superseded(
    context: Context, vm: Vm, refusal: Refusal, there: Sequence[Dataset], *, dry_run: bool
) -> tuple[str, ...]:
    """Where a VM was refused because another node has taken it over: marks this copy, for good; what is to be
    said of that."""
    if refusal.ground is not Ground.SUPERSEDED or not vm.is_primary or dry_run:
        return ()
    parent = there[0].marks.parent or ""
    try:
        mark_superseded(context, vm, parent)
        notes = [f"the copy here is marked superseded: {parent or 'another node'} runs {vm.name} now"]
        if running_now(context, vm) is not None:
            notes.append(f"AND IT STILL RUNS HERE: hoster vm stop {vm.name}")
    except HosterError as error:
        # The others of the batch are not to suffer from it; the next contact tries again.
        notes = [
            f"the copy here could not be marked superseded, or it cannot be told whether it runs: {error}"
        ]
    return tuple(notes)


def _has_to_be_told(job: Job) -> bool:
    replica = job.passages[0].replica
    return replica is not None and (_is_behind(replica, job.told) or bool(_demoted(job)))


def _demoted(job: Job) -> list[str]:
    return [p.target for p in job.passages if p.replica is not None and p.replica.marks.demoted]


def _tell_replicas(target: ZfsStore, jobs: Sequence[Job]) -> None:
    """Looks at them once more, right before: what was promoted meanwhile is told nothing."""
    if not jobs:
        return
    roots = [job.passages[0].target for job in jobs]
    try:
        now = target.look_at(roots)
    except HosterError as error:
        for job in jobs:
            job.fail(error)
        return
    for job, root in zip(jobs, roots, strict=True):
        try:
            _tell_replica(target, job, now.get(root))
        except HosterError as error:
            job.fail(error)


def _tell_replica(target: ZfsStore, job: Job, replica: Dataset | None) -> None:
    root = job.passages[0]
    promoted = promotion(target, job, replica)
    if promoted is not None:
        raise promoted
    if demoted := _demoted(job):
        target.inherit("hoster:demoted", demoted)
    if root.replica is not None and _is_behind(root.replica, job.told):
        told = Marks(epoch=job.told.epoch, parent=job.told.parent, sites=job.told.sites)
        target.set_properties(properties_of(told), [root.target])


def promotion(target: ZfsStore, job: Job, replica: Dataset | None) -> OperationFailed | None:
    """Why this run has nothing more to do with the replica: hours may have passed since it was judged, and it
    may run there by now, or have been told that a third node runs it."""
    if replica is None:
        return None
    marks, judged = replica.marks, job.passages[0].part.replica
    as_judged = judged is not None and marks.epoch == judged.marks.epoch
    if marks.role is Role.REPLICA and (
        as_judged or standing(job.told.epoch, marks.epoch) is Standing.CURRENT
    ):
        return None
    return OperationFailed(
        f"{replica.name} on {target.node} was promoted, or told of a promotion, while this ran: it is of"
        f" epoch {marks.epoch} now, this copy of {job.told.epoch}",
        hint="run it again: it says who has taken the VM over",
    )


def _is_behind(replica: Dataset, told: Marks) -> bool:
    has = replica.marks
    return has.demoted or (has.epoch, has.parent, has.sites) != (told.epoch, told.parent, told.sites)


def _knows_sites(job: Job) -> bool:
    return job.passages[0].source.marks.sites == job.sites
