"""Words for the tests that break runs off: begin one, wait until data has arrived, see what is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from lab.node import Node
from tests.lab.world import DATASET, disk_hash, guids, replica_hash

EVERY = os.environ.get("HOSTER_SWEEP") == "every"
"""Whether all points are swept (`make sweep`), or a sample of them (`make test`)."""

When = Literal["before", "after"]
BOTH: tuple[When, When] = ("before", "after")

T = TypeVar("T")

HOSTER = "run_module"
"""A word of the command line by which a node's hoster is started, and of nothing else's."""

SENDS = "^zfs send"
RECEIVES = "^zfs receive"


def kill_points(points: Sequence[T], sample: int) -> list[tuple[When, T]]:
    """Where to kill: before and after each of these points in a sweep; else at ``sample`` of them, from the
    first to the last, by turns after and before."""
    if EVERY:
        return [(when, point) for point in points for when in BOTH]
    count = min(sample, len(points))
    chosen = [points[round(turn * (len(points) - 1) / max(count - 1, 1))] for turn in range(count)]
    return [("before" if turn % 2 else "after", point) for turn, point in enumerate(chosen)]


def until(happened: Callable[[], object], *, within_s: float = 60.0, what: str = "it") -> None:
    """Waits for an observable state."""
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not happen in time"
        time.sleep(0.2)


def running(node: Node, pattern: str) -> list[str]:
    """The processes of a node whose command line matches: their ids."""
    # The brackets keep the shell that asks from being found.
    hidden = pattern if pattern.startswith("^") else f"[{pattern[0]}]{pattern[1:]}"
    return node.run(f"pgrep -f '{hidden}' || true").stdout.split()


def begin(source: Node, words: str) -> None:
    """Starts hoster in the background; its output goes to /root/run.log, its exit code to /root/run.code."""
    source.run(
        "rm -f /root/run.log /root/run.code;"
        f" nohup sh -c 'hoster {words} >/root/run.log 2>&1 </dev/null; echo $? >/root/run.code.new;"
        " mv /root/run.code.new /root/run.code' >/dev/null 2>&1 </dev/null &"
    )


def used(target: Node, dataset: str) -> int:
    """What a replica takes up, what has arrived of the version under way included; 0 where there is none."""
    said = target.run(f"zfs get -Hp -o value used {dataset}", check=False).stdout.strip()
    return int(said) if said.isdigit() else 0


def begin_and_arrive(source: Node, target: Node, words: str, *names: str, kib: int = 512) -> None:
    """Starts hoster, and waits until so much of each VM's stream is on the target's disks.

    As much as the two pipes between hold, 2 MiB, is then sent already: a stream of more than 3 MiB still is.
    """
    before = {name: used(target, f"{DATASET}/{name}") for name in names}
    begin(source, words)

    def arrived() -> bool:
        assert source.run("cat /root/run.code", check=False).stdout == "", log(source)
        return all(used(target, f"{DATASET}/{n}") - was >= kib * 1024 for n, was in before.items())

    until(arrived, within_s=120, what="the arrival of a part")


def exit_code(source: Node, *, within_s: float = 120.0) -> int:
    """The exit code of the run in the background, waited for."""
    until(
        lambda: source.run("cat /root/run.code", check=False).stdout, within_s=within_s, what="the run's end"
    )
    return int(source.run("cat /root/run.code").stdout)


def log(source: Node) -> str:
    """What the run in the background has said."""
    return source.run("cat /root/run.log", check=False).stdout


def kill(node: Node, pattern: str) -> int:
    """Kills the processes whose command line matches; how many there were."""
    found = running(node, pattern)
    if found:
        node.run(f"kill -9 {' '.join(found)}", check=False)
    return len(found)


def token(target: Node, dataset: str) -> str:
    """The resume token of a partly received dataset; empty where there is none."""
    said = target.run(f"zfs get -H -o value receive_resume_token {dataset}", check=False).stdout.strip()
    return "" if said == "-" else said


def leftovers(node: Node) -> list[str]:
    """What a run that is over must not leave: holds, processes, sockets, locks that somebody has."""
    held = node.run(
        f"zfs list -Hp -r -t snapshot -o name,userrefs {DATASET} | awk '$2 > 0 {{ print $1 }}'"
    ).stdout.split()
    alive = node.run("pgrep -fa '[z]fs (send|receive)|[C]ontrolMaster' || true").stdout.splitlines()
    sockets = node.run("ls -d /run/hoster/ssh-* 2>/dev/null || true").stdout.split()
    locks = node.run(
        "for f in /run/hoster/locks/*; do [ ! -e $f ] || flock -n $f true || echo $f; done"
    ).stdout.split()
    return [*held, *alive, *sockets, *locks]


def converged(source: Node, target: Node, name: str) -> None:
    """Asserts that the replica is the VM: newest version, content, nothing partly received."""
    dataset = f"{DATASET}/{name}"
    assert guids(source, dataset)[-1] in guids(target, dataset)[-1:]
    assert replica_hash(target, name) == disk_hash(source, name)
    assert token(target, dataset) == ""
