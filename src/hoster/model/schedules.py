"""Schedules as policy: which VMs, which snapshots of them, which targets, and when a target may be reached.

Pure values. Windows are local time; what a schedule means for a clock is :mod:`hoster.planning.schedules`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct, field

from hoster.model.names import Endpoint, SnapshotType, shown
from hoster.model.storage import Site
from hoster.model.vms import Vm

DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES

DEFAULT_EVERY_MINUTES = 60
LEAST_EVERY_MINUTES = 5

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

SCHEDULED_TYPES = (
    SnapshotType.FREQUENT,
    SnapshotType.HOURLY,
    SnapshotType.DAILY,
    SnapshotType.WEEKLY,
    SnapshotType.MONTHLY,
    SnapshotType.YEARLY,
)
"""The types that have a time of their own, the most frequent first."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,31}")
_CLOCK = r"([01]\d|2[0-3]):([0-5]\d)"
_DAILY = re.compile(f"{_CLOCK}-{_CLOCK}", re.ASCII)
_WEEKLY = re.compile(f"({'|'.join(WEEKDAYS)}) {_CLOCK}-({'|'.join(WEEKDAYS)}) {_CLOCK}", re.ASCII)


class Window(Struct, frozen=True):
    """A time that comes again each day, or each week: from ``begin`` until just before ``end``.

    Both are minutes since midnight or, if it is ``weekly``, since Monday's; ``end`` may lie before ``begin``,
    and is in the next day or week then.
    """

    begin: int
    end: int
    weekly: bool = False

    @property
    def minutes(self) -> int:
        """How long it lasts."""
        return (self.end - self.begin) % (WEEK_MINUTES if self.weekly else DAY_MINUTES)

    def __str__(self) -> str:
        return f"{self._moment(self.begin)}-{self._moment(self.end)}"

    def _moment(self, minute: int) -> str:
        day, rest = divmod(minute, DAY_MINUTES)
        clock = f"{rest // 60:02}:{rest % 60:02}"
        return f"{WEEKDAYS[day]} {clock}" if self.weekly else clock


Windows = tuple[Window, ...]


class Selection(Struct, frozen=True):
    """Which VMs a schedule takes: the union of the production VMs, those named, and those with one of the
    tags."""

    production: bool = False
    vms: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def takes(self, vm: Vm) -> bool:
        """Whether it takes that VM, whatever its role here."""
        if vm.name in self.vms or (self.production and vm.production):
            return True
        return vm.config is not None and not set(self.tags).isdisjoint(vm.config.tags)


class Target(Struct, frozen=True):
    """A node, or a dataset of this one, that the VMs of a schedule are replicated to.

    ``dataset`` None means the path that they have here. ``every_minutes`` divides a day. ``keep`` goes before
    the node's own counts for targets. Outside of the ``windows`` nothing is begun; without any there is no
    such limit. ``rpo_minutes`` None means the node's promises.
    """

    name: str
    endpoint: Endpoint
    dataset: str | None = None
    port: int | None = None
    key: str | None = None
    speed_limit_mib_s: int | None = None
    every_minutes: int = DEFAULT_EVERY_MINUTES
    keep: Mapping[SnapshotType, int] = field(default_factory=dict)
    windows: Windows = ()
    when_reachable: bool = False
    rpo_minutes: int | None = None

    def place_of(self, vm: Vm) -> Site:
        """Where this target has the VM's replica."""
        parent = self.dataset or vm.dataset.name.rpartition("/")[0]
        return Site(str(self.endpoint), f"{parent}/{vm.name}", self.port, self.key or "")

    def is_where(self, other: Target) -> bool:
        """Whether it is the same place as another target."""
        return (self.endpoint, self.dataset) == (other.endpoint, other.dataset)


class Schedule(Struct, frozen=True):
    """What is done with some VMs again and again. ``snapshots`` says for each type how many are kept."""

    name: str
    selection: Selection
    snapshots: Mapping[SnapshotType, int] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()


class ScheduledJob(Struct, frozen=True):
    """One thing that a schedule does: snapshots of a type, or the replication to a target."""

    schedule: Schedule
    what: SnapshotType | Target

    @property
    def subject(self) -> str:
        """The type or the target, by its name."""
        return self.what.name if isinstance(self.what, Target) else self.what.value

    @property
    def name(self) -> str:
        """What it is called in the journal, in metrics, by its marker and its lock."""
        return f"{self.schedule.name}_{self.subject}"

    @property
    def unit(self) -> str:
        """What its systemd units are called, less their endings."""
        return f"hoster-{self.schedule.name}-{self.subject}"

    def is_like(self, other: ScheduledJob) -> bool:
        """Whether it is of the same type, or to the same place: no VM is to be in both."""
        if isinstance(self.what, Target):
            return isinstance(other.what, Target) and self.what.is_where(other.what)
        return self.what == other.what


def jobs_of(schedule: Schedule) -> Iterator[ScheduledJob]:
    """What a schedule does: its snapshots, the most frequent first, then its targets in their order."""
    for stype in SCHEDULED_TYPES:
        if stype in schedule.snapshots:
            yield ScheduledJob(schedule, stype)
    for target in schedule.targets:
        yield ScheduledJob(schedule, target)


def all_jobs(schedules: Collection[Schedule]) -> tuple[ScheduledJob, ...]:
    """What all of them do, in their order."""
    return tuple(job for schedule in schedules for job in jobs_of(schedule))


def schedule_name(text: str) -> str:
    """``text`` if it can name a schedule or a target; ValueError with the reason otherwise."""
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{shown(text)} cannot name a schedule or a target: letters, digits, - and _ are allowed,"
            " 32 of them at most, the first no -"
        )
    return text


def window(text: str) -> Window:
    """The window that ``text`` means; ValueError with the forms there are.

    >>> window("22:00-06:00").minutes, str(window("Sat 08:00-Sun 20:00"))
    (480, 'Sat 08:00-Sun 20:00')
    """
    if daily := _DAILY.fullmatch(text):
        begin, end = _minute(daily[1], daily[2]), _minute(daily[3], daily[4])
        found = Window(begin, end)
    elif weekly := _WEEKLY.fullmatch(text):
        begin = WEEKDAYS.index(weekly[1]) * DAY_MINUTES + _minute(weekly[2], weekly[3])
        end = WEEKDAYS.index(weekly[4]) * DAY_MINUTES + _minute(weekly[5], weekly[6])
        found = Window(begin, end, weekly=True)
    else:
        raise ValueError(f'{shown(text)} is no window: expected "22:00-06:00" or "Sat 08:00-Sun 20:00"')
    if found.minutes == 0:
        raise ValueError(f"{shown(text)} is no window: it ends when it begins")
    return found


def _minute(hours: str, minutes: str) -> int:
    return int(hours) * 60 + int(minutes)
