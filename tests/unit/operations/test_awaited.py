"""A replica that a schedule wants and that never came is late, though nothing ever ran."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.model.names import endpoint
from hoster.model.plan import Common
from hoster.model.schedules import Schedule, Selection, Target, window
from hoster.model.storage import Role
from hoster.operations.awaited import awaited_samples
from hoster.operations.inventory import look_around
from hoster.records.runs import Remembered
from tests.unit.operations.test_measuring import REPLICA, Node, report, vm

CHANGED_AT = 1_000_000
TARGET = Target("b", endpoint("b"), rpo_minutes=10)
LABELS = {"vm": "web", "target": "b", "dataset": "tank/vm/web"}
PROMISE = ("hoster_replication_promise_seconds", LABELS, 600)
DUE = ("hoster_replication_due_timestamp_seconds", LABELS, CHANGED_AT + 600)
NO_DATA = Remembered("web", "", "b", "tank/vm/web", "nightly_b", 5.0, "failed", "", 0, 0.0)


def awaited(
    folder: Path, *schedules: Schedule, known: Remembered | None = None, role: Role = Role.PRIMARY
) -> list[tuple[str, object, float]]:
    """What is said of the VM `web` if these are the schedules."""
    settings = folder / "hoster.toml"
    settings.touch()
    os.utime(settings, (CHANGED_AT, CHANGED_AT))
    context = Node(folder, vm("d1", role=role)).context
    context = replace(context, settings=replace(context.settings, schedules=schedules, read_from=settings))
    found = awaited_samples(context, look_around(context).vms, () if known is None else (known,))
    return [(sample.metric, sample.labels, sample.value) for sample in found]


def schedule(name: str = "nightly", *targets: Target, vms: tuple[str, ...] = ("web",)) -> Schedule:
    return Schedule(name, Selection(vms=vms), targets=targets or (TARGET,))


def test_what_no_run_has_been_to_is_due_after_the_promise_since_the_settings_were_changed(
    tmp_path: Path,
) -> None:
    assert awaited(tmp_path, schedule()) == [PROMISE, DUE]
    assert awaited(tmp_path, schedule(), schedule("again")) == [PROMISE, DUE], "each place once"


def test_it_is_among_the_metrics_that_are_measured(tmp_path: Path) -> None:
    node = Node(tmp_path, vm("d1"))
    settings = replace(node.context.settings, schedules=(schedule(),), read_from=tmp_path)
    node.context = replace(node.context, settings=settings)
    assert f"{DUE[0]}{REPLICA}" in node.samples
    node.ran(1000.0, report())
    assert node.samples[f"{DUE[0]}{REPLICA}"] == 1600


def test_of_what_runs_have_failed_to_bring_the_promise_is_known_already(tmp_path: Path) -> None:
    assert awaited(tmp_path, schedule(), known=NO_DATA) == [DUE]


def test_where_there_are_data_their_age_counts(tmp_path: Path) -> None:
    known = replace(NO_DATA, newest=Common("daily_2026-01-01_00-10-00", "1", 900))
    assert awaited(tmp_path, schedule(), known=known) == []


def test_only_time_in_the_windows_counts(tmp_path: Path) -> None:
    closed = replace(TARGET, windows=(window("Mon 00:00-Mon 00:05"),))
    _, (_, _, due) = awaited(tmp_path, schedule("nightly", closed))
    assert due > DUE[2] + 86_400


@pytest.mark.parametrize("role", [Role.REPLICA, Role.SUPERSEDED], ids=str)
def test_of_a_vm_that_is_not_this_nodes_own_nothing_is_awaited(tmp_path: Path, role: Role) -> None:
    assert awaited(tmp_path, schedule(), role=role) == []


def test_of_a_vm_that_no_schedule_takes_nothing_is_awaited(tmp_path: Path) -> None:
    assert awaited(tmp_path, schedule(vms=("db",))) == []


def test_settings_that_are_gone_meanwhile_tell_nothing(tmp_path: Path) -> None:
    context = Node(tmp_path, vm("d1")).context
    context = replace(context, settings=replace(context.settings, schedules=(schedule(),)))
    assert list(awaited_samples(context, look_around(context).vms, ())) == []
