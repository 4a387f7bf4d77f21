"""Receives whose sender is gone are found by their origin, and only into the datasets that are asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest

from hoster.host.process import SystemRunner
from hoster.host.reach import LocalHost
from hoster.zfs.receives import Receive, abandoned, ending, processes
from hoster.zfs.store import ZfsStore

GONE = "HOSTER_ORIGIN=node1/boot/5/77"
ALIVE = "HOSTER_ORIGIN=node1/boot/6/78"


def found(line: str, *targets: str) -> tuple[Receive, ...]:
    return abandoned([line], targets or ("tank/vm/web",), lambda origin: origin == "node1/boot/5/77")


@pytest.mark.parametrize(
    "line",
    [
        f"  123 zfs receive -s -u tank/vm/web SHELL=/bin/sh {GONE} PWD=/root",
        f"123 /usr/sbin/zfs receive -s -u -o readonly=on -x mountpoint tank/vm/web {GONE}",
    ],
)
def test_a_receive_whose_sender_is_gone_is_found(line: str) -> None:
    assert found(line) == (Receive(123, "tank/vm/web"),)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "  PID COMMAND",
        f"123 zfs receive -s -u tank/vm/web SHELL=/bin/sh {ALIVE}",
        "123 zfs receive -s -u tank/vm/web SHELL=/bin/sh",
        f"123 zfs receive -s -u tank/vm/web/disk {GONE}",
        f"123 zfs receive -s -u tank/vm/web 2 {GONE}",
        f"123 zfs receive -s -u tank/vm/web2 {GONE}",
        f"123 zfs receive -s -u my-tank/vm/web {GONE}",
        f"123 zfs send tank/vm/web {GONE}",
        f"123 sh -c zfs receive -s -u tank/vm/web {GONE}",
    ],
)
def test_anything_else_is_left_alone(line: str) -> None:
    assert found(line) == ()


def test_names_with_blanks_are_told_apart() -> None:
    line = f"123 zfs receive -s -u tank/vm/my web SHELL=/bin/sh {GONE}"
    assert found(line, "tank/vm/my web", "tank/vm/my", "web") == (Receive(123, "tank/vm/my web"),)


def test_it_is_found_among_the_real_processes_and_ended() -> None:
    """A process that calls itself so stands in its place: there is no zfs here."""
    environment = {**os.environ, "HOSTER_ORIGIN": f"{os.uname().nodename}/an-earlier-boot/5/77"}
    words = ["zfs receive -s -u tank/vm/no-such-vm", "60"]
    with subprocess.Popen(words, executable="/bin/sleep", env=environment) as child:
        # Its command line is its first word and the argument of sleep: the name of the dataset holds a blank.
        target = "tank/vm/no-such-vm 60"
        store = ZfsStore(LocalHost(), SystemRunner())
        assert store.end_abandoned_receives(["tank/vm/no-such-vm"]) == ()
        assert child.poll() is None
        reaper = threading.Thread(target=child.wait)
        reaper.start()
        assert store.end_abandoned_receives([target]) == (target,)
        reaper.join()
        assert child.returncode == -signal.SIGTERM
        assert store.end_abandoned_receives([target]) == ()


def test_processes_that_have_ended_are_no_error() -> None:
    done = subprocess.run(ending([Receive(4194305, "x")]), capture_output=True, check=True)
    assert done.stderr == b""
    assert processes()[0] == "ps"
