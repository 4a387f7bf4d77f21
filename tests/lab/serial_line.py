"""What a counting guest says on its serial line, wherever it runs, by one clock; what must never be in it.

The judgement is pure: lines in, sentences out. The lines are stamped as they come in, by the clock of the
machine that the lab runs on, so the nodes' clocks do not matter; a stamp may be late, and is never early.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from lab.node import Node, ssh_command

_COUNT = re.compile(rb"count ([0-9a-f]{8})\s*$")


@dataclass(frozen=True, slots=True)
class Said:
    """One line of the guest: when (seconds of this machine's monotonic clock), on which node, its count."""

    at_s: float
    node: str
    count: int


def route(lines: Sequence[Said]) -> tuple[str, ...]:
    """The nodes in the order in which the guest spoke on them."""
    return tuple(node for node, _ in groupby(line.node for line in _in_time(lines)))


def faults(lines: Sequence[Said], expected: Sequence[str]) -> list[str]:
    """What speaks against one guest that was moved along the nodes ``expected`` and lost nothing.

    Each line is to be one more than the one before it, whichever node it comes from: a guest that says a
    number has written it, and goes on from what it finds on its disk. Empty if nothing speaks against it::

        n1:1 n1:2 n2:3 n2:4              along n1, n2: nothing
        n1:1 n1:2 n2:2 n2:3              2 twice: the last write was lost on the way
        n1:1 n1:2 n2:3 n1:3 n2:4         it spoke on n1 while n2 had it
    """
    found = []
    if route(lines) != tuple(expected):
        found.append(f"it ran on {', '.join(route(lines))}, and was moved along {', '.join(expected)}")
    for before, after in pairwise(_in_time(lines)):
        if after.count != before.count + 1:
            found.append(
                f"after {before.count} on {before.node} came {after.count} on {after.node},"
                f" {after.at_s - before.at_s:.1f} s later"
            )
    return found


class Followed:
    """What has been said so far; filled in the background."""

    def __init__(self) -> None:
        self._lines: list[Said] = []
        self._lock = threading.Lock()

    def lines(self) -> list[Said]:
        """All lines so far, as they came in."""
        with self._lock:
            return list(self._lines)

    def await_lines(self, node: Node, more: int, *, limit_s: float = 180.0) -> int:
        """Waits until the guest has said so much more on that node than by now; its last count."""
        wanted = len(self._of(node)) + more
        gives_up_at = time.monotonic() + limit_s
        while len(said := self._of(node)) < wanted:
            assert time.monotonic() < gives_up_at, f"the guest is silent on {node.name}: {self.lines()[-3:]}"
            time.sleep(0.2)
        return said[-1].count

    def _of(self, node: Node) -> list[Said]:
        return [line for line in self.lines() if line.node == node.name]

    def _hear(self, node: str, line: bytes) -> None:
        found = _COUNT.search(line)
        if found is not None:
            with self._lock:
                self._lines.append(Said(time.monotonic(), node, int(found[1], 16)))


@contextlib.contextmanager
def follow(nodes: Sequence[Node], name: str) -> Iterator[Followed]:
    """While the block runs, hears what the VM of that name says on any of the nodes."""
    log = f"/var/log/hoster/vm/{name}.console"
    heard = Followed()
    with contextlib.ExitStack() as stack:
        for node in nodes:
            node.run(f"mkdir -p $(dirname {log}) && : >{log}")
            command = [*ssh_command(node.directory), f"exec tail -n 0 -F {log} 2>/dev/null"]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            )
            thread = threading.Thread(target=_hear_all, args=(heard, node.name, process), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(process.terminate)
        yield heard


def _hear_all(heard: Followed, node: str, process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        heard._hear(node, line)


def _in_time(lines: Sequence[Said]) -> list[Said]:
    return sorted(lines, key=lambda line: line.at_s)
