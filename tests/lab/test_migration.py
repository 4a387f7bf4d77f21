"""A machine moves to and fro while it works: it runs on one node at a time, and no write of it is lost."""

from __future__ import annotations

import json
from itertools import cycle, islice
from typing import Any

import pytest

from lab.counting_guest import disk_image
from lab.lab import Lab
from lab.node import Node
from tests.lab.cutting import EVERY
from tests.lab.serial_line import faults, follow
from tests.lab.world import DATASET, hoster, prepare

pytestmark = pytest.mark.lab

WEB = f"{DATASET}/web"
DISK = f"{WEB}/d0"
_MOVES = 5 if EVERY else 2
_CONFIG: dict[str, Any] = {
    "production": True,
    "cpu_cores": 1,
    "memory": "32M",
    "loader": "bios",
    "parent_host": "node1",
    "disks": [
        {"disk_type": "nvme", "disk_location": "external", "disk_image": f"/dev/zvol/{DISK}"},
        {"disk_type": "virtio-blk", "disk_location": "internal", "disk_image": "disk1.img"},
    ],
}


def _make_machine(node: Node) -> None:
    """The guest counts on a volume; its second disk is a file."""
    node.run(f"zfs create {WEB} && zfs create -V 1M {DISK} && truncate -s 1M /{WEB}/disk1.img")
    node.put(disk_image(), "/root/guest.img")
    node.run(
        f"while [ ! -e /dev/zvol/{DISK} ]; do sleep 0.1; done;"
        f" dd if=/root/guest.img of=/dev/zvol/{DISK} bs=64k conv=fsync status=none"
    )
    node.write(f"/{WEB}/vm_config.json", json.dumps(_CONFIG))
    hoster(node, "vm adopt web")


def _write_file(node: Node, turn: int) -> bytes:
    """Writes to the disk that is a file, while the machine has it open."""
    text = f"written on {node.name} before move {turn}".encode()
    node.run(f"dd of=/{WEB}/disk1.img bs=1M conv=notrunc status=none", input=text)
    return text


def test_a_machine_moves_to_and_fro_and_a_second_one_would_be_noticed(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    one, two = fresh_lab.node1, fresh_lab.node2
    _make_machine(one)
    visited = [one.name]
    with follow([one, two], "web") as heard:
        hoster(one, "vm start web")
        heard.await_lines(one, 3)
        for turn, (here, there) in enumerate(islice(cycle([(one, two), (two, one)]), _MOVES), 1):
            text = _write_file(here, turn)
            told = hoster(here, f"vm migrate web --endpoint {there.name}", timeout_s=300).stdout
            assert f"epoch {turn + 1}@{there.name}" in told
            assert f"web is {there.name}'s VM now" in told
            assert there.get(f"/{WEB}/disk1.img").startswith(text)
            visited.append(there.name)
            heard.await_lines(there, 3)
            assert "it is a replica" in hoster(here, "vm start web", code=10).stderr
        assert faults(heard.lines(), visited) == []

        # Behind hoster's back, the copy that was left is made to look like one that may run.
        runs, left = (two, one) if visited[-1] == two.name else (one, two)
        left.run(f"zfs set hoster:role=primary hoster:epoch=99@{left.name} hoster:parent={left.name} {WEB}")
        hoster(left, "vm start web")
        heard.await_lines(left, 2)
        heard.await_lines(runs, 2)
        found = faults(heard.lines(), visited)
        assert any("it ran on" in fault for fault in found), found
        assert any(f"on {runs.name} came" in fault and f"on {left.name}," in fault for fault in found), found
    for node in (one, two):
        hoster(node, "vm stop web --force")
