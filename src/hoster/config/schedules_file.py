"""``[schedules]`` of hoster.toml: read, checked and made into values.

Every error names the file and the key. What contradicts itself across schedules is an error, too, so that no
command goes by half of a policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Annotated, Any

import msgspec

from hoster.config.json_text import Place
from hoster.config.settings_file import AtLeastOne, NotEmpty, Table, TargetKeep, converted_table
from hoster.errors import ConfigurationError
from hoster.model.names import SnapshotType, dataset_name, endpoint, existing_vm_name
from hoster.model.schedules import (
    DAY_MINUTES,
    DEFAULT_EVERY_MINUTES,
    LEAST_EVERY_MINUTES,
    SCHEDULED_TYPES,
    Schedule,
    ScheduledJob,
    Selection,
    Target,
    Window,
    all_jobs,
    schedule_name,
    window,
)

LOCAL = "local"
"""The endpoint that is this node."""

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class SnapshotsTable(Table, frozen=True):
    """``[schedules.NAME.snapshots]``."""

    frequent: AtLeastOne | None = None
    hourly: AtLeastOne | None = None
    daily: AtLeastOne | None = None
    weekly: AtLeastOne | None = None
    monthly: AtLeastOne | None = None
    yearly: AtLeastOne | None = None


class TargetTable(Table, frozen=True):
    """``[schedules.NAME.targets.TARGET]``."""

    endpoint: NotEmpty | None = None
    dataset: NotEmpty | None = None
    port: Port | None = None
    key: NotEmpty | None = None
    speed_limit: AtLeastOne | None = None
    every: int = DEFAULT_EVERY_MINUTES
    keep: TargetKeep = TargetKeep()
    windows: tuple[str, ...] | None = None
    when_reachable: bool = False
    rpo: AtLeastOne | None = None


class ScheduleTable(Table, frozen=True):
    """``[schedules.NAME]``."""

    production: bool = False
    vms: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    snapshots: SnapshotsTable = SnapshotsTable()
    targets: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)


def read_schedules(tables: Mapping[str, Mapping[str, Any]], place: Place) -> tuple[Schedule, ...]:
    """The schedules, in the order of the file; ``place`` is that of their table."""
    schedules = tuple(_schedule(name, found, place.key(name)) for name, found in tables.items())
    jobs = all_jobs(schedules)
    for one, other in combinations(jobs, 2):
        _refuse_same_name(one, other, place)
        _refuse_same_vm(one, other, place)
    return schedules


def _schedule(name: str, found: Mapping[str, Any], place: Place) -> Schedule:
    _named(name, place)
    read = converted_table(found, ScheduleTable, place)
    if not (read.production or read.vms or read.tags):
        raise place.error("takes no VM, expected one of: production = true, vms, tags")
    for index, vm in enumerate(read.vms):
        try:
            existing_vm_name(vm)
        except ValueError as error:
            raise place.key("vms").item(index).error(str(error)) from None
    counts = _counts(read.snapshots, SCHEDULED_TYPES)
    targets = tuple(_target(n, t, place.key("targets").key(n)) for n, t in read.targets.items())
    if not counts and not targets:
        raise place.error("does nothing, expected [….snapshots] or a target, [….targets.NAME]")
    return Schedule(name, Selection(read.production, read.vms, read.tags), counts, targets)


def _target(name: str, found: Mapping[str, Any], place: Place) -> Target:
    _named(name, place)
    read = converted_table(found, TargetTable, place)
    if read.endpoint is None:
        raise place.key("endpoint").error('found nothing, expected a node, such as "10.0.0.2", or "local"')
    try:
        node = endpoint(read.endpoint)
    except ValueError as error:
        raise place.key("endpoint").error(str(error)) from None
    if node.host == LOCAL and read.dataset is None:
        raise place.key("dataset").error("found nothing, and local needs one, of another pool")
    if read.dataset is not None:
        try:
            dataset_name(read.dataset)
        except ValueError as error:
            raise place.key("dataset").error(str(error)) from None
    if read.key is not None and not read.key.startswith("/"):
        raise place.key("key").unexpected(read.key, "a path that begins with /")
    _check_times(read, place)
    return Target(
        name=name,
        endpoint=node,
        dataset=read.dataset,
        port=read.port,
        key=read.key,
        speed_limit_mib_s=read.speed_limit,
        every_minutes=read.every,
        keep=_counts(read.keep, SnapshotType),
        windows=tuple(_windows(read, place)),
        when_reachable=read.when_reachable,
        rpo_minutes=read.rpo,
    )


def _check_times(read: TargetTable, place: Place) -> None:
    if not LEAST_EVERY_MINUTES <= read.every <= DAY_MINUTES or DAY_MINUTES % read.every:
        expected = f"minutes that divide a day, from {LEAST_EVERY_MINUTES} to {DAY_MINUTES}, such as 60"
        raise place.key("every").unexpected(read.every, expected)
    if read.rpo is not None and read.rpo < read.every:
        raise place.key("rpo").unexpected(read.rpo, f"at least {read.every}, which is how often it runs")
    if read.windows == ():
        raise place.key("windows").error("found an empty list, in which nothing would ever be sent")


def _windows(read: TargetTable, place: Place) -> Iterator[Window]:
    for index, text in enumerate(read.windows or ()):
        try:
            yield window(text)
        except ValueError as error:
            raise place.key("windows").item(index).error(str(error)) from None


def _counts(read: SnapshotsTable | TargetKeep, types: Iterable[SnapshotType]) -> dict[SnapshotType, int]:
    return {stype: count for stype in types if (count := getattr(read, stype)) is not None}


def _named(name: str, place: Place) -> None:
    try:
        schedule_name(name)
    except ValueError as error:
        raise place.error(str(error)) from None


def _refuse_same_name(one: ScheduledJob, other: ScheduledJob, place: Place) -> None:
    """Jobs are told apart by their names, in the journal and to systemd."""
    for mine, its in ((one.name, other.name), (one.unit, other.unit)):
        if mine == its:
            raise place.key(other.schedule.name).error(
                f"{other.subject} would be called {its}, and so is {one.subject} of {one.schedule.name}"
            )


def _refuse_same_vm(one: ScheduledJob, other: ScheduledJob, place: Place) -> None:
    if not one.is_like(other):
        return
    if one.schedule == other.schedule:
        raise _twice(other, place, f"{one.subject} is the same place")
    same = [vm for vm in other.schedule.selection.vms if vm in one.schedule.selection.vms]
    if same:
        raise _twice(other, place, f"{same[0]} is named by {one.schedule.name} for the same already")


def _twice(job: ScheduledJob, place: Place, why: str) -> ConfigurationError:
    return place.key(job.schedule.name).error(f"{job.subject}: {why}")
