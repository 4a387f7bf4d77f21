"""Locks that die with their process: real flock, real processes, real kills."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hoster.errors import Busy, ExitCode
from hoster.host.locks import Locks
from hoster.host.origin import own_origin
from tests.unit.records.disks import fill, small_disk

HOLDER = """
import sys
from pathlib import Path
from hoster.host.locks import Locks
with Locks(Path(sys.argv[1])).hold("the disk", holder="the other one"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A second hoster that holds the lock on "the disk" until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_what_is_held_elsewhere_is_busy_and_says_who_holds_it(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with (
        another_process(tmp_path) as process,
        pytest.raises(Busy) as caught,
        locks.hold("the disk", holder="me"),
    ):
        pass
    assert caught.value.message.startswith(f"the disk is in use by process {process.pid} since 2")
    assert caught.value.message.endswith(": the other one")
    assert "wait for it" in caught.value.hint
    assert caught.value.exit_code is ExitCode.BUSY


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_that_is_killed_holds_nothing(tmp_path: Path, how: signal.Signals) -> None:
    with another_process(tmp_path) as process:
        process.send_signal(how)
        process.wait()
        with Locks(tmp_path).hold("the disk", holder="me"):
            pass


def test_a_lock_is_free_when_the_block_ends_however_it_ends(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with pytest.raises(KeyError), locks.hold("the disk", holder="me"):
        raise KeyError
    with locks.hold("the disk", holder="me"), pytest.raises(Busy), locks.hold("the disk", holder="me"):
        pass


def test_different_things_have_different_locks(tmp_path: Path) -> None:
    locks = Locks(tmp_path / "new" / "folder")
    with locks.hold("web", holder="me"), locks.hold("web2", holder="me"), locks.hold("../x", holder="me"):
        assert len(list((tmp_path / "new" / "folder").iterdir())) == 3


def test_a_file_that_is_left_over_means_nothing(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with locks.hold("the disk", holder="long gone"):
        file = next(tmp_path.iterdir())
    assert "long gone" in file.read_text()
    with locks.hold("the disk", holder="me"):
        assert file.read_text().endswith(": me\n")
        assert f"process {os.getpid()} since" in file.read_text()


def test_a_holder_that_has_not_introduced_itself_yet_is_just_starting(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with locks.hold("the disk", holder="me"):
        file = next(tmp_path.iterdir())
        file.write_text("")
        with (
            pytest.raises(Busy, match="in use by a process just starting"),
            locks.hold("the disk", holder="x"),
        ):
            pass


def test_who_waits_gets_the_lock_as_soon_as_it_is_free(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        assert process.stdin is not None
        threading.Timer(0.05, process.stdin.close).start()
        with Locks(tmp_path).hold("the disk", holder="me", wait_s=30):
            assert "me" in next(tmp_path.iterdir()).read_text()


def test_who_waits_in_vain_is_told_after_that_time(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with another_process(tmp_path), pytest.raises(Busy), locks.hold("the disk", holder="me", wait_s=0.01):
        pass


def test_children_do_not_inherit_a_lock(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with locks.hold("the disk", holder="me"):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with locks.hold("the disk", holder="me"):
            pass
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_of_several_that_share_a_lock_those_are_named_that_still_have_it(tmp_path: Path, how: str) -> None:
    script = HOLDER.replace('the other one"', 'the other one", shared=True')
    command = [sys.executable, "-c", script, str(tmp_path)]
    locks = Locks(tmp_path)
    with locks.hold("the disk", holder="one", shared=True):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            with pytest.raises(Busy) as both, locks.hold("the disk", holder="me"):
                pass
            if how == "killed":
                process.kill()
        with pytest.raises(Busy) as left, locks.hold("the disk", holder="me"):
            pass
    assert ": one; and by process" in both.value.message
    assert both.value.message.endswith(": the other one")
    assert left.value.message.endswith(": one")


def test_the_holder_is_told_with_its_command_and_how_far_it_has_come(tmp_path: Path) -> None:
    asked = []

    def progress(pid: int) -> str:
        asked.append(pid)
        return "half of it is done"

    locks = Locks(tmp_path, "hoster copy --fast", progress)
    with (
        locks.hold("the disk", holder="me"),
        pytest.raises(Busy) as caught,
        locks.hold("the disk", holder="x"),
    ):
        pass
    assert caught.value.message.endswith(": me (hoster copy --fast); half of it is done")
    assert asked == [os.getpid()]


def let_go_at(locks: Locks, *, shared: bool = False) -> float:
    """What is said of the lock on "the disk" to whoever gets it."""
    with locks.hold("the disk", holder="me", shared=shared) as moment:
        return moment


def test_of_what_nobody_ever_had_no_end_is_known(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with locks.hold("the screen", holder="me"):
        assert let_go_at(locks) == 0


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("fails", [False, True], ids=["well", "with an error"])
def test_a_lock_tells_when_it_was_let_go_and_not_when_it_was_taken(
    tmp_path: Path, shared: bool, fails: bool
) -> None:
    locks = Locks(tmp_path)
    with suppress(KeyError), locks.hold("the disk", holder="me", shared=shared):
        time.sleep(0.01)
        still_had = time.time()
        if fails:
            raise KeyError
    assert still_had - 0.001 <= let_go_at(locks, shared=shared) <= time.time()


def test_who_still_has_a_lock_and_who_does_not_get_it_have_not_let_it_go(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with locks.hold("the disk", holder="one", shared=True):
        with pytest.raises(Busy), locks.hold("the disk", holder="me"):
            pass
        assert let_go_at(locks, shared=True) == 0
        assert 0 < let_go_at(locks, shared=True) <= time.time()


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_the_next_one_learns_that_whoever_had_a_lock_was_killed(tmp_path: Path, shared: bool) -> None:
    with another_process(tmp_path) as process:
        process.kill()
        process.wait()
    assert let_go_at(Locks(tmp_path), shared=shared) == math.inf
    assert 0 < let_go_at(Locks(tmp_path), shared=shared) <= time.time()


def test_a_clock_that_was_ahead_for_once_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks, true = Locks(tmp_path), time.time
    monkeypatch.setattr("hoster.host.locks.time.time", lambda: true() + 1e7)
    let_go_at(locks, shared=True)
    monkeypatch.undo()
    assert let_go_at(locks, shared=True) > true()
    assert let_go_at(locks, shared=True) <= true()


def test_a_lock_that_is_shared_again_and_again_does_not_grow_for_ever(tmp_path: Path) -> None:
    locks = Locks(tmp_path, "x" * 3000)
    with locks.hold("the disk", holder="lasting", shared=True):
        for _ in range(50):
            with locks.hold("the disk", holder="me", shared=True):
                pass
        with pytest.raises(Busy, match="in use by process"), locks.hold("the disk", holder="me"):
            pass
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size < 200
    assert 0 < let_go_at(locks) <= time.time()


def test_a_lock_is_had_on_a_disk_that_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "run", 64) as disk:
        fill(disk)
        locks = Locks(disk)
        for known in (0, math.inf):  # the second time somebody may have had it, who could not say so
            with locks.hold("the disk", holder="me") as moment:
                assert moment == known
                with pytest.raises(Busy), locks.hold("the disk", holder="x"):
                    pass
        assert let_go_at(locks, shared=True) == math.inf


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_who_could_not_say_that_he_let_go_has_let_go_at_an_unknown_time(tmp_path: Path, shared: bool) -> None:
    with small_disk(tmp_path / "run", 64) as disk:
        locks = Locks(disk)
        whole_pages = "x" * (8192 - len(own_origin()) - len(f"\tprocess {os.getpid()} since {'': <19}: \n"))
        with locks.hold("the disk", holder=whole_pages, shared=shared):
            fill(disk)
        assert let_go_at(locks) == math.inf


def test_any_number_may_share_a_lock_and_nobody_has_it_alone_meanwhile(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    with (
        locks.hold("the disk", holder="one", shared=True),
        locks.hold("the disk", holder="two", shared=True),
        pytest.raises(Busy, match=r"process .*: two"),
        locks.hold("the disk", holder="three"),
    ):
        pass
    with (
        locks.hold("the disk", holder="three"),
        pytest.raises(Busy, match="three"),
        locks.hold("the disk", holder="one", shared=True),
    ):
        pass


def test_more_locks_than_files_are_allowed_at_first_can_be_held(tmp_path: Path) -> None:
    script = """
import contextlib, resource, sys
from pathlib import Path
from hoster.host.locks import Locks
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 200))
with contextlib.ExitStack() as stack:
    for number in range(120):
        stack.enter_context(Locks(Path(sys.argv[1])).hold(f"disk {number}", holder="me"))
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
