"""Which programs a node has started: every start of zfs, zpool and ssh, by whatever path, exactly counted.

The programs' places in the image are taken by a shim (guest/shim.c) that notes each start and then becomes
the real program. It can also cause a fault at a chosen start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Audit", "Seen", "Started"]

_LOG = "/run/lab/audit.log"
_FAULT = "/run/lab/fault"
_ESCAPES = {r"\\": "\\", r"\t": "\t", r"\n": "\n"}


@dataclass(frozen=True, slots=True)
class Started:
    """One start: when (nanoseconds since the node's boot), which process, what."""

    at_ns: int
    pid: int
    parent_pid: int
    name: str
    arguments: tuple[str, ...]


@dataclass(slots=True)
class Seen:
    """The starts of one audit, in order; filled when the audit ends."""

    starts: list[Started] = field(default_factory=list)

    def count(self, name: str, *arguments: str) -> int:
        """How many starts of `name` had arguments that begin with these."""
        return sum(
            started.name == name and started.arguments[: len(arguments)] == arguments
            for started in self.starts
        )


class Audit:
    """The audit of one node. `run(command)` runs a shell command there and gives its output."""

    def __init__(self, run: Callable[[str], str]) -> None:
        self._run = run

    @contextmanager
    def __call__(self) -> Iterator[Seen]:
        """Note all starts while the block runs."""
        seen = Seen()
        self.start()
        try:
            yield seen
        finally:
            seen.starts = self.stop()

    def start(self) -> None:
        """Begin to note starts, forgetting earlier ones."""
        self._run(f": >{_LOG}")

    def stop(self) -> list[Started]:
        """End the audit; all starts since it began, in order."""
        return [_parsed(line) for line in self._run(f"cat {_LOG}; rm {_LOG}").splitlines()]

    def arm(self, when: Literal["before", "after"], start: int, kill: str | None = None) -> None:
        """Cause a fault at the `start`-th start from now on, over all three programs, counted from 1.

        Kills every process whose command line holds the word `kill`, or, without one, restarts the node
        as a power failure would; before the program runs, or after it has ended.
        """
        what = "power" if kill is None else f"kill {kill}"
        self._run(
            f"rm -f {_FAULT}.count {_FAULT}.killed; echo '{when} {start} {what}' >{_FAULT}.new;"
            f" mv {_FAULT}.new {_FAULT}"
        )

    def disarm(self) -> int:
        """Take back a fault that was armed; how many processes it has killed, 0 if it did not come about."""
        said = self._run(f"cat {_FAULT}.killed 2>/dev/null; rm -f {_FAULT} {_FAULT}.count {_FAULT}.killed")
        return int(said or 0)


def _parsed(line: str) -> Started:
    at_ns, pid, parent_pid, name, *arguments = line.split("\t")
    return Started(
        at_ns=int(at_ns),
        pid=int(pid),
        parent_pid=int(parent_pid),
        name=name,
        arguments=tuple(re.sub(r"\\.", lambda found: _ESCAPES[found[0]], argument) for argument in arguments),
    )
