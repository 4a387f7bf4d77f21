"""Of several active datasets one is missing, its pool being gone: that costs what lies in it, no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from msgspec.structs import replace

from hoster.cli.render import exit_code, say_missing
from hoster.errors import DatasetMissing, HosterError, OperationFailed, Refused, ZfsError
from hoster.host.process import Completed
from hoster.host.ssh import SshOptions
from hoster.model.names import Endpoint, SnapshotType
from hoster.model.plan import Outcome, Report
from hoster.model.schedules import Schedule, ScheduledJob, Selection
from hoster.operations.adopt import adopt
from hoster.operations.branches import destroy_branch, expire_branches, list_branches
from hoster.operations.cireset import cireset
from hoster.operations.config_check import check_node
from hoster.operations.deploy import Order, deploy
from hoster.operations.forgetting import ForgetRequest, forget_target
from hoster.operations.inventory import look_around, names_with_tag
from hoster.operations.machines import list_machines
from hoster.operations.measuring import measure
from hoster.operations.overview import overview
from hoster.operations.permission import Asking
from hoster.operations.power_batches import start_all, stop_all
from hoster.operations.replicate import replicate
from hoster.operations.restore import RestoreRequest, restore
from hoster.operations.schedules import chosen_by, run_scheduled
from hoster.operations.snapshots import SnapshotRequest, list_snapshots, snapshot_all, snapshot_one
from hoster.operations.space import own_room
from hoster.operations.status import node_status
from hoster.operations.takeover import TakeoverRequest, take_over
from hoster.planning.reset import Wishes
from hoster.records.journal import Journal
from hoster.records.runs import EndedRun, Run, RunKind
from tests.properties.world import Quiet
from tests.unit.operations.nodes import CONFIG, WEB, HosterCluster, NodeContext, Nodes

LOST = "ssd/vm"
HOURLY = SnapshotRequest(SnapshotType.HOURLY, keep=1)
SAID = "the dataset does not exist (is its pool imported?)"
TO_B = SshOptions(Endpoint("b"))


def both(nodes: Nodes, name: str = "a") -> NodeContext:
    """A node that is to have VMs in ssd/vm, too."""
    own = nodes.contexts[name]
    return replace(own, settings=replace(own.settings, datasets=("tank/vm", LOST)))


@pytest.fixture
def context(two_vms: Nodes) -> NodeContext:
    return both(two_vms)


def outcomes(report: Report) -> dict[str, Outcome]:
    return {vm.vm: vm.outcome for vm in report.vms}


def test_the_others_are_snapshotted_and_what_is_missing_fails(two_vms: Nodes, context: NodeContext) -> None:
    report = snapshot_all(context, HOURLY)
    assert outcomes(report) == {"web": Outcome.DONE, "zdb": Outcome.DONE, LOST: Outcome.FAILED}
    (line,) = report.with_outcome(Outcome.FAILED)
    assert (line.reason, line.remedy, exit_code(report)) == (SAID, "zpool import", 3)
    assert two_vms.cluster.nodes["a"].dataset(WEB).snapshots


def test_the_others_are_replicated_and_what_is_missing_fails(two_vms: Nodes, context: NodeContext) -> None:
    request = replace(two_vms.request("b"), names=None)
    report = replicate(context, request, Quiet())
    assert outcomes(report) == {"web": Outcome.DONE, "zdb": Outcome.DONE, LOST: Outcome.FAILED}
    assert two_vms.cluster.nodes["b"].dataset(WEB).snapshots


def test_vms_that_are_named_and_here_are_all_that_is_told_of(two_vms: Nodes, context: NodeContext) -> None:
    assert outcomes(snapshot_all(context, HOURLY, names=["web"])) == {"web": Outcome.DONE}
    assert outcomes(replicate(context, two_vms.request("b"), Quiet())) == {"web": Outcome.DONE}
    assert snapshot_one(context, "web", HOURLY).vms[0].outcome is Outcome.DONE


def test_of_a_vm_that_is_not_here_it_is_said_where_it_may_be(two_vms: Nodes, context: NodeContext) -> None:
    with pytest.raises(OperationFailed, match=r"db: there is no VM .* unless in ssd/vm") as caught:
        look_around(context).named("db")
    assert caught.value.hint == "zpool import"
    for report in (
        snapshot_all(context, HOURLY, names=["db"]),
        replicate(context, replace(two_vms.request("b"), names=("db",)), Quiet()),
    ):
        (line,) = report.vms
        assert (line.outcome, "unless in ssd/vm" in line.reason) == (Outcome.FAILED, True)
    with pytest.raises(OperationFailed, match=r"no branch db\.branch-1 on this node, unless in ssd/vm"):
        destroy_branch(context, "db.branch-1", dry_run=False)


def test_the_others_are_started_and_stopped(context: NodeContext) -> None:
    assert outcomes(start_all(context, asking=Asking(isolated=True)))[LOST] is Outcome.FAILED
    stopped = stop_all(context, force=True)
    assert (outcomes(stopped)[LOST], len(stopped.vms)) == (Outcome.FAILED, 3)


def test_the_others_are_listed(context: NodeContext, capsys: pytest.CaptureFixture[str]) -> None:
    machines = list_machines(context)
    assert [one.vm.name for one in machines.vms] == ["web", "zdb"]
    assert [one.name for one in machines.unusable] == [LOST]
    snapshot_all(context, HOURLY)
    stock = look_around(context)
    assert {one.vm for one in list_snapshots(stock)} == {"web", "zdb"}
    assert list_branches(context) == ()
    with pytest.raises(Exception, match="3"):
        say_missing(stock.missing)
    assert f"{LOST}: {SAID}" in capsys.readouterr().err


def test_a_replica_takes_over_beside_what_is_missing(two_vms: Nodes) -> None:
    two_vms.replicate("a", "b")
    two_vms.cut.add("a")
    context = both(two_vms, "b")
    (taken,) = take_over(context, TakeoverRequest("web"), lambda _: None, lambda _: True).vms
    assert (taken.outcome, two_vms.mark("b", "role")) == (Outcome.DONE, "primary")


def test_branches_expire_and_what_is_missing_is_said_once(context: NodeContext) -> None:
    assert outcomes(expire_branches(context, older_than=timedelta(1), dry_run=False)) == {
        LOST: Outcome.FAILED
    }
    branches = replace(context.settings.branches, expire_after_days=1)
    aged = replace(context, settings=replace(context.settings, branches=branches))
    assert sorted(vm.vm for vm in snapshot_all(aged, HOURLY).vms) == [LOST, "web", "zdb"]
    assert outcomes(snapshot_all(aged, HOURLY, names=["web"])) == {"web": Outcome.UNCHANGED}


@pytest.mark.parametrize(
    ("selection", "told"),
    [
        (Selection(production=True), True),
        (Selection(tags=("db",)), True),
        (Selection(vms=("web",)), False),
    ],
)
def test_a_schedule_tells_of_it_where_its_vms_may_be_there(
    context: NodeContext, selection: Selection, told: bool
) -> None:
    schedule = Schedule("nightly", selection, {SnapshotType.HOURLY: 1})
    job = ScheduledJob(schedule, SnapshotType.HOURLY)
    report = run_scheduled(context, job, chosen_by(context, look_around(context), job), Quiet())
    assert isinstance(report, Report)
    assert (LOST in outcomes(report)) is told


def test_vms_with_a_tag_may_be_there(two_vms: Nodes, context: NodeContext) -> None:
    with pytest.raises(OperationFailed, match="has the tag 'db', unless in ssd/vm"):
        names_with_tag(context, "db")
    (two_vms.folder / "a/web/vm_config.json").write_text(json.dumps({**CONFIG, "tags": ["db"]}))
    assert names_with_tag(context, "db") == ("web", LOST)


def test_where_all_are_missing_nothing_is_done(two_vms: Nodes) -> None:
    own = two_vms.contexts["a"]
    context = replace(own, settings=replace(own.settings, datasets=("usb/vm", LOST)))
    with pytest.raises(DatasetMissing, match="does not exist"):
        look_around(context)
    with pytest.raises(DatasetMissing, match="no such pool"):
        snapshot_all(context, HOURLY)


class _Failing(HosterCluster):
    """A listing of what is there is ended in the middle."""

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        completed = HosterCluster.run(self, argv, stdin=stdin, timeout_s=timeout_s)
        if "-r" in argv and LOST not in argv:
            return Completed(tuple(argv), 255, "", "client_loop: send disconnect: Broken pipe")
        return completed


def test_a_listing_that_fails_otherwise_is_never_taken_for_all_there_is(context: NodeContext) -> None:
    cluster = context.runner
    assert isinstance(cluster, HosterCluster)
    failing = _Failing(cluster.nodes)
    with pytest.raises(HosterError, match="Broken pipe") as caught:
        look_around(replace(context, zfs=type(context.zfs)(context.zfs.host, failing)))
    assert not isinstance(caught.value, ZfsError)


def test_who_must_know_all_vms_is_refused(two_vms: Nodes, context: NodeContext) -> None:
    two_vms.replicate("a", "b")
    takings: tuple[Callable[[], object], ...] = (
        lambda: deploy(context, Order("new", disk_size=1024)),
        lambda: adopt(context, "web"),
        lambda: forget_target(context, ForgetRequest("web", "b")),
        lambda: restore(context, RestoreRequest("web", TO_B, called="old"), Quiet(), lambda _: None),
        lambda: cireset(context, "web", Wishes(), TakeoverRequest("web"), lambda _: None, lambda _: False),
    )
    for taking in takings:
        with pytest.raises(Refused, match="ssd/vm does not exist") as caught:
            taking()
        assert "take ssd/vm from datasets" in caught.value.hint
    assert "tank/vm/old" not in two_vms.cluster.nodes["a"].datasets


def test_status_and_overview_show_it_and_all_the_rest(context: NodeContext) -> None:
    status = node_status(context)
    assert (status.verdict, [vm.vm for vm in status.vms]) == ("critical", ["web", "zdb"])
    assert f"{LOST}: {SAID}" in status.problems
    assert not any(SAID in problem for problem in node_status(context, "web").problems)
    assert [sample.pool for sample in own_room(context)] == ["tank"]
    seen = overview(context)
    assert any(SAID in wrong.what for wrong in seen.wrong)
    assert [vm.name for vm in seen.vms] == ["web", "zdb"]


def test_the_check_of_the_configuration_finds_it(context: NodeContext) -> None:
    schedule = Schedule("nightly", Selection(vms=("db",)), {SnapshotType.HOURLY: 1})
    checked = check_node(replace(context, settings=replace(context.settings, schedules=(schedule,))))
    assert any(one.problem == f"{LOST}: {SAID}" and one.hint == "zpool import" for one in checked.problems)
    assert any("no VM 'db' on this node, unless in ssd/vm" in one.problem for one in checked.problems)


def test_replicas_of_vms_that_are_not_seen_still_get_late(two_vms: Nodes, context: NodeContext) -> None:
    """With the dataset gone from the settings they are gone, and nothing of them is late."""
    report = two_vms.replicate("a", "b")
    lost = replace(report, vm="db", vm_id="7d")
    missing = look_around(context).missing[0].report
    run = EndedRun(Run(RunKind.REPLICATION, "b", "b"), 1.0, 2.0, 3, "", (report, lost, missing))
    Journal(context.settings.state_dir).write(run)

    def measured(of: NodeContext) -> tuple[set[str], float]:
        samples = measure(of).of_runs
        due = {s.labels["vm"] for s in samples if s.metric == "hoster_replication_due_timestamp_seconds"}
        return due, next(s.value for s in samples if s.metric == "hoster_look_success")

    assert measured(context) == ({"web", "db"}, 0)
    assert measured(two_vms.contexts["a"]) == ({"web"}, 1)
    assert {one.vm for one in Journal(context.settings.state_dir).replicas()} == {"web", "db"}
