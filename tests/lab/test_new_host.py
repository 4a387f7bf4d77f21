"""The chapter "Start the VM on a new host", word for word, with machines that run when their node dies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.counting_guest import counted, disk_image
from lab.lab import Lab
from lab.node import Node
from tests.lab.test_cireset import CARD, DISKS, KEY, NETWORKS
from tests.lab.test_machines import counts_on
from tests.lab.world import DATASET, configure, hoster, hoster_json, prepare

pytestmark = pytest.mark.lab

_CONFIG: dict[str, Any] = {
    "production": True,
    "cpu_cores": 1,
    "memory": "32M",
    "loader": "bios",
    "parent_host": "node1",
    "networks": [CARD],
    "disks": DISKS,
}


def _make_machine(node: Node, name: str) -> None:
    folder = f"/{DATASET}/{name}"
    node.run(f"zfs create {DATASET}/{name}")
    node.put(disk_image(), f"{folder}/disk0.img")
    node.write(f"{folder}/vm_config.json", json.dumps(_CONFIG))
    hoster(node, f"vm adopt {name}")
    hoster(node, f"vm cireset {name}")
    hoster(node, f"vm start {name}")


def _count_in(node: Node, folder: str) -> int:
    """What the guest has come to on its disk in that folder."""
    shown = node.run(f"head -c 1024 {folder}/disk0.img | od -An -v -tx1 | tr -d ' \\n'").stdout
    return counted(bytes.fromhex(shown))


def _first_said(node: Node, name: str) -> int:
    """The number that the guest began with on this node."""
    said = node.run(f"grep -m 1 -o 'count [0-9a-f]*' /var/log/hoster/vm/{name}.console").stdout
    return int(said.split()[1], 16)


def typed(node: Node, command: str, *, answer: str) -> None:
    """Types a command on a terminal, where it asks, and answers."""
    done = node.run(f"echo {answer} | script -qec {command!r} /dev/null", check=False, timeout_s=120)
    assert done.returncode == 0, done.stdout


def test_running_machines_go_on_elsewhere_from_their_last_replication(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    one, two = fresh_lab.node1, fresh_lab.node2
    for node in (one, two):
        node.write("/etc/hoster/network_config.json", json.dumps(NETWORKS))
        configure(node, f'ssh-keys = ["{KEY}"]')
    for name in ("web", "app"):
        _make_machine(one, name)
    for name in ("web", "app"):
        counts_on(one, f"/{DATASET}/{name}/disk0.img", 2)
    hoster(one, f"vm replicate-all --endpoint {two.address}")
    newest = one.run(f"cd /{DATASET}/web/.zfs/snapshot && ls -d replication_* | tail -n 1").stdout.strip()
    sent = {name: _count_in(one, f"/{DATASET}/{name}/.zfs/snapshot/{newest}") for name in ("web", "app")}
    for name in ("web", "app"):
        counts_on(one, f"/{DATASET}/{name}/disk0.img", sent[name])
    address = hoster_json(one, "vm info app")["config"]["networks"][0]["ip_address"]
    one.power_cut()

    # Option 1: as it is.
    hoster(two, "change parent --vm web </dev/null")
    assert _count_in(two, f"/{DATASET}/web") == sent["web"]
    refused = hoster(two, "vm start web </dev/null", code=10).stderr
    assert "none of the nodes with a copy of it can be asked" in refused, "nobody is there to say that it may"
    typed(two, "hoster vm start web", answer="y")

    # Option 2: with a new identity.
    hoster(two, "vm cireset app </dev/null")
    assert _count_in(two, f"/{DATASET}/app") == sent["app"]
    assert hoster_json(two, "vm info app")["config"]["networks"][0]["ip_address"] != address
    typed(two, "hoster vm start app", answer="y")

    for name in ("web", "app"):
        counts_on(two, f"/{DATASET}/{name}/disk0.img", sent[name])
        assert _first_said(two, name) == sent[name] + 1, (
            "it goes on from what was replicated, and from nothing else"
        )

    # The old host comes back, and what it would do by itself does no harm.
    one.start()
    hoster(one, "vm start-all </dev/null", code=10)
    said = hoster(one, f"vm replicate-all --endpoint {two.address}", code=10).stdout
    assert "superseded" in said
    assert not any(vm["running"] for vm in hoster_json(one, "vm list"))
    for name in ("web", "app"):
        assert counts_on(two, f"/{DATASET}/{name}/disk0.img", sent[name] + 1) > sent[name]
        hoster(two, f"vm stop {name} --force")
