"""The journal on real SQLite: what it remembers, how it forgets, and that no disk can make it raise."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.errors import ExitCode, OperationFailed
from hoster.model.plan import Common, Ground, Outcome, VmReport
from hoster.model.space import PoolSample
from hoster.records import tables
from hoster.records.journal import Journal
from hoster.records.runs import EndedRun, Remembered, Run, RunKind
from tests.unit.records.disks import fill, make_read_only, small_disk

RUN = Run(RunKind.REPLICATION, "to_b", "b")
DAY = 86_400.0
V1 = Common("hourly_1", str(2**64 - 1), 900)
V2 = Common("hourly_2", "17", 1900)
WEB = VmReport("web", Outcome.DONE, sent_bytes=10, seconds=1.5, vm_id="id", target="tank/web", newest=V1)


def ended(at: float, *vms: VmReport, code: int = 0, reason: str = "", run: Run = RUN) -> EndedRun:
    return EndedRun(run, at, at + 5, code, reason, vms)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state")


def test_what_was_never_written_is_empty_and_not_an_error(journal: Journal) -> None:
    assert (journal.runs(), journal.vm_runs(), journal.replicas(), journal.jobs()) == ((), (), (), ())
    assert not journal.path.parent.exists()


def test_a_run_is_remembered_with_its_vms(journal: Journal) -> None:
    other = VmReport("db", Outcome.REFUSED, "ahead", ground=Ground.REPLICA_AHEAD, target="tank/db")
    assert journal.write(ended(1000.0, WEB, other, code=10)) == ""
    (run,) = journal.runs()
    assert (run.job, run.kind, run.node, run.started, run.ended) == (
        "to_b",
        "replication",
        "b",
        1000.0,
        1005.0,
    )
    assert (run.exit_code, run.done, run.unchanged, run.refused, run.busy, run.failed) == (10, 1, 0, 1, 0, 0)
    assert run.sent_bytes == 10
    web, db = journal.vm_runs()
    assert (web.vm, web.vm_id, web.target, web.outcome, web.newest) == ("web", "id", "tank/web", "done", V1)
    assert (db.ground, db.reason, db.newest) == ("replica-ahead", "ahead", None)


def test_the_newest_come_first_and_no_more_than_were_asked_for(journal: Journal) -> None:
    for at in range(5):
        journal.write(ended(float(at), WEB, VmReport("db", Outcome.UNCHANGED, target="tank/db")))
    assert [run.started for run in journal.runs(limit=2)] == [4.0, 3.0]
    assert [(vm.vm, vm.started) for vm in journal.vm_runs("db", limit=2)] == [("db", 4.0), ("db", 3.0)]


def test_the_runs_of_one_job_are_found(journal: Journal) -> None:
    journal.write(ended(1.0, WEB))
    journal.write(ended(2.0, WEB, run=Run(RunKind.REPLICATION, "to_c", "c")))
    assert [run.node for run in journal.runs(job="to_c")] == ["c"]
    assert [vm.job for vm in journal.vm_runs(job="to_b")] == ["to_b"]


def test_a_success_is_the_last_moment_at_which_both_were_equal(journal: Journal) -> None:
    journal.write(ended(1000.0, WEB))
    journal.write(ended(2000.0, VmReport("web", Outcome.UNCHANGED, target="tank/web", newest=V1)))
    (web,) = journal.replicas()
    assert (web.newest, web.equal_at, web.success_at, web.failures) == (V1, 2000.0, 2005.0, 0)
    assert web.data_at == 2000.0, "an idle VM is not late"
    assert web.vm_id == "id", "what one run did not know is not forgotten"


def test_a_failure_leaves_what_is_there_and_counts_until_the_next_success(journal: Journal) -> None:
    journal.write(ended(1000.0, WEB))
    failed = VmReport("web", Outcome.FAILED, "cut", target="tank/web")
    journal.write(ended(2000.0, failed, code=3))
    journal.write(ended(3000.0, replace(failed, newest=V2), code=3))
    (web,) = journal.replicas()
    assert (web.newest, web.equal_at, web.failures, web.failure) == (V2, 1000.0, 2, "cut")
    assert web.data_at == 1900.0, "a part that arrived counts by the age of its data"
    journal.write(ended(4000.0, WEB))
    (web,) = journal.replicas()
    assert (web.failures, web.failure, web.failure_at, web.outcome) == (0, "cut", 3005.0, "done")


def test_a_run_that_ended_as_a_whole_is_a_failure_of_all_that_its_job_sends(journal: Journal) -> None:
    journal.write(ended(1000.0, WEB))
    journal.write(ended(1000.0, WEB, run=Run(RunKind.REPLICATION, "to_c", "c")))
    journal.write(ended(2000.0, code=12, reason="b does not answer"))
    standings = {one.node: one for one in journal.replicas()}
    assert (standings["b"].failures, standings["b"].failure, standings["b"].outcome) == (
        1,
        "b does not answer",
        "failed",
    )
    assert standings["c"].failures == 0


def test_a_busy_run_leaves_everything_as_it_stands(journal: Journal) -> None:
    journal.write(ended(1000.0, code=3, reason="x"))
    journal.write(ended(2000.0, code=11, reason="another run"))
    (job,) = journal.jobs()
    assert (job.exit_code, job.failures, job.run_at) == (3, 1, 1005.0)
    assert [run.exit_code for run in journal.runs()] == [11, 3]


def test_a_busy_vm_is_no_success_and_no_failure(journal: Journal) -> None:
    journal.write(ended(1000.0, WEB))
    journal.write(ended(2000.0, VmReport("web", Outcome.BUSY, "another job"), replace(WEB, vm="db")))
    web = next(one for one in journal.replicas() if one.vm == "web")
    assert (web.outcome, web.success_at, web.failures, web.equal_at) == ("busy", 1005.0, 0, 1000.0)


def test_a_vm_that_never_got_so_far_is_remembered_until_its_dataset_is_known(journal: Journal) -> None:
    journal.write(ended(1000.0, VmReport("web", Outcome.FAILED, "no such key"), code=3))
    (web,) = journal.replicas()
    assert (web.target, web.failures, web.data_at) == ("", 1, None)
    journal.write(ended(2000.0, WEB))
    (web,) = journal.replicas()
    assert (web.target, web.failures) == ("tank/web", 0)


def test_two_pools_of_one_node_are_two_targets(journal: Journal) -> None:
    journal.write(ended(1000.0, WEB))
    journal.write(ended(2000.0, replace(WEB, target="other/web", newest=V2)))
    assert [(one.target, one.newest) for one in journal.replicas()] == [("other/web", V2), ("tank/web", V1)]


def test_a_job_stands_as_its_runs_have_it(journal: Journal) -> None:
    for at, code in ((1.0, 0), (2.0, 12), (3.0, 10)):
        journal.write(ended(at, WEB, code=code))
    (job,) = journal.jobs()
    assert (job.exit_code, job.success_at, job.failure_at, job.failures) == (10, 6.0, 8.0, 2)
    journal.write(ended(4.0, WEB))
    assert journal.jobs()[0].failures == 0


def test_snapshots_say_nothing_of_replicas(journal: Journal) -> None:
    journal.write(ended(1.0, VmReport("web", Outcome.DONE), run=Run(RunKind.SNAPSHOT, "snapshot_all_daily")))
    assert journal.replicas() == ()
    assert journal.jobs()[0].kind == "snapshot"
    assert journal.vm_runs()[0].vm == "web"


def test_what_is_too_old_is_forgotten(journal: Journal) -> None:
    journal.write(ended(0.0, WEB, run=Run(RunKind.REPLICATION, "old", "z")))
    journal.write(ended(tables.KEEP_DAYS * DAY + 100, WEB))
    assert [run.job for run in journal.runs()] == ["to_b"]
    assert [vm.job for vm in journal.vm_runs()] == ["to_b"]
    assert [one.node for one in journal.replicas()] == ["b"]
    assert [job.job for job in journal.jobs()] == ["to_b"]


def test_what_is_too_much_is_forgotten(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "KEEP_RUNS", 3)
    for at in range(6):
        journal.write(ended(float(at), WEB))
    assert [run.started for run in journal.runs()] == [5.0, 4.0, 3.0]
    monkeypatch.setattr(tables, "KEEP_VM_RUNS", 4)
    journal.write(ended(7.0, *(replace(WEB, vm=f"vm{n}") for n in range(4))))
    assert [run.started for run in journal.runs()] == [7.0]
    assert len(journal.vm_runs()) == 4


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "state")
    assert "the journal of runs cannot be written" in journal.write(ended(1.0, WEB))
    assert journal.runs() == ()


def test_a_full_disk_is_one_warning_and_what_was_written_stays(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256) as disk:
        journal = Journal(disk)
        assert journal.write(ended(1.0, WEB)) == ""
        fill(disk)
        many = [replace(WEB, vm=f"vm{n}", reason="x" * 1000) for n in range(100)]
        assert journal.write(ended(2.0, *many)) == f"{journal.path}: {CANNOT}: database or disk is full"
        assert [run.started for run in journal.runs()] == [1.0]
        (disk / "filler").unlink()
        assert journal.write(ended(3.0, WEB)) == ""
        assert [run.started for run in journal.runs()] == [3.0, 1.0]


CANNOT = "the journal of runs cannot be written"


def test_a_disk_that_is_full_from_the_start_is_one_warning(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        fill(disk)
        assert CANNOT in Journal(disk).write(ended(1.0, WEB))
        assert Journal(disk).runs() == ()


def test_a_read_only_disk_is_one_warning_and_can_still_be_read(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256) as disk:
        journal = Journal(disk)
        journal.write(ended(1.0, WEB))
        make_read_only(disk)
        assert CANNOT in journal.write(ended(2.0, WEB))
        assert [run.started for run in journal.runs()] == [1.0]
        assert CANNOT in Journal(disk / "new").write(ended(2.0, WEB))


@pytest.mark.parametrize("damage", ["text", "zeros", "tail", "tables"])
def test_a_damaged_file_is_moved_aside_and_a_new_one_begins(journal: Journal, damage: str) -> None:
    for at in range(40):
        journal.write(ended(float(at), WEB))
    whole = journal.path.read_bytes()
    match damage:
        case "text":
            journal.path.write_text("this is no database, and long enough to be seen as such" * 10)
        case "zeros":
            journal.path.write_bytes(whole[:2000] + bytes(len(whole) - 2000))
        case "tail":
            journal.path.write_bytes(whole[: len(whole) // 2])
        case _:
            connection = sqlite3.connect(journal.path)
            connection.execute("DROP TABLE jobs")
            connection.commit()
            connection.close()
    warning = journal.write(ended(1000.0, WEB))
    assert "the journal was damaged" in warning
    assert "it is journal.damaged now" in warning
    assert [run.started for run in journal.runs()] == [1000.0]
    assert (journal.path.parent / "journal.damaged").exists()
    assert journal.write(ended(1001.0, WEB)) == ""


def test_a_damaged_file_cannot_be_read_and_says_that_nothing_else_is_lost(journal: Journal) -> None:
    journal.path.parent.mkdir()
    journal.path.write_text("this is no database, and long enough to be seen as such" * 10)
    with pytest.raises(OperationFailed, match="cannot be read: file is not a database") as caught:
        journal.runs()
    assert "history and nothing else" in caught.value.hint


def test_a_file_of_a_later_release_is_left_alone(journal: Journal) -> None:
    journal.write(ended(1.0, WEB))
    connection = sqlite3.connect(journal.path)
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    before = journal.path.read_bytes()
    assert "a later release of hoster has written it (format 99)" in journal.write(ended(2.0, WEB))
    with pytest.raises(OperationFailed, match="later release"):
        journal.runs()
    assert journal.path.read_bytes() == before


def test_an_empty_file_becomes_a_journal(journal: Journal) -> None:
    journal.path.parent.mkdir()
    journal.path.touch()
    assert journal.runs() == ()
    assert journal.write(ended(1.0, WEB)) == ""
    assert len(journal.runs()) == 1


def test_a_folder_in_its_place_is_one_warning(journal: Journal) -> None:
    journal.path.mkdir(parents=True)
    assert CANNOT in journal.write(ended(1.0, WEB))
    with pytest.raises(OperationFailed):
        journal.runs()


def test_many_processes_write_at_once_and_nothing_is_lost(journal: Journal) -> None:
    script = """
import sys
from pathlib import Path
from hoster.records.journal import Journal
from tests.unit.records.test_journal import WEB, ended
for at in range(10):
    assert Journal(Path(sys.argv[1])).write(ended(float(at), WEB)) == ""
"""
    command = [sys.executable, "-c", script, str(journal.path.parent)]
    processes = [subprocess.Popen(command, cwd=Path(__file__).parents[3]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    assert len(journal.runs(limit=100)) == 40


def test_every_exit_code_can_be_written(journal: Journal) -> None:
    for code in ExitCode:
        assert journal.write(ended(1.0, code=code, reason="x")) == ""
    assert {run.exit_code for run in journal.runs()} == {int(code) for code in ExitCode}


def room(at: float, free: int = 10, node: str = "local") -> PoolSample:
    return PoolSample(node, "tank", at, 100, free)


def test_how_much_room_pools_had_is_remembered_for_some_days(journal: Journal) -> None:
    assert (journal.samples(), journal.sampled_at()) == ((), {})
    old, newer, far = room(0.0), room(DAY), room(DAY + 1, node="b")
    for sample in (old, newer, far):
        journal.write(replace(ended(sample.at, WEB), pools=(sample,)))
    assert journal.samples() == (old, newer, far)
    assert journal.sampled_at() == {("local", "tank"): DAY, ("b", "tank"): DAY + 1}
    journal.write(ended((tables.KEEP_SAMPLES_DAYS + 0.5) * DAY, WEB))
    assert journal.samples() == (newer, far)


def test_room_that_was_noted_while_the_clock_was_wrong_is_forgotten(journal: Journal) -> None:
    journal.write(replace(ended(1000.0, WEB), pools=(room(1000.0), room(1000.0 + 3 * DAY))))
    assert journal.samples() == (room(1000.0),)


def test_a_journal_of_an_older_release_is_read_and_goes_on(journal: Journal) -> None:
    journal.write(ended(1.0, WEB))
    connection = sqlite3.connect(journal.path)
    connection.executescript("DROP TABLE pools; PRAGMA user_version = 1")
    connection.close()
    assert [run.started for run in journal.runs()] == [1.0]
    assert (journal.samples(), journal.sampled_at()) == ((), {})
    assert journal.write(replace(ended(2.0, WEB), pools=(room(2.0),))) == ""
    assert [run.started for run in journal.runs()] == [2.0, 1.0]
    assert journal.samples() == (room(2.0),)


@pytest.mark.parametrize(
    ("taken_at", "equal_at", "data_at"),
    [(900, None, 900), (900, 950.0, 950), (990, 950.0, 990), (10**10, 950.0, 950), (10**10, None, 1000)],
)
def test_a_version_from_the_future_makes_no_data_younger(
    taken_at: int, equal_at: float | None, data_at: float
) -> None:
    newest = Common("daily_1", "5", taken_at)
    known = Remembered("web", "", "b", "tank/web", "to_b", 1000.0, "done", "", 0, 0.0, newest, equal_at)
    assert known.data_at == data_at
