"""When scheduled jobs run, when a target may be reached, and when its data become late.

Pure: no clock; moments are local time or Unix seconds, as each function says. Cron and systemd are told the
same :class:`Times` that the next runs are computed from.

Each type of snapshot has a minute of its own, so that none waits for another, and all but the hourly ones lie
between midnight and one o'clock: where clocks are set forward or back, they mostly are so later in the night,
and these moments come once in every day. Replications come some minutes after, so that they find the new
snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from itertools import islice

from msgspec import Struct

from hoster.model.names import SnapshotType
from hoster.model.schedules import (
    DAY_MINUTES,
    WEEK_MINUTES,
    WEEKDAYS,
    Schedule,
    ScheduledJob,
    Target,
    Windows,
    jobs_of,
)
from hoster.model.vms import Vm

FIRST_OF_MANY = 8
"""The minute after midnight at which replications begin that run every hour or more often."""

FIRST_OF_FEW = 38
"""The same of those that run less often: after the snapshots of all types."""

HORIZON_DAYS = 3660
"""Nothing is looked for further ahead."""


class Times(Struct, frozen=True):
    """Moments of local time that come again: every combination of these minutes and hours, on these weekdays
    (0 is Monday; empty: on all), and if given only on that day of the month and in that month."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...] = tuple(range(24))
    weekdays: tuple[int, ...] = ()
    day: int | None = None
    month: int | None = None

    def on(self, day: date) -> bool:
        """Whether that day has any."""
        return (
            (not self.weekdays or day.weekday() in self.weekdays)
            and self.day in {None, day.day}
            and self.month in {None, day.month}
        )


_OF_TYPE = {
    SnapshotType.FREQUENT: Times((0, 15, 30, 45)),
    SnapshotType.HOURLY: Times((5,)),
    SnapshotType.DAILY: Times((10,), (0,)),
    SnapshotType.WEEKLY: Times((20,), (0,), weekdays=(6,)),
    SnapshotType.MONTHLY: Times((25,), (0,), day=1),
    SnapshotType.YEARLY: Times((35,), (0,), day=1, month=1),
}


def times_of(job: ScheduledJob) -> tuple[Times, ...]:
    """When a job runs.

    A replication runs every so many minutes of the day, or of each window, beginning when that opens.
    """
    if not isinstance(job.what, Target):
        return (_OF_TYPE[job.what],)
    every, spans = job.what.every_minutes, _spans(job.what.windows)
    if spans is None:
        first = FIRST_OF_MANY % every if every <= 60 else FIRST_OF_FEW
        return _combined(
            day * DAY_MINUTES + minute for day in range(7) for minute in range(first, DAY_MINUTES, every)
        )
    return _combined(
        (begin + offset) % WEEK_MINUTES for begin, length in spans for offset in range(0, length, every)
    )


def cron_expression(times: Times) -> str:
    """The five fields of crontab(5) that mean these moments.

    >>> cron_expression(Times((0, 30), weekdays=(5, 6)))
    '0,30 * * * 6,0'
    """
    return " ".join(
        (
            _listed(times.minutes, range(60)),
            _listed(times.hours, range(24)),
            "*" if times.day is None else str(times.day),
            "*" if times.month is None else str(times.month),
            _listed(((day + 1) % 7 for day in times.weekdays), range(7)) if times.weekdays else "*",
        )
    )


def calendar_expression(times: Times) -> str:
    """The same for OnCalendar= of systemd.time(7).

    >>> calendar_expression(Times((0, 30), (22, 23), weekdays=(5, 6)))
    'Sat,Sun *-*-* 22,23:00,30:00'
    """
    days = "".join(f"{','.join(WEEKDAYS[day] for day in times.weekdays)} " if times.weekdays else "")
    month = "*" if times.month is None else f"{times.month:02}"
    day = "*" if times.day is None else f"{times.day:02}"
    hours = _listed(times.hours, range(24), width=2)
    return f"{days}*-{month}-{day} {hours}:{_listed(times.minutes, range(60), width=2)}:00"


def next_runs(times: Sequence[Times], after: datetime, count: int) -> tuple[datetime, ...]:
    """The next ``count`` of these moments, later than ``after``; all are local times without a zone."""
    return tuple(islice(_moments(times, after), count))


def is_open(windows: Windows, moment: datetime) -> bool:
    """Whether ``moment`` (local time) lies in one of the windows; always, where there are none."""
    minute = moment.weekday() * DAY_MINUTES + moment.hour * 60 + moment.minute
    spans = _spans(windows)
    return spans is None or any((minute - begin) % WEEK_MINUTES < length for begin, length in spans)


def late_at(data_at: float, promise_s: float, windows: Windows = (), zone: tzinfo | None = None) -> float:
    """When data of the moment ``data_at`` become older than promised, counting time in the windows only.

    Moments are Unix seconds; ``zone`` is that of the windows, None for this system's. With a window from
    22:00 to 06:00 and a promise of 3 hours, data of 05:00 are late at midnight: 1 hour until the window
    closes, and 2 after it has opened again. Nothing is late later than HORIZON_DAYS from ``data_at``.
    """
    spans = _spans(windows)
    if spans is None:
        return data_at + promise_s
    left = promise_s
    for opens, closes in _openings(spans, data_at, zone):
        if closes - opens > left:
            return opens + left
        left -= closes - opens
    return data_at + HORIZON_DAYS * 86_400


def targets_of(schedules: Iterable[Schedule], vm: Vm) -> dict[tuple[str, str], Target]:
    """Where schedules send a VM, by the endpoint and the dataset there: each by the first that does."""
    found: dict[tuple[str, str], Target] = {}
    for schedule in schedules:
        if schedule.selection.takes(vm):
            for target in schedule.targets:
                place = target.place_of(vm)
                found.setdefault((place.endpoint, place.dataset), target)
    return found


def claimed_before(schedules: Iterable[Schedule], job: ScheduledJob, vm: Vm) -> str:
    """The name of an earlier schedule that takes the VM for the same type or the same place; or nothing."""
    for schedule in schedules:
        if schedule.name == job.schedule.name:
            return ""
        if any(job.is_like(other) for other in jobs_of(schedule)) and schedule.selection.takes(vm):
            return schedule.name
    return ""


def _spans(windows: Windows) -> tuple[tuple[int, int], ...] | None:
    """When a week is open, as beginnings in minutes since Monday's midnight, in order, and lengths; None
    where there is no limit. They neither meet nor overlap; the last may reach into the next week."""
    week = bytearray(WEEK_MINUTES)
    for one in windows:
        for begin in (one.begin,) if one.weekly else range(one.begin, WEEK_MINUTES, DAY_MINUTES):
            end = min(begin + one.minutes, WEEK_MINUTES)
            over = begin + one.minutes - end
            week[begin:end], week[:over] = b"\1" * (end - begin), b"\1" * over
    if not windows or all(week):
        return None
    first = week.index(0)
    turned, found, at = week[first:] + week[:first], [], 0
    while (begin := turned.find(1, at)) >= 0:
        at = turned.find(0, begin) if 0 in turned[begin:] else WEEK_MINUTES
        found.append(((begin + first) % WEEK_MINUTES, at - begin))
    return tuple(sorted(found))


def _openings(
    spans: Sequence[tuple[int, int]], since: float, zone: tzinfo | None
) -> Iterator[tuple[float, float]]:
    """When the windows open and close, from ``since`` on, in Unix seconds."""
    local = datetime.fromtimestamp(since, zone).date()
    # A week earlier: a window that opened then may still be open.
    monday = local - timedelta(days=local.weekday() + 7)
    for _ in range(HORIZON_DAYS // 7):
        for begin, length in spans:
            opens, closes = (_unix(monday, minute, zone) for minute in (begin, begin + length))
            if closes > since:
                yield max(opens, since), closes
        monday += timedelta(days=7)


def _unix(monday: date, minute: int, zone: tzinfo | None) -> float:
    """What the clock shows so many minutes after that Monday's midnight, in Unix seconds."""
    day, rest = divmod(minute, DAY_MINUTES)
    clock = time(rest // 60, rest % 60, tzinfo=zone)
    return datetime.combine(monday + timedelta(days=day), clock).timestamp()


def _moments(times: Sequence[Times], after: datetime) -> Iterator[datetime]:
    for ahead in range(HORIZON_DAYS):
        day = after.date() + timedelta(days=ahead)
        clocks = {
            time(hour, minute) for one in times if one.on(day) for hour in one.hours for minute in one.minutes
        }
        yield from (moment for clock in sorted(clocks) if (moment := datetime.combine(day, clock)) > after)


def _combined(minutes: Iterable[int]) -> tuple[Times, ...]:
    """These minutes of a week in as few :class:`Times` as come of joining equal hours, then equal days."""
    days: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    by_hour: dict[tuple[int, int], list[int]] = {}
    for minute in sorted(set(minutes)):
        day, rest = divmod(minute, DAY_MINUTES)
        by_hour.setdefault((day, rest // 60), []).append(rest % 60)
    for day in range(7):
        hours: dict[tuple[int, ...], list[int]] = {}
        for hour in range(24):
            if (day, hour) in by_hour:
                hours.setdefault(tuple(by_hour[day, hour]), []).append(hour)
        for of_hour, same in hours.items():
            days.setdefault((of_hour, tuple(same)), []).append(day)
    return tuple(
        Times(of_hour, same, () if len(which) == 7 else tuple(which))
        for (of_hour, same), which in days.items()
    )


def _listed(values: Iterable[int], whole: range, *, width: int = 1) -> str:
    given = tuple(values)
    return "*" if len(given) == len(whole) else ",".join(f"{value:0{width}}" for value in given)
