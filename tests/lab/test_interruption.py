"""Interruptions: whatever ends a run at whatever moment, one ordinary run afterwards converges."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from lab.lab import Lab
from lab.node import Node
from tests.lab.world import (
    DATASET,
    disk_hash,
    guids,
    hoster,
    hoster_json,
    make_vm,
    prepare,
    replica_hash,
    vm_report,
    write,
)

pytestmark = pytest.mark.lab

STEP = 1 if os.environ.get("HOSTER_SWEEP") == "every" else 4
"""How far apart the commands lie at which a run is killed; `make sweep` takes every one."""

HOSTER = "run_module"
"""A word of the command line by which a node's hoster is started, and of nothing else's."""


@pytest.fixture
def pair(fresh_lab: Lab) -> Lab:
    prepare(fresh_lab)
    return fresh_lab


def until(happened: Callable[[], object], *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def begin(source: Node, words: str) -> None:
    """Starts hoster in the background and waits until its stream flows."""
    source.run("rm -f /root/run.log")
    source.run(f"nohup hoster {words} >/root/run.log 2>&1 </dev/null &")
    until(lambda: "web: sending" in source.run("cat /root/run.log", check=False).stdout)


def token(target: Node, dataset: str) -> str:
    """The resume token of a partly received dataset; empty where there is none."""
    said = target.run(f"zfs get -H -o value receive_resume_token {dataset}", check=False).stdout.strip()
    return "" if said == "-" else said


def leftovers(node: Node) -> list[str]:
    """What a run that is over must not leave: holds, processes, sockets."""
    held = node.run(
        f"zfs list -Hp -r -t snapshot -o name,userrefs {DATASET} | awk '$2 > 0 {{ print $1 }}'"
    ).stdout.split()
    running = node.run("pgrep -fa '[z]fs (send|receive)|[C]ontrolMaster' || true").stdout.splitlines()
    sockets = node.run("ls -d /run/hoster/ssh-* 2>/dev/null || true").stdout.split()
    return [*held, *running, *sockets]


def converged(source: Node, target: Node, name: str) -> None:
    dataset = f"{DATASET}/{name}"
    assert guids(source, dataset)[-1] in guids(target, dataset)[-1:]
    assert replica_hash(target, name) == disk_hash(source, name)
    assert token(target, dataset) == ""


def test_a_stream_that_broke_off_goes_on_from_where_it_was(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web", kib=6 * 1024)
    replicate = f"vm replicate web -e {target.address}"
    for first in (True, False):
        begin(source, f"{replicate} --speed-limit 0.6")
        time.sleep(3.5)
        source.run(f"pkill -9 -f {HOSTER[:-1]}[{HOSTER[-1]}]")
        until(lambda: token(target, web))
        assert bool(guids(target, web)) is not first
        assert leftovers(source), "the hold of the run that was killed"
        planned = vm_report(hoster_json(source, f"{replicate} --dry-run"), "web")
        assert planned["sent"][0].startswith("the rest of")
        report = vm_report(hoster_json(source, replicate), "web")
        assert report["outcome"] == "done"
        assert 0 < report["sent_bytes"] < 5.6 * 1024 * 1024
        converged(source, target, "web")
        assert leftovers(source) == leftovers(target) == []
        write(source, "web", kib=6 * 1024)


def test_a_part_that_cannot_go_on_is_given_up_and_that_is_said(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web", kib=4 * 1024)
    replicate = f"vm replicate web -e {target.address}"
    begin(source, f"{replicate} --speed-limit 0.5")
    time.sleep(3)
    source.run(f"pkill -9 -f {HOSTER[:-1]}[{HOSTER[-1]}]")
    until(lambda: token(target, web))
    source.run(
        f"for s in $(zfs list -Ht snapshot -o name {web}); do"
        f" for t in $(zfs holds -H $s | cut -f 2); do zfs release $t $s; done; zfs destroy $s; done"
    )
    report = vm_report(hoster_json(source, replicate), "web")
    assert report["outcome"] == "done"
    assert any("was given up" in note and "is gone here" in note for note in report["notes"]), report["notes"]
    converged(source, target, "web")


def test_what_is_being_sent_is_held(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web")
    hoster(source, f"vm replicate web -e {target.address}")
    write(source, "web", kib=3 * 1024)
    begin(source, f"vm replicate web -e {target.address} --speed-limit 0.7")
    refused = source.run(f"zfs destroy {web}@%", check=False)
    assert "being held" in refused.stderr
    assert len(guids(source, web)) == 2
    until(lambda: source.run(f"pgrep -f {HOSTER[:-1]}[{HOSTER[-1]}]", check=False).stdout == "")
    converged(source, target, "web")
    assert leftovers(source) == []


def test_a_full_target_fails_and_room_is_enough_to_go_on(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    make_vm(source, "web", kib=4 * 1024)
    make_vm(source, "small", kib=64)
    target.run(f"zfs set quota=3M {DATASET}")
    report = hoster_json(source, f"vm replicate-all -e {target.address} --parallel 1", code=3)
    assert vm_report(report, "web")["outcome"] == "failed"
    assert vm_report(report, "small")["outcome"] == "done"
    target.run(f"zfs set quota=none {DATASET}")
    hoster(source, f"vm replicate-all -e {target.address}")
    converged(source, target, "web")
    assert leftovers(source) == leftovers(target) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_command_of_a_run_one_more_run_converges(pair: Lab, when: str) -> None:
    """Every run replicates a VM for the first time and another one again."""
    source, target = pair.node1, pair.node2
    make_vm(source, "old", kib=256)
    replicate = f"vm replicate-all -e {target.address}"
    hoster(source, replicate)
    hit: dict[int, str] = {}
    for start in range(1 if when == "before" else 2, 60, STEP):
        new = f"new-{start:02}"
        make_vm(source, new, kib=128)
        write(source, "old", kib=128)
        assert when in {"before", "after"}
        source.audit.start()
        source.audit.arm("before" if when == "before" else "after", start, kill=HOSTER)
        done = source.run(f"hoster {replicate}", check=False, timeout_s=120)
        source.audit.disarm()
        starts = source.audit.stop()
        if done.returncode == 0:
            break  # the run has fewer commands than that: no fault came about
        hit[start] = " ".join((starts[start - 1].name, *starts[start - 1].arguments[:3]))
        until(lambda: not source.run("pgrep -f '[z]fs (send|receive)' || true").stdout)
        until(lambda: not target.run("pgrep -f '[z]fs (send|receive)' || true").stdout)
        report = hoster_json(source, replicate, code=None)
        assert {vm["outcome"] for vm in report["vms"]} <= {"done", "unchanged"}, (hit[start], report)
        for name in ("old", new):
            converged(source, target, name)
        assert leftovers(source) == leftovers(target) == [], hit[start]
        source.run(f"zfs destroy -r {DATASET}/{new}")
    print(f"killed {when}:", *(f"\n  {start:2} {command}" for start, command in hit.items()))
    assert len(hit) >= 12 // STEP, hit
