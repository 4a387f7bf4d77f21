"""A VM that was rolled back at its source: what is newer on the target is set aside, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from lab.audit import Started
from lab.lab import Lab
from lab.node import Node
from tests.lab.cutting import kill_points
from tests.lab.histories import (
    DISK,
    FIRST,
    HOSTER,
    LOGS,
    WEB,
    branch_names,
    every_guid,
    settings,
    until,
    volume_hash,
    write_volume,
)
from tests.lab.world import (
    DATASET,
    disk_hash,
    everything,
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

_POINTS = 4
"""At how many of the commands of a swap hoster is killed, but in a sweep."""


@pytest.fixture
def pair(fresh_lab: Lab) -> Lab:
    prepare(fresh_lab)
    return fresh_lab


def roll_back(node: Node, parts: Sequence[str], version: str = FIRST) -> None:
    """As an administrator does it: each dataset by itself, newer versions and bookmarks destroyed."""
    node.run(" && ".join(f"zfs rollback -r {part}@{version}" for part in parts))


def versions(node: Node) -> str:
    """The versions of the VM's datasets by name and GUID."""
    return node.run(f"zfs list -Hp -r -t snapshot -o name,guid -s name {WEB}").stdout


def test_what_was_newer_is_a_branch_and_the_replica_goes_on_incrementally(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    parts = (WEB, DISK, LOGS)
    make_vm(source, "web")
    source.run(
        f"zfs create -V 4M {DISK} && zfs create {LOGS} && head -c 50000 /dev/urandom >/{LOGS}/log"
        f" && zfs snapshot -r {WEB}@{FIRST}"
    )
    replicate = f"vm replicate web -e {target.address}"
    full = vm_report(hoster_json(source, replicate), "web")
    for _ in range(2):  # one version in each dataset that is listed, and one that the run takes
        write(source, "web")
        write_volume(source)
        source.run(f"date >/{LOGS}/log; [ -e /tmp/once ] || zfs snapshot -r {WEB}@weekly; touch /tmp/once")
    hoster(source, replicate)
    target.run(
        f"zfs set quota=1G org:words='two words' {WEB}; zfs set mountpoint=/srv/logs reservation=1M {LOGS};"
        f" zfs set compression=gzip-3 {DISK};"
        f" zfs allow -l -u nobody mount,snapshot {WEB}; zfs allow -g daemon hold {LOGS};"
        f" zfs allow -e send {DISK}"
    )
    before, set_before = every_guid(target), settings(target, parts)
    assert len(names(target, LOGS)) == 3

    roll_back(source, parts)
    write(source, "web")
    source.run(f"echo back >/{LOGS}/log")
    report = vm_report(hoster_json(source, replicate), "web")
    assert report["outcome"] == "done", report
    (branch,) = branch_names(target)
    assert any("rolled back" in note and branch in note for note in report["notes"]), report["notes"]
    assert 0 < report["sent_bytes"] < full["sent_bytes"] / 3
    assert before < every_guid(target)
    for part in parts:
        assert guids(target, part) == guids(source, part)
        assert len(guids(target, part)) == 2
        assert len(guids(target, part.replace(WEB, f"{DATASET}/{branch}"))) == 2
    assert settings(target, parts) == set_before
    idle = vm_report(hoster_json(source, replicate), "web")
    assert idle["outcome"] == "unchanged", idle
    assert replica_hash(target, "web") == disk_hash(source, "web")
    assert volume_hash(target) == volume_hash(source)

    (listed,) = json.loads(hoster(target, "vm branches web --json").stdout)
    assert (listed["vm"], listed["parted_from"]) == ("web", f"{WEB}@{FIRST}")
    assert [vm["name"] for vm in hoster_json(target, "vm list")] == ["web"]
    seen = everything(target)
    planned = vm_report(hoster_json(target, f"vm branches destroy {branch} --dry-run"), branch)
    assert len(planned["destroyed"]) == 6 + 3
    hoster(target, "vm branches expire --older-than 1")
    assert everything(target) == seen
    hoster(target, f"vm branches destroy {branch} -y")
    left = [line for line in seen.splitlines() if f"/{branch}" not in line]
    assert [line.split("\t")[:2] for line in everything(target).splitlines()] == [
        line.split("\t")[:2] for line in left
    ]


def test_an_encrypted_vm_parts_without_its_key_and_opens_with_it(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    parts = (WEB, DISK)
    source.run(
        f"""set -e
        printf '%032d' 1 >/tmp/key
        zfs create -o encryption=on -o keyformat=raw -o keylocation=file:///tmp/key -o atime=off {WEB}
        echo '{{"production": true, "parent_host": "node1"}}' >/{WEB}/vm_config.json
        zfs create -V 4M {DISK}
        """
    )
    hoster(source, "vm adopt web")
    write(source, "web", kib=512)
    write_volume(source)
    source.run(f"zfs snapshot -r {WEB}@{FIRST}")
    replicate = f"vm replicate web -e {target.address}"
    for _ in range(2):
        write(source, "web")
        write_volume(source)
        hoster(source, replicate)
    before, set_before = every_guid(target), settings(target, parts)

    for again in range(2):  # the second time, what the branch was made of is itself such a replica
        roll_back(source, parts)
        write(source, "web")
        write_volume(source)
        report = vm_report(hoster_json(source, replicate), "web")
        assert report["outcome"] == "done", report
        assert 0 < report["sent_bytes"] < 512 * 1024
        assert len(branch_names(target)) == again + 1
        assert before < every_guid(target)
        assert settings(target, parts) == set_before
        for part in parts:
            assert guids(target, part) == guids(source, part)
            assert value(target, part, "keystatus") == "unavailable"
    idle = vm_report(hoster_json(source, replicate), "web")
    assert idle["outcome"] == "unchanged", idle
    target.run(
        f"printf '%032d' 1 >/tmp/try; zfs load-key -L file:///tmp/try {WEB};"
        f" zfs load-key -L file:///tmp/try {DISK}"
    )
    assert replica_hash(target, "web") == disk_hash(source, "web")
    assert volume_hash(target) == volume_hash(source)


def _of_the_swap(starts: Sequence[Started]) -> range:
    """Which starts, counted from 1, belong to the setting aside."""
    ours = [
        number
        for number, started in enumerate(starts, 1)
        if started.name == "ssh"
        and "hoster:swap" in (text := " ".join(started.arguments))
        and "get" not in text
    ]
    return range(ours[0], ours[-1] + 1)


def _said(started: Started) -> str:
    """The command that a start of ssh carried to the target."""
    return started.arguments[-1].partition("exec zfs ")[2].rstrip("'")[:70]


def test_killed_while_it_sets_aside_one_more_run_finishes_it(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    parts = (WEB, DISK)
    make_vm(source, "web", kib=128)
    source.run(f"zfs create -V 4M {DISK} && zfs snapshot -r {WEB}@{FIRST}")
    replicate = f"vm replicate web -e {target.address}"
    write(source, "web")
    hoster(source, replicate)
    target.run(f"zfs set quota=1G {WEB} && zfs allow -l -u nobody mount,snapshot {WEB}")
    set_before = settings(target, parts)

    def parted() -> None:
        roll_back(source, parts)
        write(source, "web")

    parted()
    with source.audit() as seen:
        hoster(source, replicate)
    swap = _of_the_swap(seen.starts)
    hit: list[str] = []
    guids_before = every_guid(target)
    turns = kill_points(swap, _POINTS)
    for when, point in turns:
        parted()
        source.audit.start()
        source.audit.arm(when, point, kill=HOSTER)
        killed = source.run(f"hoster {replicate}", check=False)
        source.audit.disarm()
        hit.append(f"{when} {_said(source.audit.stop()[point - 1])}")
        assert killed.returncode != 0, hit[-1]
        until(lambda: not target.run("pgrep -f '[z]fs (set|clone|pro|ren|allow|inherit|get)' || true").stdout)
        report = vm_report(hoster_json(source, replicate, code=None), "web")
        assert report["outcome"] == "done", (hit[-1], report)
        assert versions(target) == versions(source), hit[-1]
        guids_now = every_guid(target)
        assert guids_before < guids_now, hit[-1]
        guids_before = guids_now
        assert settings(target, parts) == set_before, hit[-1]
        left = target.run("zfs list -H -o name -r tank; zfs get -H -r -s local -o property all tank").stdout
        assert ".swap-" not in left, hit[-1]
        assert "hoster:swap" not in left, hit[-1]
    print("killed", *hit, sep="\n  ")
    assert replica_hash(target, "web") == disk_hash(source, "web")
    assert len(branch_names(target)) == 1 + len(turns)
