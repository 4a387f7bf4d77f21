"""Starting real commands: how they end is told, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hoster.errors import OperationFailed
from hoster.host.process import Ending, Patience, SystemRunner, end
from hoster.host.throttle import SpeedLimit


def children() -> set[int]:
    """The children that this process has now, zombies included."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


@pytest.fixture
def runner() -> SystemRunner:
    return SystemRunner()


@pytest.fixture(autouse=True)
def no_children_are_left() -> object:
    before = children()
    yield
    assert children() <= before


def quiet(amount: int) -> None:
    """A meter that counts nothing."""


def test_output_messages_and_status_come_back_apart(runner: SystemRunner) -> None:
    done = runner.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)
    assert done.argv == ("sh", "-c", "echo out; echo err >&2; exit 3")


def test_what_is_given_is_read_and_otherwise_there_is_nothing_to_read(runner: SystemRunner) -> None:
    assert runner.run(["cat"], stdin="a\nb").stdout == "a\nb"
    assert runner.run(["cat"]).stdout == ""


def test_a_command_that_does_not_read_its_input_is_no_failure(runner: SystemRunner) -> None:
    assert runner.run(["true"], stdin="x" * 1_000_000).returncode == 0


def test_a_signal_is_a_negative_status(runner: SystemRunner) -> None:
    assert runner.run(["sh", "-c", "kill -9 $$"]).returncode == -signal.SIGKILL


def test_messages_are_in_the_c_locale(runner: SystemRunner) -> None:
    assert runner.run(["sh", "-c", "echo $LC_ALL"]).stdout == "C\n"


def test_bytes_that_are_no_text_are_shown_and_not_lost(runner: SystemRunner) -> None:
    assert runner.run(["printf", r"a\377b"]).stdout == "a\\xffb"


def test_nothing_in_an_argument_means_anything_to_a_shell(runner: SystemRunner) -> None:
    text = "$(id) `id` ; 'x' \"y\" * \\ \n"
    assert runner.run(["printf", "%s", text]).stdout == text


def test_a_command_that_is_not_there_is_named_with_a_hint(runner: SystemRunner) -> None:
    with pytest.raises(OperationFailed, match="no-such-command: command not found") as caught:
        runner.run(["no-such-command"])
    assert "install" in caught.value.hint


def test_a_command_that_cannot_be_started_says_why(runner: SystemRunner, tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="cannot be started: Permission denied"):
        runner.run([str(tmp_path)])


def test_a_command_that_takes_too_long_is_killed(runner: SystemRunner) -> None:
    with pytest.raises(OperationFailed, match=r"sleep: no answer within 0.05 seconds"):
        runner.run(["sleep", "60"], timeout_s=0.05)


def test_a_pipe_carries_every_byte_and_counts_it(runner: SystemRunner) -> None:
    chunks: list[int] = []
    piped = runner.pipe(["head", "-c", "3000000", "/dev/zero"], ["wc", "-c"], chunks.append)
    assert piped.sent_bytes == sum(chunks) == 3_000_000
    assert piped.consumer.stdout.strip() == "3000000"
    assert (piped.producer.returncode, piped.consumer.returncode) == (0, 0)


def test_both_ends_of_a_pipe_say_how_they_ended(runner: SystemRunner) -> None:
    piped = runner.pipe(
        ["sh", "-c", "echo data; echo first >&2; exit 3"], ["sh", "-c", "cat; echo last >&2; exit 4"], quiet
    )
    assert (piped.producer.returncode, piped.producer.stderr) == (3, "first\n")
    assert (piped.consumer.returncode, piped.consumer.stderr) == (4, "last\n")
    assert piped.consumer.stdout == "data\n"


def test_a_producer_is_ended_when_its_consumer_has_gone(runner: SystemRunner) -> None:
    piped = runner.pipe(["yes"], ["head", "-c", "5"], quiet)
    assert piped.consumer.returncode == 0
    assert piped.producer.returncode in {-signal.SIGKILL, -signal.SIGPIPE, 1}


def test_a_consumer_that_reads_nothing_ends_the_pipe(runner: SystemRunner) -> None:
    piped = runner.pipe(["yes"], ["false"], quiet)
    assert piped.consumer.returncode == 1


def test_a_producer_that_is_killed_is_no_success(runner: SystemRunner) -> None:
    piped = runner.pipe(["sh", "-c", "echo part; kill -9 $$"], ["cat"], quiet)
    assert piped.producer.returncode == -signal.SIGKILL
    assert piped.consumer.stdout == "part\n"


def test_much_talk_beside_the_data_blocks_neither_end(runner: SystemRunner) -> None:
    talk = "head -c 300000 /dev/zero >&2"
    piped = runner.pipe(["sh", "-c", f"{talk}; echo x"], ["sh", "-c", f"{talk}; cat"], quiet)
    assert (piped.producer.returncode, piped.consumer.returncode) == (0, 0)
    assert len(piped.producer.stderr) == 65536


def test_a_pipe_whose_second_command_is_missing_ends_the_first(runner: SystemRunner) -> None:
    with pytest.raises(OperationFailed, match="no-such-command"):
        runner.pipe(["yes"], ["no-such-command"], quiet)


def test_an_end_that_only_just_finishes_is_no_broken_pipe(runner: SystemRunner) -> None:
    """The consumer has read all it wanted and is gone before the producer is."""
    producer = ["sh", "-c", "head -c 1000 /dev/zero; exec >&-; sleep 0.1; exit 0"]
    for _ in range(3):
        piped = runner.pipe(producer, ["head", "-c", "1000"], quiet)
        assert (piped.producer.returncode, piped.consumer.returncode) == (0, 0)
        assert piped.ending is Ending.COMPLETE


def test_a_grandchild_that_keeps_the_line_open_is_not_waited_for(runner: SystemRunner) -> None:
    started = time.monotonic()
    piped = runner.pipe(["echo", "data"], ["sh", "-c", "cat; sleep 5 >/dev/null & exit 0"], quiet)
    assert (piped.consumer.returncode, piped.consumer.stdout) == (0, "data\n")
    assert time.monotonic() - started < 4


IMPATIENT = Patience(stall_s=0.2, finish_s=0.2, grace_s=5.0)


def test_a_producer_that_gives_nothing_stalls_and_its_consumer_keeps_what_arrived() -> None:
    piped = SystemRunner(IMPATIENT).pipe(["sh", "-c", "echo part; exec sleep 60"], ["cat"], quiet)
    assert piped.stalled
    assert piped.ending is Ending.SILENT
    assert piped.producer.returncode == -signal.SIGTERM
    assert (piped.consumer.returncode, piped.consumer.stdout, piped.sent_bytes) == (0, "part\n", 5)


def test_a_consumer_that_takes_nothing_stalls_and_is_given_the_end_of_its_input() -> None:
    consumer = ["sh", "-c", "sleep 1; wc -c"]
    piped = SystemRunner(IMPATIENT).pipe(["yes"], consumer, quiet)
    assert piped.stalled
    assert piped.ending is Ending.STUCK
    assert piped.producer.returncode == -signal.SIGTERM
    assert piped.consumer.returncode == 0
    assert int(piped.consumer.stdout) == piped.sent_bytes > 0


def test_a_stalled_end_that_does_not_leave_is_killed_after_its_grace() -> None:
    hurried = Patience(stall_s=0.1, grace_s=0.1)
    piped = SystemRunner(hurried).pipe(["yes"], ["sleep", "60"], quiet)
    assert piped.ending is Ending.STUCK
    assert piped.consumer.returncode == -signal.SIGKILL


def test_a_consumer_may_take_its_time_after_the_last_byte() -> None:
    patient = Patience(stall_s=0.1, finish_s=30.0)
    piped = SystemRunner(patient).pipe(["echo"], ["sh", "-c", "cat; sleep 0.5; echo done"], quiet)
    assert not piped.stalled
    assert piped.consumer.stdout == "\ndone\n"


def test_a_consumer_that_never_finishes_is_ended() -> None:
    piped = SystemRunner(IMPATIENT).pipe(["echo"], ["sh", "-c", "cat; exec sleep 60"], quiet)
    assert piped.stalled
    assert piped.ending is Ending.UNFINISHED
    assert (piped.producer.returncode, piped.consumer.returncode) == (0, -signal.SIGTERM)


def test_a_pipe_within_its_limit_is_no_stall() -> None:
    limit = SpeedLimit(40_000)
    piped = SystemRunner(IMPATIENT).pipe(["head", "-c", "40000", "/dev/zero"], ["wc", "-c"], limit)
    assert not piped.stalled
    assert piped.sent_bytes == 40_000


def test_all_pipes_end_at_once_when_the_runner_is_stopped(runner: SystemRunner) -> None:
    raised: list[str] = []
    going = threading.Barrier(4)

    def meter(amount: int) -> None:
        going.wait(20)
        meters[threading.get_ident()] = quiet

    meters: dict[int, Callable[[int], None]] = {}

    def first_then_quiet(amount: int) -> None:
        meters.get(threading.get_ident(), meter)(amount)

    def work() -> None:
        try:
            runner.pipe(["yes"], ["sh", "-c", "cat >/dev/null"], first_then_quiet)
        except OperationFailed as error:
            raised.append(error.message)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    going.wait(20)
    runner.stop()
    for worker in workers:
        worker.join(20)
    assert raised == ["interrupted"] * 3


def test_a_stopped_runner_begins_no_pipe_and_still_runs_commands(runner: SystemRunner) -> None:
    runner.stop()
    runner.stop()
    with pytest.raises(OperationFailed, match="interrupted"):
        runner.pipe(["yes"], ["cat"], quiet)
    assert runner.run(["echo", "here"]).stdout == "here\n"


def test_the_head_of_what_is_printed_is_had_without_the_rest(runner: SystemRunner) -> None:
    assert runner.head(["yes"], 5) == b"y\ny\ny"
    assert runner.head(["printf", "abc"], 5) == b"abc"
    assert runner.head(["sh", "-c", "printf abcde; exec sleep 60"], 5, timeout_s=5) == b"abcde"
    with pytest.raises(OperationFailed, match="sh: no such thing"):
        runner.head(["sh", "-c", "echo no such thing >&2; exit 1"], 5)


class Stop(BaseException):
    """An interrupt."""


@pytest.mark.parametrize("kind", [Stop, OperationFailed, KeyboardInterrupt])
def test_an_interrupt_in_a_pipe_ends_both_ends(
    runner: SystemRunner, kind: Callable[[str], BaseException]
) -> None:
    def meter(amount: int) -> None:
        raise kind("stop")

    with pytest.raises((Stop, OperationFailed, KeyboardInterrupt)):
        runner.pipe(["yes"], ["cat"], meter)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts through /proc")
def test_no_descriptors_are_left_open(runner: SystemRunner) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    runner.run(["true"])
    before, threads = count(), threading.active_count()
    for _ in range(5):
        runner.run(["cat"], stdin="x")
        runner.pipe(["yes"], ["head", "-c", "1"], quiet)
    assert count() == before
    assert threading.active_count() == threads


def test_a_companion_leaves_when_its_input_is_closed(runner: SystemRunner, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as said:
        process = runner.start(["sh", "-c", "echo hello >&2; cat"], stderr=said)
        end(process)
    assert process.returncode == 0
    assert (tmp_path / "log").read_text() == "hello\n"


def test_a_companion_that_stays_is_killed_after_its_grace(runner: SystemRunner, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as said:
        process = runner.start(["sleep", "60"], stderr=said)
        started = time.monotonic()
        end(process, grace_s=0.05)
    assert process.returncode == -signal.SIGKILL
    assert time.monotonic() - started < 10


def test_a_head_that_never_comes_is_given_up() -> None:
    with pytest.raises(OperationFailed, match=r"sleep: no answer within 0.2 seconds"):
        SystemRunner().head(["sleep", "60"], 10, timeout_s=0.2)


class Unkillable(subprocess.Popen[bytes]):
    """A process in the hands of the kernel, such as one that waits for a suspended pool."""

    started: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.started.append(self)

    def send_signal(self, sig: int) -> None:
        """It gets none."""


@pytest.fixture
def unkillable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("hoster.host.process.subprocess.Popen", Unkillable)
    monkeypatch.setattr("hoster.host.process.KILLED_S", 0.05)
    yield
    while Unkillable.started:
        left = Unkillable.started.pop()
        if left.poll() is None:
            os.kill(left.pid, signal.SIGKILL)
            left.wait()


STUCK = ["sleep", "30"]


@pytest.mark.usefixtures("unkillable")
@pytest.mark.parametrize(
    "act",
    [
        lambda runner: runner.run(STUCK, timeout_s=0.05),
        lambda runner: runner.read(STUCK, list, timeout_s=0.05),
        lambda runner: runner.head(STUCK, 10, timeout_s=0.05),
    ],
    ids=["run", "read", "head"],
)
def test_a_command_that_cannot_be_killed_is_an_error_and_not_waited_for(
    act: Callable[[SystemRunner], object],
) -> None:
    began = time.monotonic()
    with pytest.raises(OperationFailed, match=r"no answer within 0.05 seconds"):
        act(SystemRunner())
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("unkillable")
def test_a_pipe_with_an_end_that_cannot_be_killed_has_stalled() -> None:
    began = time.monotonic()
    piped = SystemRunner(Patience(0.05, 0.05, 0.05)).pipe(STUCK, ["cat"], quiet)
    assert piped.stalled
    assert piped.producer.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 10
