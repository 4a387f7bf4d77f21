"""The command budget: what twenty VMs cost, counted by the audit shim on both nodes."""

from __future__ import annotations

import pytest

from lab.audit import Seen
from lab.lab import Lab
from lab.node import Node
from tests.lab.world import DATASET, configure, guids, hoster, make_vms, prepare

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("budget")]

COUNT = 20


@pytest.fixture(scope="module")
def replicated(lab: Lab) -> tuple[Lab, list[str]]:
    lab.reset()
    prepare(lab)
    # With 1 kept, the first run after this one has old replication snapshots to give up.
    configure(lab.node1, "[replication]\nkeep = 1")
    vms = make_vms(lab.node1, COUNT)
    hoster(lab.node1, f"vm replicate-all --endpoint {lab.node2.address}", timeout_s=300)
    return lab, vms


def counted(lab: Lab) -> tuple[Seen, Seen]:
    with lab.node1.audit() as source, lab.node2.audit() as target:
        hoster(lab.node1, f"vm replicate-all --endpoint {lab.node2.address}", timeout_s=300)
    return source, target


def connections(source: Seen) -> int:
    """Starts of ssh that open a connection; the others are channels of a shared one."""
    ssh = [s for s in source.starts if s.name == "ssh"]
    return sum("ControlMaster=yes" in start.arguments for start in ssh)


def listings(seen: Seen) -> int:
    return sum(s.name == "zfs" and s.arguments[:1] == ("get",) and "-r" in s.arguments for s in seen.starts)


def zfs_starts(seen: Seen) -> int:
    return sum(s.name in {"zfs", "zpool"} for s in seen.starts)


def logins(target: Node) -> int:
    return int(
        target.run("journalctl -u ssh --no-pager | grep -c 'Accepted publickey for root from 10.77'").stdout
    )


def test_twenty_unchanged_vms_cost_one_look_at_each_node(replicated: tuple[Lab, list[str]]) -> None:
    lab, _ = replicated
    before = logins(lab.node2)
    source, target = counted(lab)
    assert logins(lab.node2) - before == 1
    assert connections(source) == 1
    assert (listings(source), source.count("zpool", "sync")) == (1, 1)
    assert listings(target) == 1
    in_all = zfs_starts(source) + zfs_starts(target)
    assert in_all <= 3 + 2
    print(f"unchanged: {in_all} zfs and zpool commands in all")


def test_twenty_changed_vms_cost_one_send_and_one_receive_each(replicated: tuple[Lab, list[str]]) -> None:
    lab, vms = replicated
    lab.node1.run(f"for d in /{DATASET}/vm-*; do head -c 4096 /dev/urandom >$d/disk0.img; done")
    source, target = counted(lab)
    assert connections(source) == 1
    assert source.count("zfs", "snapshot") == 1
    assert source.count("zfs", "send") == COUNT
    assert target.count("zfs", "receive") == COUNT
    destroying = source.count("zfs", "destroy")
    assert destroying <= COUNT
    assert listings(source) == 1
    assert listings(target) == 2, "before, and to verify"
    programs = source.count("zfs", "program") + target.count("zfs", "program")
    in_all = zfs_starts(source) + zfs_starts(target)
    named = 3 + COUNT + COUNT + destroying + 1 + 1 + 1
    held = source.count("zfs", "hold") + source.count("zfs", "release")
    assert held == 2, "for all VMs at once"
    assert in_all - held - named <= 2 + 1, "two more, and one program that prunes for all VMs"
    print(f"changed: {in_all} zfs and zpool commands in all, {programs} of them programs")
    assert all(
        guids(lab.node2, f"{DATASET}/{vm}")[-1] == guids(lab.node1, f"{DATASET}/{vm}")[-1] for vm in vms[:3]
    )
