"""Keeps the marks of a VM's copies in step: where its replicas are, under which epoch, and who its parent is.

Costs nothing while nothing changes: what both ends have is in the listings that replication takes anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from hoster.zfs.programs import Telling
from hoster.zfs.store import ZfsStore, missing


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
    """Looks at them once more, right before; each is told only if it is still what was seen then."""
    if not jobs:
        return
    try:
        seen = target.look_at([job.passages[0].target for job in jobs])
    except HosterError as error:
        for job in jobs:
            job.fail(error)
        return
    behind: dict[str, tuple[Job, Telling]] = {}
    for job in jobs:
        root = job.passages[0].target
        replica = seen.get(root)
        if replica is None:
            job.fail(missing(target.node, root))
        elif (promoted := promotion(target, job, replica)) is not None:
            job.fail(promoted)
        elif _is_behind(replica, job.told):
            told = Marks(epoch=job.told.epoch, parent=job.told.parent, sites=job.told.sites)
            behind[root] = job, Telling(replica, properties_of(told))
    _tell(target, behind)
    for job in jobs:
        if job.complete and (demoted := _demoted(job)):
            try:
                target.inherit("hoster:demoted", demoted)
            except HosterError as error:
                job.fail(error)


def _tell(target: ZfsStore, behind: Mapping[str, tuple[Job, Telling]]) -> None:
    try:
        answers = {a.name: a for a in target.tell([telling for _, telling in behind.values()])}
    except HosterError as error:
        for job, _ in behind.values():
            job.fail(error)
        return
    for name, (job, _) in behind.items():
        if answers[name].promoted:
            job.fail(_promoted(f"{name} on {target.node}"))
        elif not answers[name].done:
            why = answers[name].explained
            job.fail(OperationFailed(f"{name} on {target.node} could not be told of the other copies: {why}"))


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
    return _promoted(
        f"{replica.name} on {target.node}",
        f": it is of epoch {marks.epoch} now, this copy of {job.told.epoch}",
    )


def _promoted(copy: str, more: str = "") -> OperationFailed:
    return OperationFailed(
        f"{copy} was promoted, or told of a promotion, while this ran{more}",
        hint="run it again: it says who has taken the VM over",
    )


def _is_behind(replica: Dataset, told: Marks) -> bool:
    has = replica.marks
    return has.demoted or (has.epoch, has.parent, has.sites) != (told.epoch, told.parent, told.sites)


def _knows_sites(job: Job) -> bool:
    return job.passages[0].source.marks.sites == job.sites
