"""What cannot be done with a VM is said, with its exit code, before anything is made or changed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab.counting_guest import disk_image
from lab.lab import Lab
from lab.node import Completed, Node
from tests.lab.world import DATASET, everything, hoster, make_vm, prepare

pytestmark = pytest.mark.lab

WEB = f"{DATASET}/web"
_DISK = {"disk_type": "nvme", "disk_location": "internal", "disk_image": "disk0.img"}
_CONFIG: dict[str, Any] = {
    "production": True,
    "cpu_cores": 1,
    "memory": "32M",
    "loader": "bios",
    "parent_host": "node1",
    "disks": [_DISK],
}
_FEE = {"network_adaptor_type": "virtio-net", "network_bridge": "nosuch", "network_mac": "58:9c:fc:00:00:01"}
_DEPLOY = "vm deploy --name app --ram 32M --loader bios"


@dataclass(frozen=True)
class Case:
    """A command, its exit code, and what its message has to contain; ``config`` is what web's has then."""

    words: str
    code: int
    said: tuple[str, ...]
    config: dict[str, Any] | str = field(default_factory=dict)


_UNKNOWN = ("there is no VM of that name",)
CASES = (
    # No such VM.
    Case("vm start nosuch", 3, _UNKNOWN),
    Case("vm stop nosuch", 3, _UNKNOWN),
    Case("vm info nosuch", 3, _UNKNOWN),
    Case("vm show-log nosuch", 3, _UNKNOWN),
    Case("vm cireset nosuch", 3, _UNKNOWN),
    Case("vm demote nosuch", 3, _UNKNOWN),
    Case("vm failback nosuch -e node2", 3, _UNKNOWN),
    Case("vm migrate nosuch -e node2", 3, _UNKNOWN),
    Case("vm restore nosuch --from node2", 3, ("node2 has no tank/vm/nosuch", "--from-dataset")),
    Case("change parent --vm nosuch", 3, _UNKNOWN),
    Case("snapshot rollback nosuch one", 3, _UNKNOWN),
    Case("vm branches restore nosuch", 3, ("nosuch",)),
    # A name that cannot be one.
    Case("vm start ../web", 2, ("../web",)),
    Case(f"{_DEPLOY}/x --disk-size 1M", 2, ()),
    # Another VM's snapshot, and one that is not there.
    Case(f"snapshot rollback web {DATASET}/db@one", 10, ("is not a snapshot of web", "snapshot list web")),
    Case("snapshot rollback web nosuch", 3, ("web has no snapshot nosuch", "snapshot list web")),
    # Disks, networks, ports and memory that cannot be had.
    Case("vm start web", 2, ("missing.img",), {"disks": [{**_DISK, "disk_image": "missing.img"}]}),
    Case("vm start web", 2, ("../db/disk0.img",), {"disks": [{**_DISK, "disk_image": "../db/disk0.img"}]}),
    Case("vm start web", 2, ("nosuch",), {"networks": [_FEE]}),
    Case("vm start web", 3, ("5907", "Address already in use"), {"vnc_port": 5907}),
    Case("vm start web", 3, ("65536 MiB of memory",), {"memory": "64G"}),
    # A configuration that is none.
    Case("vm start web", 2, ("vm_config.json:1:",), '{"production": tru'),
    Case("vm start web", 2, ("memory", "'much'"), {"memory": "much"}),
    Case("vm start web", 2, ("disks[0].disk_type", "floppy"), {"disks": [{**_DISK, "disk_type": "floppy"}]}),
    # What would be made, and cannot be.
    Case(f"{_DEPLOY} --from-image /root/missing.img", 2, ("/root/missing.img",)),
    Case(f"{_DEPLOY} --disk-size 1M --network-name nosuch --start-now", 2, ("one of this node's networks",)),
    Case(f"{_DEPLOY} --disk-size 1M --dataset tank/other", 2, ("tank/other",)),
    Case(f"{_DEPLOY} --disk-size much", 2, ("much",)),
    Case("vm deploy --name db --ram 32M --disk-size 1M", 10, ("already",)),
    Case(f"{_DEPLOY} --disk-size 1M --ram 64G --start-now", 3, ("65536 MiB of memory",)),
)


def test_what_cannot_be_is_said_and_nothing_is_changed(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    node = fresh_lab.node1
    make_vm(node, "web", kib=64)
    make_vm(node, "db", kib=64)
    node.put(disk_image(), f"/{WEB}/disk0.img")
    node.run(f"zfs snapshot {DATASET}/db@one; zfs snapshot {WEB}@two")
    listen = "import socket; s = socket.create_server(('127.0.0.1', 5907)); print(1, flush=True); input()"
    node.run(f'(sleep 900 | python3 -c "{listen}") >/tmp/listens 2>&1 &')
    node.run("until [ -s /tmp/listens ]; do sleep 0.1; done")
    node.run("ip link add vm-internal type bridge")
    wrong: list[str] = []
    try:
        has, before = "", ""
        for case in CASES:
            config = case.config if isinstance(case.config, str) else json.dumps({**_CONFIG, **case.config})
            if config != has:
                node.write(f"/{WEB}/vm_config.json", config)
                has, before = config, _all_of(node)
            done = hoster(node, f"{case.words} </dev/null", code=None)
            after = _all_of(node)
            wrong += _wrong(case, done, changed=after != before)
            before = after
    finally:
        node.run("ip link del vm-internal")
    assert not wrong, "\n".join(wrong)


def _wrong(case: Case, done: Completed, *, changed: bool) -> list[str]:
    """What speaks against it that the command ended as it has to."""
    said = done.stdout + done.stderr
    problems = [f"does not say {text!r}" for text in case.said if text not in said]
    if done.returncode != case.code:
        problems.append(f"ended with {done.returncode}, not {case.code}")
    if "Traceback" in said:
        problems.append("shows a traceback")
    if changed:
        problems.append("changed something")
    return [f"{case.words} {case.config or ''}: {problem}:\n{said}" for problem in problems]


def _all_of(node: Node) -> str:
    """Every dataset with its marks, every file of the VMs, every machine."""
    files = f"find /{DATASET} -type f -exec sha256sum {{}} + | sort; find /{DATASET} | sort"
    return everything(node) + node.run(f"{files}; pgrep -a qemu-system || true").stdout
