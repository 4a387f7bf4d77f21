"""``hoster status`` tells the truth of a VM and its replicas, whatever was done to them and by whom."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lab.lab import Lab
from lab.node import Node
from tests.lab.cutting import HOSTER, RECEIVES, begin_and_arrive, kill, running, until
from tests.lab.test_budget import connections, listings
from tests.lab.world import DATASET, configure, hoster, hoster_json, make_vm, names, prepare, vm_report, write

pytestmark = pytest.mark.lab

WEB = f"{DATASET}/web"
TO_NODE2 = "vm replicate web --endpoint node2"
TO_USB = "vm replicate web --endpoint local --target-dataset usb/vm"
DAY = 86_400
COUNT = 100


def web(node: Node) -> Any:
    """What is told of the VM, its targets by their nodes."""
    found = vm_report(hoster_json(node, "status"), "web")
    return {**found, "at": {target["node"]: target for target in found["targets"]}}


def age(node: Node, target: Any) -> float:
    return float(node.run("date +%s").stdout) - float(target["data_at"])


def later(node: Node, seconds: int) -> None:
    node.run(f"date --utc --set '+{seconds} seconds'")


def check(node: Node, code: int) -> str:
    return hoster(node, "status --check", code=code).stdout


def test_the_state_of_a_replica_is_told_whatever_becomes_of_it(fresh_lab: Lab) -> None:
    """One VM's life, since every state costs time to get to; each part goes on from the one before."""
    one, two = fresh_lab.node1, fresh_lab.node2
    one.reset_pools(tank=1, usb=1)
    prepare(fresh_lab)
    one.run("zfs create usb/vm")
    configure(one, "[replication]\nkeep = 9")
    make_vm(one, "web", kib=64)
    never_replicated_and_up_to_date(one, two)
    idle_for_days_and_out_of_reach(fresh_lab)
    two_targets_with_lags_of_their_own(one)
    newest_version_destroyed_behind_its_back(one, two)
    partly_received(one, two)
    branches_on_either_end(one)
    taken_over(one, two)


def never_replicated_and_up_to_date(one: Node, two: Node) -> None:
    never = web(one)
    assert (never["targets"], never["verdict"], never["why"]) == (
        [],
        "warning",
        "it has never been replicated",
    )
    assert "web: it has never been replicated" in check(one, 1)

    hoster(one, TO_NODE2)
    current = web(one)["at"]["node2"]
    assert (current["equal"], current["verdict"], current["behind_bytes"]) == (True, "ok", 0)
    assert current["newest"]["name"] == names(two, WEB)[-1]
    assert check(one, 0).startswith("HOSTER OK - 1 VM(s), 1 replica(s), all as promised")


def idle_for_days_and_out_of_reach(lab: Lab) -> None:
    """Equal, however old; remembered where it cannot be asked, from when a run has seen it last."""
    one, known = lab.node1, web(lab.node1)["at"]["node2"]["newest"]
    later(one, 5 * DAY)
    idle = web(one)["at"]["node2"]
    assert (idle["equal"], idle["verdict"]) == (True, "ok")
    assert age(one, idle) < 60
    lab.link.cut("node2")
    silent = web(one)["at"]["node2"]
    assert silent["trouble"], "it is said that this is remembered"
    assert silent["newest"] == known
    assert not silent["equal"]
    assert (silent["verdict"], age(one, silent) // DAY) == ("critical", 5)
    assert "the data there are 5d" in check(one, 2)
    table = hoster(one, "status").stdout
    assert "(remembered)" in table
    assert "web on node2: it cannot be asked" in table
    lab.restore_links()
    assert vm_report(hoster_json(one, TO_NODE2), "web")["outcome"] == "unchanged"
    lab.link.cut("node2")
    seen = web(one)["at"]["node2"]
    assert (bool(seen["trouble"]), seen["verdict"]) == (True, "ok")
    assert age(one, seen) < 120, "a run has seen both equal"
    lab.restore_links()


def two_targets_with_lags_of_their_own(one: Node) -> None:
    write(one, "web")
    hoster(one, TO_NODE2)
    hoster(one, TO_USB)
    write(one, "web")
    later(one, 3 * DAY // 2)
    hoster(one, TO_USB)
    write(one, "web")
    lags = web(one)
    assert (lags["at"]["node2"]["verdict"], lags["at"]["local"]["verdict"]) == ("warning", "ok")
    assert "node2: the data there are 1d 12h old, promised are 1d" in lags["why"]
    assert lags["at"]["node2"]["behind_bytes"] > lags["at"]["local"]["behind_bytes"] > 0
    pools = {(pool["node"], pool["pool"]) for pool in hoster_json(one, "status")["pools"]}
    assert pools == {("local", "tank"), ("local", "usb"), ("node2", "tank")}


def newest_version_destroyed_behind_its_back(one: Node, two: Node) -> None:
    first, second = names(two, WEB)
    two.run(f"zfs destroy {WEB}@{second}")
    gone = web(one)["at"]["node2"]
    assert (gone["newest"]["name"], gone["verdict"], age(one, gone) // DAY) == (first, "critical", 6)
    refused = vm_report(hoster_json(one, TO_NODE2, code=10), "web")
    assert f"zfs rollback {WEB}@{first}" in refused["remedy"], "what it held is still there, as written since"
    two.run(f"zfs rollback {WEB}@{first}")
    hoster(one, TO_NODE2)
    assert web(one)["at"]["node2"]["equal"]


def partly_received(one: Node, two: Node) -> None:
    write(one, "web", kib=12 * 1024)
    begin_and_arrive(one, two, f"{TO_NODE2} --speed-limit 0.1", "web")
    under_way = web(one)["at"]["node2"]
    assert not under_way["equal"]
    assert kill(one, HOSTER) == 1
    until(lambda: not running(two, RECEIVES))
    partly = web(one)["at"]["node2"]
    assert (partly["partly_received"], partly["equal"]) == (True, False)
    assert partly["newest"] == under_way["newest"]
    assert "a part of a newer version has arrived" in hoster(one, "status").stdout
    hoster(one, TO_NODE2)
    assert not web(one)["at"]["node2"]["partly_received"]


def branches_on_either_end(one: Node) -> None:
    kept = names(one, WEB)[-2]
    hoster(one, f"snapshot rollback web {kept}")
    write(one, "web")
    hoster(one, TO_NODE2)
    branched = web(one)
    assert (branched["branches"], branched["at"]["node2"]["branches"]) == (1, 1)
    assert min(branched["branch_bytes"], branched["at"]["node2"]["branch_bytes"]) > 1024**2


def taken_over(one: Node, two: Node) -> None:
    """By the target, and nobody has told this node of it yet."""
    hoster(two, "change parent --vm web --accept-loss")
    taken = web(one)["at"]["node2"]
    assert (taken["verdict"], taken["why"]) == ("critical", "that node has taken the VM over")
    assert "that node has taken the VM over" in check(one, 2)


def test_a_hundred_vms_cost_one_listing_on_each_node(fresh_lab: Lab) -> None:
    one, two = fresh_lab.node1, fresh_lab.node2
    prepare(fresh_lab)
    fresh_lab.on_all(_many)
    began = time.monotonic()
    with one.audit() as source, two.audit() as target:
        found = hoster_json(one, "status", timeout_s=300)
    print(f"status of {COUNT} VMs: {time.monotonic() - began:.1f} s")
    assert len([vm for vm in found["vms"] if vm["targets"] and not vm["targets"][0]["trouble"]]) == COUNT
    assert (listings(source), listings(target)) == (1, 1)
    assert connections(source) == 1
    assert sum(start.name in {"zfs", "zpool"} for start in source.starts) <= 3
    assert sum(start.name in {"zfs", "zpool"} for start in target.starts) <= 4


def _many(node: Node) -> None:
    """Marks only, as a hundred VMs on node1 and their replicas on node2 have them."""
    role = "primary" if node.name == "node1" else "replica"
    sites = '[{"endpoint": "node2", "dataset": "tank/vm/vm-$number"}]'.replace('"', '\\"')
    told = f'-o hoster:sites="{sites}"' if role == "primary" else ""
    node.run(
        f"for number in $(seq {COUNT}); do zfs create -o canmount=off -o hoster:id=id-$number"
        f" -o hoster:role={role} -o hoster:epoch=1@node1 -o hoster:parent=node1 {told}"
        f" {DATASET}/vm-$number || exit 1; done; zfs snapshot -r {DATASET}@hourly_2026-01-01_00-00-00",
        timeout_s=400,
    )
