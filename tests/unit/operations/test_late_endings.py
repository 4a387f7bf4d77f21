"""What a command saw may have changed by the time it acts, hours later: it looks again, and acts on that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from hoster.errors import OperationFailed, ZfsError
from hoster.host.locks import Locks
from hoster.host.reach import LocalHost
from hoster.host.ssh import SshOptions
from hoster.model.names import Endpoint, SnapshotType
from hoster.model.plan import Outcome, VmReport
from hoster.operations.inventory import look_around
from hoster.operations.replicate import replicate
from hoster.operations.rollback import RollbackRequest, roll_back
from hoster.operations.snapshots import SnapshotRequest, snapshot_all
from hoster.operations.taking import SNAPSHOTS_LOCK
from hoster.testing import NamedHost
from hoster.zfs.programs import TELL
from hoster.zfs.store import ZfsStore
from tests.properties.world import Quiet
from tests.unit.operations.going_back import World
from tests.unit.operations.nodes import DISK, WEB, Nodes
from tests.unit.operations.watching import Watched
from tests.zfsmodel.cluster import ModelCluster
from tests.zfsmodel.command import command

T = TypeVar("T")


class Meanwhile(Watched):
    """Something happens once, just before the command that has all of these words."""

    def __init__(self, cluster: ModelCluster, words: Sequence[str], then: Callable[[], object]) -> None:
        super().__init__(cluster)
        self.wanted, self.then = set(words), then
        self.happened = False

    def look(self, words: Sequence[str]) -> None:
        if not self.happened and self.wanted <= {*words}:
            self.happened = True
            self.then()


def replicated(nodes: Nodes, words: Sequence[str], then: Callable[[], object]) -> dict[str, VmReport]:
    """What a run of all VMs from a to b reports, during which that happens."""
    runner = Meanwhile(nodes.cluster, words, then)
    store = ZfsStore(NamedHost("a", "a"), runner)  # type: ignore[arg-type]
    context = replace(nodes.contexts["a"], runner=runner, zfs=store)
    reports = replicate(context, replace(nodes.request("b"), names=None), Quiet()).vms
    assert runner.happened
    return {report.vm: report for report in reports}


@pytest.mark.parametrize("node", ["b", "c"])
def test_a_promotion_while_the_others_are_sent_stays_as_it_is(two_vms: Nodes, node: str) -> None:
    nodes = two_vms
    for target in ("b", "c"):  # each hears of those before it
        nodes.replicate("a", target)
    nodes.write("a")
    taken_over: list[Outcome] = []
    reports = replicated(
        nodes,
        ["receive", "tank/vm/zdb"],
        lambda: taken_over.append(nodes.take_over(node, accept_loss=True).outcome),
    )
    assert taken_over == [Outcome.DONE]
    assert nodes.mark("b", "epoch") == f"2@{node}"
    assert nodes.primaries() == [node]
    assert (reports["web"].outcome, reports["zdb"].outcome) == (Outcome.FAILED, Outcome.DONE)
    assert reports["web"].reason == (
        f"{WEB} on b was promoted, or told of a promotion, while this ran: it is of epoch 2@{node} now,"
        " this copy of 1@a"
    )


@pytest.mark.parametrize("node", ["b", "c"])
def test_a_promotion_right_before_a_replica_is_told_stays_as_it_is(two_vms: Nodes, node: str) -> None:
    nodes = two_vms
    for target in ("b", "c"):
        nodes.replicate("a", target)
    nodes.write("a")
    taken_over: list[Outcome] = []
    reports = replicated(
        nodes, ["b", TELL], lambda: taken_over.append(nodes.take_over(node, accept_loss=True).outcome)
    )
    assert taken_over == [Outcome.DONE]
    assert nodes.mark("b", "epoch") == f"2@{node}"
    assert nodes.primaries() == [node]
    assert (reports["web"].outcome, reports["zdb"].outcome) == (Outcome.FAILED, Outcome.DONE)
    assert "was promoted, or told of a promotion, while this ran" in reports["web"].reason


def test_a_takeover_tells_nothing_to_a_copy_that_is_promoted_just_then(two_vms: Nodes) -> None:
    nodes = two_vms
    for target in ("b", "c", "b"):
        nodes.replicate("a", target)

    def again_on_c() -> None:
        assert nodes.take_over("c", accept_loss=True).outcome is Outcome.DONE

    own = nodes.contexts["b"]
    runner = Meanwhile(nodes.cluster, ["c", TELL], again_on_c)
    store = ZfsStore(NamedHost("b", "b"), runner)  # type: ignore[arg-type]
    nodes.contexts["b"] = replace(own, runner=runner, zfs=store)
    report = nodes.take_over("b", accept_loss=True)
    assert runner.happened
    assert "c could not be told: somebody has promoted it, or told it of a promotion" in report.notes
    assert nodes.mark("c", "epoch") == "3@c"
    assert nodes.mark("c", "parent") == "c"
    assert nodes.primaries() == ["c"]


def test_a_held_snapshot_that_goes_while_the_target_is_asked_fails_no_other_vm(two_vms: Nodes) -> None:
    node = two_vms.cluster.nodes["a"]
    node.snapshot([f"{WEB}@x"], {})
    node.hold("hoster-00000000000000cc", [f"{WEB}@x"])

    def ends() -> None:
        node.release("hoster-00000000000000cc", [f"{WEB}@x"])
        assert command(node, ("zfs", "destroy", f"{WEB}@x"))[0] == 0

    reports = replicated(two_vms, ["on", "b", "get"], ends)
    assert reports["zdb"].outcome is Outcome.DONE
    assert reports["web"].reason == f"{WEB}@x cannot be sent: it does not exist any more"
    assert two_vms.replicate("a", "b").outcome is Outcome.DONE


def by_its_other_name(nodes: Nodes) -> VmReport:
    """What a run to b reports that calls it root@b."""
    request = replace(nodes.request("b"), ssh=SshOptions(Endpoint("b", "root")))
    (report,) = replicate(nodes.contexts["a"], request, Quiet()).vms
    return report


def by_another_job(nodes: Nodes) -> VmReport:
    """What another job reports that sends to b."""
    (report,) = replicate(nodes.contexts["a"], replace(nodes.request("b"), job="nightly"), Quiet()).vms
    return report


def test_a_target_under_another_spelling_is_busy_while_it_is_sent_to(two_vms: Nodes) -> None:
    seconds: list[VmReport] = []
    reports = replicated(two_vms, ["receive", WEB], lambda: seconds.append(by_its_other_name(two_vms)))
    (second,) = seconds
    assert second.outcome is Outcome.BUSY
    assert second.reason.startswith("the replication of web to the target ")
    assert reports["web"].outcome is Outcome.DONE
    assert by_its_other_name(two_vms).sent == ()


class JustEnding(Locks):
    """Another process that has a lock lets go of it just before it is asked for here."""

    def __init__(self, folder: Path, beginning: str, ends: Callable[[], object]) -> None:
        Locks.__init__(self, folder)
        self.beginning, self.ends = beginning, [ends]

    @contextmanager
    def hold(self, what: str, *, holder: str, wait_s: float = 0.0, shared: bool = False) -> Iterator[float]:
        if what.startswith(self.beginning) and self.ends:
            self.ends.pop()()
        with Locks.hold(self, what, holder=holder, wait_s=wait_s, shared=shared) as let_go_at:
            yield let_go_at


def branches_there(nodes: Nodes) -> list[str]:
    return [name for name in nodes.cluster.nodes["b"].datasets if ".branch-" in name]


@pytest.mark.parametrize(
    ("lock", "another_run"),
    [
        ("the replication of web to b", by_another_job),
        ("the replication of web to the target ", by_its_other_name),
    ],
    ids=["the same target", "by another name"],
)
def test_what_another_run_has_brought_since_the_look_is_no_parting(
    two_vms: Nodes, lock: str, another_run: Callable[[Nodes], VmReport]
) -> None:
    two_vms.replicate("a", "b")
    two_vms.write("a")
    others: list[Outcome] = []
    own = two_vms.contexts["a"]
    folder = own.settings.run_dir / "locks"
    locks = JustEnding(folder, lock, lambda: others.append(another_run(two_vms).outcome))
    (report,) = replicate(replace(own, locks=locks), two_vms.request("b"), Quiet()).vms
    assert others == [Outcome.DONE]
    assert report.outcome in {Outcome.UNCHANGED, Outcome.DONE}
    assert (report.taken, report.sent, report.notes, report.branch) == ((), (), (), "")
    assert branches_there(two_vms) == []
    assert two_vms.content("b") == two_vms.content("a")


def test_what_went_back_since_the_look_is_seen_as_it_is_now(two_vms: Nodes) -> None:
    two_vms.replicate("a", "b")
    first = two_vms.cluster.nodes["a"].dataset(WEB).snapshots[0].name
    two_vms.write("a")
    two_vms.replicate("a", "b")
    own = two_vms.contexts["a"]
    folder = own.settings.run_dir / "locks"
    back = JustEnding(folder, "the history of web", lambda: roll_back(own, RollbackRequest("web", first)))
    (report,) = replicate(replace(own, locks=back), two_vms.request("b"), Quiet()).vms
    assert report.outcome is Outcome.DONE
    assert len(branches_there(two_vms)) == 2, "its dataset and its disk"
    assert two_vms.content("b") == two_vms.content("a")


def test_partings_in_one_second_by_the_clock_have_branches_of_their_own(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    nodes.replicate("a", "b")
    first = nodes.cluster.nodes["a"].dataset(WEB).snapshots[0].name
    for _ in range(2):
        nodes.write("a")
        nodes.replicate("a", "b")
        roll_back(nodes.contexts["a"], RollbackRequest("web", first))
        nodes.clock = datetime(2024, 6, 1, 12)  # a clock without a battery, after each boot
        assert nodes.replicate("a", "b").outcome is Outcome.DONE
    there = nodes.cluster.nodes["b"].datasets
    assert len([name for name in there if ".branch-" in name and name.count("/") == 2]) == 2
    assert nodes.content("b") == nodes.content("a")


def test_a_takeover_sets_aside_beside_a_branch_of_the_same_second(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    nodes.replicate("a", "b")
    there = nodes.cluster.nodes["b"]
    there.snapshot([f"{WEB}@ahead"], {})
    now = datetime(2024, 6, 1, 12)
    earlier = f"{WEB}.branch-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    there.create(earlier, {})
    nodes.contexts["b"] = replace(nodes.contexts["b"], now=lambda: now)
    nodes.cut.add("a")
    assert nodes.take_over("b", accept_loss=True).outcome is Outcome.DONE
    nodes.cut.clear()
    assert nodes.primaries() == ["b"]
    assert len({name for name in there.datasets if ".branch-" in name and name.count("/") == 2}) == 2


class Waiting(Locks):
    """Waits for the snapshots that another process is taking."""

    def __init__(self, folder: Path, ends: Callable[[], object]) -> None:
        Locks.__init__(self, folder)
        self.ends, self.waited = ends, False

    @contextmanager
    def hold(self, what: str, *, holder: str, wait_s: float = 0.0, shared: bool = False) -> Iterator[float]:
        if what == SNAPSHOTS_LOCK and not self.waited:
            self.waited = True
            self.ends()
        with Locks.hold(self, what, holder=holder, wait_s=wait_s, shared=shared) as let_go_at:
            yield let_go_at


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def can_go_back(world: World) -> None:
    """Nothing is left half done, and the same command goes through."""
    assert look_around(world.context).unusable == ()
    assert world.roll_back("a", destroy_newer=True).outcome is Outcome.DONE


def test_a_rollback_that_waited_for_snapshots_destroys_nothing_that_was_not_shown(
    world: World, tmp_path: Path
) -> None:
    own = world.context
    request = SnapshotRequest(SnapshotType.HOURLY, None)
    locks = Waiting(tmp_path / "locks", lambda: snapshot_all(own, request))
    world.context = replace(own, locks=locks)
    with pytest.raises(OperationFailed, match=r"@hourly_.* was taken meanwhile; nothing was changed"):
        world.roll_back("a", destroy_newer=True)
    assert locks.waited
    assert [label[:6] for label in world.versions()[DISK].split()] == ["a", "b", "hourly"]
    can_go_back(world)


def test_a_rollback_that_a_snapshot_comes_before_leaves_the_vm_usable(world: World) -> None:
    own = world.context
    runner = Meanwhile(
        world.cluster,
        ["zfs", "rollback"],
        lambda: world.node.snapshot([f"{WEB}@hand", f"{DISK}@hand"], {}),
    )
    store = ZfsStore(LocalHost(), runner)  # type: ignore[arg-type]
    world.context = replace(own, runner=runner, zfs=store)
    with pytest.raises(ZfsError):
        world.roll_back("a", destroy_newer=True)
    assert runner.happened
    assert world.versions()[WEB] == "a hand"
    can_go_back(world)
