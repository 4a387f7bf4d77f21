"""history, jobs, metrics and their like as commands: on a real journal, with real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hoster.cli.main import hoster
from hoster.host.origin import own_origin
from hoster.model.plan import Common, Ground, Outcome, VmReport
from hoster.records.job_states import JobState, Phase, write_state
from hoster.records.journal import Journal
from hoster.records.runs import EndedRun, Run, RunKind

WEB = VmReport(
    "web", Outcome.DONE, sent_bytes=2048, seconds=1.5, target="tank/web", newest=Common("daily_1", "5", 900)
)
DB = VmReport("db", Outcome.REFUSED, "somebody wrote there", ground=Ground.REPLICA_MODIFIED, target="tank/db")
RUN = Run(RunKind.REPLICATION, "to_b", "b")


class Place:
    """The configuration of a node whose runs leave everything in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "hoster.toml"
        self.settings.write_text(
            f'datasets = ["tank/vm"]\nstate-dir = "{folder}/state"\nrun-dir = "{folder}/run"\n'
            f'marker-dir = "{folder}/markers"\n'
        )
        self.journal = Journal(folder / "state")
        self.environment = {**os.environ, "HOSTER_CONFIG": str(self.settings), "PATH": "/nowhere"}

    def call(self, *words: str) -> Result:
        return CliRunner().invoke(hoster, words, prog_name="hoster", env=self.environment)

    @contextmanager
    def start(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A process for the block, which does not outlive it."""
        command = [sys.executable, "-m", "hoster", *words]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.journal.write(EndedRun(RUN, 1000.0, 1005.5, 10, "", (WEB, DB)))
    found.journal.write(EndedRun(Run(RunKind.SNAPSHOT, "snapshot_all_daily"), 2000.0, 2001.0, 0))
    return found


def test_the_history_is_of_runs_newest_first(place: Place) -> None:
    lines = place.call("history", "-u").stdout.splitlines()
    assert [line.split()[2] for line in lines] == ["snapshot_all_daily", "to_b"]
    assert lines[1].split()[3:12] == ["b", "10", "5.5", "1", "0", "1", "0", "0", "2K"]
    assert place.call("history", "--limit", "1", "-u").stdout.count("\n") == 1
    assert place.call("history", "--limit", "9" * 30, "-u").stdout.count("\n") == 2
    assert "to_b" not in place.call("history", "--job", "snapshot_all_daily").stdout


def test_a_job_may_be_called_what_its_endpoint_is_called(place: Place) -> None:
    run = Run(RunKind.REPLICATION, "to_root@b", "root@b")
    place.journal.write(EndedRun(run, 3000.0, 3001.0, 0, "", (WEB,)))
    assert place.call("history", "--job", "to_root@b", "-u").stdout.count("\n") == 1


def test_the_history_of_a_vm_is_what_runs_did_to_it(place: Place) -> None:
    (line,) = place.call("history", "db", "-u").stdout.splitlines()
    assert line.split()[3:] == ["to_b", "b", "refused", "0.0", "0K", "-", "somebody_wrote_there"]
    (web,) = json.loads(place.call("history", "web", "-j").stdout)
    assert web["newest"] == {"name": "daily_1", "guid": "5", "taken_at": 900}
    assert place.call("history", "nobody", "-j").stdout == "[]\n"


def test_the_history_as_json_has_every_field(place: Place) -> None:
    runs = json.loads(place.call("history", "--json").stdout)
    assert [(run["number"], run["exit_code"], run["refused"]) for run in runs] == [(2, 0, 0), (1, 10, 1)]


def running(place: Place, job: str = "to_b", pid: int = 0) -> JobState:
    vms = (Phase("web", 4096, 2048), Phase("db", 1024, 1024))
    state = JobState(job, "replication", "b", pid or os.getpid(), own_origin(), 3000.0, 3001.0, vms)
    assert write_state(place.folder / "run" / "jobs", state) == ""
    return state


def test_jobs_are_those_that_run(place: Place) -> None:
    assert json.loads(place.call("jobs", "-j").stdout) == []
    running(place)
    (line,) = place.call("jobs", "-u").stdout.splitlines()
    assert line.split()[:2] == ["to_b", str(os.getpid())]
    assert line.split()[3:] == ["b", "1/2", "3K", "5K"]
    (job,) = json.loads(place.call("jobs", "-j").stdout)
    assert job["vms"][0] == {"vm": "web", "estimated_bytes": 4096, "sent_bytes": 2048, "outcome": ""}


def test_watching_follows_a_job_to_its_end_and_says_how_it_ended(place: Place) -> None:
    state = running(place)
    with place.start("jobs", "watch", "to_b") as watching:
        assert watching.stdout is not None
        assert re.match(r"to_b \d+ .* b 1/2 3K 5K", watching.stdout.readline())
        place.journal.write(EndedRun(RUN, state.since, state.since + 9, 3, "", (DB, WEB)))
        (place.folder / "run" / "jobs" / f"to_b.{os.getpid()}.json").unlink()
        said, _ = watching.communicate(timeout=30)
    assert "to_b ended with exit code 3: 1 done, 1 refused" in said
    assert watching.returncode == 0


def test_a_job_that_leaves_no_word_was_killed(place: Place) -> None:
    running(place)
    with place.start("jobs", "watch") as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        (place.folder / "run" / "jobs" / f"to_b.{os.getpid()}.json").unlink()
        said, _ = watching.communicate(timeout=30)
    assert "to_b: it has ended, and left no word of how" in said


def test_what_does_not_run_cannot_be_watched(place: Place) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hoster", "jobs", "watch", "to_x"],
        env=place.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "the job 'to_x' does not run" in done.stderr
    assert "no job runs" in place.call("jobs", "watch").stdout


def test_the_originals_list_has_what_runs_and_what_ran(place: Place) -> None:
    running(place)
    rows = [line.split()[1:6] for line in place.call("scheduler", "list", "-u").stdout.splitlines()]
    pid = os.getpid()
    assert rows == [
        ["web", "VM", f"to_b.{pid}/web", "replication", "In_Progress"],
        ["db", "VM", f"to_b.{pid}/db", "replication", "In_Progress"],
        ["web", "VM", "1/web", "replication", "Done"],
        ["db", "VM", "1/db", "replication", "Error"],
    ]
    job = json.loads(place.call("scheduler", "info", "1/db").stdout)
    assert (job["job_failed"], job["job_error"], job["time_added"]) == (True, "somebody wrote there", 1000)
    assert json.loads(place.call("scheduler", "list", "-j").stdout)[3] == job
    assert "running now: 1" in place.call("scheduler", "status").stdout
    assert place.call("scheduler", "info", "9/x").exit_code != 0


def test_the_originals_list_has_a_run_that_came_to_no_vm(place: Place) -> None:
    place.journal.write(EndedRun(RUN, 3000.0, 3005.0, 12, "b: it does not answer"))
    place.journal.write(EndedRun(RUN, 4000.0, 4005.0, 11, "another run"))
    (job, *others) = json.loads(place.call("scheduler", "list", "-j").stdout)
    assert (job["job_id"], job["job_failed"], job["job_error"]) == ("3/to_b", True, "b: it does not answer")
    assert [other["job_id"] for other in others] == ["1/web", "1/db"]
    assert json.loads(place.call("scheduler", "info", "3/to_b").stdout) == job


def test_metrics_are_printed_even_where_zfs_cannot_be_asked(place: Place) -> None:
    result = place.call("metrics")
    assert result.exit_code == 3
    assert "hoster_look_success 0.0" in result.stdout
    labels = '{dataset="tank/web",target="b",vm="web"}'
    assert f"hoster_replication_newest_version_timestamp_seconds{labels} 900.0" in result.stdout
    assert "zfs: command not found" in result.stderr


def test_metrics_are_written_for_the_textfile_collector(place: Place) -> None:
    folder = place.folder / "prom"
    assert place.call("metrics", "--textfile-dir", str(folder)).exit_code == 2
    folder.mkdir()
    (folder / "hoster_node.prom").write_text('hoster_pool_healthy{pool="tank"} 1.0\n')
    result = place.call("metrics", "--textfile-dir", str(folder))
    assert result.stdout == ""
    assert sorted(path.name for path in folder.iterdir()) == ["hoster.prom", "hoster_node.prom"]
    assert (folder / "hoster_node.prom").read_text() == "", "what cannot be asked now is not told any more"
    assert "hoster_job_last_exit_code" in (folder / "hoster.prom").read_text()


@pytest.fixture
def port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def scrape(port: int) -> tuple[str, str]:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return answer.read().decode(), answer.headers["Content-Type"]
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_every_scrape_is_a_new_look(place: Place) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with place.start("node_exporter", "start", "--listen", f"127.0.0.1:{port}") as exporter:
        text, kind = scrape(port)
        assert kind.startswith("text/plain; version=")
        assert 'hoster_job_last_run_timestamp_seconds{kind="replication",name="to_b"} 1005.5' in text
        place.journal.write(EndedRun(RUN, 5000.0, 5001.0, 0, "", (WEB,)))
        assert "5001.0" in scrape(port)[0]
        exporter.send_signal(signal.SIGTERM)
        assert exporter.wait(timeout=10) == 143


def test_an_exporter_that_cannot_listen_says_so(place: Place, port: int) -> None:
    with place.start("node_exporter", "start", "--listen", f"127.0.0.1:{port}") as exporter:
        _, said = exporter.communicate(timeout=30)
    assert exporter.returncode == 3
    assert f"127.0.0.1:{port}: cannot listen there: Address already in use" in said


@pytest.mark.parametrize("listen", ["x:1", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", ":1"])
def test_an_address_that_is_none_is_a_usage_error(place: Place, listen: str) -> None:
    result = place.call("node_exporter", "start", "--listen", listen)
    assert result.exit_code == 2
    assert "expected an IP address, a colon and a port" in result.stderr
