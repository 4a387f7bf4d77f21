"""Taking over and giving way, killed before and after every command: one side can start the VM, and the same
command again ends it well."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoster.model.plan import Outcome
from hoster.operations.inventory import look_around
from hoster.operations.primacy import is_whole
from tests.unit.operations.nodes import Nodes
from tests.zfsmodel.cluster import Accident, Fault, Killed

KILLED = pytest.mark.parametrize("accident", [Accident.KILLED_BEFORE, Accident.KILLED_AFTER])


@KILLED
def test_a_takeover_is_finished_under_the_same_epoch(tmp_path: Path, accident: Accident) -> None:
    last, at = False, 0
    epochs: list[str | None] = []
    while not last:
        nodes = Nodes(tmp_path / f"{accident.name}-{at}")
        nodes.replicate("a", "b")
        sent = nodes.content("b")
        nodes.cut.add("a")
        nodes.cluster.begin(Fault(accident, at))
        try:
            nodes.take_over("b")
        except Killed:
            pass
        else:
            last = True
        nodes.cluster.begin()
        epochs.append(nodes.mark("b", "epoch"))
        assert (nodes.mark("b", "role"), epochs[-1]) in {("replica", "1@a"), ("primary", "2@b")}, at
        nodes.take_over("b")
        assert (nodes.mark("b", "role"), nodes.mark("b", "epoch")) == ("primary", "2@b"), at
        context = nodes.contexts["b"]
        assert is_whole(context, look_around(context).named("web")), at
        assert nodes.content("b") == sent
        nodes.cut.clear()
        assert nodes.primaries() == ["b"]
        at += 1
    assert set(epochs) == {"1@a", "2@b"}
    assert epochs == sorted(map(str, epochs)), "once promoted, it stays so"


@KILLED
def test_an_old_host_gives_way_by_the_same_command(tmp_path: Path, accident: Accident) -> None:
    last, at = False, 0
    while not last:
        nodes = Nodes(tmp_path / f"{accident.name}-{at}")
        nodes.replicate("a", "b")
        nodes.write("a")
        alone = nodes.content("a")
        nodes.cut.add("a")
        nodes.take_over("b")
        nodes.cut.clear()
        nodes.cluster.begin(Fault(accident, at))
        try:
            nodes.demote("a")
        except Killed:
            pass
        else:
            last = True
        nodes.cluster.begin()
        assert nodes.primaries() == ["b"], at
        assert nodes.content("a") == alone, at
        assert nodes.demote("a").outcome in {Outcome.DONE, Outcome.UNCHANGED}, at
        assert nodes.mark("a", "role") == "replica"
        assert nodes.content("a") == alone, at
        at += 1
