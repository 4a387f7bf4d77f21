"""When jobs run, when targets may be reached, and when their data become late."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoster.model.names import Endpoint, SnapshotType
from hoster.model.schedules import (
    DAY_MINUTES,
    SCHEDULED_TYPES,
    WEEK_MINUTES,
    Schedule,
    ScheduledJob,
    Selection,
    Target,
    Window,
    Windows,
    window,
)
from hoster.model.storage import Role
from hoster.model.vms import Vm
from hoster.planning.schedules import (
    HORIZON_DAYS,
    Times,
    calendar_expression,
    claimed_before,
    cron_expression,
    is_open,
    late_at,
    next_runs,
    targets_of,
    times_of,
)
from hoster.testing import dataset

ALL = Selection(production=True)
MONDAY = datetime(2026, 7, 6)
UTC_ZONE = ZoneInfo("UTC")
EVERY = [minutes for minutes in range(5, DAY_MINUTES + 1) if DAY_MINUTES % minutes == 0]

any_window = st.one_of(
    st.tuples(st.integers(0, 1439), st.integers(1, 1439)).map(
        lambda found: Window(found[0], sum(found) % DAY_MINUTES)
    ),
    st.tuples(st.integers(0, WEEK_MINUTES - 1), st.integers(1, WEEK_MINUTES - 1)).map(
        lambda found: Window(found[0], sum(found) % WEEK_MINUTES, weekly=True)
    ),
)
some_windows = st.lists(any_window, max_size=4).map(tuple)


def job(what: SnapshotType | Target) -> ScheduledJob:
    return ScheduledJob(Schedule("s", ALL), what)


def replication(every: int, *windows: str) -> ScheduledJob:
    return job(Target("b", Endpoint("b"), every_minutes=every, windows=tuple(map(window, windows))))


def of_week(times: Sequence[Times]) -> set[int]:
    """The minutes of a week at which something runs, one by one."""
    return {
        day * DAY_MINUTES + hour * 60 + minute
        for day in range(7)
        for one in times
        if one.on(MONDAY + timedelta(days=day))
        for hour in one.hours
        for minute in one.minutes
    }


def of_cron(expressions: Sequence[str]) -> set[int]:
    """The same by what crontab(5) says of expressions; none of these has a day of the month."""
    found: set[int] = set()
    for expression in expressions:
        minutes, hours, day, month, weekdays = expression.split()
        assert (day, month) == ("*", "*")
        found |= {
            (weekday - 1) % 7 * DAY_MINUTES + hour * 60 + minute
            for weekday in numbers(weekdays, 7)
            for hour in numbers(hours, 24)
            for minute in numbers(minutes, 60)
        }
    return found


def in_any(windows: Windows, minute: int) -> bool:
    """Whether that minute of the week lies in a window, by each of them alone; without any it does."""
    return not windows or any(
        (minute - one.begin) % (WEEK_MINUTES if one.weekly else DAY_MINUTES) < one.minutes for one in windows
    )


def numbers(field: str, count: int) -> list[int]:
    return list(range(count)) if field == "*" else [int(number) for number in field.split(",")]


@pytest.mark.parametrize(
    ("stype", "cron", "calendar"),
    [
        (SnapshotType.FREQUENT, "0,15,30,45 * * * *", "*-*-* *:00,15,30,45:00"),
        (SnapshotType.HOURLY, "5 * * * *", "*-*-* *:05:00"),
        (SnapshotType.DAILY, "10 0 * * *", "*-*-* 00:10:00"),
        (SnapshotType.WEEKLY, "20 0 * * 0", "Sun *-*-* 00:20:00"),
        (SnapshotType.MONTHLY, "25 0 1 * *", "*-*-01 00:25:00"),
        (SnapshotType.YEARLY, "35 0 1 1 *", "*-01-01 00:35:00"),
    ],
)
def test_each_type_has_its_time(stype: SnapshotType, cron: str, calendar: str) -> None:
    (times,) = times_of(job(stype))
    assert (cron_expression(times), calendar_expression(times)) == (cron, calendar)


def test_no_two_types_come_at_the_same_minute() -> None:
    year = [MONDAY.replace(month=1, day=1) + timedelta(days=day) for day in range(366)]
    for day in year:
        clocks = [
            (hour, minute)
            for stype in SCHEDULED_TYPES
            for one in times_of(job(stype))
            if one.on(day)
            for hour in one.hours
            for minute in one.minutes
        ]
        assert len(clocks) == len(set(clocks))


@pytest.mark.parametrize("every", EVERY)
def test_a_replication_runs_every_so_many_minutes_of_the_day(every: int) -> None:
    minutes = sorted(of_week(times_of(replication(every))))
    assert len(minutes) == WEEK_MINUTES // every
    assert {later - earlier for earlier, later in pairwise(minutes)} == {every}


@pytest.mark.parametrize(
    ("every", "first"), [(5, "00:03"), (15, "00:08"), (30, "00:08"), (60, "00:08"), (1440, "00:38")]
)
def test_a_replication_comes_after_the_snapshots(every: int, first: str) -> None:
    (moment,) = next_runs(times_of(replication(every)), MONDAY - timedelta(minutes=1), 1)
    assert f"{moment:%H:%M}" == first


def test_in_windows_it_begins_when_they_open_and_ends_before_they_close() -> None:
    times = times_of(replication(90, "22:00-00:30", "Sat 08:00-Sat 11:00"))
    assert [cron_expression(one) for one in times] == [
        "0 22 * * 1,2,3,4,5,0",
        "30 23 * * 1,2,3,4,5,0",
        "0 8,22 * * 6",
        "30 9,23 * * 6",
    ]
    assert [calendar_expression(one) for one in times] == [
        "Mon,Tue,Wed,Thu,Fri,Sun *-*-* 22:00:00",
        "Mon,Tue,Wed,Thu,Fri,Sun *-*-* 23:30:00",
        "Sat *-*-* 08,22:00:00",
        "Sat *-*-* 09,23:30:00",
    ]


@given(st.sampled_from(EVERY), some_windows)
def test_every_run_lies_in_a_window_and_every_window_has_one(every: int, windows: Windows) -> None:
    times = times_of(job(Target("b", Endpoint("b"), every_minutes=every, windows=windows)))
    minutes = of_week(times)
    assert of_cron([cron_expression(one) for one in times]) == minutes
    assert all(is_open(windows, MONDAY + timedelta(minutes=minute)) for minute in minutes)
    for one in windows:
        for begin in (one.begin,) if one.weekly else range(one.begin, WEEK_MINUTES, DAY_MINUTES):
            just_before = MONDAY + timedelta(minutes=(begin - 1) % WEEK_MINUTES)
            assert begin in minutes or is_open(windows, just_before)


@given(some_windows, st.integers(0, WEEK_MINUTES - 1))
def test_it_is_open_where_one_of_the_windows_is(windows: Windows, minute: int) -> None:
    assert is_open(windows, MONDAY + timedelta(minutes=minute)) is in_any(windows, minute)


def test_the_next_runs_are_later_than_now_and_in_order() -> None:
    assert next_runs(times_of(job(SnapshotType.FREQUENT)), datetime(2026, 12, 31, 23, 45), 2) == (
        datetime(2027, 1, 1, 0, 0),
        datetime(2027, 1, 1, 0, 15),
    )
    assert next_runs(times_of(job(SnapshotType.MONTHLY)), datetime(2026, 1, 1, 0, 25), 2) == (
        datetime(2026, 2, 1, 0, 25),
        datetime(2026, 3, 1, 0, 25),
    )
    assert len(next_runs(times_of(job(SnapshotType.YEARLY)), MONDAY, 100)) == HORIZON_DAYS // 366
    several = (Times((30,), (8,)), Times((0,), (8,)))
    assert next_runs(several, MONDAY, 1) == (MONDAY.replace(hour=8),)


def seconds(text: str, zone: ZoneInfo = UTC_ZONE) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def late(data_at: str, hours: float, *windows: str, zone: ZoneInfo = UTC_ZONE) -> str:
    found = late_at(seconds(data_at, zone), hours * 3600, tuple(map(window, windows)), zone)
    return f"{datetime.fromtimestamp(found, zone):%Y-%m-%d %H:%M}"


@pytest.mark.parametrize(
    ("data_at", "hours", "windows", "expected"),
    [
        ("2026-07-07 05:00", 3, (), "2026-07-07 08:00"),
        ("2026-07-07 05:00", 0.5, ("22:00-06:00",), "2026-07-07 05:30"),
        ("2026-07-07 05:00", 3, ("22:00-06:00",), "2026-07-08 00:00"),
        ("2026-07-07 05:00", 1, ("22:00-06:00",), "2026-07-07 22:00"),
        ("2026-07-07 12:00", 1, ("22:00-06:00",), "2026-07-07 23:00"),
        ("2026-07-07 23:00", 24, ("22:00-06:00",), "2026-07-10 23:00"),
        ("2026-07-05 23:00", 1, ("Sat 08:00-Sun 20:00",), "2026-07-11 09:00"),
        ("2026-07-06 01:00", 2, ("Sun 20:00-Mon 02:00",), "2026-07-12 21:00"),
        ("2026-07-07 05:00", 3, ("00:00-12:00", "12:00-00:00"), "2026-07-07 08:00"),
        ("2026-07-07 05:00", 3, ("04:00-06:00", "05:30-07:00"), "2026-07-08 05:00"),
    ],
)
def test_data_become_late_by_the_time_in_the_windows(
    data_at: str, hours: float, windows: tuple[str, ...], expected: str
) -> None:
    assert late(data_at, hours, *windows) == expected


def test_a_night_in_which_the_clock_is_changed_has_an_hour_more_or_less() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    night = "22:00-06:00"
    assert late("2026-10-24 22:00", 8.5, night, zone=berlin) == "2026-10-25 05:30"
    assert late("2026-03-28 22:00", 7.5, night, zone=berlin) == "2026-03-29 22:30"


def test_without_a_zone_it_is_the_systems() -> None:
    data_at = datetime(2026, 7, 7, 5).timestamp()
    assert late_at(data_at, 3 * 3600, (window("22:00-06:00"),)) == datetime(2026, 7, 8).timestamp()


def test_a_promise_of_ages_ends_at_the_horizon() -> None:
    data_at = seconds("2026-07-07 05:00")
    found = late_at(data_at, 1e12, (window("22:00-22:01"),), UTC_ZONE)
    assert found == data_at + HORIZON_DAYS * 86_400


@given(some_windows, st.integers(0, 10_000_000), st.integers(1, 200_000))
@settings(max_examples=40)
def test_what_was_promised_passes_in_the_windows(windows: Windows, after: int, promise_min: int) -> None:
    data_at = seconds("2026-01-01 00:00") + after * 60
    found = late_at(data_at, promise_min * 60, windows, UTC_ZONE)
    first = after + 3 * DAY_MINUTES  # the first of January is a Thursday
    of_a_week = [in_any(windows, minute) for minute in range(WEEK_MINUTES)]
    weeks, rest = divmod(int(found - data_at) // 60, WEEK_MINUTES)
    of_the_rest = sum(of_a_week[(first + minute) % WEEK_MINUTES] for minute in range(rest))
    if found < data_at + HORIZON_DAYS * 86_400:
        assert weeks * sum(of_a_week) + of_the_rest == promise_min
        assert of_a_week[(first + int(found - data_at) // 60) % WEEK_MINUTES]


WEB = Vm("web", dataset("tank/vm/web", ""), (), Role.PRIMARY, "node1", production=True)


def test_a_vm_is_sent_to_each_place_by_the_first_schedule_that_takes_it_there() -> None:
    far, usb = Target("far", Endpoint("b")), Target("usb", Endpoint("local"), "usb/vm")
    again = Target("again", Endpoint("b"))
    schedules = (
        Schedule("others", Selection(vms=("db",)), {}, (far,)),
        Schedule("first", ALL, {}, (usb, far)),
        Schedule("second", ALL, {}, (again,)),
    )
    assert targets_of(schedules, WEB) == {("local", "usb/vm/web"): usb, ("b", "tank/vm/web"): far}


def test_a_vm_is_claimed_by_an_earlier_schedule_for_the_same_only() -> None:
    far, also_far = Target("far", Endpoint("b")), Target("also", Endpoint("b"))
    first = Schedule("first", Selection(vms=("web",)), {SnapshotType.DAILY: 2}, (far,))
    second = Schedule("second", ALL, {SnapshotType.DAILY: 3, SnapshotType.HOURLY: 3}, (also_far,))
    schedules, db = (first, second), Vm("db", WEB.dataset, (), Role.PRIMARY, "node1", production=True)
    assert claimed_before(schedules, ScheduledJob(second, SnapshotType.DAILY), WEB) == "first"
    assert claimed_before(schedules, ScheduledJob(second, also_far), WEB) == "first"
    assert claimed_before(schedules, ScheduledJob(second, SnapshotType.HOURLY), WEB) == ""
    assert claimed_before(schedules, ScheduledJob(second, SnapshotType.DAILY), db) == ""
    assert claimed_before(schedules, ScheduledJob(first, SnapshotType.DAILY), WEB) == ""
    assert claimed_before((), ScheduledJob(first, SnapshotType.DAILY), WEB) == ""
