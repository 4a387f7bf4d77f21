"""`make demo`: hoster's main job on real OpenZFS, as a user would type it, with the answers it gave.

Two nodes, and a real machine on the first: a guest that counts on its disk. It is snapshotted, replicated,
broken and rolled back. Then the first node loses its power; the second takes the machine over and runs it;
the first one comes back, is refused, becomes a replica, and gets its machine back. Ends non-zero if anything
does not match.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from lab.counting_guest import SECTOR, counted, disk_image
from lab.errors import LabError
from lab.lab import Lab
from lab.node import Node

_PACKAGE = Path(__file__).parents[1] / "src/hoster"
_DISK = "/tank/vm/web/disk0.img"
_REPLICATE = "hoster vm replicate-all --endpoint"


class Mismatch(Exception):
    """Something on a node is not what it has to be."""


class Story:
    """Shows what is done on which node, in the words that a user would type."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def chapter(self, text: str) -> None:
        """A headline with the time since the beginning."""
        print(f"\n\033[1m── {text}  ({time.monotonic() - self._started:.0f} s)\033[0m", flush=True)

    def say(self, text: str) -> None:
        """What a user would see by looking."""
        print(f"   {text}", flush=True)

    def type(self, node: Node, command: str, *, code: int = 0) -> str:
        """Runs a command on a node and shows both; Mismatch if it ends with another exit code."""
        print(f"\033[36m{node.name}#\033[0m {command}", flush=True)
        done = node.run(f"export COLUMNS=150; {command}", check=False, timeout_s=300)
        text = (done.stderr + done.stdout).rstrip()
        if text:
            print("\n".join(f"   {line}" for line in text.splitlines()), flush=True)
        if done.returncode != code:
            raise Mismatch(f"{node.name}: `{command}` ended with {done.returncode}, not {code}")
        return done.stdout


def main() -> int:
    """Tells the story; 0 if everything matched, 1 otherwise."""
    story = Story()
    try:
        story.chapter("Two nodes with OpenZFS come up (the first time their image is built: some minutes)")
        with Lab(nodes=2) as lab:
            lab.reset()
            lab.deploy(_PACKAGE)
            _protect(story, lab)
            counted_to = _break_and_roll_back(story, lab)
            _lose_a_node(story, lab, counted_to)
            _come_home(story, lab)
            story.chapter("Done: nothing was lost, and at every moment one node could run the machine")
    except (LabError, Mismatch) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    return 0


def _protect(story: Story, lab: Lab) -> None:
    one, two = lab.node1, lab.node2
    story.chapter("Both get a dataset for VMs and hoster's first configuration")
    for node in (one, two):
        story.type(node, "zfs create tank/vm && hoster init --dataset tank/vm")
    story.chapter(
        "A machine on node1, from the image of a guest that counts on its disk; and one that is only data"
    )
    one.put(disk_image(), "/root/counting.img")
    deploy = "hoster vm deploy --name web --cpu-cores 1 --ram 32M --loader bios"
    story.type(one, f"{deploy} --from-image /root/counting.img --start-now")
    story.type(one, "zfs create tank/vm/files && cp -r /etc /tank/vm/files/ && hoster vm adopt files")
    story.type(one, "hoster vm list")
    story.chapter("Snapshots of several types, with retention; then everything goes to node2, in one command")
    _await_count(story, one, 0)
    story.type(one, "hoster snapshot new web --description 'before the upgrade'")
    for _ in range(3):
        story.type(one, "hoster snapshot all --stype hourly --keep 2")
    story.type(one, f"{_REPLICATE} {two.address}")
    story.type(two, "hoster vm list")


def _break_and_roll_back(story: Story, lab: Lab) -> int:
    """What the guest had come to when it was replicated last."""
    one, two = lab.node1, lab.node2
    story.chapter("An upgrade goes wrong: the machine's disk is overwritten")
    good = _count(one)
    story.type(
        one,
        f"hoster vm stop web --force && dd if=/dev/zero of={_DISK} bs=1M count=1 conv=notrunc status=none",
    )
    if _count(one) != 0:
        raise Mismatch("the disk is not broken")
    story.type(one, "hoster snapshot list web")
    newest = one.run(
        "zfs list -H -o name -S createtxg -t snapshot tank/vm/web | grep hourly | head -n 1"
    ).stdout.strip()
    story.type(one, f"hoster snapshot rollback web {newest} --force-stop --force-start")
    back = _await_count(story, one, 0)
    if back == 0 or back > good + 60:
        raise Mismatch(f"the guest counts from {back}, it had come to {good}")
    story.chapter("What was set aside is kept; replication goes on, incrementally")
    story.type(one, "hoster vm branches")
    story.type(one, f"{_REPLICATE} {two.address}")
    return _count_in(
        one, one.run("ls -d /tank/vm/web/.zfs/snapshot/replication_* | tail -n 1").stdout.strip()
    )


def _lose_a_node(story: Story, lab: Lab, counted_to: int) -> None:
    one, two = lab.node1, lab.node2
    story.chapter("Node1 loses its power")
    one.run("sync")
    one.power_cut()
    story.say("(its virtual machine was killed)")
    story.chapter("Two commands on node2, and the machine runs there, with the data of the last replication")
    story.type(two, "hoster change parent --vm web")
    if _count(two) != counted_to:
        raise Mismatch(f"the replica holds {_count(two)}, {counted_to} was replicated")
    story.say(f"its guest had counted to {counted_to} when it was replicated, and that is what is there")
    # Node1 is still off, so that nobody can be asked whether it runs there: a person has to say so.
    story.type(two, "hoster vm start web --isolated")
    _await_count(story, two, counted_to)


def _come_home(story: Story, lab: Lab) -> None:
    one, two = lab.node1, lab.node2
    story.chapter("Node1 comes back, and knows of nothing: what its cron would do is refused")
    one.start()
    story.type(one, f"{_REPLICATE} {two.address}", code=10)
    story.type(one, "hoster vm start web", code=10)
    story.chapter("It becomes a replica again, incrementally; what it had written alone is a branch there")
    story.type(two, f"hoster vm failback web --endpoint {one.address}")
    story.type(one, "hoster vm list; hoster vm branches")
    story.chapter("And the machine goes home")
    before = _count(two)
    story.type(two, f"hoster vm migrate web --endpoint {one.address} --force-stop --stop-wait 5")
    after = _await_count(story, one, before)
    story.say(f"its guest was at {before} on node2, and is at {after} on node1")
    story.type(one, f"{_REPLICATE} {two.address}")
    story.type(one, "hoster vm list")


def _count(node: Node) -> int:
    return _count_in(node, "/tank/vm/web")


def _count_in(node: Node, folder: str) -> int:
    """What the guest has come to on its disk in that folder."""
    script = f"import sys; sys.stdout.write(open('{folder}/disk0.img', 'rb').read({2 * SECTOR}).hex())"
    return counted(bytes.fromhex(node.run(f'python3 -c "{script}"').stdout))


def _await_count(story: Story, node: Node, beyond: int) -> int:
    """Waits until the guest has counted on; Mismatch if it does not."""
    gives_up_at = time.monotonic() + 180
    while (now := _count(node)) <= beyond:
        if time.monotonic() > gives_up_at:
            raise Mismatch(f"the guest on {node.name} does not count: it is at {now}")
        time.sleep(0.5)
    story.say(f"the guest on {node.name} counts: {now}")
    return now


if __name__ == "__main__":
    sys.exit(main())
