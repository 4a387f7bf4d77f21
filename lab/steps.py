"""Runs the programs that build an image: one log, progress lines, nothing left mounted or running.

Every program runs in mount and process namespaces of its own that end with this process, even when it gets
SIGKILL.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import LabError
from lab.machine import tool_environment

__all__ = ["Steps"]

_IN_NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
)


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of one build, told on standard error; the programs' own output goes to `log`."""

    log: Path
    started_s: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Print one line of progress with the seconds since the build began."""
        print(f"lab: {time.monotonic() - self.started_s:4.0f} s  {text}", file=sys.stderr, flush=True)

    def run(self, argv: Sequence[str | Path], *, cwd: Path | None = None) -> None:
        """Run a program to its end. Raises LabError, with the end of its output, when it fails."""
        command = [str(word) for word in argv]
        with self.log.open("ab") as log:
            log.write(f"+ {' '.join(command)}\n".encode())
            log.flush()
            begins_at = log.tell()
            status = subprocess.run(
                [*_IN_NAMESPACES, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
                cwd=cwd,
                env=tool_environment(),
            ).returncode
        if status == 0:
            return
        tail = self.log.read_bytes()[begins_at:].decode(errors="replace").splitlines()[-15:]
        seen = "\n".join(f"  {line}" for line in tail)
        raise LabError(
            f"{command[0]} failed with status {status} while the image was built:\n{seen}",
            hint=f"the whole log: {self.log}; if the mirror did not answer: apt-get update",
        )

    def run_in(self, root: Path, script: str) -> None:
        """Run a shell script with `root` as its root directory and /proc mounted. Errors as for run."""
        mount_and_enter = 'mount -t proc proc "$1/proc" && exec chroot "$1" /bin/sh -eu -c "$2"'
        self.run(["sh", "-c", mount_and_enter, "sh", root, script])
