"""An encrypted machine that runs goes back: refused, stopped, started; its guest finds what it is to find."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest

from lab.counting_guest import counted, disk_image
from lab.lab import Lab
from lab.node import Node
from tests.lab.histories import DISK, LOGS, WEB, every_guid, until
from tests.lab.world import DATASET, configure, guids, hoster, hoster_json, prepare, vm_report

pytestmark = pytest.mark.lab

_CONFIG: dict[str, Any] = {
    "production": True,
    "cpu_cores": 1,
    "memory": "32M",
    "loader": "bios",
    "parent_host": "node1",
    "disks": [
        {"disk_type": "nvme", "disk_location": "external", "disk_image": f"/dev/zvol/{DISK}"},
        {"disk_type": "nvme", "disk_location": "internal", "disk_image": "disk1.img"},
        {"disk_type": "virtio-blk", "disk_location": "internal", "disk_image": "d1"},
    ],
}


def make_machine(node: Node) -> None:
    """An encrypted VM of three disks, two volumes and a file, with a filesystem below it; the counting guest
    is on the first disk."""
    node.run(
        f"""set -e
        printf '%032d' 1 >/root/key
        zfs create -o encryption=on -o keyformat=raw -o keylocation=file:///root/key {WEB}
        zfs create -V 1M {DISK} && zfs create -V 1M {WEB}/d1 && zfs create -o mountpoint=/srv/logs {LOGS}
        truncate -s 1M /{WEB}/disk1.img
        """
    )
    node.put(disk_image(), "/tmp/guest.img")
    node.run(
        f"while [ ! -e /dev/zvol/{DISK} ]; do sleep 0.1; done;"
        f" dd if=/tmp/guest.img of=/dev/zvol/{DISK} bs=64k conv=fsync status=none"
    )
    node.write(f"/{WEB}/vm_config.json", json.dumps(_CONFIG))
    hoster(node, "vm adopt web")


def count(node: Node, disk: str = DISK) -> int:
    """What the guest has come to on a volume."""
    read = f"dd if=/dev/zvol/{disk} bs=4096 count=1 iflag=direct status=none"
    script = "import sys; print(sys.stdin.buffer.read(1024).hex())"
    return counted(bytes.fromhex(node.run(f"{read} | python3 -c '{script}'").stdout.strip()))


def counts_beyond(node: Node, since: int, *, limit_s: float = 120.0) -> int:
    gives_up_at = time.monotonic() + limit_s
    while (now := count(node)) <= since:
        assert time.monotonic() < gives_up_at, f"the guest has stopped at {now}"
        time.sleep(0.5)
    return now


def said(node: Node) -> list[int]:
    """All numbers that the guest has said on this node."""
    words = node.run("grep -a -o 'count [0-9a-f]\\{8\\}' /var/log/hoster/vm/web.console").stdout.split()
    return [int(word, 16) for word in words[1::2]]


def turn(node: Node, since: int) -> tuple[int, int]:
    """The last number before the guest went back, and the first one after, waited for; ``since`` so many."""

    def turns() -> list[tuple[int, int]]:
        return [(last, first) for last, first in pairwise(said(node)[since - 1 :]) if first <= last]

    until(turns, within_s=120)
    return turns()[0]


def report(node: Node, words: str, *, code: int = 0) -> Any:
    return vm_report(hoster_json(node, f"{words} </dev/null", code=code, timeout_s=300), "web")


def note(node: Node, text: str) -> None:
    """Writes to the disks that the guest does not write to, and below the VM's own filesystem."""
    node.run(f"echo {text} | tee /srv/logs/note | dd of=/{WEB}/disk1.img conv=notrunc status=none")
    node.run(f"echo {text} | dd of=/dev/zvol/{WEB}/d1 bs=4096 conv=sync oflag=direct status=none")


def noted(node: Node) -> set[str]:
    """What is there of it now: one text, where all went back to one moment."""
    return {
        node.run("cat /srv/logs/note").stdout.strip(),
        node.run(f"head -n 1 /{WEB}/disk1.img").stdout.strip(),
        node.run(
            f"dd if=/dev/zvol/{WEB}/d1 bs=4096 count=1 iflag=direct status=none | head -n 1"
        ).stdout.strip(),
    }


def test_a_machine_that_runs_goes_back_to_and_fro(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    node, target = fresh_lab.node1, fresh_lab.node2
    replicate = f"vm replicate web -e {target.address}"
    # So that whatever is missing in the end was lost, and not pruned.
    configure(node, "[replication]\nkeep = 99\n[replication.target-keep]\nreplication = 99")
    make_machine(node)
    note(node, "first")
    hoster(node, "vm start web")
    before = counts_beyond(node, 1)
    taken = report(node, "snapshot new web")["taken"][0]
    after = count(node)
    report(node, replicate)
    note(node, "second")
    newest = counts_beyond(node, after + 8)

    refused = report(node, f"snapshot rollback web {taken} --force-start", code=10)
    assert refused["ground"] == "running"
    assert "--force-stop" in refused["remedy"]
    report(node, replicate)
    newest = counts_beyond(node, newest)

    kept, there, so_far = every_guid(node), every_guid(target), len(said(node))
    back = report(node, f"snapshot rollback web {taken} --force-stop --force-start")
    assert back["outcome"] == "done", back
    assert back["notes"][0] == "it was stopped"
    assert back["notes"][-1] == "it was started"
    last, first = turn(node, so_far)
    assert before < first <= after + 1, (before, first, after)
    assert last >= newest
    assert noted(node) == {"first"}
    assert hoster_json(node, "vm info web")["running"]
    assert every_guid(node) == kept
    aside = f"{DATASET}/{back['branch']}/d0"
    newest = count(node, aside)
    assert newest in {last, last + 1}, "its last write, which it may not have said yet"
    there = followed(node, target, replicate, there)
    counts_beyond(node, first)
    assert count(node, aside) == newest, "the guest writes to what was set aside"

    restored = report(node, f"vm branches restore {back['branch']} --force-stop")
    assert restored["outcome"] == "done", restored
    assert not hoster_json(node, "vm info web")["running"]
    assert count(node) == newest
    assert noted(node) == {"second"}
    there = followed(node, target, replicate, there)
    left, so_far = count(node, f"{DATASET}/{restored['branch']}/d0"), len(said(node))
    again = report(node, f"vm branches restore {restored['branch']} --force-start")
    assert again["outcome"] == "done", again
    until(lambda: len(said(node)) > so_far, within_s=120)
    assert said(node)[so_far] == left + 1
    assert noted(node) == {"first"}
    assert count(node, f"{DATASET}/{again['branch']}/d0") == newest
    followed(node, target, replicate, there)
    assert kept <= every_guid(node)
    hoster(node, "vm stop web --force")


def followed(node: Node, target: Node, replicate: str, before: set[str]) -> set[str]:
    """The replica went where the VM went, and lost nothing; all that is there now."""
    sent = report(node, replicate)
    assert sent["outcome"] == "done", sent
    now = every_guid(target)
    assert before <= now
    for part in (WEB, DISK, f"{WEB}/d1", LOGS):
        assert guids(target, part)[-1] == guids(node, part)[-1], part
    return now
