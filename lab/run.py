"""One lab run: its directory, and the keeper process that holds its namespace (see lab.keeper).

A run directory lies in the machine's temporary directory. A lock on a file in it is held as long as the
keeper lives: directories whose lock is free belong to runs that died, and are removed by the next start.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.machine import tool_environment

__all__ = ["LiveRun", "Run", "live_runs", "remove_dead_runs"]

_PREFIX = "hoster-lab-run-"
_SETTLED_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run that somebody holds up now; `pid` is its starter's."""

    directory: Path
    pid: int
    nodes: tuple[str, ...]


class Run:
    """The namespace and the directory of one run. Everything in them ends with close(), or with us."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        unlocked = self.directory / "lock.new"
        lock = os.open(unlocked, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        unlocked.rename(self.directory / "lock")
        keeper = Path(__file__).with_name("keeper.py")
        self._process = subprocess.Popen(
            [
                *("unshare", "--net", "--pid", "--fork", "--kill-child=KILL"),
                *(sys.executable, "-I", keeper, self.directory),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=tool_environment(),
            # Ctrl-C in a terminal is for the starter: it closes us.
            start_new_session=True,
            pass_fds=(lock,),
        )
        os.close(lock)
        # Nodes are started side by side, by threads.
        self._turn = threading.Lock()

    def run(self, *argv: str, text: str = "") -> str:
        """Run a short command in the namespace; its output. Raises LabError when it fails."""
        reply = self._ask({"do": "run", "argv": argv, "input": text})
        if reply["status"] != 0:
            raise LabError(f"{' '.join(argv)} failed in the lab's namespace: {reply['stderr'].strip()}")
        return str(reply["stdout"])

    def spawn(self, name: str, argv: Sequence[str], log: Path) -> None:
        """Start a long process, called `name`, in the place of an earlier one of that name."""
        self._ask({"do": "spawn", "name": name, "argv": list(argv), "log": str(log)})

    def kill(self, name: str) -> None:
        """End that process with SIGKILL and wait until it is gone. One that does not run is no error."""
        self._ask({"do": "kill", "name": name})

    def is_running(self, name: str) -> bool:
        """Whether the process called `name` runs."""
        return bool(self._ask({"do": "status", "name": name})["running"])

    def tell(self, nodes: Sequence[str]) -> None:
        """Write down for `live_runs` who holds this run up and which nodes it has."""
        state = self.directory / "state.new"
        state.write_text(json.dumps({"pid": os.getpid(), "nodes": list(nodes)}))
        state.rename(self.directory / "state.json")

    def close(self) -> None:
        """End everything of this run and remove its directory."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise LabError("the lab's keeper has no pipes")
        with self._turn:
            try:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except (BrokenPipeError, ValueError) as error:
                raise LabError("the lab has ended") from error
        if not line:
            raise LabError("the lab's keeper died", hint="start the lab again")
        reply: dict[str, Any] = json.loads(line)
        return reply


def live_runs() -> list[LiveRun]:
    """All runs held up on this machine now, whoever started them."""
    runs = []
    for directory in _directories():
        state = directory / "state.json"
        if _is_alive(directory) and state.exists():
            known = json.loads(state.read_text())
            runs.append(LiveRun(directory, known["pid"], tuple(known["nodes"])))
    return runs


def remove_dead_runs() -> None:
    """Remove the directories of runs that nobody holds up any more."""
    for directory in _directories():
        if not _is_alive(directory):
            shutil.rmtree(directory, ignore_errors=True)


def _directories() -> Iterator[Path]:
    return Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")


def _is_alive(directory: Path) -> bool:
    try:
        with (directory / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        # Either about to be locked, or left by a starter that died before it was.
        return directory.exists() and time.time() - directory.stat().st_mtime < _SETTLED_AFTER_S
    return False
