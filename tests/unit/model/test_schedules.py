"""Schedules: how windows are written, which VMs are taken, how jobs are told apart."""

from __future__ import annotations

import pytest

from hoster.model.machines import MachineConfig
from hoster.model.names import Endpoint, SnapshotType
from hoster.model.schedules import (
    Schedule,
    ScheduledJob,
    Selection,
    Target,
    Window,
    all_jobs,
    schedule_name,
    window,
)
from hoster.model.storage import Role, Site
from hoster.model.vms import Vm
from hoster.testing import dataset


def vm(name: str, *, production: bool = False, tags: tuple[str, ...] | None = None) -> Vm:
    config = None if tags is None else MachineConfig(tags=tags)
    return Vm(name, dataset(f"tank/vm/{name}", ""), (), Role.PRIMARY, "node1", production, config)


@pytest.mark.parametrize(
    ("text", "expected", "minutes"),
    [
        ("22:00-06:00", Window(1320, 360), 480),
        ("00:00-00:05", Window(0, 5), 5),
        ("12:30-00:00", Window(750, 0), 690),
        ("Sat 08:00-Sun 20:00", Window(7680, 9840, weekly=True), 2160),
        ("Sun 20:00-Mon 04:00", Window(9840, 240, weekly=True), 480),
        ("Mon 08:00-Mon 07:00", Window(480, 420, weekly=True), 10020),
    ],
)
def test_a_window_is_read_and_written_in_one_form(text: str, expected: Window, minutes: int) -> None:
    assert window(text) == expected
    assert window(text).minutes == minutes
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "22-06", "24:00-06:00", "22:60-06:00", "22:00-06:00 ", "22:00 - 06:00", "Sat 08:00-20:00"),
        *("sat 08:00-Sun 20:00", "Son 08:00-Sun 20:00", "22:00-06:00\n", "٢٢:00-06:00"),
    ],
)
def test_anything_else_is_no_window(text: str) -> None:
    with pytest.raises(ValueError, match='is no window: expected "22:00-06:00" or "Sat 08:00-Sun 20:00"'):
        window(text)


@pytest.mark.parametrize("text", ["06:00-06:00", "Sat 08:00-Sat 08:00"])
def test_a_window_that_ends_when_it_begins_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="it ends when it begins"):
        window(text)


@pytest.mark.parametrize("text", ["a", "_", "9", "Nightly-2_x", "x" * 32])
def test_what_can_name_a_schedule(text: str) -> None:
    assert schedule_name(text) == text


@pytest.mark.parametrize("text", ["", "-a", "a b", "a.b", "a/b", "ä", "x" * 33, "a\n"])
def test_what_cannot(text: str) -> None:
    with pytest.raises(ValueError, match="cannot name a schedule or a target"):
        schedule_name(text)


def test_a_selection_is_the_union_of_its_parts() -> None:
    selection = Selection(production=True, vms=("web",), tags=("db", "x"))
    assert selection.takes(vm("web"))
    assert selection.takes(vm("other", production=True))
    assert selection.takes(vm("other", tags=("a", "db")))
    assert not selection.takes(vm("other", tags=("a",)))
    assert not selection.takes(vm("other"))
    assert not Selection(vms=("web",)).takes(vm("other", production=True))


def test_a_target_knows_where_its_replicas_lie() -> None:
    node = Endpoint("b", "root")
    assert Target("x", node).place_of(vm("web")) == Site("root@b", "tank/vm/web")
    usb = Target("x", node, "usb/vm", 2222, "/root/key")
    assert usb.place_of(vm("web")) == Site("root@b", "usb/vm/web", 2222, "/root/key")


def test_jobs_come_by_type_and_then_by_target_with_names_of_their_own() -> None:
    counts = {SnapshotType.DAILY: 2, SnapshotType.FREQUENT: 4}
    night = Schedule("night", Selection(True), counts, (Target("b", Endpoint("b")),))
    jobs = all_jobs([night, Schedule("x", Selection(True), {SnapshotType.HOURLY: 1})])
    assert [job.name for job in jobs] == ["night_frequent", "night_daily", "night_b", "x_hourly"]
    assert [job.unit for job in jobs] == [
        *("hoster-night-frequent", "hoster-night-daily"),
        *("hoster-night-b", "hoster-x-hourly"),
    ]


def test_jobs_are_alike_by_their_type_or_by_the_place_they_send_to() -> None:
    schedule = Schedule("s", Selection(True))
    daily, hourly = (ScheduledJob(schedule, stype) for stype in (SnapshotType.DAILY, SnapshotType.HOURLY))
    there = ScheduledJob(schedule, Target("a", Endpoint("n")))
    named_otherwise = ScheduledJob(schedule, Target("b", Endpoint("n")))
    elsewhere = ScheduledJob(schedule, Target("a", Endpoint("n"), "usb/vm"))
    assert daily.is_like(daily)
    assert not daily.is_like(hourly)
    assert there.is_like(named_otherwise)
    assert not there.is_like(elsewhere)
    assert not there.is_like(daily)
    assert not daily.is_like(there)
