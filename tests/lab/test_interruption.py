"""Interruptions: whatever ends a run at whatever moment, one ordinary run afterwards converges."""

from __future__ import annotations

from typing import Literal

import pytest

from lab.lab import Lab
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
    running,
    token,
    until,
)
from tests.lab.world import DATASET, guids, hoster, hoster_json, make_vm, prepare, vm_report, write

pytestmark = pytest.mark.lab

STEP = 1 if EVERY else 6
"""How far apart the commands lie at which a run is killed; `make sweep` takes every one."""


@pytest.fixture
def pair(fresh_lab: Lab) -> Lab:
    prepare(fresh_lab)
    return fresh_lab


def test_a_stream_that_broke_off_goes_on_from_where_it_was(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web", kib=6 * 1024)
    replicate = f"vm replicate web -e {target.address}"
    for first in (True, False):
        begin_and_arrive(source, target, f"{replicate} --speed-limit 0.4", "web")
        assert kill(source, HOSTER) == 1
        until(lambda: token(target, web) and not running(target, RECEIVES))
        assert bool(guids(target, web)) is not first
        assert leftovers(source), "the hold of the run that was killed"
        planned = vm_report(hoster_json(source, f"{replicate} --dry-run"), "web")
        assert planned["sent"][0].startswith("the rest of")
        report = vm_report(hoster_json(source, replicate), "web")
        assert report["outcome"] == "done"
        assert 0 < report["sent_bytes"] < 5.8 * 1024 * 1024
        converged(source, target, "web")
        assert leftovers(source) == leftovers(target) == []
        write(source, "web", kib=6 * 1024)


def test_a_part_that_cannot_go_on_is_given_up_and_that_is_said(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web", kib=4 * 1024)
    replicate = f"vm replicate web -e {target.address}"
    begin_and_arrive(source, target, f"{replicate} --speed-limit 0.3", "web")
    assert kill(source, HOSTER) == 1
    until(lambda: token(target, web) and not running(target, RECEIVES))
    until(lambda: not running(source, SENDS))
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
    write(source, "web", kib=4 * 1024)
    begin_and_arrive(source, target, f"vm replicate web -e {target.address} --speed-limit 0.5", "web")
    refused = source.run(f"zfs destroy {web}@%", check=False)
    assert "being held" in refused.stderr or "dataset is busy" in refused.stderr  # the words of OpenZFS 2.1
    assert len(guids(source, web)) == 2
    assert exit_code(source) == 0
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


CONNECTION = "ControlMaster=yes"
SEND = "send"
"""Words of the command lines of the shared connection and of what sends, and of no others."""

POINTS: list[tuple[Literal["before", "after"], str]] = [("before", HOSTER), ("after", HOSTER)]
if EVERY:
    POINTS += [("before", CONNECTION), ("after", CONNECTION), ("before", SEND), ("after", SEND)]


@pytest.mark.parametrize(("when", "what"), POINTS)
def test_killed_at_any_command_of_a_run_one_more_run_converges(
    pair: Lab, when: Literal["before", "after"], what: str
) -> None:
    """Every run replicates a VM for the first time and another one again. It counts if it failed: then the
    fault hit something that was alive."""
    source, target = pair.node1, pair.node2
    make_vm(source, "old", kib=256)
    replicate = f"vm replicate-all -e {target.address}"
    hoster(source, replicate)
    hit: dict[int, str] = {}
    for start in range(1 if when == "before" else 2, 60, STEP):
        new = f"new-{start:02}"
        make_vm(source, new, kib=128)
        write(source, "old", kib=128)
        source.audit.start()
        source.audit.arm(when, start, kill=what)
        done = source.run(f"hoster {replicate}", check=False, timeout_s=120)
        source.audit.disarm()
        starts = source.audit.stop()
        if len(starts) < start:
            break  # the run has fewer commands than that: no fault came about
        if done.returncode != 0:
            hit[start] = " ".join((starts[start - 1].name, *starts[start - 1].arguments[:3]))
        until(lambda: not running(source, SENDS) and not running(target, RECEIVES))
        report = hoster_json(source, replicate, code=None)
        assert {vm["outcome"] for vm in report["vms"]} <= {"done", "unchanged"}, (start, report)
        for name in ("old", new):
            converged(source, target, name)
        assert leftovers(source) == leftovers(target) == [], start
        source.run(f"zfs destroy -r {DATASET}/{new}")
    print(f"{what} killed {when}:", *(f"\n  {start:2} {command}" for start, command in hit.items()))
    assert len(hit) >= {HOSTER: 12 // STEP, CONNECTION: 8, SEND: 1}[what], hit
