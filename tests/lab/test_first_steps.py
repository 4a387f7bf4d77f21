"""The first things that an administrator types: init, adopt, list, info; and what if they are wrong."""

from __future__ import annotations

import json

import pytest

from lab.lab import Lab
from lab.node import Node
from tests.lab.world import hoster, hoster_json, value

pytestmark = pytest.mark.lab


@pytest.fixture
def node(fresh_lab: Lab) -> Node:
    return fresh_lab.node1


def test_init_says_what_is_wrong_and_its_remedy_works_then_writes_once(node: Node) -> None:
    assert "hoster init --dataset POOL/DATASET" in hoster(node, "snapshot list-all", code=2).stderr
    wrong = hoster_json(node, "init --dataset tank/vm", code=3)
    (check,) = [check for check in wrong["checks"] if check["remedy"]]
    assert (check["what"], check["found"]) == ("dataset tank/vm", "it does not exist")
    assert wrong["written"] is None
    node.run(check["remedy"])
    right = hoster_json(node, "init --dataset tank/vm")
    assert right["written"] == "/etc/hoster/hoster.toml"
    assert {c["found"] for c in right["checks"]} >= {"running as root", "mounted at /tank/vm", "node1"}
    again = hoster_json(node, "init")
    assert (again["written"], again["existing"]) == (None, "/etc/hoster/hoster.toml")
    other = hoster(node, "init --dataset tank/other", code=2).stderr
    assert "is there already" in other
    node.run("zfs unmount tank/vm")
    assert "zfs mount tank/vm" in hoster(node, "init", code=3).stdout


def test_adopt_makes_a_vm_that_list_and_info_show(node: Node) -> None:
    node.run(
        "zfs create tank/vm && zfs create tank/vm/web && head -c 100000 /dev/urandom >/tank/vm/web/disk0.img"
    )
    hoster(node, "init --dataset tank/vm")
    assert "web is a VM now" in hoster(node, "vm adopt web").stdout
    assert "is a VM already" in hoster(node, "vm adopt web").stdout
    config = json.loads(node.get("/tank/vm/web/vm_config.json"))
    assert (config["production"], config["parent_host"]) == (True, "node1")
    assert [disk["disk_image"] for disk in config["disks"]] == ["disk0.img"]
    marks = {key: value(node, "tank/vm/web", f"hoster:{key}") for key in ("role", "epoch", "production")}
    assert marks == {"role": "primary", "epoch": "1@node1", "production": "yes"}
    hoster(node, "vm adopt web --no-production")
    info = hoster_json(node, "vm info web")
    assert (info["production"], info["running"], info["backup"]) == (False, False, False)
    assert "vnc_password" not in info["config"]
    assert "🔴" in hoster(node, "vm list").stdout
    node.run("sleep 60 </tank/vm/web/disk0.img >/dev/null 2>&1 &")
    assert hoster(node, "vm list -u").stdout.split()[2] == "🟡"
    (listed,) = hoster_json(node, "vm list")
    assert listed["id"] == value(node, "tank/vm/web", "hoster:id")


def test_adopt_refuses_what_is_no_vm_of_this_node(node: Node) -> None:
    node.run("zfs create tank/vm && zfs create tank/vm/theirs && zfs create -V 1M tank/vm/volume")
    node.write(
        "/tank/vm/theirs/vm_config.json", '{"production": true, "parent_host": "node9", "colour": "red"}'
    )
    hoster(node, "init --dataset tank/vm")
    assert "zfs create tank/vm/nosuch" in hoster(node, "vm adopt nosuch", code=3).stderr
    assert "is a volume" in hoster(node, "vm adopt volume", code=10).stderr
    assert "cannot name a VM" in hoster(node, "vm adopt 'a b'", code=2).stderr
    refused = hoster(node, "vm adopt theirs", code=10).stderr
    assert "--parent-was node9" in refused
    hoster(node, "vm adopt theirs --parent-was node9")
    config = json.loads(node.get("/tank/vm/theirs/vm_config.json"))
    assert (config["parent_host"], config["colour"]) == ("node1", "red")


def test_the_originals_configuration_is_read_where_there_is_no_other_and_mistakes_are_named(
    node: Node,
) -> None:
    node.run("zfs create tank/vm && zfs create tank/vm/web")
    node.write("/tank/vm/web/vm_config.json", '{"live_status": "prod", "parent_host": "node1"}')
    node.write(
        "/opt/hoster-core/config_files/host_config.json",
        '{"active_datasets": ["tank/vm"], "backup_servers": []}',
    )
    try:
        assert [vm["name"] for vm in hoster_json(node, "vm list")] == ["web"]
        node.write("/etc/hoster/hoster.toml", 'datasets = ["tank/vm"]\nkeeep = 3\n')
        assert "keeep" in hoster(node, "vm list", code=2).stderr
        node.write("/etc/hoster/hoster.toml", 'datasets = "tank/vm"\n')
        said = hoster(node, "vm list", code=2).stderr
        assert "/etc/hoster/hoster.toml" in said
        assert "datasets" in said
    finally:
        node.run("rm -r /opt/hoster-core/config_files")
