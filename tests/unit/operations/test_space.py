"""How much room pools have is noted now and then by runs, and never in their way."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.errors import ExitCode
from hoster.model.space import PoolSample
from hoster.operations.recording import recorded
from hoster.operations.replicate import replicate
from hoster.operations.space import EVERY_S, own_room, room_now
from hoster.records.journal import Journal
from hoster.records.runs import EndedRun, Run, RunKind
from hoster.zfs.store import ZfsStore
from tests.properties.world import Quiet
from tests.unit.operations.nodes import NodeContext, Nodes

RUN = Run(RunKind.REPLICATION, "to_b", "b")


class Noting:
    """Node a with a journal of its own."""

    def __init__(self, folder: Path) -> None:
        self.nodes = Nodes(folder)
        own = self.nodes.contexts["a"]
        settings = replace(own.settings, state_dir=folder / "state", marker_dir=folder / "markers")
        self.context: NodeContext = replace(own, settings=settings)
        self.journal = Journal(settings.state_dir)

    def noted(self, *, ago: float) -> None:
        sample = PoolSample("local", "tank", time.time() - ago, 1000, 500)
        assert self.journal.write(EndedRun(RUN, 0.0, time.time(), 0, pools=(sample,))) == ""

    def run(self) -> None:
        with recorded(self.context, RUN, pytest.fail) as recorder:
            report = replicate(self.context, self.nodes.request("b"), Quiet())
            recorder.report(report, ExitCode.DONE)

    def asked(self) -> int:
        return sum("zpool" in command and "list" in command for command in self.nodes.cluster.commands)


@pytest.fixture
def noting(tmp_path: Path) -> Noting:
    return Noting(tmp_path)


def test_a_run_notes_the_room_on_either_end_and_the_next_one_does_not_ask_again(noting: Noting) -> None:
    noting.run()
    samples = {(one.node, one.pool): (one.size, one.free) for one in noting.journal.samples()}
    assert samples == {("local", "tank"): (1000, 500), ("b", "tank"): (1000, 500)}
    asked = noting.asked()
    assert asked == 2
    noting.run()
    assert noting.asked() == asked
    assert len(noting.journal.samples()) == 2


@pytest.mark.parametrize(
    ("ago", "due"), [(EVERY_S - 60, False), (EVERY_S + 60, True), (-3600, True)], ids=["now", "then", "wrong"]
)
def test_a_pool_is_asked_when_it_was_not_noted_lately(noting: Noting, ago: float, due: bool) -> None:
    noting.noted(ago=ago)
    assert bool(own_room(noting.context)) is due


def test_a_dry_run_asks_and_notes_nothing(noting: Noting) -> None:
    request = replace(noting.nodes.request("b"), dry_run=True)
    assert replicate(noting.context, request, Quiet()).pools == ()
    assert noting.asked() == 0


def test_what_cannot_be_found_out_is_left_out(noting: Noting) -> None:
    zfs: ZfsStore = noting.context.zfs
    assert room_now(noting.context, "local", zfs, ["other/vm"]) == (), "there is no such pool"
    noting.journal.path.parent.mkdir()
    noting.journal.path.write_text("no database at all, and a long text of it" * 10)
    assert own_room(noting.context) == ()
