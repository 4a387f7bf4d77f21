"""Whatever happens between, whatever goes wrong: replication converges, and nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hoster.model.names import SnapshotType
from tests.properties.cluster import Fault
from tests.properties.world import World

TARGETS = st.sampled_from(["a", "b"])
TYPES = st.sampled_from(
    [SnapshotType.HOURLY, SnapshotType.DAILY, SnapshotType.REPLICATION, SnapshotType.CUSTOM]
)
KEEPS = st.sampled_from([None, 1, 2, 3])
KINDS = st.sampled_from(["before", "after", "link", "lie", "stream", "stream-killed"])
FAULTS = st.builds(Fault, KINDS, st.integers(0, 9), st.integers(0, 3))


@dataclass(frozen=True)
class Event:
    """One thing that happens: the name of what :class:`World` does, and how."""

    what: str
    how: tuple[object, ...]

    def happen(self, world: World) -> None:
        act: Callable[..., object] = getattr(world, self.what)
        act(*self.how)

    def __repr__(self) -> str:
        return f"Event({self.what!r}, {self.how!r})"


def event(what: str, *how: st.SearchStrategy[object]) -> st.SearchStrategy[Event]:
    return st.builds(Event, st.just(what), st.tuples(*how))


INDEX: st.SearchStrategy[object] = st.integers(0, 7)
SMALL_EVENTS = st.one_of(
    event("write", st.integers(1, 9)),
    event("snapshot", TYPES, KEEPS),
    event("snapshot", TYPES, KEEPS),
    event("foreign", st.sampled_from(["manual", "autosnap_1", "hourly_mine"])),
    event("foreign_on", TARGETS, st.sampled_from(["theirs", "hourly_theirs"])),
    event("hold", st.sampled_from(["local", "a", "b"]), INDEX),
    event("clone", st.sampled_from(["local", "a", "b"]), INDEX),
    event("destroy", INDEX),
    event("jump", st.sampled_from([-60, -1, 0, 1, 60, 1440])),
)
RUNS = event("replicate", TARGETS)
EVENTS = st.one_of(SMALL_EVENTS, SMALL_EVENTS, RUNS, event("replicate", TARGETS, FAULTS))
ACCIDENTS = st.one_of(EVENTS, EVENTS, EVENTS, event("lose", INDEX))
HISTORIES = st.lists(EVENTS, max_size=25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("locks")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=HISTORIES, target=TARGETS, seed=st.integers(0, 2**16))
def test_one_whole_run_converges_after_any_history(
    folder: Path, history: list[Event], target: str, seed: int
) -> None:
    run_through(World(seed, folder), history, target)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(ACCIDENTS, max_size=20), target=TARGETS, seed=st.integers(0, 2**16))
def test_whatever_is_destroyed_by_hand_on_the_source_an_anchor_still_finds_the_base(
    folder: Path, history: list[Event], target: str, seed: int
) -> None:
    run_through(World(seed, folder), history, target)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    before=st.lists(EVENTS, max_size=12),
    run=RUNS,
    inner=SMALL_EVENTS,
    at=st.integers(0, 9),
    seed=st.integers(0, 2**16),
)
def test_what_happens_on_the_source_during_a_run_costs_no_target_its_base(
    folder: Path, before: list[Event], run: Event, inner: Event, at: int, seed: int
) -> None:
    world = World(seed, folder)
    for one in before:
        one.happen(world)
        world.tick()
    world.meanwhile(lambda: run.happen(world), at, lambda: inner.happen(world))
    converge_everywhere(world)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    before=st.lists(EVENTS, max_size=12),
    outer=st.one_of(RUNS, event("snapshot", TYPES, KEEPS), event("destroy", INDEX)),
    run=RUNS,
    at=st.integers(0, 9),
    seed=st.integers(0, 2**16),
)
def test_two_runs_at_once_converge_all_the_same(
    folder: Path, before: list[Event], outer: Event, run: Event, at: int, seed: int
) -> None:
    world = World(seed, folder)
    for one in before:
        one.happen(world)
        world.tick()
    world.meanwhile(lambda: outer.happen(world), at, lambda: run.happen(world))
    converge_everywhere(world)


def converge_everywhere(world: World) -> None:
    world.check()
    for target in ("a", "b"):
        wanted = world.web.guids
        report = world.replicate(target)
        assert report is not None
        world.tick()
        world.check()
        world.check_converged(target, report, wanted, raced=True)


def run_through(world: World, history: list[Event], target: str) -> None:
    for one in history:
        one.happen(world)
        world.tick()
        world.check()
    wanted = world.web.guids
    report = world.replicate(target)
    assert report is not None
    world.check()
    world.check_converged(target, report, wanted)
