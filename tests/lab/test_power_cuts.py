"""Whatever is killed, cut or switched off in the middle of streams: one ordinary run afterwards converges.

Each run sends one VM for the first time and another one again, side by side, so that every fault hits a full
stream and an incremental one. It counts only if it hit a process that was alive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from lab.lab import Lab
from lab.node import Node
from tests.lab.cutting import (
    EVERY,
    HOSTER,
    RECEIVES,
    SENDS,
    begin_and_arrive,
    converged,
    exit_code,
    kill,
    leftovers,
    log,
    running,
    until,
)
from tests.lab.world import DATASET, guids, hoster_json, make_vm, prepare, vm_report, write

pytestmark = pytest.mark.lab

KIB = 6 * 1024
MIB = 1024 * 1024
CHANNELS = "^ssh .*ControlMaster=no.*zfs receive"
CONNECTION = "^ssh .*ControlMaster=yes"


@dataclass(frozen=True)
class Fault:
    """What is done to a run in the middle of its streams.

    ``strike`` gives how many processes it hit. ``mend`` puts things back. ``code`` is how the run then ends
    by itself; None where it cannot say.
    """

    strike: Callable[[Lab], int]
    mend: Callable[[Lab], object] = lambda lab: None
    code: int | None = 3
    sampled: bool = False


def kill_logins(lab: Lab) -> int:
    """The far side's sshd of the connection."""
    found = lab.node2.run(
        f"ps -o ppid= -p $(pgrep -d , -f '{RECEIVES}') | sort -u", check=False
    ).stdout.split()
    lab.node2.run(f"kill -9 {' '.join(found)}")
    return len(found)


def power_off(*numbers: int) -> Callable[[Lab], int]:
    def strike(lab: Lab) -> int:
        hit = len(running(lab.node1, SENDS) if 1 in numbers else running(lab.node2, RECEIVES))
        for number in numbers:
            lab.nodes[number - 1].power_cut()
        return hit

    return strike


def power_on(lab: Lab) -> None:
    lab.on_all(Node.start)


def unplug(lab: Lab) -> int:
    hit = len(running(lab.node2, RECEIVES))
    lab.link.cut("node2")
    return hit


def swallow(lab: Lab) -> int:
    hit = len(running(lab.node2, RECEIVES))
    lab.link.half_open("node2")
    return hit


FAULTS = {
    "hoster killed": Fault(lambda lab: kill(lab.node1, HOSTER), code=None),
    "send killed": Fault(lambda lab: kill(lab.node1, SENDS)),
    "receive killed": Fault(lambda lab: kill(lab.node2, RECEIVES), sampled=True),
    "channels killed": Fault(lambda lab: kill(lab.node1, CHANNELS)),
    "connection killed": Fault(lambda lab: kill(lab.node1, CONNECTION)),
    "the far side's sshd killed": Fault(kill_logins),
    "link cut": Fault(unplug, Lab.restore_links),
    "link half open": Fault(swallow, Lab.restore_links),
    "source switched off": Fault(power_off(1), power_on, code=None, sampled=True),
    "target switched off": Fault(power_off(2), power_on),
    "both switched off": Fault(power_off(1, 2), power_on, code=None),
}


@pytest.fixture
def pair(fresh_lab: Lab) -> Lab:
    prepare(fresh_lab)
    return fresh_lab


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if EVERY or fault.sampled])
def test_killed_cut_or_switched_off_in_the_middle_of_streams_one_more_run_converges(
    pair: Lab, name: str
) -> None:
    fault, source, target = FAULTS[name], pair.node1, pair.node2
    make_vm(source, "again", kib=64)
    replicate = f"vm replicate-all -e {target.address}"
    hoster_json(source, replicate)
    make_vm(source, "first", kib=KIB)
    write(source, "again", kib=KIB)
    begin_and_arrive(source, target, f"{replicate} --parallel 2 --speed-limit 0.5", "first", "again")
    known = set(guids(target, f"{DATASET}/again"))
    hit = fault.strike(pair)
    assert hit >= 1, "the fault hit nothing"
    if fault.code is not None:
        if source.is_on:
            assert exit_code(source, within_s=150) == fault.code, log(source)
        said = log(source)
        assert "Traceback" not in said, said
    fault.mend(pair)
    print(f"{name}: {hit} processes hit")
    report = hoster_json(source, replicate, timeout_s=240)
    assert {vm["outcome"] for vm in report["vms"]} == {"done"}, report
    for vm in ("first", "again"):
        assert vm_report(report, vm)["sent_bytes"] < KIB * 1024, "what had arrived was not sent again"
        converged(source, target, vm)
    assert known < set(guids(target, f"{DATASET}/again"))
    assert leftovers(source) == leftovers(target) == []


SMALL = "small/vm"


def test_a_full_source_fails_alone_and_room_is_enough_to_go_on(pair: Lab) -> None:
    """The pool is filled to its last block; another pool's VM of the same run is none the worse for it."""
    source, target = pair.node1, pair.node2
    source.run(
        "truncate -s 64M /root/small.img; zpool create -O compression=off small /root/small.img;"
        f" zfs create {SMALL};"
        f' echo \'datasets = ["{DATASET}", "{SMALL}"]\' >/etc/hoster/hoster.toml'
    )
    try:
        make_vm(source, "roomy", kib=64)
        source.run(
            f"zfs create -o hoster:id=$(cat /proc/sys/kernel/random/uuid) -o hoster:role=primary"
            f" -o hoster:epoch=1@node1 -o hoster:parent=node1 -o hoster:production=yes {SMALL}/web;"
            f' echo \'{{"production": true, "parent_host": "node1"}}\' >/{SMALL}/web/vm_config.json;'
            f" head -c 262144 /dev/urandom >/{SMALL}/web/disk0.img"
        )
        replicate = f"vm replicate-all -e {target.address} --target-dataset {DATASET}"
        hoster_json(source, replicate)
        source.run(f"head -c 65536 /dev/urandom >/{SMALL}/web/disk0.img; zpool sync small")
        write(source, "roomy")
        source.run(
            "dd if=/dev/urandom of=/small/vm/fill bs=64k 2>/dev/null; sync;"
            " dd if=/dev/urandom of=/small/vm/rest bs=1k 2>/dev/null; sync; zpool sync small",
            check=False,
            timeout_s=120,
        )
        report = hoster_json(source, replicate, code=None, timeout_s=120)
        full = vm_report(report, "web")
        assert full["outcome"] == "failed"
        assert "space" in full["reason"], full
        assert vm_report(report, "roomy")["outcome"] == "done"
        source.run("rm /small/vm/fill /small/vm/rest; zpool sync small")
        report = hoster_json(source, replicate, timeout_s=120)
        assert vm_report(report, "web")["outcome"] == "done"
        assert guids(source, f"{SMALL}/web")[-1] == guids(target, f"{DATASET}/web")[-1]
        assert leftovers(source) == leftovers(target) == []
    finally:
        until(lambda: source.run("zpool destroy -f small", check=False).returncode == 0)
        source.run("rm -f /root/small.img")


@pytest.mark.skipif(not EVERY, reason="fills a whole pool, which takes long: in `make sweep`")
def test_a_full_target_pool_fails_and_room_is_enough_to_go_on(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    target.run(
        "truncate -s 64M /root/small.img; zpool create -O compression=off small /root/small.img;"
        f" zfs create -o canmount=off {SMALL}; head -c 4M /dev/urandom >/small/room; zpool sync small"
    )

    def room() -> int:
        return int(target.run("zfs get -Hp -o value available small").stdout)

    try:
        # Filled up to the last block, then 4 MiB are given back: so much of the stream arrives.
        target.run("dd if=/dev/urandom of=/small/ballast bs=64k; sync; rm /small/room", check=False)
        until(lambda: room() >= 2 * MIB, what="room for a part")
        assert room() < 8 * MIB
        make_vm(source, "web", kib=KIB * 2)
        replicate = f"vm replicate web -e {target.address} --target-dataset {SMALL}"
        report = hoster_json(source, replicate, code=3, timeout_s=240)
        assert vm_report(report, "web")["outcome"] == "failed"
        target.run("rm /small/ballast")
        until(lambda: room() >= 16 * MIB, what="room for all")
        report = vm_report(hoster_json(source, replicate, timeout_s=240), "web")
        assert report["outcome"] == "done"
        assert report["sent_bytes"] < KIB * 2 * 1024, "what had arrived was not sent again"
        assert guids(source, f"{DATASET}/web") == guids(target, f"{SMALL}/web")
        assert leftovers(source) == []
    finally:
        until(lambda: target.run("zpool destroy -f small", check=False).returncode == 0)
        target.run("rm -f /root/small.img")
