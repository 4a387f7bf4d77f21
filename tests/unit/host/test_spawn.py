"""What hoster starts to live on is by itself, and has nothing of hoster's but what it is given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hoster.host.process import spawn


def text_of(path: Path, ending: str) -> str:
    """The content of the file, once it ends so."""
    gives_up_at = time.monotonic() + 20
    while not (text := path.read_text()).endswith(ending):
        assert time.monotonic() < gives_up_at, text
        time.sleep(0.01)
    return text


def spawned(tmp_path: Path, *argv: str, inherited: tuple[int, ...] = ()) -> tuple[int, Path]:
    """The outcome of a process that ends, and where its words went."""
    log = tmp_path / "log"
    with log.open("ab") as output:
        process = spawn(argv, output.fileno(), inherited)
    gives_up_at = time.monotonic() + 20
    while (status := process.ended()) is None:
        assert time.monotonic() < gives_up_at
        time.sleep(0.01)
    assert process.ended() == status
    return status, log


def test_its_words_of_both_kinds_go_to_the_log_and_its_status_is_told(tmp_path: Path) -> None:
    status, log = spawned(tmp_path, "sh", "-c", "echo one; echo two >&2; exit 7")
    assert status == 7
    assert log.read_text() == "one\ntwo\n"


def test_words_are_not_looked_at_by_the_shell_on_the_way(tmp_path: Path) -> None:
    words = ["a b", "$HOME", "'", '"', "*", "", "-x", "; exit 3"]
    script = "import sys; print(sys.argv[1:])"
    assert spawned(tmp_path, sys.executable, "-c", script, *words)[1].read_text() == f"{words}\n"


def test_it_is_in_a_session_of_its_own_and_pins_no_folder(tmp_path: Path) -> None:
    _, log = spawned(
        tmp_path, sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid(), os.getcwd())"
    )
    assert log.read_text() == "True /\n"


def test_of_what_is_open_here_it_has_only_what_it_is_given(tmp_path: Path) -> None:
    with (tmp_path / "given").open("w") as given, (tmp_path / "kept").open("w") as kept:
        os.set_inheritable(given.fileno(), False)
        script = f"ls -l /proc/$$/fd | grep -c {tmp_path}/; echo hello >/proc/$$/fd/{given.fileno()}"
        _, log = spawned(tmp_path, "sh", "-c", script, inherited=(given.fileno(),))
        assert not os.get_inheritable(given.fileno())
        assert kept.fileno() != given.fileno()
    # Its log, twice, and what it was given.
    assert log.read_text() == "3\n"
    assert (tmp_path / "given").read_text() == "hello\n"


def test_a_command_that_does_not_exist_says_so(tmp_path: Path) -> None:
    status, log = spawned(tmp_path, "no-such-command-at-all")
    assert status == 127
    assert "no-such-command-at-all" in log.read_text()


def test_it_is_ended_at_once_where_that_is_asked_for(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as output:
        process = spawn(["sleep", "600"], output.fileno())
    assert process.ended() is None
    process.kill()
    assert process.ended() == -signal.SIGKILL
    process.kill()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_it_outlives_who_started_it_however_that_ends(tmp_path: Path, end: signal.Signals) -> None:
    script = (
        "import signal, sys, time; from hoster.host.process import spawn\n"
        f"if {int(end)} != signal.SIGKILL: signal.signal({int(end)}, signal.SIG_DFL)\n"  # under nohup, too
        f"log = open({str(tmp_path / 'log')!r}, 'ab')\n"
        "print(spawn(['sh', '-c', 'sleep 600 & echo $$; wait'], log.fileno()).pid, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        try:
            assert text_of(tmp_path / "log", "\n") == f"{pid}\n"
            starter.send_signal(end)
            starter.wait(20)
            os.kill(pid, 0)
        finally:
            starter.kill()
            os.killpg(pid, signal.SIGKILL)
