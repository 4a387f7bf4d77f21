"""Starting real commands: how they end is told, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hoster.errors import OperationFailed
from hoster.host.process import SystemRunner, end


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
