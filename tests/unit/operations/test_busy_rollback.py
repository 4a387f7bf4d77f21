"""A VM that was stopped to go back, and could not since somebody is at work: busy, not failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoster.model.plan import Outcome
from hoster.operations.going_back import Power
from hoster.operations.taking import SNAPSHOTS_LOCK
from tests.unit.operations.going_back import World


def test_snapshots_that_are_being_taken_make_it_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoster.operations.going_back.SNAPSHOTS_WAIT_S", 0.0)
    world = World(tmp_path)
    world.run()
    before = world.contents()
    with world.context.locks.hold(SNAPSHOTS_LOCK, holder="a run of snapshots"):
        report = world.roll_back(power=Power(force_stop=True, force_start=True))
    assert report.outcome is Outcome.BUSY
    assert "a run of snapshots" in report.reason
    assert report.notes == ("it was stopped", "it was started")
    assert world.contents() == before
