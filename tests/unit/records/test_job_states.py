"""What jobs are doing is told by themselves, and believed only while their process lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.host.origin import own_origin
from hoster.records.job_states import (
    JobState,
    Phase,
    being_sent,
    progress_of,
    remove_state,
    running_jobs,
    write_state,
)
from tests.unit.records.disks import fill, small_disk

OTHER = """
import os, sys
from pathlib import Path
from hoster.host.origin import own_origin
from hoster.records.job_states import JobState, write_state
state = JobState("other", "replication", "b", os.getpid(), own_origin(), 5.0, 5.0)
assert write_state(Path(sys.argv[1]), state) == ""
print("written", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def state() -> JobState:
    phases = (Phase("web", 100, 40), Phase("db", 10, 10, "done"))
    return JobState("to_b", "replication", "b", os.getpid(), own_origin(), 10.0, 11.0, phases)


def test_a_job_is_listed_from_its_first_word_to_its_end(tmp_path: Path, state: JobState) -> None:
    folder = tmp_path / "run" / "jobs"
    assert running_jobs(folder) == ()
    assert write_state(folder, state) == ""
    assert running_jobs(folder) == (state,)
    assert (state.sent_bytes, state.estimated_bytes) == (50, 110)
    later = replace(state, written_at=12.0, vms=())
    write_state(folder, later)
    assert running_jobs(folder) == (later,)
    remove_state(folder, state)
    assert running_jobs(folder) == ()
    assert list(folder.iterdir()) == []


def test_a_job_with_the_longest_name_is_listed_whole(tmp_path: Path, state: JobState) -> None:
    long = replace(state, job="snapshot_" + "x" * 255 + "_daily")
    assert write_state(tmp_path, long) == ""
    assert running_jobs(tmp_path) == (long,)


def test_two_runs_of_one_job_do_not_write_over_each_other(tmp_path: Path, state: JobState) -> None:
    write_state(tmp_path, state)
    waiting = replace(state, pid=1, since=20.0, vms=())
    write_state(tmp_path, waiting)
    assert running_jobs(tmp_path) == (state, waiting)


def test_a_job_whose_process_was_killed_is_not_listed_and_leaves_nothing(
    tmp_path: Path, state: JobState
) -> None:
    write_state(tmp_path, state)
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        assert [one.job for one in running_jobs(tmp_path)] == ["other", "to_b"]
        process.send_signal(signal.SIGKILL)
    assert running_jobs(tmp_path) == (state,)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"job": 1}', "\x00"])
def test_a_file_that_is_none_of_a_job_is_passed_over(tmp_path: Path, state: JobState, text: str) -> None:
    (tmp_path / "x.1.json").write_text(text)
    (tmp_path / "dir.1.json").mkdir()
    (tmp_path / "readme").write_text("x")
    write_state(tmp_path, state)
    assert running_jobs(tmp_path) == (state,)


def test_a_disk_that_is_full_is_told_and_raises_nothing(tmp_path: Path, state: JobState) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        fill(disk)
        assert "No space left on device" in write_state(disk / "jobs", state)
        remove_state(disk / "jobs", state)


def test_how_far_a_job_has_come_is_told_in_words(tmp_path: Path, state: JobState) -> None:
    mib = 2**20
    phases = (Phase("web", 8 * mib, 2 * mib), Phase("db", mib, mib, "done"))
    state = replace(state, vms=phases)
    assert progress_of(tmp_path, state.pid) == ""
    write_state(tmp_path, replace(state, vms=()))
    assert progress_of(tmp_path, state.pid) == "", "it waits, or looks"
    write_state(tmp_path, state)
    assert progress_of(tmp_path, state.pid) == "3.0 of about 9.0 MiB are sent"
    assert progress_of(tmp_path, state.pid + 1) == ""
    told = being_sent(tmp_path, "web")
    assert told.startswith(f"process {state.pid} since 19")
    assert told.endswith(": job to_b to b; 3.0 of about 9.0 MiB are sent")
    assert being_sent(tmp_path, "db") == "", "it is through"
    assert being_sent(tmp_path, "other") == ""


def test_a_folder_that_cannot_be_read_tells_of_no_progress(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("")
    assert progress_of(tmp_path / "jobs", 1) == ""
    assert being_sent(tmp_path / "jobs", "web") == ""
