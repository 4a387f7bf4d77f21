"""A VM that ran and was stopped to go back runs again, though no node with a copy of it answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoster.model.plan import Outcome
from hoster.operations.going_back import Power
from tests.unit.operations.going_back import WEB, World
from tests.unit.operations.nodes import NodeContext


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Its target, node b, is switched off."""
    world = World(tmp_path)
    world.run()
    world.node.dataset(WEB).properties["hoster:sites"] = '[{"endpoint":"b","dataset":"tank/vm/web"}]'
    given = {field: getattr(world.context, field) for field in world.context.__struct_fields__}
    world.context = NodeContext(**given, cut={"b"})
    return world


def test_one_that_ran_a_moment_ago_is_started_again(world: World) -> None:
    report = world.roll_back(power=Power(force_stop=True, force_start=True))
    assert report.outcome is Outcome.DONE
    assert report.notes[-1] == "it was started"
    assert world.machines.starts == ["web", "web"]


def test_one_that_did_not_run_is_not_started_without_having_asked(world: World) -> None:
    world.machines.crash("web")
    report = world.roll_back(power=Power(force_start=True))
    assert report.outcome is Outcome.FAILED
    assert "it could not be started: web: none of the nodes with a copy" in report.reason
    assert world.machines.starts == ["web"]
