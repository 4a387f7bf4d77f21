"""Receives that run on a node: all of them, and those to which nobody sends any more.

When a sender's machine loses its power, or a link goes silent, sshd on the target hears nothing of it for
hours, by default, and the receive goes on waiting and keeps its dataset busy. It is recognised by the origin
in its environment (:mod:`hoster.host.origin`). Ending it loses nothing: what has arrived is kept
(``zfs receive -s``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from hoster.host.origin import ORIGIN

_RECEIVE = re.compile(
    r"\s*(?P<pid>[0-9]+) (?:\S*/)?zfs receive (?:-[su] |-[ox] \S+ )*(?P<target>[^=]+?)"
    r" (?P<environment>\w+=.*)",
    re.ASCII,
)
"""The target is the last word of the command, may hold blanks, and is followed by the environment."""

_ORIGIN = re.compile(rf" {ORIGIN}=(\S+)")

_END = (
    'for pid in "$@"; do kill "$pid" 2>/dev/null; n=0;'
    ' while kill -0 "$pid" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.2; n=$((n + 1)); done; done'
)


class Receive(Struct, frozen=True):
    """A receive that runs: its process, and into what."""

    pid: int
    target: str


def processes() -> Sequence[str]:
    """Lists all processes with their environments, on Linux and on FreeBSD (ps(1))."""
    return ("ps", "axeww", "-o", "pid,command")


def ending(receives: Iterable[Receive]) -> Sequence[str]:
    """Ends these processes and waits until they have gone, 20 seconds for each at most."""
    return ("sh", "-c", _END, "sh", *(str(receive.pid) for receive in receives))


def abandoned(
    lines: Iterable[str], targets: Iterable[str], is_gone: Callable[[str], bool]
) -> tuple[Receive, ...]:
    """The receives into ``targets`` among the ``lines`` of :func:`processes` whose sender ``is_gone``."""
    found = _receives(lines, targets)
    return tuple(receive for receive, origin in found if origin is not None and is_gone(origin))


def under_way(lines: Iterable[str], targets: Iterable[str]) -> tuple[Receive, ...]:
    """All receives into ``targets`` among the ``lines`` of :func:`processes`, whoever sends."""
    return tuple(receive for receive, _ in _receives(lines, targets))


def _receives(lines: Iterable[str], targets: Iterable[str]) -> Iterator[tuple[Receive, str | None]]:
    """Each with its origin, where hoster has begun it."""
    wanted = frozenset(targets)
    for line in lines:
        match = _RECEIVE.fullmatch(line)
        if match is not None and match["target"] in wanted:
            origin = _ORIGIN.search(f" {match['environment']}")
            yield Receive(int(match["pid"]), match["target"]), None if origin is None else origin[1]
