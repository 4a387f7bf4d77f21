"""A process is known by its machine, its number and its start; what is unknown is never taken for gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hoster.host.origin import is_gone, own_origin
from hoster.host.reach import local_machine

NODE, MACHINE, PID, START = own_origin().split("/")


def test_this_process_is_not_gone() -> None:
    assert not is_gone(own_origin())
    assert (os.uname().nodename, local_machine(), str(os.getpid())) == (NODE, MACHINE, PID)


def test_another_that_lives_is_not_gone_until_it_has_ended() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        start = Path(f"/proc/{child.pid}/stat").read_text().split()[21]
        origin = f"{NODE}/{MACHINE}/{child.pid}/{start}"
        assert not is_gone(origin)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(origin), "a zombie does nothing more"
    assert is_gone(origin)


@pytest.mark.parametrize(
    "origin",
    [
        f"{NODE}/{MACHINE}/{PID}/1{START}",  # its number was given to another
        f"{NODE}/an-earlier-boot/{PID}/{START}",
        f"{NODE}/{MACHINE}/4194305/{START}",
    ],
    ids=["its number was given to another", "an earlier boot", "its number is free"],
)
def test_a_process_of_before_is_gone(origin: str) -> None:
    assert is_gone(origin)


@pytest.mark.parametrize(
    "origin",
    [
        f"elsewhere/{MACHINE}/1/1",
        f"{NODE}x/an-earlier-boot/1/1",
        "",
        "x",
        f"{NODE}/{MACHINE}/{PID}",
        "a/b/c/d/e",
    ],
    ids=["another node", "a longer name", "nothing", "one word", "a word too few", "a word too many"],
)
def test_what_is_not_of_this_machine_or_cannot_be_read_is_never_gone(origin: str) -> None:
    assert not is_gone(origin)
