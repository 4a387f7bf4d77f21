"""VMs of several datasets: a filesystem with volumes and filesystems below it, as one thing."""

from __future__ import annotations

import pytest

from lab.lab import Lab
from lab.node import Node
from tests.lab.world import guids, hoster, hoster_json, make_vm, names, prepare, value, vm_report

pytestmark = pytest.mark.lab

WEB = "tank/vm/web"
PARTS = (WEB, f"{WEB}/d0", f"{WEB}/logs")


@pytest.fixture
def pair(fresh_lab: Lab) -> Lab:
    prepare(fresh_lab)
    make_vm(fresh_lab.node1, "web")
    fresh_lab.node1.run(
        f"zfs create -V 4M {WEB}/d0 && zfs create {WEB}/logs && head -c 50000 /dev/urandom >/{WEB}/logs/log"
    )
    write_volume(fresh_lab.node1)
    return fresh_lab


def write_volume(node: Node) -> None:
    node.run(
        f"for i in $(seq 50); do [ -e /dev/zvol/{WEB}/d0 ] && break; sleep 0.1; done;"
        f" dd if=/dev/urandom of=/dev/zvol/{WEB}/d0 bs=64k count=8 conv=fsync status=none"
    )


def volume_hash(node: Node) -> str:
    return node.run(
        f"zfs set volmode=default {WEB}/d0; for i in $(seq 50); do [ -e /dev/zvol/{WEB}/d0 ] && break;"
        f" sleep 0.1; done; sha256sum </dev/zvol/{WEB}/d0"
    ).stdout.split()[0]


def test_a_vm_with_a_volume_and_a_filesystem_below_it_travels_as_one(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    hoster(source, f"vm replicate web -e {target.address}")
    for part in PARTS:
        assert guids(target, part) == guids(source, part) != []
    assert len({tuple(names(source, part)) for part in PARTS}) == 1
    kept = {key: value(target, f"{WEB}/d0", key) for key in ("readonly", "volmode", "hoster:role")}
    assert kept == {"readonly": "on", "volmode": "none", "hoster:role": "replica"}
    assert value(target, f"{WEB}/logs", "canmount") == "noauto"
    assert target.run(f"ls -d /dev/zvol/{WEB}/d0", check=False).stdout == ""

    write_volume(source)  # one of three has changed: all get the version
    report = vm_report(hoster_json(source, f"vm replicate web -e {target.address}"), "web")
    assert len(report["taken"]) == len(report["sent"]) == 3
    for part in PARTS:
        assert guids(target, part) == guids(source, part)
    idle = vm_report(hoster_json(source, f"vm replicate web -e {target.address}"), "web")
    assert idle["outcome"] == "unchanged"
    assert volume_hash(target) == volume_hash(source)


def test_what_is_added_goes_along_and_what_is_gone_here_is_kept_there_and_said(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    hoster(source, f"vm replicate web -e {target.address}")
    gone = guids(target, f"{WEB}/logs")
    source.run(f"zfs destroy -r {WEB}/logs && zfs create {WEB}/new && echo x >/{WEB}/new/file")
    report = vm_report(hoster_json(source, f"vm replicate web -e {target.address}"), "web")
    assert report["outcome"] == "done"
    assert any(note.startswith(f"{WEB}/logs on") and "is kept" in note for note in report["notes"])
    assert guids(target, f"{WEB}/new") == guids(source, f"{WEB}/new")
    assert guids(target, f"{WEB}/logs") == gone


def test_snapshots_of_all_parts_are_taken_listed_pruned_and_destroyed_together(pair: Lab) -> None:
    source = pair.node1
    for _ in range(2):
        hoster(source, "snapshot all --stype hourly --keep 1 --always")
    assert {len(names(source, part)) for part in PARTS} == {1}
    (name,) = names(source, WEB)
    assert len({version for part in PARTS for version in names(source, part)}) == 1
    hoster(source, f"snapshot destroy web {name}")
    assert [names(source, part) for part in PARTS] == [[], [], []]
