"""Which process of which machine a command on another node belongs to.

A command that runs through ssh carries this in its environment. A machine that loses its power says no more,
so that what it has started elsewhere goes on waiting for it, for hours; by its origin it can be told from
what somebody is at work with.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from hoster.host.reach import local_machine

ORIGIN = "HOSTER_ORIGIN"
"""The name of the variable."""

_PLACES = Path("/proc")


def own_origin() -> str:
    """This process: the machine's name, what identifies its running kernel, the process and its start."""
    return "/".join((_node(), local_machine(), str(os.getpid()), _start_of(os.getpid()) or ""))


def is_gone(origin: str) -> bool:
    """Whether ``origin`` was a process of this machine that lives no more.

    Another machine's is never gone: nothing here knows of it. Nor is what cannot be read.
    """
    pieces = origin.split("/")
    if len(pieces) != 4 or pieces[0] != _node() or not pieces[2].isdigit():
        return False
    _, machine, pid, start = pieces
    return machine != local_machine() or start != _start_of(int(pid))


def _node() -> str:
    return re.sub(r"[^\w.-]", "_", os.uname().nodename, flags=re.ASCII)


def _start_of(pid: int) -> str | None:
    """When the process of that number was started, in ticks since the machine was; empty where there is no
    /proc to say so, None where there is no such process."""
    if not (_PLACES / "self").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        return ""
    try:
        text = (_PLACES / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name of the program comes second, in brackets, and may hold anything (proc_pid_stat(5)).
    state, *numbers = text.rpartition(")")[2].split()
    return None if state == "Z" else numbers[18]
