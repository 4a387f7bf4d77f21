"""Scheduled jobs on model nodes: whom they take, when they are skipped, what is left behind."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.errors import ExitCode, NoAnswer, UsageError
from hoster.model.names import Endpoint, SnapshotType
from hoster.model.plan import Outcome, Report
from hoster.model.promises import Promises
from hoster.model.schedules import Schedule, ScheduledJob, Selection, Target, window
from hoster.operations.context import Context
from hoster.operations.installing import Installed
from hoster.operations.inventory import look_around
from hoster.operations.promises import Promise, promise_of
from hoster.operations.recording import recorded
from hoster.operations.schedules import (
    Skipped,
    chosen_by,
    named_job,
    run_of,
    run_scheduled,
    show_jobs,
)
from hoster.operations.status import node_status
from hoster.planning.installation import Program
from hoster.records.journal import Journal
from tests.properties.world import Quiet
from tests.unit.operations.nodes import Nodes

TO_B = Target("far", Endpoint("b"))
WEB = Schedule("web", Selection(vms=("web",)), {SnapshotType.DAILY: 2}, (TO_B,))
ALL = Schedule("all", Selection(production=True), {SnapshotType.DAILY: 2, SnapshotType.HOURLY: 2}, (TO_B,))


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def context_with(nodes: Nodes, *schedules: Schedule, node: str = "a") -> Context:
    settings = replace(
        nodes.contexts[node].settings,
        schedules=schedules,
        state_dir=nodes.folder / "state",
        marker_dir=nodes.folder / "markers",
    )
    return replace(nodes.contexts[node], settings=settings)


def run(context: Context, job: ScheduledJob) -> Report | Skipped:
    return run_scheduled(context, job, chosen_by(context, look_around(context), job), Quiet())


def run_recorded(context: Context, job: ScheduledJob) -> None:
    """As the command does it."""
    with recorded(context, run_of(job), lambda problem: None) as recorder:
        result = run(context, job)
        if isinstance(result, Skipped):
            recorder.skip(result.reason)
        else:
            recorder.report(result, ExitCode.DONE)


def with_target(target: Target) -> Schedule:
    return replace(WEB, targets=(target,))


def test_snapshots_are_taken_and_pruned_by_the_schedule(nodes: Nodes) -> None:
    context = context_with(nodes, WEB)
    for _ in range(3):
        nodes.write("a")
        report = run(context, ScheduledJob(WEB, SnapshotType.DAILY))
        assert isinstance(report, Report)
        assert [(vm.vm, vm.outcome) for vm in report.vms] == [("web", Outcome.DONE)]
    assert [s.name.partition("_")[0] for s in look_around(context).named("web").dataset.snapshots] == [
        "daily"
    ] * 2


def test_a_target_gets_everything_under_the_jobs_name(nodes: Nodes) -> None:
    context = context_with(nodes, WEB)
    job = ScheduledJob(WEB, TO_B)
    run_recorded(context, job)
    assert nodes.content("b") == nodes.content("a")
    (past,) = Journal(context.settings.state_dir).runs()
    assert (past.job, past.node, past.exit_code, past.reason) == ("web_far", "b", 0, "")


def test_a_replica_is_left_out_also_where_it_is_named(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    context = context_with(nodes, WEB, ALL, node="b")
    for schedule in (WEB, ALL):
        assert chosen_by(context, look_around(context), ScheduledJob(schedule, TO_B)).names == ()


def test_what_another_node_has_taken_over_is_said_by_replications_only(nodes: Nodes) -> None:
    nodes.cluster.nodes["a"].dataset("tank/vm/web").properties["hoster:role"] = "superseded"
    context = context_with(nodes, ALL)
    stock = look_around(context)
    assert chosen_by(context, stock, ScheduledJob(ALL, TO_B)).names == ("web",)
    assert chosen_by(context, stock, ScheduledJob(ALL, SnapshotType.DAILY)).names == ()


def test_a_name_that_is_no_vm_is_a_failure(nodes: Nodes) -> None:
    schedule = replace(WEB, selection=Selection(vms=("web", "wbe")))
    context = context_with(nodes, schedule)
    for what in (SnapshotType.DAILY, TO_B):
        report = run(context, ScheduledJob(schedule, what))
        assert isinstance(report, Report)
        outcomes = {vm.vm: (vm.outcome, vm.reason) for vm in report.vms}
        assert outcomes["wbe"] == (Outcome.FAILED, "there is no VM of that name on this node")
        assert outcomes["web"][0] is Outcome.DONE


def test_a_vm_that_cannot_be_read_may_be_a_production_one(nodes: Nodes) -> None:
    (nodes.folder / "a/odd").mkdir()
    (nodes.folder / "a/odd/vm_config.json").write_text("{")
    nodes.cluster.nodes["a"].create("tank/vm/odd", {})
    context = context_with(nodes, WEB, ALL)
    stock = look_around(context)
    assert chosen_by(context, stock, ScheduledJob(ALL, SnapshotType.HOURLY)).names == ("odd", "web")
    assert chosen_by(context, stock, ScheduledJob(WEB, SnapshotType.DAILY)).names == ("web",)
    report = run(context, ScheduledJob(ALL, SnapshotType.HOURLY))
    assert isinstance(report, Report)
    assert {vm.vm: vm.outcome for vm in report.vms} == {"odd": Outcome.FAILED, "web": Outcome.DONE}


def test_a_vm_in_two_schedules_is_taken_by_the_first(nodes: Nodes) -> None:
    context = context_with(nodes, WEB, ALL)
    stock = look_around(context)
    chosen = chosen_by(context, stock, ScheduledJob(ALL, SnapshotType.DAILY))
    assert (chosen.names, chosen.left_to) == ((), {"web": "web"})
    assert chosen_by(context, stock, ScheduledJob(ALL, SnapshotType.HOURLY)).names == ("web",)
    assert chosen_by(context, stock, ScheduledJob(WEB, SnapshotType.DAILY)).names == ("web",)


def test_outside_of_its_windows_a_target_is_left_alone(nodes: Nodes) -> None:
    schedule = with_target(replace(TO_B, windows=(window("22:00-06:00"),)))
    context, job = context_with(nodes, schedule), ScheduledJob(schedule, schedule.targets[0])
    assert run(context, job) == Skipped("far may be reached only in its windows: 22:00-06:00")
    assert nodes.cluster.nodes["a"].dataset("tank/vm/web").snapshots == []
    nodes.clock = datetime(2024, 1, 1, 22)
    assert isinstance(run(context, job), Report)
    assert nodes.content("b") == nodes.content("a")


def test_a_node_that_does_not_answer_is_an_error_unless_it_may_be_off(nodes: Nodes) -> None:
    nodes.cut.add("b")
    context = context_with(nodes, WEB)
    with pytest.raises(NoAnswer):
        run(context, ScheduledJob(WEB, TO_B))
    schedule = with_target(replace(TO_B, when_reachable=True))
    assert run(context, ScheduledJob(schedule, schedule.targets[0])) == Skipped(
        "far is not reachable: b: it does not answer"
    )


def test_a_pool_that_is_not_imported_is_not_reachable(nodes: Nodes) -> None:
    usb = Target("usb", Endpoint("local"), "usb/vm", when_reachable=True)
    schedule = with_target(usb)
    context = context_with(nodes, schedule)
    said = run(context, ScheduledJob(schedule, usb))
    assert said == Skipped("usb is not reachable: the pool usb is not imported")


def test_a_skipped_run_is_history_and_neither_success_nor_failure(nodes: Nodes) -> None:
    schedule = with_target(replace(TO_B, when_reachable=True))
    context, job = context_with(nodes, schedule), ScheduledJob(schedule, schedule.targets[0])
    marker = context.settings.marker_dir / "ERROR_web_far"
    journal = Journal(context.settings.state_dir)
    run_recorded(context, job)
    marker.parent.mkdir()
    marker.write_text("an earlier failure\n")
    standing, replicas = journal.jobs(), journal.replicas()
    nodes.cut.add("b")
    run_recorded(context, job)
    assert marker.read_text() == "an earlier failure\n"
    assert (journal.jobs(), journal.replicas()) == (standing, replicas)
    past = journal.runs()[0]
    assert (past.exit_code, past.reason) == (0, "far is not reachable: b: it does not answer")
    nodes.cut.clear()
    run_recorded(context, job)
    assert not marker.exists()


def test_a_job_is_found_by_its_words(nodes: Nodes) -> None:
    context = context_with(nodes, WEB, ALL)
    assert named_job(context, "all", SnapshotType.HOURLY).name == "all_hourly"
    assert named_job(context, "web", "far").name == "web_far"
    for schedule, what, said in (
        ("al", "far", "there is no schedule 'al', there are: web, all"),
        ("web", SnapshotType.HOURLY, "the schedule web has no 'hourly', it has: daily"),
        ("web", "daily", "the schedule web has no 'daily', it has: far"),
    ):
        with pytest.raises(UsageError) as caught:
            named_job(context, schedule, what)
        assert said in caught.value.message


def test_jobs_are_shown_with_their_vms_and_their_next_runs(nodes: Nodes) -> None:
    context = context_with(nodes, WEB, ALL)
    shown = show_jobs(context, Installed(None, {}), Program("/bin/hoster", "/etc/x"))
    assert [(job.job, job.kind, job.endpoint, job.vms, job.left_to) for job in shown] == [
        ("web_daily", "snapshots", "", ("web",), {}),
        ("web_far", "replication", "b", ("web",), {}),
        ("all_hourly", "snapshots", "", ("web",), {}),
        ("all_daily", "snapshots", "", (), {"web": "web"}),
        ("all_far", "replication", "b", (), {"web": "web"}),
    ]
    moments = [datetime(2024, 1, 1, hour, 5).timestamp() for hour in (12, 13, 14)]
    assert shown[2].next == tuple(moments)
    assert {job.installed for job in shown} == {"none"}


def test_the_promise_is_that_of_the_schedule_or_else_of_the_node(nodes: Nodes) -> None:
    night = (window("22:00-06:00"),)
    schedule = with_target(replace(TO_B, windows=night, rpo_minutes=90))
    context = context_with(nodes, schedule)
    settings = replace(context.settings, promises=Promises(30, {"web": 45}))
    web = look_around(context).named("web")
    assert promise_of(settings, "web", web, "b", "tank/vm/web") == Promise(5400, night)
    assert promise_of(settings, "web", web, "c", "tank/vm/web") == Promise(2700)
    assert promise_of(settings, "web", None, "b", "tank/vm/web") == Promise(2700)
    without = replace(settings, schedules=(with_target(replace(TO_B, windows=night)),))
    assert promise_of(without, "web", web, "b", "tank/vm/web") == Promise(2700, night)
    assert Promise(60).late_at(100.0) == 160.0
    assert Promise(60).late_at(None) is None


def test_a_target_that_nothing_was_sent_to_yet_is_in_the_status(nodes: Nodes) -> None:
    context = context_with(nodes, WEB)
    (target,) = node_status(context).vms[0].targets
    assert (target.node, target.dataset, target.late_at) == ("b", "tank/vm/web", None)
    assert (target.verdict, target.why) == ("critical", "nothing has arrived yet")
    run_recorded(context, ScheduledJob(WEB, TO_B))
    (target,) = node_status(context).vms[0].targets
    assert target.verdict == "ok"
    assert target.data_at is not None
    assert target.late_at == target.data_at + target.promise_s
