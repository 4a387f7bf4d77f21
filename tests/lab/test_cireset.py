"""A new cloud-init set on a real node: cloud-init's own tools accept it, the kernel reads the CD."""

from __future__ import annotations

import json

import pytest

from lab.lab import Lab
from lab.node import Node
from tests.lab.cutting import HOSTER, kill_points, running, until
from tests.lab.world import DATASET, configure, disk_hash, hoster, hoster_json, make_vm, prepare, value

pytestmark = pytest.mark.lab

NETWORKS = [
    {
        "network_name": "internal",
        "network_gateway": "10.0.101.254",
        "network_subnet": "10.0.101.0/24",
        "network_range_start": "10.0.101.10",
        "network_range_end": "10.0.101.200",
        "bridge_interface": "None",
        "apply_bridge_address": True,
        "comment": "Internal Network",
    }
]
CARD = {
    "network_adaptor_type": "virtio-net",
    "network_bridge": "internal",
    "network_mac": "58:9c:fc:00:00:01",
    "ip_address": "10.0.101.10",
}
DISKS = [
    {"disk_type": "nvme", "disk_location": "internal", "disk_image": "disk0.img"},
    {"disk_type": "ahci-cd", "disk_location": "internal", "disk_image": "seed.iso"},
]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGvFAfGZ7ldvOLVVPGOeWjt/Drp7I0Fo8vkc9nCcUYVM admin@node1"
FILES = f"/{DATASET}/web/cloud-init-files"


@pytest.fixture
def node(fresh_lab: Lab) -> Node:
    """node1 with its networks and keys, and the VM web."""
    prepare(fresh_lab)
    node = fresh_lab.node1
    node.write("/etc/hoster/network_config.json", json.dumps(NETWORKS))
    configure(node, f'ssh-keys = ["{KEY}"]')
    make_vm(node, "web", kib=64)
    config = {"parent_host": "node1", "networks": [CARD], "disks": DISKS, "x_unknown": [1]}
    node.write(f"/{DATASET}/web/vm_config.json", json.dumps(config))
    return node


def test_the_set_is_accepted_by_cloud_init_and_the_cd_is_read_by_the_kernel(node: Node) -> None:
    disk = disk_hash(node, "web")

    report = hoster_json(node, "vm cireset web")

    for kind, name in (("cloud-config", "user-data"), ("network-config", "network-config")):
        checked = node.run(f"cloud-init schema --schema-type {kind} --config-file {FILES}/{name} 2>&1")
        assert "Valid schema" in checked.stdout
        assert "eprecat" not in checked.stdout
    node.run(
        f"cloud-init devel net-convert -p {FILES}/network-config -k yaml -O networkd -D debian"
        f" -d /tmp/net -m eth0,{report['mac']}"
    )
    network = node.run("cat /tmp/net/etc/systemd/network/*.network").stdout
    for line in (
        f"MACAddress={report['mac']}",
        "Address=10.0.101.11/24",
        "Gateway=10.0.101.254",
        "DNS=10.0.101.254",
        "Domains=node1.internal.lan",
    ):
        assert line in network
    for options in ("ro", "ro,norock"):  # Rock Ridge first, then Joliet
        node.run(
            f"modprobe -a loop isofs && mkdir -p /tmp/cd &&"
            f" mount -o loop,{options} /{DATASET}/web/seed.iso /tmp/cd"
            f" && diff -r /tmp/cd {FILES} && umount /tmp/cd"
        )
    assert node.run(f"blkid -o value -s LABEL /{DATASET}/web/seed.iso").stdout.strip() == "cidata"
    assert KEY in node.get(f"{FILES}/user-data").decode()
    secret = f"{FILES}/* /{DATASET}/web/seed.iso /{DATASET}/web/vm_config.json"
    assert set(node.run(f"stat -c %a {secret}").stdout.split()) == {"600"}
    config = json.loads(node.get(f"/{DATASET}/web/vm_config.json"))
    assert (config["networks"][0]["network_mac"], config["x_unknown"]) == (report["mac"], [1])
    assert disk_hash(node, "web") == disk


def test_it_gets_another_name_and_none_that_is_taken(node: Node) -> None:
    make_vm(node, "mail", kib=64)
    identity = value(node, f"{DATASET}/web", "hoster:id")
    assert "mail" in hoster(node, "vm cireset web --new-name mail", code=10).stderr
    shown = hoster(node, "vm cireset web -n web2 --dry-run").stdout
    assert "10.0.101.11/24" in shown
    assert node.run(f"ls -A {FILES} 2>/dev/null | wc -l").stdout.strip() == "0"

    said = hoster(node, "vm cireset web -n web2 --ip-address 10.0.101.77").stdout

    place = f"/{DATASET}/web2"
    users = json.loads(node.get(f"{place}/cloud-init-files/user-data").partition(b"\n")[2])
    for user in users["chpasswd"]["users"]:
        assert user["password"] in said
    assert b"web2" in node.get(f"{place}/cloud-init-files/meta-data")
    assert value(node, f"{DATASET}/web2", "hoster:id") == identity
    assert [vm["name"] for vm in hoster_json(node, "vm list")] == ["mail", "web2"]
    assert "no VM of that name" in hoster(node, "vm cireset web", code=3).stderr


def test_a_vm_in_use_and_a_replica_are_left_alone(fresh_lab: Lab, node: Node) -> None:
    hoster(node, f"vm replicate web -e {fresh_lab.node2.address}")
    fresh_lab.node2.write("/etc/hoster/network_config.json", json.dumps(NETWORKS))
    assert "node1" in hoster(fresh_lab.node2, "vm cireset web", code=10).stderr
    node.run(f"sleep 60 9<>/{DATASET}/web/disk0.img >/dev/null 2>&1 &")
    assert "open for writing" in hoster(node, "vm cireset web", code=10).stderr
    assert "seed.iso" not in node.run(f"ls /{DATASET}/web").stdout


def test_killed_at_any_command_the_vm_has_the_old_set_or_the_new_one(node: Node) -> None:
    disk = disk_hash(node, "web")
    hoster(node, "vm cireset web")
    with node.audit() as seen:
        hoster(node, "vm cireset web --new-name web2")
    for when, point in kill_points(range(1, len(seen.starts) + 1), 2):
        name = _only_vm(node)
        command = f"vm cireset {name} --new-name {'web' if name == 'web2' else 'web2'}"
        node.audit.arm(when, point, kill=HOSTER)
        assert hoster(node, command, code=None).returncode not in {0, 2, 3, 10}, f"{point} hit nothing"
        until(lambda: not running(node, HOSTER) and not running(node, "^zfs "))
        node.audit.disarm()
        _is_of_one_piece(node, _only_vm(node))
        hoster(node, f"vm cireset {_only_vm(node)}")
        _is_of_one_piece(node, _only_vm(node))
        left = node.run(f"ls -A /{DATASET}/{_only_vm(node)}").stdout
        assert ".new" not in left, (point, left)
        assert disk_hash(node, _only_vm(node)) == disk


def _only_vm(node: Node) -> str:
    (vm,) = hoster_json(node, "vm list")
    return str(vm["name"])


def _is_of_one_piece(node: Node, name: str) -> None:
    """The CD that the configuration names is there, and is for the card that the configuration has."""
    folder = f"/{DATASET}/{name}"
    config = json.loads(node.get(f"{folder}/vm_config.json"))
    (cd,) = (disk["disk_image"] for disk in config["disks"] if disk["disk_type"] == "ahci-cd")
    node.run(f"modprobe -a loop isofs && mkdir -p /tmp/cd && mount -o loop,ro {folder}/{cd} /tmp/cd")
    network = node.run("cat /tmp/cd/network-config; umount /tmp/cd").stdout
    assert config["networks"][0]["network_mac"] in network
    assert config["networks"][0]["ip_address"] in network
