"""A machine that runs goes back: refused, stopped, started, and its guest finds the disk it is to find."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from lab.counting_guest import counted, disk_image
from lab.lab import Lab
from lab.node import Node
from tests.lab.histories import DISK, WEB, every_guid
from tests.lab.world import DATASET, hoster, hoster_json, prepare, vm_report

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
    ],
}


def make_machine(node: Node) -> None:
    """A VM whose first disk is a volume, with the counting guest on it; the second one is a file."""
    node.run(f"zfs create {WEB} && zfs create -V 1M {DISK} && truncate -s 1M /{WEB}/disk1.img")
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


def report(node: Node, words: str, *, code: int = 0) -> Any:
    return vm_report(hoster_json(node, f"{words} </dev/null", code=code, timeout_s=300), "web")


def test_a_machine_that_runs_goes_back_to_and_fro(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    node = fresh_lab.node1
    make_machine(node)
    hoster(node, "vm start web")
    before = counts_beyond(node, 1)
    taken = report(node, "snapshot new web")["taken"][0]
    after = count(node)
    newest = counts_beyond(node, after + 8)

    refused = report(node, f"snapshot rollback web {taken} --force-start", code=10)
    assert refused["ground"] == "running"
    assert "--force-stop" in refused["remedy"]
    newest = counts_beyond(node, newest)

    kept = every_guid(node)
    back = report(node, f"snapshot rollback web {taken} --force-stop --force-start")
    here = count(node)
    assert back["outcome"] == "done", back
    assert back["notes"][0] == "it was stopped"
    assert back["notes"][-1] == "it was started"
    assert before <= here < newest, (before, here, newest)
    assert hoster_json(node, "vm info web")["running"]
    assert every_guid(node) == kept
    aside = f"{DATASET}/{back['branch']}/d0"
    newest = count(node, aside)
    assert newest > here
    counts_beyond(node, here)
    assert count(node, aside) == newest, "the guest writes to what was set aside"

    restored = report(node, f"vm branches restore {back['branch']} --force-stop")
    assert restored["outcome"] == "done", restored
    assert not hoster_json(node, "vm info web")["running"]
    assert count(node) == newest
    left = count(node, f"{DATASET}/{restored['branch']}/d0")
    again = report(node, f"vm branches restore {restored['branch']} --force-start")
    assert again["outcome"] == "done", again
    assert counts_beyond(node, left) < newest + left
    assert count(node, f"{DATASET}/{again['branch']}/d0") == newest
    hoster(node, "vm stop web --force")
