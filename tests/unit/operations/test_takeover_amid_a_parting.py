"""A takeover meets a source that sets the newer part of the replica aside: at work, or dead in the middle.

What was taken over is never changed by it; and a source that dies at any of its commands leaves a copy that
can take over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.errors import Busy, HosterError
from hoster.model.plan import Outcome, VmReport
from hoster.operations.replicate import replicate
from hoster.operations.rollback import RollbackRequest, roll_back
from hoster.testing import NamedHost
from hoster.zfs.store import ZfsStore
from tests.properties.world import Quiet
from tests.unit.operations.going_back import open_elsewhere
from tests.unit.operations.nodes import DISK, WEB, Nodes
from tests.unit.operations.watching import Watched
from tests.zfsmodel.cluster import ModelCluster

COMMANDS = 27
"""So many does such a run start on its target."""


class Died(BaseException):
    """The source is gone from one moment to the next."""


class Before(Watched):
    """Something happens before the so-many-th command on b; ``hit`` is that one."""

    def __init__(self, cluster: ModelCluster, number: int, then: Callable[[], object]) -> None:
        super().__init__(cluster)
        self.number, self.then = number, then
        self.hit: tuple[str, ...] = ()
        self.count = 0

    def look(self, words: Sequence[str]) -> None:
        self.count += words[1] == "b"
        if self.count == self.number and not self.hit:
            self.hit = tuple(words)
            self.then()


def went_back(folder: Path) -> Nodes:
    """Node a has sent its VM to b three times, and has gone back to the first of these versions since."""
    nodes = Nodes(folder)
    for _ in range(3):
        assert nodes.replicate("a", "b").outcome is Outcome.DONE
        nodes.write("a")
    first = nodes.cluster.nodes["a"].dataset(WEB).snapshots[0].name
    assert roll_back(nodes.contexts["a"], RollbackRequest("web", first)).vms[0].outcome is Outcome.DONE
    nodes.write("a")
    return nodes


def parting(nodes: Nodes, number: int, then: Callable[[], object]) -> tuple[VmReport, tuple[str, ...]]:
    """The run that sets aside on b what is newer there; and the command before which that happened."""
    runner = Before(nodes.cluster, number, then)
    store = ZfsStore(NamedHost("a", "a"), runner)  # type: ignore[arg-type]
    context = replace(nodes.contexts["a"], runner=runner, zfs=store)
    (report,) = replicate(context, nodes.request("b"), Quiet()).vms
    return report, runner.hit


def data(nodes: Nodes) -> tuple[str, str]:
    return nodes.content("b"), nodes.content("b", DISK)


def test_such_a_run_is_tried_at_all_of_its_commands(tmp_path: Path) -> None:
    report, hit = parting(went_back(tmp_path / "last"), COMMANDS, lambda: None)
    assert report.outcome is Outcome.DONE
    assert hit
    assert parting(went_back(tmp_path / "more"), COMMANDS + 1, lambda: None)[1] == ()


@pytest.mark.parametrize("number", range(1, COMMANDS + 1))
def test_what_was_taken_over_is_not_set_aside_by_a_run_that_goes_on(tmp_path: Path, number: int) -> None:
    nodes = went_back(tmp_path)
    taken_over: list[tuple[str, str]] = []
    refusals: list[str] = []

    def takes_over() -> None:
        try:
            assert nodes.take_over("b", accept_loss=True).outcome is Outcome.DONE
        except Busy as error:
            refusals.append(error.message)
        else:
            nodes.write("b")
            taken_over.append(data(nodes))

    report, hit = parting(nodes, number, takes_over)
    assert hit
    assert refusals in ([], [f"a sets the newer part of {WEB} aside, and answers"])
    if taken_over:
        assert data(nodes) == taken_over[0]
        assert nodes.mark("b", "epoch") == "2@b"
        assert nodes.primaries() == ["b"]
    else:
        assert report.outcome is Outcome.DONE
        assert nodes.primaries() == ["a"]


@pytest.mark.parametrize("number", range(1, COMMANDS + 1))
def test_a_copy_whose_source_died_while_it_set_something_aside_takes_over(
    tmp_path: Path, number: int
) -> None:
    nodes = went_back(tmp_path)

    def dies() -> None:
        nodes.cut.add("a")
        raise Died

    with pytest.raises(Died):
        parting(nodes, number, dies)
    report = nodes.take_over("b", accept_loss=True)
    assert report.outcome is Outcome.DONE
    assert nodes.mark("b", "swap") is None
    nodes.write("b")
    taken_over = data(nodes)
    nodes.cut.clear()
    assert nodes.primaries() == ["b"]
    assert nodes.failback("b", "a").outcome is Outcome.DONE
    assert data(nodes) == taken_over
    assert (nodes.content("a"), nodes.content("a", DISK)) == taken_over


class DiesAtTheSecondRename(Watched):
    count = 0

    def look(self, words: Sequence[str]) -> None:
        self.count += "rename" in words
        if self.count == 2:
            raise Died


def test_a_rollback_of_this_nodes_own_vm_is_not_finished_while_something_uses_it(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    nodes.replicate("a", "b")
    nodes.write("a")
    first = nodes.cluster.nodes["a"].dataset(WEB).snapshots[0].name
    runner = DiesAtTheSecondRename(nodes.cluster)
    store = ZfsStore(NamedHost("a", "a"), runner)  # type: ignore[arg-type]
    dying = replace(nodes.contexts["a"], runner=runner, zfs=store)
    with pytest.raises(Died):
        roll_back(dying, RollbackRequest("web", first))
    before = sorted(nodes.cluster.nodes["a"].datasets)
    assert WEB not in before
    (branch,) = (name for name in before if re.fullmatch(rf"{WEB}\.branch-\w+", name))
    disk = tmp_path / "a" / branch.rpartition("/")[2] / "disk0.img"
    disk.parent.mkdir()
    disk.touch()
    nodes.cluster.nodes["a"].dataset(branch).mounted = True  # by somebody who looks for the data
    with open_elsewhere(disk) as pid:
        with pytest.raises(HosterError, match=str(pid)):
            nodes.take_over("a", accept_loss=True)
        assert sorted(nodes.cluster.nodes["a"].datasets) == before
    assert nodes.take_over("a", accept_loss=True).outcome is Outcome.UNCHANGED
    assert nodes.primaries() == ["a"]
