"""The metrics of a scripted node: what they say of VMs, replicas and pools, each one of the table."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.config.settings import Settings
from hoster.host.locks import Locks
from hoster.host.reach import LocalHost
from hoster.model.names import endpoint
from hoster.model.plan import Common, Ground, Outcome, VmReport
from hoster.model.promises import Promises
from hoster.model.schedules import Schedule, Selection, Target
from hoster.model.storage import Dataset, Role
from hoster.operations.context import Context
from hoster.operations.measuring import measure
from hoster.records.journal import Journal
from hoster.records.markers import raise_marker
from hoster.records.metrics import METRICS, NODE_METRICS, Sample, exposition
from hoster.records.runs import EndedRun, Run, RunKind
from hoster.testing import VM_ID, Says, ScriptedRunner, dataset, guid_of, listing
from hoster.zfs.store import ZfsStore

POOLS = "tank\t1000\t400\t600\t7\t40\t1.25\tONLINE\n"
STATUS = """\
  pool: tank
  scan: scrub repaired 0B in 00:00:01 with 0 errors on Sun Nov  8 00:24:02 2026
"""
RUN = Run(RunKind.REPLICATION, "to_b", "b")


class Node:
    """This node: its ZFS as a script has it, its journal and markers real."""

    def __init__(self, folder: Path, *datasets: Dataset, pools: str = POOLS) -> None:
        self.runner = ScriptedRunner()
        self.runner.answer(("zfs", "get"), Says(listing(dataset("tank/vm"), *datasets)))
        self.runner.answer(("zpool", "list"), Says(pools))
        self.runner.answer(("zpool", "status"), Says(STATUS))
        settings = Settings(
            Path("/nowhere"),
            ("tank/vm",),
            state_dir=folder / "state",
            run_dir=folder / "run",
            marker_dir=folder / "markers",
            promises=Promises(60, {"web": 5}),
        )
        zfs = ZfsStore(LocalHost(), self.runner)
        self.context = Context(settings, "node1", self.runner, zfs, Locks(folder / "locks"))
        self.journal = Journal(settings.state_dir)

    def ran(self, at: float, *vms: VmReport, code: int = 0) -> None:
        assert self.journal.write(EndedRun(RUN, at, at + 5, code, "", vms)) == ""

    @property
    def samples(self) -> dict[str, float]:
        """All samples, as they are written."""
        measured = measure(self.context)
        text = exposition((*measured.of_runs, *measured.of_node)).decode()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        found = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
        assert len(found) == len(lines), "one is there twice"
        return found


def vm(history: str, name: str = "web", role: Role = Role.PRIMARY) -> Dataset:
    return dataset(f"tank/vm/{name}", history, role)


def report(word: str = "d1", **more: object) -> VmReport:
    done = VmReport(
        "web",
        Outcome.DONE,
        sent_bytes=10,
        seconds=1.5,
        vm_id=VM_ID,
        target="tank/vm/web",
        newest=Common("daily", str(guid_of(word)), 900),
    )
    return replace(done, **more)


REPLICA = '{dataset="tank/vm/web",target="b",vm="web"}'


def test_a_replica_is_measured_by_what_is_known_and_by_what_was_written_since(tmp_path: Path) -> None:
    node = Node(tmp_path, vm("d1+100 d2+10 ~3"))
    node.ran(1000.0, report())
    expected = {
        "newest_version_timestamp_seconds": 900,
        "last_seen_equal_timestamp_seconds": 1000,
        "data_timestamp_seconds": 1000,
        "promise_seconds": 300,
        "due_timestamp_seconds": 1300,
        "behind_bytes": 13,
        "last_run_timestamp_seconds": 1005,
        "last_success_timestamp_seconds": 1005,
        "last_duration_seconds": 1.5,
        "last_sent_bytes": 10,
        "failures_since_success": 0,
    }
    samples = node.samples
    assert {key: samples[f"hoster_replication_{key}{REPLICA}"] for key in expected} == expected
    outcomes = {key: value for key, value in samples.items() if "last_outcome" in key}
    assert len(outcomes) == 5
    assert [key for key, value in outcomes.items() if value] == [
        'hoster_replication_last_outcome{dataset="tank/vm/web",outcome="done",target="b",vm="web"}'
    ]
    assert samples['hoster_vm_targets{vm="web"}'] == 1


def test_a_vm_with_a_replica_in_another_pool_of_its_node_is_measured_by_itself(tmp_path: Path) -> None:
    own, copy = vm("d1+100 d2+10 ~3"), dataset("ssd/vm/web", "d1", Role.REPLICA)
    node = Node(tmp_path, own, dataset("ssd/vm"), copy)
    node.ran(1000.0, report())
    target = Target("b", endpoint("b"), rpo_minutes=10)
    policy = Schedule("all", Selection(production=True), targets=(target,))
    settings = replace(node.context.settings, datasets=("tank/vm", "ssd/vm"), schedules=(policy,))
    text = exposition(measure(replace(node.context, settings=settings)).of_runs).decode()
    assert f"hoster_replication_due_timestamp_seconds{REPLICA} 1600.0" in text
    assert f"hoster_replication_behind_bytes{REPLICA} 13.0" in text
    assert 'role="primary",vm="web"' in text
    assert text.count("hoster_vm_info{") == 1


def test_a_refusal_is_measured_with_its_ground(tmp_path: Path) -> None:
    node = Node(tmp_path, vm("d1"))
    node.ran(1000.0, report(outcome=Outcome.REFUSED, ground=Ground.SPLIT, newest=None), code=10)
    samples = node.samples
    labels = '{dataset="tank/vm/web",ground="split",target="b",vm="web"}'
    assert samples[f"hoster_replication_refused{labels}"] == 1
    assert samples[f"hoster_replication_failures_since_success{REPLICA}"] == 1
    assert f"hoster_replication_newest_version_timestamp_seconds{REPLICA}" not in samples
    assert f"hoster_replication_last_success_timestamp_seconds{REPLICA}" not in samples
    assert samples['hoster_job_last_exit_code{kind="replication",name="to_b"}'] == 10
    assert samples['hoster_vm_targets{vm="web"}'] == 0


@pytest.mark.parametrize(
    "here",
    [
        [],
        [vm("d1", role=Role.SUPERSEDED)],
        [replace(vm("d1"), marks=replace(vm("d1").marks, vm_id="another"))],
    ],
)
def test_of_a_vm_that_is_gone_or_anothers_nothing_is_late(tmp_path: Path, here: list[Dataset]) -> None:
    node = Node(tmp_path, *here)
    node.ran(1000.0, report())
    assert [key for key in node.samples if key.startswith("hoster_replication_")] == []


def test_snapshots_are_counted_by_type_with_their_oldest_and_newest(tmp_path: Path) -> None:
    samples = Node(tmp_path, vm("d1 manual d2* h3")).samples
    counts = {key: value for key, value in samples.items() if key.startswith("hoster_vm_snapshots")}
    assert {key: value for key, value in counts.items() if value} == {
        'hoster_vm_snapshots{type="daily",vm="web"}': 2,
        'hoster_vm_snapshots{type="hourly",vm="web"}': 1,
        'hoster_vm_snapshots{type="other",vm="web"}': 1,
    }
    assert counts['hoster_vm_snapshots{type="weekly",vm="web"}'] == 0
    daily = '{type="daily",vm="web"}'
    oldest, newest = (
        samples[f"hoster_vm_{end}_snapshot_timestamp_seconds{daily}"] for end in ("oldest", "newest")
    )
    assert newest - oldest == 60
    assert samples['hoster_vm_held_snapshots{vm="web"}'] == 1


def test_what_a_vm_is_here_is_told(tmp_path: Path) -> None:
    samples = Node(
        tmp_path, vm("d1"), vm("d1", "db", Role.SUPERSEDED), dataset("tank/vm/bare", "", None)
    ).samples
    assert samples['hoster_vm_info{parent="node1",production="yes",role="primary",vm="web"}'] == 1
    assert samples['hoster_vm_info{parent="node1",production="yes",role="superseded",vm="db"}'] == 1
    assert samples["hoster_vms_unusable"] == 0


def test_branches_are_counted_with_the_vm_that_they_are_of(tmp_path: Path) -> None:
    branch = replace(vm("d3", "web.branch-20240131T000000Z", Role.BRANCH), used=77)
    samples = Node(tmp_path, vm("d1"), vm("d1", "db"), branch).samples
    assert samples['hoster_vm_branches{vm="web"}'] == 1
    assert samples['hoster_vm_branch_bytes{vm="web"}'] == 77
    assert samples['hoster_vm_branches{vm="db"}'] == 0


def test_pools_are_measured_and_every_one_of_them_in_the_originals_form_too(tmp_path: Path) -> None:
    samples = Node(tmp_path, pools=POOLS + "fast\t10\t1\t9\t-\t10\t1.00\tDEGRADED\n").samples
    assert samples['hoster_pool_free_bytes{pool="tank"}'] == 600
    assert samples['hoster_pool_fragmentation_ratio{pool="tank"}'] == 0.07
    assert samples['hoster_pool_healthy{pool="fast"}'] == 0
    assert samples['hoster_pool_health{pool="fast",state="DEGRADED"}'] == 1
    assert 'hoster_pool_fragmentation_ratio{pool="fast"}' not in samples
    original = {key: value for key, value in samples.items() if key.startswith("zpool_info")}
    assert original['zpool_info{info="cap",pool="tank"}'] == 40
    assert original['zpool_info{info="healthy",pool="fast"}'] == 0
    assert len(original) == 14


def test_a_pool_that_is_gone_is_not_healthy_and_takes_no_other_with_it(tmp_path: Path) -> None:
    node = Node(tmp_path)
    gone = Says("", "cannot open 'fast': no such pool\n", 1)
    node.runner = ScriptedRunner()
    node.runner.answer(("zfs", "get"), Says("", "cannot open 'fast/vm': dataset does not exist\n", 1))
    node.runner.answer(lambda argv: argv[0] == "zpool" and "fast" in argv, gone)
    node.runner.answer(("zpool", "list"), Says(POOLS))
    node.runner.answer(("zpool", "status"), Says(STATUS))
    zfs = ZfsStore(LocalHost(), node.runner)
    settings = replace(node.context.settings, datasets=("tank/vm", "fast/vm"))
    node.context = replace(node.context, settings=settings, runner=node.runner, zfs=zfs)
    samples = node.samples
    assert samples['hoster_pool_healthy{pool="fast"}'] == 0
    assert samples['hoster_pool_healthy{pool="tank"}'] == 1
    assert samples["hoster_look_success"] == 0


def test_the_originals_counters_count_what_is_here(tmp_path: Path) -> None:
    node = Node(tmp_path, vm("d1"), vm("d1", "db", Role.REPLICA))
    samples = node.samples
    counters = {key: value for key, value in samples.items() if key.startswith("hoster{counter")}
    assert counters == {
        'hoster{counter="vms_all"}': 2,
        'hoster{counter="vms_online"}': 0,
        'hoster{counter="vms_backup"}': 1,
        'hoster{counter="vms_offline_in_production"}': 1,
    }


def test_a_marker_is_measured(tmp_path: Path) -> None:
    node = Node(tmp_path)
    raise_marker(node.context.settings.marker_dir, "to_b", ["x"], node.context.now())
    assert node.samples['hoster_job_error_marker{name="to_b"}'] == 1


def test_what_cannot_be_found_out_is_said_and_the_rest_is_there(tmp_path: Path) -> None:
    node = Node(tmp_path, vm("d1"))
    node.ran(1000.0, report())
    node.runner = ScriptedRunner()
    node.runner.answer(("zfs", "get"), Says("", "internal error: pool I/O is suspended\n", 1))
    node.runner.answer(("zpool",), Says("", "internal error\n", 1))
    context = replace(node.context, zfs=ZfsStore(LocalHost(), node.runner), runner=node.runner)
    measured = measure(context)
    text = exposition(measured.of_runs).decode()
    assert "hoster_look_success 0.0" in text
    assert f"hoster_replication_data_timestamp_seconds{REPLICA} 1000.0" in text
    assert "suspended" in measured.problems[0]
    assert measured.of_node == ()
    node.journal.path.write_text("no database at all, and a long text of it" * 10)
    node.context.settings.marker_dir.write_text("")
    measured = measure(context)
    assert "hoster_journal_success 0.0" in exposition(measured.of_runs).decode()
    assert len(measured.problems) == 4


def test_words_that_people_chose_are_escaped(tmp_path: Path) -> None:
    node = Node(tmp_path)
    (node.context.settings.marker_dir).mkdir()
    (node.context.settings.marker_dir / 'ERROR_a"b\\c\nd').touch()
    measured = measure(node.context)
    assert 'hoster_job_error_marker{name="a\\"b\\\\c\\nd"} 1.0' in exposition(measured.of_runs).decode()


def test_runs_and_nodes_have_metrics_of_their_own_so_that_no_file_takes_the_others_away(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path, vm("d1"))
    node.ran(1000.0, report())
    raise_marker(node.context.settings.marker_dir, "to_b", ["x"], node.context.now())
    node.ran(2000.0, report(outcome=Outcome.REFUSED, ground=Ground.SPLIT), code=10)
    measured = measure(node.context)
    of_runs = {sample.metric for sample in measured.of_runs}
    of_node = {sample.metric for sample in measured.of_node}
    assert of_node == NODE_METRICS
    assert of_runs | of_node == {metric.name for metric in METRICS}
    assert not of_runs & of_node


def test_a_sample_of_a_metric_that_is_not_in_the_table_is_a_bug() -> None:
    with pytest.raises(KeyError):
        exposition([Sample("hoster_unheard_of", {}, 1)])
    with pytest.raises(AssertionError):
        exposition([Sample("hoster_look_success", {"vm": "web"}, 1)])


def test_when_the_pool_was_read_whole_is_measured(tmp_path: Path) -> None:
    at = datetime(2026, 11, 8, 0, 24, 2).astimezone().timestamp()
    assert Node(tmp_path).samples['hoster_pool_verified_timestamp_seconds{pool="tank"}'] == at
