"""`make demo`: hoster's main job on real OpenZFS, as a user would type it, with the answers it gave.

Two nodes; three machines' disks with real data on the first; snapshots with retention; replication; then the
first node loses its power, and the second must hold, to the byte, what was last replicated. Ends non-zero if
anything does not match.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from lab.errors import LabError
from lab.lab import Lab
from lab.node import Node

_PACKAGE = Path(__file__).parents[1] / "src/hoster"
_VMS = ("web", "mail", "database")


class Mismatch(Exception):
    """Something on a node is not what it has to be."""


class Story:
    """Shows what is done on which node, in the words that a user would type."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def chapter(self, text: str) -> None:
        """A headline with the time since the beginning."""
        print(f"\n\033[1m── {text}  ({time.monotonic() - self._started:.0f} s)\033[0m", flush=True)

    def type(self, node: Node, command: str) -> str:
        """Runs a command on a node and shows both; Mismatch if it fails."""
        print(f"\033[36m{node.name}#\033[0m {command}", flush=True)
        done = node.run(f"export COLUMNS=150; {command}", check=False, timeout_s=180)
        text = (done.stderr + done.stdout).rstrip()
        if text:
            print("\n".join(f"   {line}" for line in text.splitlines()), flush=True)
        if done.returncode != 0:
            raise Mismatch(f"{node.name}: `{command}` ended with {done.returncode}")
        return done.stdout


def main() -> int:
    """Tells the story; 0 if everything matched, 1 otherwise."""
    story = Story()
    try:
        story.chapter("Two nodes with OpenZFS come up (the first time their image is built: some minutes)")
        with Lab(nodes=2) as lab:
            lab.reset()
            lab.deploy(_PACKAGE)
            _tell(story, lab)
    except (LabError, Mismatch) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    return 0


def _tell(story: Story, lab: Lab) -> None:
    one, two = lab.node1, lab.node2
    story.chapter("Both get a dataset for VMs and hoster's first configuration")
    for node in (one, two):
        story.type(node, "zfs create tank/vm && hoster init --dataset tank/vm")

    story.chapter("Three machines' disks with real data become VMs of node1")
    for name in _VMS:
        story.type(one, f"zfs create tank/vm/{name} && {_fill(name)} && hoster vm adopt {name}")
    story.type(one, "hoster vm list")

    story.chapter("Snapshots of several types, with retention")
    story.type(one, "hoster snapshot new web --description 'before the upgrade'")
    story.type(one, "hoster snapshot all --stype daily --keep 5")
    for _ in range(3):
        one.run(_fill("web"))
        story.type(one, "hoster snapshot all --stype hourly --keep 2")

    story.chapter("Everything goes to node2, in one command")
    story.type(one, f"hoster vm replicate-all --endpoint {two.address}")

    story.chapter("More is written; only what changed goes")
    story.type(one, f"{_fill('web')} && {_fill('database')}")
    written = {name: _hash(one, name) for name in _VMS}
    story.type(one, f"hoster vm replicate-all --endpoint {two.address}")
    story.type(one, "hoster snapshot list-all")
    story.type(two, "hoster snapshot list-all")
    story.type(two, "hoster vm list")

    story.chapter("Node1 loses its power")
    one.power_cut()
    print("   (its virtual machine was killed)")

    story.chapter("Node2 holds, to the byte, what was written on node1")
    for name in _VMS:
        answer = story.type(
            two,
            f"zfs mount tank/vm/{name} && sha256sum /tank/vm/{name}/disk0.img && zfs unmount tank/vm/{name}",
        )
        if answer.split()[0] != written[name]:
            raise Mismatch(f"{name}: node1 had {written[name]}, node2 has {answer.split()[0]}")
        print(f"   {name}: the same hash that node1 had")
    story.chapter("Done: every replica holds what was written")


def _fill(name: str) -> str:
    return f"head -c 2000000 /dev/urandom >/tank/vm/{name}/disk0.img"


def _hash(node: Node, name: str) -> str:
    return node.run(f"sha256sum /tank/vm/{name}/disk0.img").stdout.split()[0]


if __name__ == "__main__":
    sys.exit(main())
