"""A takeover goes ahead only on what is known to be whole, and says that all is done only where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoster.errors import OperationFailed
from hoster.model.plan import Ground, Outcome
from tests.unit.operations.nodes import DISK, WEB, Nodes
from tests.zfsmodel.cluster import Accident, Fault, Killed
from tests.zfsmodel.state import Kind

NEW = f"{WEB}/d1"


def killed_at(nodes: Nodes, at: int) -> bool:
    """Whether a run from a to b was killed after that command of its; a does not answer from then on."""
    nodes.cluster.begin(Fault(Accident.KILLED_AFTER, at))
    try:
        nodes.replicate("a", "b")
    except Killed:
        return True
    finally:
        nodes.cluster.begin()
        nodes.cut.add("a")
    return False


def goes_on_from(nodes: Nodes, older: str) -> str:
    """What a takeover by b, which is not told to accept a loss, makes the VM of."""
    try:
        report = nodes.take_over("b")
    except OperationFailed as error:
        if "there is no VM of that name" in error.message:
            return "nothing is there"
        raise
    if report.ground is Ground.MAY_LOSE_DATA:
        return "refused"
    assert report.outcome is Outcome.DONE
    return "older" if older and older in report.done[0] else "newest"


@pytest.mark.parametrize(
    ("added", "with_disk"),
    [
        pytest.param(
            True, {"older": {False}, "refused": {False, True}, "newest": {True}}, id="a disk that was added"
        ),
        pytest.param(
            False,
            {"nothing is there": {False}, "refused": {False, True}, "newest": {True}},
            id="the first run of all",
        ),
    ],
)
def test_no_disk_is_lost_in_silence_where_the_source_died_between_two(
    tmp_path: Path, added: bool, with_disk: dict[str, set[bool]]
) -> None:
    """Without the disk, the VM goes on only as of a time when it had none, or where that was agreed to."""
    at, killed = 0, True
    found: dict[str, set[bool]] = {}
    while killed:
        nodes = Nodes(tmp_path / str(at))
        older = ""
        if added:
            nodes.replicate("a", "b")
            older = nodes.cluster.nodes["b"].dataset(WEB).snapshots[-1].name
            nodes.write("a")
        nodes.cluster.nodes["a"].create(NEW, {"volsize": "8192"}, Kind.VOLUME)
        nodes.cluster.nodes["a"].write(NEW, 10)
        killed = killed_at(nodes, at)
        found.setdefault(goes_on_from(nodes, older), set()).add(NEW in nodes.cluster.nodes["b"].datasets)
        at += 1
    assert found == with_disk


def back_on_a(nodes: Nodes) -> None:
    """The VM went from a to b, which dies then; a is to take it over again."""
    nodes.replicate("a", "b")
    nodes.cut.add("a")
    nodes.take_over("b")
    nodes.cut.clear()
    nodes.demote("a")
    nodes.cut.add("b")


@pytest.mark.parametrize(
    "accident", [Accident.KILLED_BEFORE, Accident.KILLED_AFTER], ids=lambda a: str(a.value)
)
def test_a_takeover_that_a_power_cut_ended_is_finished_after_the_reboot(
    tmp_path: Path, accident: Accident
) -> None:
    """ZFS mounts at boot what has ``canmount=on`` by then; what is mounted may be unfinished all the same."""
    at, killed = 0, True
    while killed:
        nodes = Nodes(tmp_path / str(at))
        back_on_a(nodes)
        node = nodes.cluster.nodes["a"]
        nodes.cluster.begin(Fault(accident, at))
        try:
            nodes.take_over("a", accept_loss=True)
            killed = False
        except Killed:
            node.power_cut()
        nodes.cluster.begin()
        report = nodes.take_over("a", accept_loss=True)
        assert report.outcome in {Outcome.DONE, Outcome.UNCHANGED}
        for name in (WEB, DISK):
            left = {"volmode", "readonly", "hoster:demoted"} & node.dataset(name).properties.keys()
            assert not left, (at, name, report.reason)
        at += 1
    assert at > 4


def test_a_vm_that_another_node_took_over_is_not_called_this_nodes_own(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    nodes.replicate("a", "b")
    nodes.cut.add("a")
    nodes.take_over("b")
    nodes.cut.clear()
    refused = nodes.take_over("a")
    assert (refused.outcome, refused.ground) == (Outcome.REFUSED, Ground.MAY_LOSE_DATA)
    assert refused.reason.startswith("b answers, and its copy may run (epoch 2@b)")
    assert nodes.take_over("a", accept_loss=True).outcome is Outcome.DONE
    assert nodes.mark("a", "epoch") == "3@a"
    assert nodes.primaries() == ["a"]
