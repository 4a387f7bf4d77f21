"""Snapshots with retention on real OpenZFS."""

from __future__ import annotations

import re

import pytest

from lab.lab import Lab
from lab.node import Node
from tests.lab.world import (
    everything,
    hoster,
    hoster_json,
    make_vm,
    names,
    prepare,
    snapshots,
    vm_report,
    write,
)

pytestmark = pytest.mark.lab


@pytest.fixture
def node(fresh_lab: Lab) -> Node:
    prepare(fresh_lab)
    return fresh_lab.node1


def test_the_pages_manual_snapshot_gets_the_pages_name_and_is_listed(node: Node) -> None:
    web = make_vm(node, "web")
    said = hoster(node, "snapshot new web -d 'before the upgrade'").stdout
    hoster(node, "snapshot new web")
    taken = names(node, web)
    assert len(set(taken)) == 2
    assert all(re.fullmatch(r"custom_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_2)?", name) for name in taken)
    assert f"{web}@{taken[0]}" in said
    table = hoster(node, "snapshot list-all").stdout
    for column in ("#", "VM Name", "Snapshot Name", "Size Human", "Size Bytes", "Created", "Locked"):
        assert column in table
    listed = hoster_json(node, "snapshot list web")
    assert [row["snapshot_short_name"] for row in listed] == taken
    assert [row["description"] for row in listed] == ["before the upgrade", ""]
    plain = hoster(node, "snapshot list web -u").stdout.splitlines()
    assert [line.split()[2] for line in plain] == [f"{web}@{name}" for name in taken]


def test_all_takes_every_vm_at_one_moment_and_prunes_only_what_the_count_gives_up(node: Node) -> None:
    for name in ("web", "db"):
        make_vm(node, name, production=name == "web")
    web = "tank/vm/web"
    theirs = ("mine", "hourly_2020-01-01_00-00-00-by-hand", "daily_2020-01-01_00-00-00")
    for name in theirs:
        node.run(f"zfs snapshot {web}@{name}")
    for _ in range(3):
        hoster(node, "snapshot all --stype hourly --keep 2")
        write(node, "web")
    hourly = [n for n in names(node, web) if re.fullmatch(r"hourly_[\d_-]{19}(_\d)?", n)]
    assert len(hourly) == 2
    assert set(theirs) <= set(names(node, web))
    assert len(names(node, "tank/vm/db")) == 1, "nothing was written there after its first one"
    report = hoster_json(node, "scheduler snapshot-all --type hourly --keep 2 --always")
    txgs = {snapshots(node, f"tank/vm/{name}")[-1].createtxg for name in ("web", "db")}
    assert len(txgs) == 1, "one command, one moment"
    assert len(vm_report(report, "web")["destroyed"]) == 1


def test_held_and_cloned_snapshots_count_but_stay_and_nothing_younger_dies_for_them(node: Node) -> None:
    web = make_vm(node, "web")
    for _ in range(4):
        hoster(node, "snapshot new web --stype hourly")
    first, second, third, fourth = names(node, web)
    node.run(f"zfs hold keep {web}@{first} && zfs clone {web}@{second} tank/clone")
    document = hoster_json(node, "snapshot new web -t hourly -k 2")
    left = names(node, web)
    assert left[:2] == [first, second]
    assert third not in left
    assert fourth in left
    assert [d["snapshot"] for d in vm_report(document, "web")["destroyed"]] == [f"{web}@{third}"]
    notes = " ".join(vm_report(document, "web")["notes"])
    assert "held" in notes
    assert "tank/clone is a clone of it" in notes
    assert "held" in hoster(node, f"snapshot destroy web {first}", code=10).stderr
    assert "tank/clone" in hoster(node, f"snapshot destroy web {second}", code=10).stderr


def test_an_idle_vm_gets_no_copies_of_the_same_state_and_says_so(node: Node) -> None:
    web = make_vm(node, "web")
    hoster(node, "snapshot all --stype hourly --keep 3")
    hoster(node, "snapshot new web")
    report = hoster_json(node, "snapshot all --stype hourly --keep 3")
    assert vm_report(report, "web")["outcome"] == "unchanged"
    assert sum(name.startswith("hourly") for name in names(node, web)) == 1
    write(node, "web")
    hoster(node, "snapshot new web")
    report = hoster_json(node, "snapshot all --stype hourly --keep 3")
    assert vm_report(report, "web")["outcome"] == "done", "what was written lies in the custom one by now"


def test_a_dry_run_shows_both_and_changes_nothing(node: Node) -> None:
    web = make_vm(node, "web")
    hoster(node, "snapshot all --stype daily --keep 1")
    write(node, "web")
    (daily,) = names(node, web)
    before = everything(node)
    report = vm_report(hoster_json(node, "snapshot all --stype daily --keep 1 --dry-run"), "web")
    assert everything(node) == before
    assert report["outcome"] == "planned"
    assert len(report["taken"]) == 1
    assert [(d["snapshot"], d["reason"]) for d in report["destroyed"]] == [(f"{web}@{daily}", "keep 1 daily")]


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ("snapshot all --stype hourly --keep 0", 2, "--keep"),
        ("snapshot all --stype hourly --keep -1", 2, "--keep"),
        ("snapshot all --stype hourly --keep 5x", 2, "--keep"),
        ("snapshot all --stype fortnightly --keep 5", 2, "frequent, hourly"),
        ("snapshot new nosuch", 3, "no VM of that name"),
        ("snapshot destroy web tank/vm/db@daily_2020-01-01_00-00-00", 10, "not a snapshot of web"),
        ("snapshot destroy web nosuch", 3, "no snapshot nosuch"),
    ],
)
def test_bad_input_is_refused_before_anything_changes(
    two_vms: Node, words: str, code: int, expected: str
) -> None:
    done = hoster(two_vms, words, code=code)
    assert expected in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not names(two_vms, "tank/vm/web")


@pytest.fixture(scope="module")
def two_vms(lab: Lab) -> Node:
    lab.reset()
    prepare(lab)
    for name in ("web", "db"):
        make_vm(lab.node1, name)
    return lab.node1


def test_a_pool_that_is_gone_costs_only_what_lies_in_it(fresh_lab: Lab) -> None:
    one = fresh_lab.node1
    one.reset_pools(tank=1, usb=1)
    prepare(fresh_lab)
    one.run('sed -i \'s|^datasets = .*|datasets = ["tank/vm", "usb/vm"]|\' /etc/hoster/hoster.toml')
    web = make_vm(one, "web")
    one.run("zfs create -p usb/vm/db")
    hoster(one, "vm adopt db")
    both = hoster_json(one, "snapshot all --stype hourly --keep 3")
    assert {vm["vm"]: vm["outcome"] for vm in both["vms"]} == {"db": "done", "web": "done"}

    one.run("zpool export usb")
    write(one, "web")
    left = hoster_json(one, "snapshot all --stype hourly --keep 3", code=3)
    assert {vm["vm"]: vm["outcome"] for vm in left["vms"]} == {"usb/vm": "failed", "web": "done"}
    assert len(names(one, web)) == 2
    assert "does not exist (is its pool imported?)" in vm_report(left, "usb/vm")["reason"]
    hoster(one, "snapshot new web")
    assert "unless in usb/vm" in hoster(one, "snapshot new db", code=3).stderr
    to_node2 = "vm replicate-all --endpoint node2 --target-dataset tank/vm"
    sent = hoster_json(one, to_node2, code=3)
    assert {vm["vm"]: vm["outcome"] for vm in sent["vms"]} == {"usb/vm": "failed", "web": "done"}
    assert "usb/vm: " in hoster(one, "vm list", code=3).stderr
    assert "usb/vm does not exist" in hoster(one, "vm adopt other", code=10).stderr

    one.run("zpool import usb")
    assert len(hoster_json(one, to_node2)["vms"]) == 2
