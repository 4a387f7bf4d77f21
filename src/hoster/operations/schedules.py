"""What schedules mean on this node: which VMs each job takes, when it runs, and the run itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from hoster.errors import DatasetMissing, NoAnswer, UsageError
from hoster.host.ssh import SshOptions
from hoster.host.throttle import MIB
from hoster.model.names import SnapshotType
from hoster.model.plan import Report
from hoster.model.schedules import ScheduledJob, Target, all_jobs, jobs_of
from hoster.model.storage import Role
from hoster.operations.context import Context
from hoster.operations.installing import Installed
from hoster.operations.inventory import Inventory, look_around
from hoster.operations.replicate import replicate
from hoster.operations.request import Observer, ReplicationRequest
from hoster.operations.snapshots import SnapshotRequest, snapshot_all
from hoster.planning.installation import Program
from hoster.planning.refusals import LOCAL
from hoster.planning.schedules import claimed_before, is_open, next_runs, times_of
from hoster.records.runs import Run, RunKind
from hoster.zfs.pools import pools
from hoster.zfs.store import pool_of

_SHOWN_RUNS = 3
_PARALLEL = 2


class Chosen(Struct, frozen=True):
    """The VMs that a job takes, by name, and those that an earlier schedule takes in its place."""

    names: tuple[str, ...]
    left_to: Mapping[str, str]


class Skipped(Struct, frozen=True):
    """There was to be no run, and nothing is wrong with that."""

    reason: str


class ShownJob(Struct, frozen=True):
    """A scheduled job as it is shown. ``next`` are the next moments at which it runs, in Unix seconds;
    ``installed`` is cron, systemd, none, or out of date."""

    job: str
    schedule: str
    kind: str
    subject: str
    endpoint: str
    vms: tuple[str, ...]
    left_to: Mapping[str, str]
    next: tuple[float, ...]
    installed: str


def named_job(context: Context, schedule: str, what: SnapshotType | str) -> ScheduledJob:
    """The job of that schedule for a type, or for the target of that name; UsageError tells which it has."""
    found = [one for one in context.settings.schedules if one.name == schedule]
    if not found:
        known = ", ".join(one.name for one in context.settings.schedules) or "none"
        raise UsageError(
            f"{context.settings.read_from}: there is no schedule {schedule!r}, there are: {known}",
            hint="hoster schedule show",
        )
    jobs = {
        job.subject: job for job in jobs_of(found[0]) if isinstance(what, SnapshotType) != is_replication(job)
    }
    if str(what) not in jobs:
        known = ", ".join(jobs) or "none"
        raise UsageError(
            f"the schedule {schedule} has no {str(what)!r}, it has: {known}", hint="hoster schedule show"
        )
    return jobs[str(what)]


def is_replication(job: ScheduledJob) -> bool:
    """Whether it sends; otherwise it takes snapshots."""
    return isinstance(job.what, Target)


def run_of(job: ScheduledJob) -> Run:
    """The run that is recorded of a job."""
    if isinstance(job.what, Target):
        return Run(RunKind.REPLICATION, job.name, str(job.what.endpoint))
    return Run(RunKind.SNAPSHOT, job.name)


def chosen_by(context: Context, stock: Inventory, job: ScheduledJob) -> Chosen:
    """The VMs that a job takes of those on this node.

    Replicas are left out, also where they are named. What is named and not here is among them, and what
    looks like a VM and cannot be read may be a production one, as may be those in a dataset that is missing:
    their runs will say so.
    """
    selection, schedules = job.schedule.selection, context.settings.schedules
    roles = {Role.PRIMARY, Role.SUPERSEDED} if is_replication(job) else {Role.PRIMARY}
    names: list[str] = []
    left_to: dict[str, str] = {}
    for vm in stock.vms:
        if vm.role in roles and selection.takes(vm):
            earlier = claimed_before(schedules, job, vm)
            if earlier:
                left_to[vm.name] = earlier
            else:
                names.append(vm.name)
    here = {vm.name for vm in stock.vms}
    names += [one.name for one in stock.unusable if selection.production or one.name in selection.vms]
    names += [name for name in selection.vms if name not in here and name not in names]
    if selection.production or selection.tags:
        names += [one.name for one in stock.missing]
    return Chosen(tuple(sorted(names)), left_to)


def show_jobs(context: Context, present: Installed, program: Program) -> tuple[ShownJob, ...]:
    """All jobs of all schedules, in the order of the settings."""
    stock = look_around(context, mend=False)
    shown = []
    for job in all_jobs(context.settings.schedules):
        chosen = chosen_by(context, stock, job)
        moments = next_runs(times_of(job), context.now(), _SHOWN_RUNS)
        shown.append(
            ShownJob(
                job.name,
                job.schedule.name,
                "replication" if is_replication(job) else "snapshots",
                job.subject,
                str(job.what.endpoint) if isinstance(job.what, Target) else "",
                chosen.names,
                chosen.left_to,
                tuple(moment.timestamp() for moment in moments),
                present.of(job, program),
            )
        )
    return tuple(shown)


def run_scheduled(
    context: Context, job: ScheduledJob, chosen: Chosen, observer: Observer
) -> Report | Skipped:
    """Runs a job once, for these VMs; skips it where its target is not to be reached now.

    Errors are those of :func:`replicate` and :func:`snapshot_all`.
    """
    if isinstance(job.what, SnapshotType):
        request = SnapshotRequest(job.what, job.schedule.snapshots[job.what])
        return snapshot_all(context, request, names=chosen.names)
    target = job.what
    if not is_open(target.windows, context.now()):
        windows = ", ".join(map(str, target.windows))
        return Skipped(f"{target.name} may be reached only in its windows: {windows}")
    if target.when_reachable and target.endpoint.host == LOCAL:
        assert target.dataset is not None, "the settings demand it"
        pool = pool_of(target.dataset)
        if not _is_imported(context, pool):
            return Skipped(f"{target.name} is not reachable: the pool {pool} is not imported")
    try:
        return replicate(context, _request(context, job, target, chosen), observer)
    except NoAnswer as error:
        if not target.when_reachable:
            raise
        return Skipped(f"{target.name} is not reachable: {error.message}")


def _request(context: Context, job: ScheduledJob, target: Target, chosen: Chosen) -> ReplicationRequest:
    settings = context.settings.replication
    limit = target.speed_limit_mib_s or settings.speed_limit_mib_s
    key = None if target.key is None else Path(target.key)
    return ReplicationRequest(
        ssh=SshOptions(target.endpoint, target.port, key, settings.connect_timeout_s),
        names=chosen.names,
        target_dataset=target.dataset,
        speed_limit=None if limit is None else limit * MIB,
        job=job.name,
        target_keep=target.keep,
        parallel=_PARALLEL,
    )


def _is_imported(context: Context, pool: str) -> bool:
    try:
        pools(context.zfs.host, context.runner, [pool])
    except DatasetMissing:
        return False
    return True
