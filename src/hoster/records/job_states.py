"""What the jobs of this node are doing right now: one small file for each, written by the job itself.

A file there proves nothing: whether its job runs is known by its process, which it names in a way that no
reuse of a number, and no reboot, can confuse.
"""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from hoster.host.origin import is_gone
from hoster.records.whole import write_whole

_MODE = 0o640
_NAME_LENGTH = 150
_MOST_BYTES = 16 * 1024 * 1024
_NAME = re.compile(r".+\.\d+\.json", re.DOTALL)


class Phase(Struct, frozen=True):
    """How far one VM of a job has come; sizes in bytes. ``outcome`` is empty until it is through."""

    vm: str
    estimated_bytes: int
    sent_bytes: int = 0
    outcome: str = ""


class JobState(Struct, frozen=True):
    """A job under way. Times in Unix seconds; ``origin`` is what its process is known by.

    ``vms`` are those that are being sent, empty while the job waits, looks, or takes snapshots.
    """

    job: str
    kind: str
    node: str
    pid: int
    origin: str
    since: float
    written_at: float
    vms: tuple[Phase, ...] = ()

    @property
    def estimated_bytes(self) -> int:
        return sum(vm.estimated_bytes for vm in self.vms)

    @property
    def sent_bytes(self) -> int:
        return sum(vm.sent_bytes for vm in self.vms)


def jobs_in(run_dir: Path) -> Path:
    """The folder in which the jobs of this node say what they are doing."""
    return run_dir / "jobs"


def write_state(folder: Path, state: JobState) -> str:
    """Says what a job is doing; why that failed, or nothing."""
    path = _path(folder, state)
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(state).decode(), mode=_MODE)
    except OSError as error:
        return f"{path}: the job's progress cannot be shown: {error.strerror}"
    return ""


def remove_state(folder: Path, state: JobState) -> None:
    """Takes it away again; where that cannot be done, it means nothing as soon as the process has ended."""
    with contextlib.suppress(OSError):
        _path(folder, state).unlink()


def running_jobs(folder: Path) -> tuple[JobState, ...]:
    """The jobs of this node that run, the oldest first. What those that were killed have left is taken away.

    OSError where there is a folder and it cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    except FileNotFoundError:
        return ()
    states = []
    for path in found:
        state = _read(path)
        if state is None:
            continue
        if is_gone(state.origin):
            with contextlib.suppress(OSError):
                path.unlink()
        else:
            states.append(state)
    return tuple(sorted(states, key=lambda s: (s.since, s.job, s.pid)))


def progress_of(folder: Path, pid: int) -> str:
    """How far the job of that process has come, in words; empty where nothing is known of one, or nothing is
    being sent yet."""
    try:
        state = next((state for state in running_jobs(folder) if state.pid == pid and state.vms), None)
    except OSError:
        return ""
    return "" if state is None else _sent(state)


def being_sent(folder: Path, vm: str) -> str:
    """The jobs that are sending that VM right now, in words; empty where there is none."""
    try:
        states = running_jobs(folder)
    except OSError:
        return ""
    at_it = [state for state in states if any(phase.vm == vm and not phase.outcome for phase in state.vms)]
    return "; and by ".join(
        f"process {state.pid} since {_moment(state.since)}: job {state.job} to {state.node}; {_sent(state)}"
        for state in at_it
    )


def _sent(state: JobState) -> str:
    sent, estimated = state.sent_bytes / 2**20, state.estimated_bytes / 2**20
    return f"{sent:.1f} of about {estimated:.1f} MiB are sent"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _path(folder: Path, state: JobState) -> Path:
    # Not the job's name alone: one that waits for another run of the same job must not write over its file.
    # And not all of it: the name of a VM may be in it, which is as long as the name of a file may be.
    return folder / f"{state.job[:_NAME_LENGTH]}.{state.pid}.json"


def _read(path: Path) -> JobState | None:
    try:
        with path.open("rb") as opened:
            return msgspec.json.decode(opened.read(_MOST_BYTES), type=JobState)
    except (OSError, msgspec.MsgspecError):
        return None
