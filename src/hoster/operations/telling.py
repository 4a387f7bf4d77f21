"""Keeps the marks of a VM's copies in step: where its replicas are, under which epoch, and who its parent is.

Costs nothing while nothing changes: what both ends have is in the listings that replication takes anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from hoster.errors import HosterError
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
from hoster.zfs.store import ZfsStore


def sites_with(vm: Vm, request: ReplicationRequest, target: str) -> tuple[Site, ...]:
    """The sites that the VM's source is to know: those it knows, and this target."""
    known = vm.dataset.marks.sites
    if vm.role is not Role.PRIMARY or request.node == LOCAL:
        return known
    key = str(request.ssh.key.resolve()) if request.ssh.key else ""
    site = Site(request.node, target, request.ssh.port, key)
    others = [s for s in known if (s.endpoint, s.dataset) != (site.endpoint, site.dataset)]
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
    for job in jobs:
        if not job.complete:
            continue
        try:
            _tell_replica(target, job)
            if not _knows_sites(job):
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


def _tell_replica(target: ZfsStore, job: Job) -> None:
    root = job.passages[0]
    if root.replica is None:
        return
    demoted = [p.target for p in job.passages if p.replica is not None and p.replica.marks.demoted]
    if demoted:
        target.inherit("hoster:demoted", demoted)
    if _is_behind(root.replica, job.told):
        told = Marks(epoch=job.told.epoch, parent=job.told.parent, sites=job.told.sites)
        target.set_properties(properties_of(told), [root.target])


def _is_behind(replica: Dataset, told: Marks) -> bool:
    has = replica.marks
    return has.demoted or (has.epoch, has.parent, has.sites) != (told.epoch, told.parent, told.sites)


def _knows_sites(job: Job) -> bool:
    return job.passages[0].source.marks.sites == job.sites
