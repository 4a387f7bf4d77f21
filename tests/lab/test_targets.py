"""Several targets of one VM, near and far, and which VMs a schedule sends: each target keeps its own base."""

from __future__ import annotations

import json

import pytest

from hoster.zfs.programs import TELL, TOLD, digits, parse_answers
from lab.lab import Lab
from lab.node import Node
from tests.lab.world import (
    DATASET,
    configure,
    guids,
    hoster,
    hoster_json,
    make_vm,
    names,
    prepare,
    replica_hash,
    value,
    vm_report,
    write,
)

pytestmark = pytest.mark.lab

WEB = f"{DATASET}/web"


def anchored(node: Node, dataset: str) -> dict[str, list[str]]:
    """For each target, by its GUID, the GUIDs of what is anchored for it; all as 16 hexadecimal digits."""
    found: dict[str, list[str]] = {}
    for name in node.run(f"zfs list -H -t bookmark -o name {dataset}").stdout.split():
        _, target, version = name.partition("#")[2].split("-")
        found.setdefault(target, []).append(version)
    return found


def target_key(node: Node, parent: str) -> str:
    """By what the anchors know the target whose replicas lie in ``parent``."""
    return f"{int(node.run(f'zfs get -Hp -o value guid {parent}').stdout):016x}"


def newest(node: Node, dataset: str) -> str:
    """The GUID of its newest snapshot."""
    return guids(node, dataset)[-1]


def test_another_pool_needs_no_ssh_and_each_target_keeps_its_own_base(lab: Lab) -> None:
    lab.reset(tank=1, usb=1)
    prepare(lab)
    source, target = lab.node1, lab.node2
    make_vm(source, "web")
    source.run("zfs create usb/backup")
    near, far = (
        "vm replicate web -e local --target-dataset usb/backup",
        f"vm replicate web -e {target.address}",
    )
    with source.audit() as seen:
        first = vm_report(hoster_json(source, near), "web")
    assert (first["outcome"], seen.count("ssh")) == ("done", 0)
    assert guids(source, "usb/backup/web") == guids(source, WEB) != []
    assert value(source, "usb/backup/web", "hoster:role") == "replica"
    assert vm_report(hoster_json(source, near), "web")["outcome"] == "unchanged"
    assert [vm["name"] for vm in hoster_json(source, "vm list")] == ["web"]

    base = newest(source, WEB)
    for _ in range(4):  # more than replication.keep
        write(source, "web")
        hoster(source, f"{far} --target-keep replication=1")
    assert base in guids(source, WEB)
    assert len(guids(target, WEB)) == 1
    assert anchored(source, WEB) == {
        target_key(source, "usb/backup"): [f"{int(base):016x}"],
        target_key(target, DATASET): [f"{int(newest(source, WEB)):016x}"],
    }
    behind = vm_report(hoster_json(source, near), "web")
    assert behind["outcome"] == "done", behind
    assert not behind["taken"]
    assert 0 < behind["sent_bytes"] < first["sent_bytes"]
    assert guids(source, "usb/backup/web")[0] == base
    assert newest(source, "usb/backup/web") == newest(source, WEB) == newest(target, WEB)
    assert {version for versions in anchored(source, WEB).values() for version in versions} == {
        f"{int(newest(source, WEB)):016x}"
    }
    assert base not in guids(source, WEB), "no target needs it any more"


def test_a_target_that_was_off_for_a_month_gets_all_that_is_left_incrementally(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    source, target = fresh_lab.node1, fresh_lab.node2
    make_vm(source, "web")
    configure(source, "[replication]\nconnect-timeout = 2")
    replicate = f"vm replicate web -e {target.address}"
    first = vm_report(hoster_json(source, replicate), "web")
    base = newest(source, WEB)
    fresh_lab.link.cut("node2")
    for days in (range(1, 11), range(11, 21), range(21, 30)):
        source.run(
            "".join(
                f"head -c 20000 /dev/urandom >/{WEB}/disk0.img;"
                f" zfs snapshot {WEB}@daily_2026-01-{day:02}_00-00-00;"
                for day in days
            )
        )
        hoster(source, "snapshot all --stype daily --keep 2 --always")
        assert len([name for name in names(source, WEB) if name.startswith("daily")]) == 2
    assert guids(source, WEB)[0] == base
    assert "hoster" not in hoster(source, replicate, code=12).stdout
    assert len(guids(source, WEB)) == 3
    fresh_lab.link.restore("node2")

    write(source, "web")
    report = vm_report(hoster_json(source, replicate), "web")
    assert report["outcome"] == "done", report
    assert len(report["sent"]) == 3
    assert 0 < report["sent_bytes"] < first["sent_bytes"]
    assert guids(target, WEB) == guids(source, WEB)
    assert guids(target, WEB)[0] == base


def test_a_replica_is_passed_on_and_what_the_third_place_needs_stays_on_the_second(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    first, second, third = fresh_lab.node1, fresh_lab.node2, fresh_lab.node1
    copy = "tank/third/web"
    make_vm(first, "web")
    third.run("zfs create tank/third")
    there = f"vm replicate web -e {second.address} --target-keep replication=1"
    onward = f"vm replicate web -e {first.address} --forward --target-dataset tank/third"
    hoster(first, there)
    full = vm_report(hoster_json(second, onward), "web")
    assert guids(third, copy) == guids(second, WEB) == guids(first, WEB) != []
    base = newest(third, copy)
    marks = {key: value(third, copy, f"hoster:{key}") for key in ("role", "parent", "id")}
    assert marks == {"role": "replica", "parent": "node1", "id": value(first, WEB, "hoster:id")}
    for _ in range(3):
        write(first, "web")
        hoster(first, there)
    assert guids(second, WEB) == [base, newest(first, WEB)], (
        "the third place's base, and one as it was asked for"
    )
    before = names(second, WEB)
    report = vm_report(hoster_json(second, onward), "web")
    assert (report["outcome"], report["taken"]) == ("done", [])
    assert 0 < report["sent_bytes"] < full["sent_bytes"]
    assert guids(third, copy) == [base, newest(first, WEB)]
    assert names(second, WEB) == before, "nothing was taken"
    assert (
        replica_hash(second, "web")
        == first.run(
            f"zfs mount {copy} && sha256sum </{copy}/disk0.img && zfs unmount {copy}"
        ).stdout.split()[0]
    )
    assert vm_report(hoster_json(second, onward), "web")["outcome"] == "unchanged"


def test_schedules_send_the_vms_that_they_name(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    source, target = fresh_lab.node1, fresh_lab.node2
    tags = {"web": ["gold"], "mail": ["silver", "gold"], "idle": [], "theirs": ["gold"]}
    for name, words in tags.items():
        make_vm(source, name, kib=64)
        config = {"production": name != "mail", "parent_host": "node1", "tags": words}
        source.write(f"/{DATASET}/{name}/vm_config.json", json.dumps(config))
    source.run(f"zfs set hoster:role=replica hoster:parent=node9 {DATASET}/theirs")
    to = f"-e {target.address}"
    only = hoster_json(source, f"scheduler replicate idle {to}")
    assert [vm["vm"] for vm in only["vms"]] == ["idle"]
    tagged = hoster_json(source, f"scheduler replicate-by-tag gold {to}")
    assert {vm["vm"]: vm["outcome"] for vm in tagged["vms"]} == {"web": "done", "mail": "done"}
    assert guids(target, f"{DATASET}/theirs") == []
    for name in ("idle", "web", "mail"):
        assert guids(target, f"{DATASET}/{name}") == guids(source, f"{DATASET}/{name}") != []
    hoster(source, f"scheduler replicate-by-tag bronze {to}", code=3)


def test_a_copy_is_told_something_only_if_it_still_is_what_it_was_seen_as(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    node = fresh_lab.node1
    for name, marks in {
        "bare": "",
        "new": "-o hoster:role=replica",
        "old": "-o hoster:role=replica -o hoster:epoch=1@a",
        "later": "-o hoster:role=replica -o hoster:epoch=2@b",
        "taken": "-o hoster:role=primary -o hoster:epoch=1@a",
        "old/inherits": "",
    }.items():
        node.run(f"zfs create {marks} {DATASET}/{name}")

    def told(name: str, role: str, epoch: str, *values: str, guid: str = "") -> str:
        seen = guid or digits(int(value(node, f"{DATASET}/{name}", "guid")))
        command = ["zfs", "program", "-j", "tank", "-", f"{DATASET}/{name}", seen, role, epoch, *values]
        (answer,) = parse_answers(node.run(command, input=TELL).stdout)
        return answer.word

    def all_marks() -> str:
        return node.run(f"zfs get -Hrp -o name,property,value,source all {DATASET} | grep hoster:").stdout

    sites = '[{"endpoint":"a","dataset":"tank/my vms/it\'s"}]'
    assert told("new", "replica", "-", "1@a", "a", sites, "-") == "done"
    assert [value(node, f"{DATASET}/new", key) for key in TOLD] == ["1@a", "a", sites, "-"]
    assert told("old", "replica", "1@a", "-", "-", sites, "x") == "done"
    assert [value(node, f"{DATASET}/old", key) for key in TOLD] == ["1@a", "-", sites, "x"]
    assert told("bare", "-", "-", "-", "-", "-", "y") == "done"
    before = all_marks()
    others = ("3@z", "z", "[]", "z")
    for name in ("bare", "later", "taken", "old/inherits"):
        assert told(name, "replica", "1@a", *others) == "promoted"
    assert told("new", "replica", "1@x", *others) == "promoted"
    assert told("later", "replica", "-", *others) == "promoted"
    assert told("old", "replica", "1@a", *others, guid=digits(1)) == "changed"
    assert told("nothing", "replica", "1@a", *others, guid=digits(1)) == "gone"
    assert told("old", "replica", "1@a", "-", "-", "x" * 9000, "-") == "error 7"
    assert all_marks() == before
