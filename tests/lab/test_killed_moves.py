"""hoster is killed while a VM changes hands: one side can start it, and the same command again ends it well.

Each command is tried once without harm, to learn what it starts; then it is killed at what changes something,
before and after. A VM that has changed hands goes back with the next turn, so none is made anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from hoster.planning.succession import Standing, standing
from hoster.zfs.parse import parse_epoch
from lab.audit import Started
from lab.counting_guest import disk_image
from lab.lab import Lab
from lab.node import Node
from tests.lab.cutting import EVERY, HOSTER, When, kill_points, running, until
from tests.lab.world import DATASET, guids, hoster, prepare, value

pytestmark = pytest.mark.lab

WEB = f"{DATASET}/web"
DISK = f"{WEB}/d0"
_IN_A_SWEEP = pytest.mark.skipif(not EVERY, reason="at every point in make sweep; on a model in make unit")
_LOOKS = {"get", "list", "holds", "version", "send"}
_COMMITS = "hoster:role="
_ASKS_FAR_HOSTER = " exec hoster "
_FAR_CHANGES = (" receive ", " set ", " inherit ", " program ", " destroy ", " rename ", _ASKS_FAR_HOSTER)
_CONFIG: dict[str, Any] = {
    "production": True,
    "cpu_cores": 1,
    "memory": "32M",
    "loader": "bios",
    "parent_host": "node1",
    "disks": [{"disk_type": "nvme", "disk_location": "internal", "disk_image": "disk0.img"}],
}


@dataclass(frozen=True)
class Point:
    """Where hoster is killed: on which side of a command, at which of that node's starts, and what that
    starts."""

    side: Literal["here", "there"]
    start: int
    command: str


@dataclass(frozen=True)
class Sides:
    """The node on which a command is given, and the one that it is about."""

    here: Node
    there: Node

    def swapped(self) -> Sides:
        return Sides(self.there, self.here)

    def node(self, point: Point) -> Node:
        return self.here if point.side == "here" else self.there


def make_machine(node: Node) -> None:
    """A machine that can be started; the data are in a file and on a volume that it does not use."""
    node.run(f"zfs create {WEB} && zfs create -V 1M {DISK}")
    node.put(disk_image(), f"/{WEB}/disk0.img")
    node.write(f"/{WEB}/vm_config.json", json.dumps(_CONFIG))
    hoster(node, "vm adopt web")
    write(node)


def write(node: Node) -> None:
    node.run(
        f"head -c 65536 /dev/urandom >/{WEB}/data; while [ ! -e /dev/zvol/{DISK} ]; do sleep 0.1; done;"
        f" dd if=/dev/urandom of=/dev/zvol/{DISK} bs=64k count=2 conv=fsync status=none"
    )


def content(node: Node) -> list[str]:
    """SHA-256 of what is in the VM where it can be started."""
    return [
        line.split()[0] for line in node.run(f"sha256sum /{WEB}/data /dev/zvol/{DISK}").stdout.splitlines()
    ]


def can_start(nodes: Sequence[Node]) -> list[str]:
    """On which nodes `vm start` would not refuse it, by the marks of all copies."""
    marks = {
        node.name: (value(node, WEB, "hoster:role"), parse_epoch(value(node, WEB, "hoster:epoch")))
        for node in nodes
        if node.run(f"zfs list {WEB}", check=False).returncode == 0
    }
    return [
        name
        for name, (role, epoch) in marks.items()
        if role == "primary"
        and all(standing(epoch, other) is Standing.CURRENT for _, other in marks.values())
    ]


def starts(nodes: Sequence[Node]) -> list[str]:
    """On which nodes `vm start` does not refuse it; it is stopped again."""
    started = []
    for node in nodes:
        done = hoster(node, "vm start web </dev/null", code=None)
        assert done.returncode in {0, 2, 3, 10}, done
        if done.returncode == 0:
            started.append(node.name)
            hoster(node, "vm stop web --force")
    return started


def points_of(here: Sequence[Started], there: Sequence[Started]) -> list[Point]:
    """The starts that change something: of the hoster here, and of the one that it runs there."""
    # What ssh starts there has one parent, too, and sets roles: those are points of this side already.
    asked = {start.parent_pid for start in there if "receive" in start.arguments[:1]}
    far = {start.parent_pid for start in there if _COMMITS in _words(start)} - asked
    found = [Point("here", n, _words(start)) for n, start in enumerate(here, 1) if _changes(start)]
    found += [
        Point("there", n, _words(start))
        for n, start in enumerate(there, 1)
        if start.parent_pid in far and _changes(start)
    ]
    return found


def _words(start: Started) -> str:
    return f" {start.name} {' '.join(start.arguments)} "


def _changes(start: Started) -> bool:
    if start.name == "ssh":
        return any(change in _words(start) for change in _FAR_CHANGES)
    return start.name == "zfs" and start.arguments[0] not in _LOOKS


def learn(sides: Sides, act: Callable[[Sides], object]) -> list[Point]:
    """What changes something of all that a command starts on both sides while nothing happens to it."""
    with sides.here.audit() as here, sides.there.audit() as there:
        act(sides)
    return points_of(here.starts, there.starts)


def turns(points: Sequence[Point]) -> Sequence[tuple[When, Point]]:
    """What is to be tried: before and after all points; or after the hoster there gives its copy the right to
    run, and before the last one of this side that comes before it asks it to."""
    if EVERY:
        return kill_points(points, len(points))
    there = next(point for point in points if point.side == "there" and _COMMITS in point.command)
    here = [point.side == "here" and _ASKS_FAR_HOSTER in point.command for point in points].index(True)
    return [("after", there), ("before", points[here - 1])]


def killed(sides: Sides, when: When, point: Point, command: str) -> str:
    """Runs the command, and kills the hoster of that side at that start; what that was.

    What is killed before a start does not see its end; what was to be started may still run.
    """
    node = sides.node(point)
    node.audit.start()
    node.audit.arm(when, point.start, kill=HOSTER)
    code = hoster(sides.here, command, code=None, timeout_s=300).returncode
    for each in (sides.here, sides.there):
        until(lambda each=each: not running(each, HOSTER) and not running(each, "^zfs "))  # type: ignore[misc]
    hit = node.audit.disarm()
    seen = node.audit.stop()
    assert hit, f"{command}: {point} hit nothing that was alive: {len(seen)} starts, exit code {code}"
    command = _words(seen[point.start - 1])[-80:].strip().replace("\n", " ")
    return f"killed {when} {point.side}: {command}  -> {code}"


def settled(sides: Sides, data: list[str]) -> None:
    """The VM is the node's ``there``, ready to be started, with its data; ``here`` is its replica."""
    here, there = sides.here, sides.there
    assert can_start([here, there]) == [there.name]
    assert content(there) == data
    assert (value(there, WEB, "mounted"), value(there, WEB, "readonly")) == ("yes", "off")
    assert (value(here, WEB, "hoster:role"), value(here, WEB, "mounted")) == ("replica", "no")
    assert value(here, WEB, "readonly") == "on"


def test_a_migration_killed_at_any_command_leaves_one_side_and_is_finished(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    nodes = fresh_lab.nodes[:2]
    sides = Sides(*nodes)
    make_machine(sides.here)
    move: Callable[[Sides], object] = lambda sides: hoster(  # noqa: E731
        sides.here, f"vm migrate web --endpoint {sides.there.name}", timeout_s=300
    )
    move(sides)
    sides = sides.swapped()
    write(sides.here)
    points = learn(sides, move)
    sides = sides.swapped()
    sided = set()
    for turn, (when, point) in enumerate(turns(points)):
        write(sides.here)
        data = content(sides.here)
        what = killed(sides, when, point, f"vm migrate web --endpoint {sides.there.name}")
        (side,) = can_start(nodes)
        print(what, "here" if side == sides.here.name else "there", sep=", ", flush=True)
        if turn % 5 == 0:
            assert starts(nodes) == [side], what
        sided.add(side == sides.here.name)
        move(sides)
        settled(sides, data)
        sides = sides.swapped()
    assert sided == {True, False}, "both sides of the promotion were tried"


@_IN_A_SWEEP
def test_a_failback_killed_at_any_command_keeps_the_new_side_and_is_finished(fresh_lab: Lab) -> None:
    """What it runs on the old host, which demotes its copy, is among the commands."""
    prepare(fresh_lab)
    one, two = fresh_lab.nodes[:2]
    make_machine(one)
    hoster(one, "vm replicate web --endpoint node2")
    go_back: Callable[[Sides], object] = lambda sides: hoster(  # noqa: E731
        sides.here, f"vm failback web --endpoint {sides.there.name}", timeout_s=300
    )
    sides = Sides(two, one)
    _take_over(sides)
    go_back(sides)
    sides = sides.swapped()
    _take_over(sides)
    points = learn(sides, go_back)
    sides = sides.swapped()
    for when, point in turns(points):
        alone = _take_over(sides)
        data = content(sides.here)
        what = killed(sides, when, point, f"vm failback web --endpoint {sides.there.name}")
        print(what, flush=True)
        assert can_start([one, two]) == [sides.here.name], what
        go_back(sides)
        settled(sides.swapped(), data)
        assert guids(sides.there, WEB)[-1] == guids(sides.here, WEB)[-1], what
        assert alone in _branches(sides.there), what
        sides = sides.swapped()


def _take_over(sides: Sides) -> str:
    """The node ``here`` takes the VM over while both go on writing; a hash of what ``there`` wrote alone."""
    write(sides.there)
    alone = sides.there.run(f"sha256sum </{WEB}/data").stdout.split()[0]
    hoster(sides.here, "change parent --vm web --accept-loss")
    write(sides.here)
    return alone


def _branches(node: Node) -> list[str]:
    """Hashes of what is in the VM's branches there, which are destroyed then."""
    listed = node.run(f"zfs list -H -o name -d 1 {DATASET} | grep web.branch- || true").stdout.split()
    read = "".join(
        f"zfs mount {branch} && sha256sum </{branch}/data && zfs unmount {branch};" for branch in listed
    )
    hashes = [line.split()[0] for line in node.run(read).stdout.splitlines()] if listed else []
    for branch in listed:
        hoster(node, f"vm branches destroy {branch.rpartition('/')[2]} -y")
    return hashes


@_IN_A_SWEEP
def test_a_restore_killed_at_any_command_goes_on_with_the_same_command(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    one, two = fresh_lab.nodes[:2]
    sides = Sides(one, two)
    make_machine(one)
    hoster(one, "vm replicate web --endpoint node2")
    data = content(one)
    command = "vm restore web --from node2"

    one.run(f"zfs destroy -r {WEB}")
    points = learn(sides, lambda sides: hoster(sides.here, command))
    for when, point in turns(points):
        one.run(f"zfs destroy -r {WEB}")
        what = killed(sides, when, point, command)
        print(what, flush=True)
        assert can_start([one, two]) in ([], ["node1"]), what
        again = hoster(one, command, code=None)
        assert again.returncode == 0 or "exists already" in again.stderr, again
        settled(sides.swapped(), data)
