"""A VM goes back to one of its versions, to and fro: nothing is lost, and its replica follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
    prepare,
    value,
    vm_report,
    write,
)

pytestmark = pytest.mark.lab

PARTS = (WEB, DISK, LOGS)
ROLLBACK = f"snapshot rollback web {FIRST}"

_POINTS = 4
"""At how many of the commands of a rollback hoster is killed, but in a sweep."""


@pytest.fixture
def pair(fresh_lab: Lab) -> Lab:
    prepare(fresh_lab)
    return fresh_lab


@contextmanager
def held(node: Node, words: str) -> Iterator[None]:
    """Lets a process called `sleep` keep something in use."""
    pid = node.run(f"({words}; exec sleep 600) >/dev/null 2>&1 </dev/null & echo $!").stdout.strip()
    try:
        until(lambda: node.run(f"cat /proc/{pid}/comm").stdout.strip() == "sleep")
        yield
    finally:
        node.run(f"kill {pid}; while [ -e /proc/{pid} ]; do sleep 0.1; done")


def report(node: Node, words: str, *, code: int = 0) -> Any:
    """What a command says of the VM; its standard input is empty, as in a script."""
    return vm_report(hoster_json(node, f"{words} </dev/null", code=code), "web")


def state(node: Node) -> tuple[str, ...]:
    """What the guest would find: the contents of its disks, where they are mounted, what is set on them."""
    mounted = " ".join(f"{part}={value(node, part, 'mounted')}" for part in (WEB, LOGS))
    logs = node.run("sha256sum </srv/logs/log").stdout.split()[0]
    return (disk_hash(node, "web"), volume_hash(node), logs, mounted, *settings(node, PARTS))


def make_tree(node: Node) -> None:
    """A VM with a volume and a filesystem below it that is mounted elsewhere, and settings of every kind."""
    make_vm(node, "web", kib=256)
    node.run(
        f"""set -e
        zfs set quota=1G atime=off org:words='two words' {WEB}
        zfs create -V 4M {DISK}
        zfs create -o mountpoint=/srv/logs -o compression=gzip-3 {LOGS}
        echo first >/srv/logs/log
        zfs allow -l -u nobody mount,snapshot {WEB}
        zfs snapshot -r {WEB}@{FIRST}
        """
    )


def write_all(node: Node) -> None:
    write(node, "web")
    write_volume(node)
    node.run("head -c 9000 /dev/urandom >/srv/logs/log")


def test_to_and_fro_with_a_replica_that_follows(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    make_tree(source)
    replicate = f"vm replicate web -e {target.address}"
    report(source, replicate)
    first = state(source)
    write_all(source)
    hoster(source, "snapshot new web")
    report(source, replicate)
    write_all(source)
    second = state(source)
    what_is_refused_changes_nothing(source)
    assert state(source) == second

    kept = every_guid(source)
    back = report(source, f"snapshot rollback web {WEB}@{FIRST}")
    assert back["outcome"] == "done", back
    assert any("sets them aside there as a branch" in note for note in back["notes"]), back["notes"]
    assert state(source) == first
    assert kept == every_guid(source)
    assert report(source, ROLLBACK)["outcome"] == "unchanged"
    assert branch_names(source) == [back["branch"]]
    assert [vm["name"] for vm in hoster_json(source, "vm list")] == ["web"]
    there = every_guid(target)
    sent = report(source, replicate)
    assert any("rolled back" in note for note in sent["notes"]), sent
    assert there <= every_guid(target)
    assert report(source, replicate)["outcome"] == "unchanged"

    write_all(source)
    third = state(source)
    bookmark_both(source, f"{DATASET}/{back['branch']}")
    restored = report(source, f"vm branches restore {back['branch']}")
    assert restored["outcome"] == "done", restored
    bookmarks = source.run(f"zfs list -H -d 1 -t bookmark -o name {WEB}").stdout.split()
    assert {f"{WEB}#keep", f"{WEB}#keep.2"} <= set(bookmarks)
    assert state(source) == second
    assert kept <= every_guid(source)
    follows(source, target, replicate)

    report(source, f"vm branches restore {restored['branch']}")
    assert state(source) == third
    assert kept <= every_guid(source)
    follows(source, target, replicate)


def what_is_refused_changes_nothing(source: Node) -> None:
    before = everything(source)
    with held(source, "cd /srv/logs"):
        refused = report(source, ROLLBACK, code=10)
        assert refused["ground"] == "in-use"
        assert "sleep (process" in refused["reason"]
    with held(source, f"exec 3</dev/zvol/{DISK}"):
        assert "sleep (process" in report(source, ROLLBACK, code=10)["reason"]
    assert report(source, f"snapshot rollback web {DATASET}/db@{FIRST}", code=10)["ground"] == "of-another-vm"
    hoster(source, "snapshot rollback web nothing", code=3)
    assert report(source, f"{ROLLBACK} --dry-run")["outcome"] == "planned"
    assert report(source, f"{ROLLBACK} --destroy-newer --yes", code=10)["ground"] == "needed-by-target"
    assert everything(source) == before


def bookmark_both(node: Node, beside: str) -> None:
    """One name on both sides of the parting: to promote one over the other would panic the kernel."""
    node.run(
        f"zfs bookmark {WEB}@{FIRST} {WEB}#keep"
        f" && zfs bookmark $(zfs list -H -d 1 -t snapshot -o name {beside} | head -1) {beside}#keep"
    )


def follows(source: Node, target: Node, replicate: str) -> None:
    """The next replication goes on from what is there, and nothing is lost on the target by it."""
    there = every_guid(target)
    sent = report(source, replicate)
    assert sent["outcome"] == "done", sent
    assert sent["sent_bytes"] > 0
    assert there <= every_guid(target)
    assert [guids(target, part) for part in PARTS] == [guids(source, part) for part in PARTS]


def test_what_is_newer_is_destroyed_if_that_is_asked_for(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    make_tree(source)
    replicate = f"vm replicate web -e {target.address}"
    report(source, replicate)
    first, kept = state(source), guids(source, WEB)
    write_all(source)
    hoster(source, "snapshot new web")
    write_all(source)
    source.run(f"zfs snapshot {LOGS}@mine; zfs bookmark {LOGS}@mine {LOGS}#mine")
    planned = report(source, f"{ROLLBACK} --destroy-newer --dry-run")
    before = everything(source)
    hoster(source, f"{ROLLBACK} --destroy-newer </dev/null", code=130)
    assert everything(source) == before
    gone = report(source, f"{ROLLBACK} --destroy-newer --yes")
    assert gone["destroyed"] == planned["destroyed"]
    names = [one["snapshot"].removeprefix(WEB) for one in gone["destroyed"]]
    assert len(names) == 5
    assert {"/logs@mine", "/logs#mine"} < set(names)
    assert state(source) == first
    assert guids(source, WEB) == kept
    assert branch_names(source) == []
    after = report(source, replicate)
    assert after["outcome"] == "unchanged", after


def test_an_encrypted_vm_goes_back_with_its_key_and_without(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
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
    first = (disk_hash(source, "web"), volume_hash(source), settings(source, (WEB, DISK)))
    replicate = f"vm replicate web -e {target.address}"
    write(source, "web")
    report(source, replicate)
    write(source, "web")
    write_volume(source)
    second = (disk_hash(source, "web"), volume_hash(source), settings(source, (WEB, DISK)))
    kept = every_guid(source)

    back = report(source, ROLLBACK)
    assert (disk_hash(source, "web"), volume_hash(source), settings(source, (WEB, DISK))) == first
    assert report(source, replicate)["outcome"] == "done"
    source.run(f"zfs unmount {WEB} && zfs unload-key {WEB}")
    hoster(source, f"vm branches restore {back['branch']}")
    # What was an encryption root once keeps its key loaded, and has it when it is one again.
    assert value(source, WEB, "keystatus") == "available"
    source.run(f"zfs mount {WEB}")
    assert (disk_hash(source, "web"), volume_hash(source), settings(source, (WEB, DISK))) == second
    assert kept <= every_guid(source)
    sent = report(source, replicate)
    assert sent["outcome"] == "done", sent
    assert 0 < sent["sent_bytes"] < 512 * 1024
    assert [guids(target, part) for part in (WEB, DISK)] == [guids(source, part) for part in (WEB, DISK)]


def _changing(starts: Sequence[Started]) -> list[int]:
    """Which starts, counted from 1, change something."""
    looks = {"get", "list", "holds", "version"}
    return [
        number
        for number, started in enumerate(starts, 1)
        if started.name == "zfs" and started.arguments[0] not in looks
    ]


def test_killed_while_it_goes_back_the_next_command_finishes_it(pair: Lab) -> None:
    source = pair.node1
    make_tree(source)
    first = state(source)
    write_all(source)
    second = state(source)
    source.audit.start()
    hoster(source, ROLLBACK)
    points = _changing(source.audit.stop())
    hit: list[str] = []
    for when, point in kill_points(points, _POINTS):
        (branch,) = branch_names(source)
        hoster(source, f"vm branches restore {branch}")
        hoster(source, f"vm branches destroy {branch_names(source)[0]} -y")
        assert state(source) == second
        kept = every_guid(source)
        source.audit.start()
        source.audit.arm(when, point, kill=HOSTER)
        killed = source.run(f"hoster {ROLLBACK}", check=False)
        source.audit.disarm()
        started = source.audit.stop()[point - 1]
        hit.append(f"{when} {' '.join(started.arguments)[:70]}")
        assert killed.returncode != 0, hit[-1]
        until(
            lambda: (
                not source.run("pgrep -f '[z]fs (set|clone|pro|ren|allow|inherit|mount|unm)' || true").stdout
            )
        )
        assert kept == every_guid(source), f"{hit[-1]}: before any other command"
        listed = hoster_json(source, "vm list")
        assert [vm["name"] for vm in listed] == ["web"], (hit[-1], listed)
        assert state(source) in (first, second), hit[-1]
        assert kept == every_guid(source), hit[-1]
        left = source.run("zfs list -H -o name -r tank; zfs get -H -r -s local -o property all tank").stdout
        assert ".swap-" not in left, hit[-1]
        assert "hoster:swap" not in left, hit[-1]
        report(source, ROLLBACK)
        assert state(source) == first, hit[-1]
    print("killed", *hit, sep="\n  ")
