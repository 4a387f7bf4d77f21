"""Single histories worth keeping: found by the properties, or by thinking, and told in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoster.model.names import SnapshotType
from hoster.model.plan import Ground, Outcome, Report
from tests.properties.cluster import Fault
from tests.properties.world import WEB, World

HOURLY, CUSTOM, REPLICATION = SnapshotType.HOURLY, SnapshotType.CUSTOM, SnapshotType.REPLICATION


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(0, tmp_path)


def replicated(world: World, target: str) -> Report:
    report = world.replicate(target)
    assert report is not None
    return report


def mended(report: Report) -> bool:
    """Done, or refused with the command that mends it: nobody is left alone with ZFS's own words."""
    vm = report.vms[0]
    return vm.outcome is Outcome.DONE or (vm.outcome is Outcome.REFUSED and bool(vm.remedy))


def test_a_first_run_brings_everything_and_a_second_one_has_nothing_to_do(world: World) -> None:
    world.snapshot(HOURLY, None)
    world.foreign("manual")
    first, second = replicated(world, "a"), replicated(world, "a")
    assert [len(first.vms[0].sent), second.vms[0].outcome] == [2, Outcome.UNCHANGED]


def test_an_idle_run_costs_a_fixed_number_of_commands(world: World) -> None:
    replicated(world, "a")
    world.cluster.commands.clear()
    replicated(world, "a")
    assert [command[:2] if command[0] != "on" else command[2:4] for command in world.cluster.commands] == [
        ("zpool", "sync"),
        ("zfs", "get"),
        ("zfs", "get"),
        ("zfs", "get"),
        (
            "zpool",
            "list",
        ),  # at most every half an hour, as far as the journal knows, and here it knows nothing
    ]


def test_what_is_taken_between_the_look_and_the_newest_version_travels_along(world: World) -> None:
    replicated(world, "a")
    world.write(5)
    world.meanwhile(lambda: replicated(world, "a"), 4, lambda: world.snapshot(HOURLY, None))
    replica = world.replica("a")
    assert replica is not None
    assert world.web.guids <= replica.guids
    assert [s.name.partition("_")[0] for s in world.web.snapshots] == ["replication", "hourly", "replication"]


@pytest.mark.parametrize("kind", ["before", "after", "link", "lie", "stream", "stream-killed"])
@pytest.mark.parametrize("at", range(12))
def test_a_run_that_ends_at_any_command_is_put_right_by_the_next(world: World, kind: str, at: int) -> None:
    for _ in range(3):
        world.snapshot(HOURLY, None)
        world.write(3)
        world.tick()
    replicated(world, "b")
    replicated(world, "a")
    world.write(5)
    world.tick()
    world.snapshot(HOURLY, 2)
    world.write(5)
    world.replicate("a", Fault(kind, at, 1))
    world.check()
    wanted = world.web.guids
    world.check_converged("a", replicated(world, "a"), wanted)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["stream", "stream-killed"])
def test_runs_that_fail_again_and_again_do_not_fill_the_source(world: World, kind: str, first: bool) -> None:
    if not first:
        replicated(world, "a")
    most = 0
    for _ in range(12):
        world.write(3)
        world.tick()
        world.replicate("a", Fault(kind, 0, 0))
        world.check()
        most = max(most, len(world.web.snapshots))
    assert most <= 6
    wanted = world.web.guids
    world.check_converged("a", replicated(world, "a"), wanted)


def test_a_target_that_was_away_for_long_finds_its_base(world: World) -> None:
    replicated(world, "b")
    for _ in range(20):
        world.write(1)
        world.tick()
        replicated(world, "a")
        world.snapshot(HOURLY, 1)
    world.check()
    wanted = world.web.guids
    world.check_converged("b", replicated(world, "b"), wanted)


def test_a_name_that_comes_back_on_another_version_does_not_stop_replication(world: World) -> None:
    world.source.snapshot([f"{WEB}@backup"])
    world.write(1)
    replicated(world, "a")
    world.source.volumes[WEB].snapshots.pop(0)
    world.source.snapshot([f"{WEB}@backup"])
    assert mended(replicated(world, "a"))


def test_a_version_of_the_same_name_is_never_taken_for_the_base(world: World) -> None:
    replicated(world, "a")
    world.foreign_on("a", "backup")
    world.write(1)
    world.source.snapshot([f"{WEB}@backup"])
    world.write(1)
    report = replicated(world, "a")
    assert report.vms[0].ground is Ground.NAME_TAKEN
    assert len(world.web.snapshots) == len(world.web.bookmarks) + 1


def test_an_hour_that_the_clock_repeats_does_not_stop_replication(world: World) -> None:
    world.snapshot(CUSTOM, None)
    replicated(world, "a")
    for minutes in (15, 15, 15):
        world.write(1)
        world.jump(minutes)
        world.snapshot(CUSTOM, 2)
        replicated(world, "a")
    world.write(1)
    world.jump(-45)
    world.snapshot(CUSTOM, 2)
    assert mended(replicated(world, "a"))


def test_two_runs_to_two_targets_in_the_same_second_both_succeed(world: World) -> None:
    reports: list[Report] = []
    world.cluster.meanwhile = lambda: reports.append(replicated(world, "b"))
    world.concurrent = True
    world.cluster.begin(Fault("meanwhile", 4))
    reports.append(replicated(world, "a"))
    assert [report.vms[0].outcome for report in reports] == [Outcome.DONE, Outcome.DONE]


@pytest.mark.parametrize("keep", [None, 1])
def test_what_another_run_has_anchored_since_the_look_is_not_destroyed(
    world: World, keep: int | None
) -> None:
    """A look, then another run that makes the newest snapshot a target's base, then the destruction."""
    world.snapshot(HOURLY, None)
    world.tick()
    outer = (lambda: world.destroy(0)) if keep is None else (lambda: world.snapshot(HOURLY, keep))
    world.meanwhile(outer, 1, lambda: world.replicate("a"))
    world.check()
