"""A replica takes over, and the old host comes back; whoever is killed, one side can start the VM."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from hoster.errors import OperationFailed, Refused
from hoster.host.process import Completed
from hoster.model.plan import Ground, Outcome
from hoster.operations.inventory import look_around
from hoster.operations.primacy import is_whole
from tests.unit.operations.nodes import DISK, WEB, Nodes
from tests.zfsmodel.cluster import Accident, Fault, Killed


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def test_a_replica_takes_over_and_the_old_host_is_refused_and_marked(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    sent = nodes.content("a")
    nodes.write("a")
    nodes.cut.add("a")
    report = nodes.take_over("b")
    assert report.outcome is Outcome.DONE
    assert report.notes == ("a could not be asked: a: it does not answer",)
    assert (nodes.mark("b", "role"), nodes.mark("b", "epoch")) == ("primary", "2@b")
    assert nodes.content("b") == sent
    assert nodes.take_over("b").outcome is Outcome.UNCHANGED
    nodes.write("b")
    working = nodes.content("b")
    nodes.cut.clear()
    refused = nodes.replicate("a", "b")
    assert (refused.outcome, refused.ground) == (Outcome.REFUSED, Ground.SUPERSEDED)
    assert nodes.mark("a", "role") == "superseded"
    assert nodes.content("b") == working
    assert nodes.primaries() == ["b"]


def test_a_start_asks_the_copies_and_gives_up_its_own(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    nodes.cut.add("a")
    nodes.take_over("b")
    with pytest.raises(Refused, match="none of the nodes with a copy of it can be asked"):
        nodes.start("a")
    nodes.cut.clear()
    with pytest.raises(Refused, match="b has taken it over"):
        nodes.start("a")
    assert nodes.mark("a", "role") == "superseded"


def test_evidence_of_loss_is_a_refusal_where_nobody_is_there(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    refused = nodes.take_over("b")
    assert (refused.outcome, refused.ground) == (Outcome.REFUSED, Ground.MAY_LOSE_DATA)
    assert refused.reason == "a answers, and its copy may run (epoch 1@a)"
    assert nodes.mark("b", "role") == "replica"
    assert nodes.take_over("b", accept_loss=True).outcome is Outcome.DONE


def test_the_third_node_is_told_and_refuses_the_old_host(nodes: Nodes) -> None:
    nodes.replicate("a", "c")
    nodes.replicate("a", "b")
    nodes.cut.add("a")
    assert "told c" in nodes.take_over("b").done
    nodes.cut.clear()
    nodes.write("a")
    assert nodes.replicate("a", "c").ground is Ground.SUPERSEDED


def test_an_old_host_becomes_a_replica_and_keeps_what_it_wrote_alone(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    nodes.write("a")
    alone = nodes.content("a"), nodes.content("a", DISK)
    nodes.cut.add("a")
    nodes.take_over("b")
    nodes.write("b")
    nodes.cut.clear()
    report = nodes.failback("b", "a")
    assert report.outcome is Outcome.DONE
    assert nodes.content("a") == nodes.content("b")
    assert nodes.mark("a", "demoted") is None
    (branch,) = [n for n in nodes.cluster.nodes["a"].datasets if ".branch-" in n and n.count("/") == 2]
    assert (nodes.content("a", branch), nodes.content("a", f"{branch}/d0")) == alone
    assert nodes.primaries() == ["b"]


def test_a_split_is_refused_on_both_and_mended_by_one_more_promotion(nodes: Nodes) -> None:
    for target in ("b", "c", "b"):  # each replica hears of the other one with its next run
        nodes.replicate("a", target)
    nodes.cut.update("abc")
    nodes.take_over("b")
    nodes.take_over("c")
    nodes.cut.clear()
    nodes.write("b")
    nodes.write("c")
    assert nodes.replicate("b", "c").ground is nodes.replicate("c", "b").ground is Ground.SPLIT
    assert nodes.primaries() == []
    with pytest.raises(Refused, match="was promoted too"):
        nodes.failback("b", "c")
    assert nodes.take_over("b", accept_loss=True).outcome is Outcome.DONE
    assert nodes.mark("b", "epoch") == "3@b"
    nodes.failback("b", "c")
    assert nodes.content("c") == nodes.content("b")
    assert nodes.primaries() == ["b"]


@pytest.mark.parametrize("runs", [True, False])
def test_a_vm_is_moved_to_and_fro(nodes: Nodes, runs: bool) -> None:
    nodes.replicate("a", "b")
    here, there = "a", "b"
    for turn in range(4):
        nodes.write(here)
        if runs:
            nodes.start(here)
        expected = nodes.content(here)
        report = nodes.migrate(here, there)
        assert report.outcome is Outcome.DONE, report
        assert nodes.content(there) == expected
        nodes.stop(there)
        assert nodes.primaries() == [there]
        here, there = there, here
        assert nodes.mark(here, "epoch") == f"{turn + 2}@{here}"
    assert nodes.replicate(here, there).outcome in {Outcome.DONE, Outcome.UNCHANGED}


def test_what_fails_before_the_promotion_leaves_the_vm_here_and_running(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    nodes.start("a")
    nodes.cluster.nodes["b"].dataset(WEB).properties["hoster:id"] = "another"
    report = nodes.migrate("a", "b")
    assert (report.outcome, report.ground) == (Outcome.REFUSED, Ground.FOREIGN_DATASET)
    assert nodes.mark("a", "role") == "primary"


@pytest.mark.parametrize("accident", [Accident.KILLED_BEFORE, Accident.KILLED_AFTER])
def test_a_migration_killed_anywhere_leaves_exactly_one_side(tmp_path: Path, accident: Accident) -> None:
    last, at = False, 0
    started: list[str] = []
    while not last:
        nodes = Nodes(tmp_path / f"{accident.name}-{at}")
        nodes.replicate("a", "b")
        nodes.write("a")
        expected = nodes.content("a"), nodes.content("a", DISK)
        nodes.cluster.begin(Fault(accident, at))
        try:
            nodes.migrate("a", "b")
        except Killed:
            pass
        else:
            last = True
        nodes.cluster.begin()
        (side,) = nodes.primaries()
        assert (nodes.content(side), nodes.content(side, DISK)) == expected, (at, side)
        started.append(side)
        assert nodes.migrate("a", "b").outcome is Outcome.DONE, at
        assert nodes.primaries() == ["b"]
        assert nodes.mark("a", "role") == "replica"
        nodes.failback("b", "a")
        assert nodes.content("a") == nodes.content("b") == expected[0]
        at += 1
    assert set(started) == {"a", "b"}
    assert started == sorted(started), "once it is the other side's, it stays so"


@pytest.mark.parametrize("accident", [Accident.KILLED_BEFORE, Accident.KILLED_AFTER])
def test_a_failback_killed_anywhere_is_finished_by_the_next(tmp_path: Path, accident: Accident) -> None:
    last, at = False, 0
    while not last:
        nodes = Nodes(tmp_path / f"{accident.name}-{at}")
        nodes.replicate("a", "b")
        nodes.write("a")
        alone = nodes.content("a")
        nodes.cut.add("a")
        nodes.take_over("b")
        nodes.write("b")
        nodes.cut.clear()
        nodes.cluster.begin(Fault(accident, at))
        try:
            nodes.failback("b", "a")
        except Killed:
            pass
        else:
            last = True
        nodes.cluster.begin()
        assert nodes.primaries() == ["b"]
        nodes.failback("b", "a")
        assert nodes.content("a") == nodes.content("b")
        kept = [n for n in nodes.cluster.nodes["a"].datasets if ".branch-" in n and n.count("/") == 2]
        assert [nodes.content("a", name) for name in kept] == [alone], at
        at += 1


def test_a_demotion_needs_the_vm_stopped_and_says_who_runs_it(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    nodes.start("a")
    with pytest.raises(Refused, match="web runs here"):
        nodes.demote("a")
    nodes.stop("a")
    report = nodes.demote("a")
    assert report.notes[0].startswith("no other node is known that may run it now")
    assert nodes.primaries() == []
    assert nodes.demote("a").outcome is Outcome.UNCHANGED
    assert nodes.take_over("a", accept_loss=True).outcome is Outcome.DONE
    assert nodes.primaries() == ["a"]


def test_only_the_primary_is_moved_or_gets_its_old_host_back(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    with pytest.raises(Refused, match="is not this node's own VM"):
        nodes.migrate("b", "a")
    with pytest.raises(Refused, match="is not this node's own VM"):
        nodes.failback("b", "a")


def test_a_node_without_hoster_is_named(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    nodes.cut.add("a")
    nodes.take_over("b")
    nodes.cut.clear()
    nodes.cluster.hoster = lambda node, words: Completed((), 127, "", "hoster: not found")
    with pytest.raises(OperationFailed, match="a has no hoster"):
        nodes.failback("b", "a")


def test_a_cireset_of_a_replica_takes_over_first(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    with pytest.raises(Refused, match="a answers") as refused:
        nodes.cireset("b")
    assert refused.value.hint.startswith("hoster vm cireset web --accept-loss")
    nodes.cut.add("a")
    report = nodes.cireset("b")
    assert report.secrets is not None
    assert "it is this node's own VM now, epoch 2@b" in report.notes
    assert nodes.mark("b", "role") == "primary"


def test_another_vm_of_that_name_elsewhere_is_no_copy_and_is_never_touched(nodes: Nodes) -> None:
    """Where a node knows the name for something else, neither its epoch counts nor is it demoted."""
    nodes.replicate("a", "b")
    stranger = nodes.cluster.nodes["b"].dataset(WEB).properties
    stranger.update({"hoster:id": "another", "hoster:role": "primary", "hoster:epoch": "9@b"})
    assert nodes.primaries() == ["a", "b"], "each starts its own"
    before = dict(stranger)
    assert nodes.mark("a", "role") == "primary"
    with pytest.raises(Refused, match="is another VM"):
        nodes.failback("a", "b")
    assert nodes.migrate("a", "b").ground is Ground.FOREIGN_DATASET
    assert stranger == before


def test_a_far_hoster_acts_on_the_vm_that_is_meant_or_not_at_all(nodes: Nodes) -> None:
    """The replica may lie where that node looks for no VMs, and another one may have its name there."""
    nodes.replicate("a", "b")
    with pytest.raises(Refused, match="is another VM"):
        nodes.demote("b", identity="another")
    assert nodes.take_over("b", accept_loss=True, identity="another").ground is Ground.FOREIGN_DATASET
    assert nodes.mark("b", "role") == "replica"


def test_a_primary_that_is_promoted_again_stays_as_it_is(nodes: Nodes) -> None:
    """A split is mended by a number alone: nothing of a machine that may run goes back or is given up."""
    for target in ("b", "c", "b"):
        nodes.replicate("a", target)
    nodes.cut.update("abc")
    nodes.take_over("b")
    nodes.take_over("c")
    nodes.cut.clear()
    nodes.cluster.nodes["b"].snapshot([f"{WEB}@mine"], {})
    nodes.write("b")
    content = nodes.content("b"), nodes.content("b", DISK)
    assert nodes.take_over("b", accept_loss=True).outcome is Outcome.DONE
    assert nodes.mark("b", "epoch") == "3@b"
    assert (nodes.content("b"), nodes.content("b", DISK)) == content
    assert [name for name in nodes.cluster.nodes["b"].datasets if ".branch-" in name] == []


@pytest.mark.parametrize("demoted", [True, False])
def test_a_copy_that_was_primary_here_comes_back_with_all_that_it_wrote(nodes: Nodes, demoted: bool) -> None:
    nodes.replicate("a", "b")
    nodes.cut.add("a")
    nodes.take_over("b")
    nodes.cut.clear()
    nodes.cluster.nodes["a"].snapshot([f"{WEB}@mine"], {})
    nodes.write("a")
    alone = nodes.content("a"), nodes.content("a", DISK)
    assert nodes.replicate("a", "b").ground is Ground.SUPERSEDED
    if demoted:
        nodes.demote("a")
    assert nodes.take_over("a", accept_loss=True).outcome is Outcome.DONE
    assert (nodes.content("a"), nodes.content("a", DISK)) == alone
    assert [name for name in nodes.cluster.nodes["a"].datasets if ".branch-" in name] == []


def test_a_copy_that_cannot_be_marked_is_refused_all_the_same_and_the_batch_goes_on(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    nodes.cut.add("a")
    nodes.take_over("b")
    nodes.cut.clear()
    nodes.cluster.refused = frozenset({"hoster:role=superseded"})
    report = nodes.replicate("a", "b")
    assert report.ground is Ground.SUPERSEDED
    assert "could not be marked superseded" in report.notes[0]
    nodes.cluster.refused = frozenset()
    assert "is marked superseded" in nodes.replicate("a", "b").notes[0]


def test_a_lost_vm_is_brought_back_and_a_copy_of_it_beside(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    content = nodes.content("a")
    lost = nodes.cluster.nodes["a"].datasets
    for name in (DISK, WEB):
        del lost[name]
    report = nodes.restore("a", "b")
    assert report.outcome is Outcome.DONE
    assert (nodes.mark("a", "role"), nodes.mark("a", "epoch")) == ("primary", "2@a")
    assert nodes.content("a") == content
    with pytest.raises(Refused, match="exists already"):
        nodes.restore("a", "b")
    (nodes.folder / "a" / "web2").mkdir()
    (nodes.folder / "a" / "web2" / "vm_config.json").write_text("{}")
    assert nodes.restore("a", "b", called="web2").outcome is Outcome.DONE
    assert nodes.content("a", "tank/vm/web2") == content
    with pytest.raises(Refused, match="exists already"):
        nodes.restore("a", "b", called="web2")


@pytest.mark.parametrize("called", [None, "web2"])
def test_a_restore_killed_anywhere_goes_on_with_the_same_command(tmp_path: Path, called: str | None) -> None:
    last, at = False, 0
    while not last:
        nodes = Nodes(tmp_path / str(at))
        nodes.replicate("a", "b")
        content = nodes.content("a")
        (nodes.folder / "c" / "web2").mkdir()
        (nodes.folder / "c" / "web2" / "vm_config.json").write_text("{}")
        nodes.cut.add("a")
        nodes.cluster.begin(Fault(Accident.KILLED_AFTER, at))
        try:
            nodes.restore("c", "b", called)
        except Killed:
            pass
        else:
            last = True
        nodes.cluster.begin()
        with suppress(Refused):  # it exists already: the first one had come to its end
            nodes.restore("c", "b", called)
        name = called or "web"
        assert nodes.content("c", f"tank/vm/{name}") == content, at
        context = nodes.contexts["c"]
        assert is_whole(context, look_around(context).named(name)), at
        at += 1
    assert at > 4


def test_of_somebody_elses_replica_no_restore_makes_a_vm(nodes: Nodes) -> None:
    """It has the name that was asked for, and shares versions; it is another's all the same."""
    nodes.replicate("a", "b")
    nodes.replicate("a", "c")
    with pytest.raises(Refused, match="exists already"):
        nodes.restore("c", "b", called="web")
    assert nodes.mark("c", "role") == "replica"
