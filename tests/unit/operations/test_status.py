"""How VMs and replicas stand, on model nodes: told by the targets themselves, or remembered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from hoster.errors import OperationFailed
from hoster.host.process import Completed
from hoster.model.plan import Outcome, Report, VmReport
from hoster.model.promises import Promises
from hoster.model.space import PoolSample
from hoster.operations.replicate import replicate
from hoster.operations.status import NodeStatus, TargetStatus, VmStatus, node_status
from hoster.records.journal import Journal
from hoster.records.runs import EndedRun, Run, RunKind
from hoster.testing import NamedHost, read_whole
from hoster.zfs.store import ZfsStore
from tests.properties.world import Quiet
from tests.unit.operations.nodes import DISK, WEB, NodeContext, Nodes
from tests.zfsmodel.cluster import HALF, Accident, Fault
from tests.zfsmodel.command import command
from tests.zfsmodel.state import Kind

T = TypeVar("T")

HOUR = 3600
LISTED = "{}\t1000\t{}\t600\t7\t{}\t1.00\t{}\n"
STATUS = "  pool: {0}\n state: ONLINE\n  scan: scrub repaired 0B on Sun Nov  8\nconfig:\n"


class Pools:
    """The model nodes with pools that can be asked about; everything else is the model's."""

    def __init__(self, nodes: Nodes) -> None:
        self.cluster = nodes.cluster
        self.health = "ONLINE"
        self.full = 40
        self.commands: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        asked = tuple(argv)
        self.commands.append(asked)
        match asked[2:4]:
            case ("zpool", "list"):
                pools = (LISTED.format(pool, self.full * 10, self.full, self.health) for pool in asked[7:])
                return Completed(asked, 0, "".join(pools), "")
            case ("zpool", "status"):
                return Completed(asked, 0, "".join(STATUS.format(pool) for pool in asked[4:]), "")
        return self.cluster.run(argv, stdin=stdin, timeout_s=timeout_s)

    def read(
        self, argv: Sequence[str], reader: Callable[[Iterator[str]], T], *, timeout_s: float | None = None
    ) -> tuple[T, Completed]:
        return read_whole(self.run(argv, timeout_s=timeout_s), reader)

    def __getattr__(self, name: str) -> object:
        return getattr(self.cluster, name)


class Standing:
    """Node a with its VM, seen as ``hoster status`` sees it; the nodes' clocks are an hour late at first."""

    def __init__(self, folder: Path) -> None:
        self.nodes = Nodes(folder)
        self.pools = Pools(self.nodes)
        own = self.nodes.contexts["a"]
        settings = replace(own.settings, state_dir=folder / "state", promises=Promises(30))
        store = ZfsStore(NamedHost("a", "a"), self.pools)  # type: ignore[arg-type]
        self.context: NodeContext = replace(own, settings=settings, runner=self.pools, zfs=store)
        self.journal = Journal(settings.state_dir)
        self.age(HOUR)

    def age(self, seconds: float) -> None:
        """From now on, what is taken is so old."""
        for node in self.nodes.cluster.nodes.values():
            node.clock = int(time.time() - seconds)

    def replicate(self, to: str = "b", *, ago: float = 0.0) -> Report:
        """A recorded run that began so many seconds ago."""
        report = replicate(self.context, self.nodes.request(to), Quiet())
        run = Run(RunKind.REPLICATION, f"to_{to}", to)
        began = time.time() - ago
        code = 0 if report.vms[0].outcome in {Outcome.DONE, Outcome.UNCHANGED} else 3
        assert self.journal.write(EndedRun(run, began, began + 1, code, "", report.vms)) == ""
        return report

    def write(self) -> None:
        self.nodes.write("a")

    @property
    def status(self) -> NodeStatus:
        self.pools.commands.clear()
        return node_status(self.context)

    @property
    def web(self) -> VmStatus:
        (vm,) = self.status.vms
        return vm

    @property
    def target(self) -> TargetStatus:
        (target,) = self.web.targets
        return target


@pytest.fixture
def standing(tmp_path: Path) -> Standing:
    return Standing(tmp_path)


def lag(target: TargetStatus) -> float:
    assert target.data_at is not None
    return time.time() - target.data_at


def test_a_vm_that_was_never_replicated_is_said_to_be_so(standing: Standing) -> None:
    web = standing.web
    assert (web.targets, web.verdict, web.why) == ((), "warning", "it has never been replicated")
    assert (web.role, web.epoch, web.production) == ("primary", "1@a", True)


def test_an_up_to_date_replica_is_equal_now_however_old_its_newest_version_is(standing: Standing) -> None:
    standing.age(10 * 24 * HOUR)
    standing.replicate(ago=5 * 24 * HOUR)
    target = standing.target
    assert (target.equal, target.verdict, target.behind_bytes, target.trouble) == (True, "ok", 0, "")
    assert lag(target) < 60, "an idle VM is not late"
    assert target.newest is not None
    assert target.newest.taken_at < time.time() - 9 * 24 * HOUR
    assert standing.status.verdict == "ok"


def test_what_was_written_since_makes_the_data_there_as_old_as_when_both_were_last_equal(
    standing: Standing,
) -> None:
    standing.age(10 * 24 * HOUR)
    standing.replicate(ago=600)
    standing.write()
    target = standing.target
    assert (target.equal, target.verdict) == (False, "ok")
    assert 590 < lag(target) < 660
    assert target.behind_bytes == 20
    standing.replicate(ago=45 * 60)
    standing.write()
    assert standing.target.verdict == "warning"
    assert standing.target.why == "the data there are 45m old, promised are 30m"


def test_without_a_journal_the_target_itself_tells_how_old_its_data_are(standing: Standing) -> None:
    standing.replicate()
    standing.write()
    standing.journal.path.unlink()
    target = standing.target
    assert HOUR <= lag(target) < HOUR + 60
    assert (target.verdict, target.success_at) == ("critical", None)


def test_a_target_that_cannot_be_asked_is_remembered_and_said_so(standing: Standing) -> None:
    standing.replicate(ago=600)
    standing.nodes.cut.add("b")
    target = standing.target
    assert target.trouble == "b: it does not answer"
    assert target.newest is not None
    assert 590 < lag(target) < 660
    assert (target.equal, target.verdict, target.behind_bytes) == (False, "ok", 0)


@pytest.mark.parametrize("lost", [(DISK, WEB), (DISK,)], ids=["all of it", "one disk"])
def test_a_replica_that_was_destroyed_behind_our_back_is_gone(
    standing: Standing, lost: tuple[str, ...]
) -> None:
    standing.replicate(ago=60)
    there = standing.nodes.cluster.nodes["b"]
    for name in lost:
        for snapshot in list(there.dataset(name).snapshots):
            command(there, ("zfs", "destroy", f"{name}@{snapshot.name}"))
        assert command(there, ("zfs", "destroy", name)) == (0, "", "")
    target = standing.target
    assert (target.newest, target.data_at) == (None, None)
    assert (target.verdict, target.why) == ("critical", "what was there is gone")


def test_a_version_that_was_destroyed_behind_our_back_makes_the_one_before_it_count(
    standing: Standing,
) -> None:
    standing.replicate(ago=600)
    first = standing.target.newest
    standing.write()
    standing.replicate(ago=20)
    there = standing.nodes.cluster.nodes["b"]
    for name in (WEB, DISK):
        newest = there.dataset(name).snapshots[-1].name
        assert command(there, ("zfs", "destroy", f"{name}@{newest}"))[0] == 0
    target = standing.target
    assert target.newest == first
    assert HOUR <= lag(target) < HOUR + 60, "equal they were as of what is gone now"
    assert target.verdict == "critical"


def test_a_version_that_is_not_whole_there_does_not_count(standing: Standing) -> None:
    standing.replicate(ago=600)
    first = standing.target.newest
    standing.write()
    standing.replicate(ago=20)
    there = standing.nodes.cluster.nodes["b"]
    newest = there.dataset(DISK).snapshots[-1].name
    assert command(there, ("zfs", "destroy", f"{WEB}/d0@{newest}"))[0] == 0
    assert standing.target.newest == first


def test_a_part_that_has_arrived_is_told_and_is_no_version(standing: Standing) -> None:
    standing.replicate(ago=60)
    standing.write()
    standing.nodes.cluster.begin(Fault(Accident.STREAM_CUT, 0, cut=HALF))
    assert standing.replicate().vms[0].outcome is Outcome.FAILED
    standing.nodes.cluster.begin()
    target = standing.target
    assert target.partly_received
    assert target.failures == 1
    assert "the last run failed: " in target.why


def test_branches_on_either_end_are_told_with_what_they_hold(standing: Standing) -> None:
    standing.replicate()
    for name, amount in (("a", 5), ("b", 7)):
        node = standing.nodes.cluster.nodes[name]
        node.create(f"{WEB}.branch-20240101T000000Z", {"hoster:role": "branch"})
        node.write(f"{WEB}.branch-20240101T000000Z", amount)
    web = standing.web
    assert (web.branches, web.targets[0].branches) == (1, 1)
    assert web.branch_bytes > 0
    assert web.targets[0].branch_bytes == web.branch_bytes + 2


def test_a_vm_that_was_taken_over_is_critical_before_any_run_has_noticed(standing: Standing) -> None:
    standing.replicate()
    standing.nodes.cut.add("a")
    standing.nodes.take_over("b")
    standing.nodes.cut.clear()
    assert standing.target.why == "that node has taken the VM over"
    assert standing.status.verdict == "critical"


def test_two_copies_that_were_promoted_are_a_split(standing: Standing) -> None:
    standing.replicate()
    there = standing.nodes.cluster.nodes["b"]
    there.dataset(WEB).properties["hoster:epoch"] = "1@b"
    assert standing.target.why == "both copies were promoted: a split"


def test_what_is_superseded_here_has_no_targets_to_be_late(standing: Standing) -> None:
    standing.replicate()
    properties = standing.nodes.cluster.nodes["a"].dataset(WEB).properties
    properties["hoster:role"], properties["hoster:parent"] = "superseded", "b"
    web = standing.web
    assert web.targets == ()
    assert (web.verdict, web.why) == (
        "warning",
        "b has taken it over; the copy here waits for: hoster vm demote web",
    )


def test_two_targets_have_lags_of_their_own(standing: Standing) -> None:
    standing.replicate("b", ago=2000)
    standing.replicate("c", ago=600)
    standing.write()
    by_node = {target.node: target for target in standing.web.targets}
    assert by_node["b"].verdict == "warning"
    assert by_node["c"].verdict == "ok"
    assert lag(by_node["b"]) > lag(by_node["c"]) + 1000
    assert standing.web.why.startswith("b: the data there are 33m")


def test_the_mark_and_the_file_disagreeing_is_said(standing: Standing) -> None:
    properties = standing.nodes.cluster.nodes["a"].dataset(WEB).properties
    properties["hoster:parent"] = "a"
    context = replace(standing.context, hostname="renamed")
    (vm,) = node_status(context).vms
    assert vm.why == "its mark says that it is this node's, its vm_config.json names a"


def test_a_pool_that_is_not_well_is_told_for_either_end(standing: Standing) -> None:
    standing.replicate()
    status = standing.status
    assert [(pool.node, pool.pool, pool.free) for pool in status.pools] == [
        ("local", "tank", 600),
        ("b", "tank", 600),
    ]
    assert status.pools[1].scrub == "scrub repaired 0B on Sun Nov  8"
    standing.pools.full = 97
    assert standing.status.verdict == "critical"
    assert standing.status.pools[0].why == "it is 97% full"


def test_a_pool_that_will_soon_be_full_is_told_with_the_time_that_is_left(standing: Standing) -> None:
    standing.replicate()
    now, day = time.time(), 86_400.0
    noted = tuple(
        PoolSample(node, "tank", now - days * day, 1000, free)
        for node, frees in {"local": (1000, 900, 800, 700), "b": (600, 600, 600, 600)}.items()
        for days, free in zip((4, 3, 2, 1), frees, strict=True)
    )
    run = Run(RunKind.SNAPSHOT, "snapshot_all_daily")
    standing.journal.write(EndedRun(run, now, now, 0, pools=noted))
    own, far = standing.status.pools
    assert own.full_at is not None
    assert (own.full_at - now) / day == pytest.approx((600 - 1000 // 32) / 100, abs=0.01)
    assert (own.verdict, own.why) == (
        "warning",
        "it is 40% full, and at its present rate will be full in 5d 16h",
    )
    assert (far.full_at, far.verdict) == (None, "ok")


def test_a_target_on_this_node_has_its_pool_told_as_well(standing: Standing) -> None:
    here = standing.nodes.cluster.nodes["a"]
    here.pools = ("tank", "usb")
    here.txg["usb"] = 1
    here.datasets["usb"] = here.new_dataset("usb", Kind.FILESYSTEM)
    here.create("usb/vm", {})
    request = replace(standing.nodes.request("local"), target_dataset="usb/vm")
    report = replicate(standing.context, request, Quiet())
    run = Run(RunKind.REPLICATION, "to_usb", "local")
    standing.journal.write(EndedRun(run, time.time(), time.time(), 0, "", report.vms))
    assert sorted((pool.node, pool.pool) for pool in standing.status.pools) == [
        ("local", "tank"),
        ("local", "usb"),
    ]


def test_a_journal_that_cannot_be_read_is_a_problem_and_the_rest_is_told(standing: Standing) -> None:
    standing.replicate()
    standing.journal.path.write_text("no database at all, and a long text of it" * 10)
    status = standing.status
    assert status.vms[0].targets[0].equal
    assert "the journal of runs cannot be read" in status.problems[0]
    assert status.verdict == "warning"


def test_what_looks_like_a_vm_and_is_none_is_a_problem(standing: Standing, tmp_path: Path) -> None:
    (tmp_path / "a" / "web" / "vm_config.json").write_text("{")
    standing.nodes.cluster.nodes["a"].dataset(WEB).properties.pop("hoster:id")
    status = standing.status
    assert status.vms == ()
    assert status.problems[0].startswith("web: ")
    assert status.verdict == "critical"


def test_one_vm_can_be_asked_for_and_one_that_is_not_there_is_an_error(standing: Standing) -> None:
    assert [vm.vm for vm in node_status(standing.context, "web").vms] == ["web"]
    with pytest.raises(OperationFailed, match="no VM of that name"):
        node_status(standing.context, "nobody")


def test_each_node_is_asked_the_same_few_things_however_many_vms_there_are(standing: Standing) -> None:
    here = standing.nodes.cluster.nodes["a"]
    counts = []
    for number in range(3):
        marks = {"hoster:id": f"id{number}", "hoster:role": "primary", "hoster:epoch": "1@a"}
        here.create(f"tank/vm/extra{number}", {**marks, "hoster:parent": "a"})
        request = replace(standing.nodes.request("b"), names=None, include_non_production=True)
        assert not replicate(standing.context, request, Quiet()).with_outcome(Outcome.FAILED)
        status = standing.status
        assert len([vm for vm in status.vms if vm.targets]) == number + 2
        counts.append(len(standing.pools.commands))
    assert counts == [7, 7, 7], standing.pools.commands


def test_a_vm_is_no_replica_of_itself_under_whatever_name_its_node_is_known(standing: Standing) -> None:
    properties = standing.nodes.cluster.nodes["a"].dataset(WEB).properties
    properties["hoster:sites"] = '[{"endpoint": "a", "dataset": "tank/vm/web"}]'
    assert standing.web.targets == ()
    assert standing.web.why == "it has never been replicated"


def test_status_changes_nothing(standing: Standing) -> None:
    standing.replicate()
    before = standing.journal.path.read_bytes()
    assert standing.status
    verbs = {asked[3] for asked in standing.pools.commands}
    assert verbs <= {"get", "list", "status"}
    assert standing.journal.path.read_bytes() == before


def test_a_run_that_failed_is_told_with_its_reason(standing: Standing) -> None:
    standing.replicate(ago=60)
    run = Run(RunKind.REPLICATION, "to_b", "b")
    failed = VmReport("web", Outcome.FAILED, "the pool is full", target=WEB)
    standing.journal.write(EndedRun(run, time.time(), time.time(), 3, "", (failed,)))
    target = standing.target
    assert (target.failures, target.failure, target.verdict) == (1, "the pool is full", "warning")
    assert target.why == "the last run failed: the pool is full"
