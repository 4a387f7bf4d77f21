"""What the next increment starts from is kept on both ends, whoever prunes, destroys or cannot see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from hoster.errors import Refused, Unreachable
from hoster.host.process import Completed
from hoster.model.names import SnapshotType
from hoster.model.plan import Outcome
from hoster.operations.replicate import replicate
from hoster.operations.snapshots import SnapshotRequest, destroy_snapshot, snapshot_all
from hoster.testing import NamedHost, read_whole
from hoster.zfs.store import ZfsStore
from tests.properties.world import Quiet
from tests.unit.operations.nodes import DISK, WEB, Nodes
from tests.zfsmodel.cluster import LINK_LOST

T = TypeVar("T")

HOURLY = SnapshotRequest(SnapshotType.HOURLY, 2)


class CutListing:
    """Model nodes; the link to b is lost when a listing there has complained of what is missing, before it
    has told of what is there."""

    def __init__(self, nodes: Nodes) -> None:
        self.cluster = nodes.cluster
        self.lost = False

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        to_b = tuple(argv[:2]) == ("on", "b")
        if self.lost and to_b:
            return Completed(tuple(argv), 255, "", LINK_LOST)
        done = self.cluster.run(argv, stdin=stdin, timeout_s=timeout_s)
        if to_b and argv[3] == "get" and "does not exist" in done.stderr and done.stdout:
            self.lost = True
            return Completed(tuple(argv), 255, "", f"{done.stderr}{LINK_LOST}\n")
        return done

    def read(
        self, argv: Sequence[str], reader: Callable[[Iterator[str]], T], *, timeout_s: float | None = None
    ) -> tuple[T, Completed]:
        return read_whole(self.run(argv, timeout_s=timeout_s), reader)

    def __getattr__(self, name: str) -> object:
        return getattr(self.cluster, name)


def test_a_listing_of_the_target_that_is_cut_does_not_unprotect_its_bases(two_vms: Nodes) -> None:
    nodes = two_vms
    nodes.replicate("a", "b")  # every night
    for _ in range(3):  # every few minutes, of which two are kept
        nodes.write("a")
        nodes.replicate("a", "c")
    runner = CutListing(nodes)
    store = ZfsStore(NamedHost("a", "a"), runner)  # type: ignore[arg-type]
    context = replace(nodes.contexts["a"], runner=runner, zfs=store)
    with pytest.raises(Unreachable):
        replicate(context, replace(nodes.request("b"), names=None), Quiet())
    assert runner.lost
    nodes.write("a")
    assert nodes.replicate("a", "b").outcome is Outcome.DONE


@pytest.mark.parametrize("taken", [True, False])
def test_the_base_of_a_replica_is_not_destroyed_there_whatever_was_taken_since(
    tmp_path: Path, taken: bool
) -> None:
    nodes = Nodes(tmp_path)
    for _ in range(2):
        nodes.write("a")
        nodes.replicate("a", "b")
    older, base = (s.name for s in nodes.cluster.nodes["b"].dataset(WEB).snapshots)
    if taken:
        nodes.cluster.nodes["b"].snapshot([f"{WEB}@before-update", f"{DISK}@before-update"], {})
    with pytest.raises(Refused, match="the next increment from a starts from it"):
        destroy_snapshot(nodes.contexts["b"], "web", base)
    assert destroy_snapshot(nodes.contexts["b"], "web", older).vms[0].outcome is Outcome.DONE
    nodes.write("a")
    assert nodes.replicate("a", "b").outcome is Outcome.DONE


@pytest.fixture
def taken_over(tmp_path: Path) -> Nodes:
    """Node b has taken over what it received twice, and a is being repaired."""
    nodes = Nodes(tmp_path)
    for _ in range(2):
        nodes.write("a")
        nodes.replicate("a", "b")
    nodes.cut.add("a")
    assert nodes.take_over("b").outcome is Outcome.DONE
    return nodes


def comes_back(nodes: Nodes) -> None:
    """The old host becomes a replica by an increment."""
    nodes.cut.clear()
    nodes.demote("a")
    report = nodes.replicate("b", "a")
    assert report.outcome is Outcome.DONE, report
    assert nodes.content("a") == nodes.content("b")


def test_an_old_host_can_come_back_after_runs_to_a_third_node(taken_over: Nodes) -> None:
    for _ in range(3):
        taken_over.write("b")
        assert taken_over.replicate("b", "c").outcome is Outcome.DONE
    comes_back(taken_over)


def test_an_old_host_can_come_back_after_snapshots_by_the_schedule(tmp_path: Path) -> None:
    """Of the very type that the last version in common is of."""
    nodes = Nodes(tmp_path)
    snapshot_all(nodes.contexts["a"], HOURLY)
    nodes.replicate("a", "b")
    nodes.cut.add("a")
    nodes.take_over("b")
    for _ in range(3):
        nodes.write("b")
        snapshot_all(nodes.contexts["b"], HOURLY)
    comes_back(nodes)


def test_the_last_version_in_common_with_the_old_host_is_not_destroyed_by_hand(taken_over: Nodes) -> None:
    older, base, own_first = (s.name for s in taken_over.cluster.nodes["b"].dataset(WEB).snapshots)
    own = taken_over.contexts["b"]
    with pytest.raises(
        Refused, match="is the last version in common with the node that it came from"
    ) as caught:
        destroy_snapshot(own, "web", base)
    assert caught.value.hint.startswith("hoster vm replicate web --endpoint")
    for name in (older, own_first):
        assert destroy_snapshot(own, "web", name).vms[0].outcome is Outcome.DONE
    comes_back(taken_over)
    taken_over.write("b")
    taken_over.replicate("b", "a")
    assert destroy_snapshot(own, "web", base).vms[0].outcome is Outcome.DONE
