"""systemd, as far as timers are concerned, through systemctl(1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hoster.errors import OperationFailed
from hoster.host.process import Runner

_RUNS = Path("/run/systemd/system")
"""It is there where systemd is what runs this system (sd_booted(3))."""

_TIMEOUT_S = 60.0


class Systemd:
    """The systemd of this machine. OperationFailed, with its own words, where it does not what it should."""

    def __init__(self, runner: Runner, runs: Path = _RUNS) -> None:
        self._runner = runner
        self._runs = runs

    @property
    def is_there(self) -> bool:
        """Whether this system is run by it."""
        return self._runs.is_dir()

    def reload(self) -> None:
        """Lets it read unit files anew."""
        self._do("daemon-reload")

    def start(self, timers: Sequence[str]) -> None:
        """Starts timers, now and with each boot; those that are started already stay so."""
        self._do("enable", "--now", *timers)

    def restart(self, timers: Sequence[str]) -> None:
        """Lets timers that run go by their new files."""
        self._do("restart", *timers)

    def stop(self, timers: Sequence[str]) -> None:
        """Ends timers for good; what they have started goes on. When they ran last is remembered, should they
        be started again."""
        self._do("disable", "--now", *timers)

    def _do(self, *words: str) -> None:
        done = self._runner.run(("systemctl", *words), timeout_s=_TIMEOUT_S)
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise OperationFailed(f"systemctl {words[0]}: {said}")
