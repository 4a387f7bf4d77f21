"""What a run leaves behind: journal, marker, metrics; and that none of it can stop a run."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.errors import Busy, ExitCode, HosterError, OperationFailed, Unreachable
from hoster.host.ssh import SshOptions
from hoster.model.names import Endpoint, SnapshotType
from hoster.model.plan import Outcome, Report, VmReport
from hoster.operations.context import Context
from hoster.operations.recording import jobs_folder, recorded
from hoster.operations.replicate import replicate
from hoster.operations.request import ReplicationRequest
from hoster.operations.snapshots import SnapshotRequest, snapshot_all
from hoster.records.job_states import JobState, running_jobs
from hoster.records.journal import Journal
from hoster.records.runs import Run, RunKind
from tests.properties.cluster import Fault
from tests.properties.world import Quiet, World
from tests.unit.records.disks import make_read_only, small_disk

RUN = Run(RunKind.REPLICATION, "to_a", "a")
REQUEST = ReplicationRequest(SshOptions(Endpoint("a")), ("web",))


class Node:
    """The simulated source, with places of its own for what runs leave behind."""

    def __init__(self, folder: Path) -> None:
        self.world = World(0, folder / "locks")
        self.folder = folder
        settings = replace(
            self.world.context.settings,
            state_dir=folder / "state",
            run_dir=folder / "run",
            marker_dir=folder / "markers",
            textfile_dir=folder / "metrics",
        )
        (folder / "metrics").mkdir()
        self.context: Context = replace(self.world.context, settings=settings)
        self.warnings: list[str] = []

    @property
    def journal(self) -> Journal:
        return Journal(self.context.settings.state_dir)

    @property
    def marker(self) -> Path:
        return self.context.settings.marker_dir / "ERROR_to_a"

    @property
    def metrics(self) -> str:
        return (self.folder / "metrics" / "hoster.prom").read_text()

    def replicate(self, *, code: ExitCode = ExitCode.DONE, dry_run: bool = False) -> Report:
        with recorded(self.context, RUN, self.warnings.append, dry_run=dry_run) as recorder:
            request = replace(REQUEST, dry_run=dry_run)
            report = replicate(self.context, request, recorder.watching(Quiet()))
            recorder.report(report, code)
        return report


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def end_with(node: Node, error: BaseException) -> None:
    with recorded(node.context, RUN, node.warnings.append):
        raise error


def test_a_run_is_in_the_journal_with_what_each_vm_now_has_there(node: Node) -> None:
    report = node.replicate()
    newest = node.world.web.snapshots[-1]
    (run,) = node.journal.runs()
    assert (run.job, run.node, run.kind, run.exit_code, run.done) == ("to_a", "a", "replication", 0, 1)
    (web,) = node.journal.replicas()
    assert (web.vm, web.vm_id, web.target) == ("web", report.vms[0].vm_id, "tank/vm/web")
    assert web.newest is not None
    assert (web.newest.name, web.newest.guid) == (newest.name, str(newest.guid))
    assert web.equal_at == run.started
    assert node.warnings == []


def test_an_idle_vm_is_seen_equal_again_by_a_run_that_sends_nothing(node: Node) -> None:
    node.replicate()
    first = node.journal.replicas()[0]
    report = node.replicate()
    second = node.journal.replicas()[0]
    assert report.vms[0].sent == ()
    assert first.equal_at is not None
    assert second.equal_at is not None
    assert second.equal_at > first.equal_at
    assert (second.newest, second.vm_id) == (first.newest, first.vm_id)


def test_what_arrived_before_the_stream_was_cut_counts_and_equal_they_were_not(node: Node) -> None:
    node.replicate()
    equal_at = node.journal.replicas()[0].equal_at
    node.world.write(8)
    node.world.snapshot(SnapshotType.HOURLY, None)
    node.world.cluster.begin(Fault("stream", 5))
    report = node.replicate(code=ExitCode.FAILED)
    assert report.vms[0].outcome is Outcome.FAILED
    (web,) = node.journal.replicas()
    assert (web.equal_at, web.failures) == (equal_at, 1)
    assert web.failure == report.vms[0].reason


def test_a_failure_raises_the_marker_with_its_reason_and_a_success_takes_it_away(node: Node) -> None:
    node.world.snapshot(SnapshotType.HOURLY, None)
    node.world.cluster.begin(Fault("stream", 5))
    report = node.replicate(code=ExitCode.FAILED)
    lines = node.marker.read_text().splitlines()
    assert lines[0].endswith("to_a failed")
    assert lines[1:] == ["exit code 3", f"web: failed: {report.vms[0].reason}"]
    assert 'hoster_job_error_marker{name="to_a"} 1.0' in node.metrics
    node.world.cluster.begin()
    node.replicate()
    assert not node.marker.exists()
    assert "hoster_job_error_marker{" not in node.metrics


@pytest.mark.parametrize(
    ("error", "code", "raised"),
    [
        (Unreachable("a does not answer"), 12, True),
        (HosterError("odd"), 1, True),
        (KeyError("x"), 1, True),
        (Busy("another run"), 11, False),
        (KeyboardInterrupt(), 130, False),
        (SystemExit(143), 143, False),
    ],
)
def test_a_run_that_ends_as_a_whole_is_recorded_and_ends_as_it_would(
    node: Node, error: BaseException, code: int, raised: bool
) -> None:
    with pytest.raises(type(error)):
        end_with(node, error)
    (run,) = node.journal.runs()
    assert run.exit_code == code
    assert run.reason
    assert node.marker.exists() is raised


def test_a_run_that_is_busy_leaves_the_marker_of_the_one_before(node: Node) -> None:
    with pytest.raises(Unreachable):
        end_with(node, Unreachable("a does not answer"))
    before = node.marker.read_text()
    with pytest.raises(Busy):
        end_with(node, Busy("another run"))
    assert node.marker.read_text() == before


def test_snapshots_are_in_the_journal_and_raise_no_marker(node: Node) -> None:
    run = Run(RunKind.SNAPSHOT, "snapshot_all_hourly")
    with recorded(node.context, run, node.warnings.append) as recorder:
        report = snapshot_all(node.context, SnapshotRequest(SnapshotType.HOURLY, None))
        recorder.report(report, ExitCode.FAILED)
    (found,) = node.journal.runs()
    assert (found.job, found.kind, found.node) == ("snapshot_all_hourly", "snapshot", "")
    assert not node.marker.parent.exists()
    assert 'hoster_vm_snapshots{type="hourly",vm="web"} 1.0' in node.metrics


def test_a_dry_run_leaves_nothing_behind(node: Node) -> None:
    node.marker.parent.mkdir()
    node.marker.touch()
    node.replicate(dry_run=True)
    with (
        pytest.raises(Unreachable),
        recorded(node.context, RUN, node.warnings.append, dry_run=True),
    ):
        raise Unreachable("x")
    assert node.journal.runs() == ()
    assert node.marker.exists()
    assert not jobs_folder(node.context).exists()
    assert list((node.folder / "metrics").iterdir()) == []


class Watching(Quiet):
    """Looks at the jobs of the node whenever something happens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[tuple[JobState, ...]] = []

    def begin(self, sizes: Mapping[str, int]) -> None:
        self.seen.append(running_jobs(self.folder))

    def finish(self, report: VmReport) -> None:
        self.seen.append(running_jobs(self.folder))


def test_a_job_shows_what_it_is_doing_until_it_ends(node: Node) -> None:
    folder = jobs_folder(node.context)
    watching = Watching(folder)
    with recorded(node.context, RUN, node.warnings.append) as recorder:
        (waiting,) = running_jobs(folder)
        assert (waiting.job, waiting.pid, waiting.node, waiting.vms) == ("to_a", os.getpid(), "a", ())
        observer = recorder.watching(watching)
        recorder.report(replicate(node.context, REQUEST, observer), ExitCode.DONE)
    (sending,) = watching.seen[0]
    assert [(vm.vm, vm.estimated_bytes, vm.sent_bytes) for vm in sending.vms] == [("web", 8 + 624, 0)]
    assert running_jobs(folder) == ()
    assert list(folder.iterdir()) == []


def test_progress_is_written_at_most_once_a_second(node: Node) -> None:
    folder = jobs_folder(node.context)
    with recorded(node.context, RUN, node.warnings.append) as recorder:
        observer = recorder.watching(Quiet())
        observer.begin({"web": 10_000})
        written = running_jobs(folder)[0].written_at
        for _ in range(1000):
            observer.advance("web", 1)
        assert running_jobs(folder)[0].written_at == written


def test_a_run_that_nobody_reads_any_more_and_that_ends_by_it_has_failed(node: Node) -> None:
    with pytest.raises(OperationFailed, match="ended in the middle"):
        end_with(node, BrokenPipeError())
    (run,) = node.journal.runs()
    assert run.exit_code == ExitCode.FAILED


class Unheard(Quiet):
    """Shows it on a terminal that is gone, through a pipe that nobody reads, or in a file on a full disk."""

    def __init__(self, *methods: str) -> None:
        for method in methods:
            setattr(self, method, self._fail)

    def _fail(self, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("methods", [("begin",), ("advance",), ("finish",), ("begin", "advance", "finish")])
def test_progress_that_cannot_be_shown_stops_no_replication(node: Node, methods: tuple[str, ...]) -> None:
    with recorded(node.context, RUN, node.warnings.append) as recorder:
        report = replicate(node.context, REQUEST, recorder.watching(Unheard(*methods)))
        recorder.report(report, ExitCode.DONE)
    assert [vm.outcome for vm in report.vms] == [Outcome.DONE]


def test_metrics_say_how_things_stand_after_the_run_without_another_look(node: Node) -> None:
    node.replicate()
    node.world.write(8)
    node.world.tick()
    node.replicate()
    newest = node.world.web.snapshots[-1]
    assert newest.name.startswith("replication_")
    labels = '{dataset="tank/vm/web",target="a",vm="web"}'
    assert f"hoster_replication_behind_bytes{labels} 0.0" in node.metrics
    assert f"hoster_replication_failures_since_success{labels} 0.0" in node.metrics
    assert 'hoster_vm_snapshots{type="replication",vm="web"} 2.0' in node.metrics
    assert 'hoster_vm_targets{vm="web"} 1.0' in node.metrics
    assert 'hoster_vm_targets{vm="web2"} 0.0' in node.metrics
    assert "hoster_look_success 1.0" in node.metrics
    assert "hoster_pool" not in node.metrics


def test_a_run_that_writes_metrics_runs_the_same_commands_as_one_that_does_not(tmp_path: Path) -> None:
    ran = []
    for name, textfile_dir in (("with", tmp_path / "with" / "metrics"), ("without", None)):
        (tmp_path / name).mkdir()
        node = Node(tmp_path / name)
        node.context = replace(
            node.context, settings=replace(node.context.settings, textfile_dir=textfile_dir)
        )
        node.replicate()
        ran.append(node.world.cluster.commands)
        assert any((tmp_path / name / "metrics").iterdir()) is (textfile_dir is not None)
    assert len(ran[0]) > 5
    assert [command[:3] for command in ran[0]] == [command[:3] for command in ran[1]]


def test_a_busy_run_leaves_the_metrics_of_the_one_before(node: Node) -> None:
    node.replicate()
    before = node.metrics
    with pytest.raises(Busy):
        end_with(node, Busy("another run"))
    assert node.metrics == before


def test_where_nothing_can_be_written_each_thing_is_one_warning_and_the_run_is_as_good(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", 256) as disk:
        node = Node(disk)
        (disk / "locks").mkdir()
        node.context = replace(node.context, locks=type(node.context.locks)(tmp_path / "locks"))
        make_read_only(disk)
        report = node.replicate()
    assert report.vms[0].outcome is Outcome.DONE
    said = [
        "the job's progress cannot be shown: Read-only file system",
        "the journal of runs cannot be written: Read-only file system",
        "the metrics cannot be written: Read-only file system",
    ]
    assert [warning.partition(": ")[2] for warning in node.warnings] == said


def test_a_module_that_is_missing_is_a_warning_too(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert node.replicate().vms[0].outcome is Outcome.DONE
    assert len(node.warnings) == 1
    assert "could not be recorded: ModuleNotFoundError" in node.warnings[0]
