"""Names that are legal and awkward, a great many versions, and names that must not get through."""

from __future__ import annotations

import os
import time

import pytest

from hoster.model.plan import Ground
from lab.lab import Lab
from lab.node import Node
from tests.lab.cutting import EVERY
from tests.lab.world import guids, hoster, hoster_json, make_vm, names, prepare, vm_report, write

pytestmark = pytest.mark.lab

WEB = "tank/vm/web"
PARTS, EACH = 5, 60


def test_awkward_names_travel_and_those_that_leave_no_room_are_refused(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    source, target = fresh_lab.node1, fresh_lab.node2
    make_vm(source, "web")
    below = [f"{WEB}/{name}" for name in ("my disk", "-x", "a..b", "c:d", "n" * (214 - len(WEB) - 1))]
    for dataset in below:
        source.run(["zfs", "create", dataset])
    source.run(["zfs", "snapshot", f"{below[0]}@by hand - 1"])
    hoster(source, f"vm replicate web -e {target.address}")
    write(source, "web")
    hoster(source, f"vm replicate web -e {target.address}")
    for dataset in below:
        quoted = f"'{dataset}'"
        assert guids(target, quoted) == guids(source, quoted) != []
    source.run(["zfs", "rename", below[0], f"{WEB}/its disk"])
    renamed = vm_report(hoster_json(source, f"vm replicate web -e {target.address}", code=10), "web")
    assert renamed["ground"] == Ground.DESCENDANT_RENAMED
    source.run(renamed["remedy"])
    assert (
        vm_report(hoster_json(source, f"vm replicate web -e {target.address}"), "web")["outcome"] != "refused"
    )
    source.run(["zfs", "rename", below[-1], f"{below[-1]}x"])
    long = vm_report(hoster_json(source, f"vm replicate web -e {target.address}", code=10), "web")
    assert long["ground"] == Ground.NAME_TOO_LONG
    source.run(long["remedy"])


HOSTILE = (
    ("vm", "replicate", "web", "-e", "-oProxyCommand=touch /tmp/hostile"),
    ("vm", "replicate", "web", "-e", "node2;touch /tmp/hostile"),
    ("vm", "replicate", "web", "-e", "node2\ntouch /tmp/hostile"),
    ("vm", "replicate", "web", "-e", "n" * 100_000),
    ("vm", "replicate", "web", "-e", "node2", "--key", "/tmp/x -oProxyCommand=touch /tmp/hostile"),
    ("vm", "replicate", "web", "-e", "node2", "--target-dataset", "tank/vm;touch /tmp/hostile"),
    ("vm", "replicate", "web", "-e", "node2", "--target-dataset", "-F"),
    ("vm", "replicate", "web", "-e", "node2", "--script-name", "../../tmp/hostile"),
    ("vm", "replicate", "-e", "node2", "--", "-F"),
    ("vm", "replicate", "-e", "node2", "--", "$(touch /tmp/hostile)"),
    ("vm", "replicate-all", "-e", "node2", "-f", "web,`touch /tmp/hostile`"),
    ("scheduler", "replicate-by-tag", "../x", "-e", "node2"),
    ("snapshot", "destroy", "web", "-rR@x"),
    ("snapshot", "new", "web' -r", "-t", "daily"),
    ("vm", "branches", "destroy", "-y", "../web"),
)


def test_hostile_words_are_refused_and_nothing_is_run(fresh_lab: Lab) -> None:
    """The same words in all places are held against the command line in tests/unit/cli."""
    prepare(fresh_lab)
    node = fresh_lab.node1
    make_vm(node, "web", kib=4)
    with node.audit() as seen:
        ended = [node.run(["hoster", *words], check=False) for words in HOSTILE]
    assert seen.starts == []
    for words, done in zip(HOSTILE, ended, strict=True):
        assert done.returncode == 2, (words, done)
        assert done.stdout == ""
        assert "Error: " in done.stderr
        assert len(done.stderr) < 1000
        assert "Traceback" not in done.stderr
    for one in fresh_lab.nodes:
        assert one.run("ls -d /tmp/hostile /tmp/hostile.log", check=False).stdout == ""


TAKEN = """
import ctypes, glob, sys
core, pairs = (ctypes.CDLL(glob.glob(f"/lib/*/{name}.so.*")[0]) for name in ("libzfs_core", "libnvpair"))
pairs.fnvlist_alloc.restype = ctypes.c_void_p
assert core.libzfs_core_init() == 0
for number in range(int(sys.argv[1])):
    day, minute = divmod(number, 1440)
    name = "frequent_2024-01-%02d_%02d-%02d-00" % (day + 1, minute // 60, minute % 60)
    names, errors = ctypes.c_void_p(pairs.fnvlist_alloc()), ctypes.c_void_p()
    for dataset in sys.argv[2:]:
        pairs.fnvlist_add_boolean(names, f"{dataset}@{name}".encode())
    status = core.lzc_snapshot(names, None, ctypes.byref(errors))
    assert status == 0, (status, name)
    pairs.fnvlist_free(names)
"""
"""Takes snapshots without starting a program for each: no faster way is known, since zfs refuses two of one
dataset in one transaction group."""

MEASURED = """
import resource, subprocess, sys, time
began = time.monotonic()
code = subprocess.run(["hoster", *sys.argv[1:]], stdout=subprocess.DEVNULL).returncode
peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
print(f"{time.monotonic() - began:.1f} {peak_mib}")
sys.exit(code)
"""
"""Runs hoster; says how long it took and how much memory it, or a program that it ran, had at most."""

MANY = int(os.environ.get("HOSTER_SNAPSHOTS", "10000"))
"""Of the VM, those of all its datasets together. What a snapshot takes OpenZFS grows with how many there are
of that dataset: ten thousand of a single one take hours here, before hoster does anything."""

MANY_PARTS = (WEB, *(f"{WEB}/d{number}" for number in range(9)))


def measured(node: Node, what: str, *words: str) -> float:
    done = node.run(["python3", "-c", MEASURED, *words], timeout_s=7200)
    seconds, peak_mib = map(float, done.stdout.split())
    print(f"{what}: {seconds} s, {peak_mib} MiB at most")
    assert peak_mib < 200
    return seconds


def frequents(node: Node, dataset: str) -> list[str]:
    return [name for name in names(node, dataset) if name.startswith("frequent_")]


@pytest.mark.skipif(not EVERY, reason="hours: with HOSTER_SWEEP=every")
def test_ten_thousand_snapshots_of_one_vm(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    source, target = fresh_lab.node1, fresh_lab.node2
    make_vm(source, "web", kib=64)
    for part in MANY_PARTS[1:]:
        source.run(["zfs", "create", part])
    began, each = time.monotonic(), MANY // len(MANY_PARTS)
    source.run(["python3", "-c", TAKEN, str(each), *MANY_PARTS], timeout_s=3600)
    print(f"taking {MANY} snapshots of {len(MANY_PARTS)} datasets: {time.monotonic() - began:.1f} s")
    to_target = ("vm", "replicate-all", "-e", target.address)
    replicate = (*to_target, "--target-keep", f"frequent={each}")  # else retention there comes first
    measured(source, "first run", *replicate)
    for part in MANY_PARTS:
        assert guids(target, part) == guids(source, part)
        assert len(frequents(source, part)) == each
    first = measured(source, "nothing to do", *replicate)
    write(source, "web")
    assert measured(source, "one more version", *replicate) < 3 * first + 30
    assert guids(target, WEB) == guids(source, WEB)
    write(source, "web")
    measured(source, "retention on the target", *to_target, "--target-keep", "frequent=10")
    measured(source, "retention here", "snapshot", "new", "web", "-t", "frequent", "--keep", "10")
    for part in MANY_PARTS:
        *older, _ = frequents(source, part)
        assert len(older) == 9
        assert frequents(target, part)[-9:] == older
        assert len(frequents(target, part)) == 10
    assert vm_report(hoster_json(source, " ".join(replicate)), "web")["outcome"] == "done"


def test_hundreds_of_snapshots_of_one_vm_are_replicated_and_then_cost_one_look(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    source, target = fresh_lab.node1, fresh_lab.node2
    make_vm(source, "web", kib=64)
    source.run(
        f"for i in $(seq {PARTS - 1}); do zfs create {WEB}/d$i; done;"
        f" for i in $(seq {EACH}); do zfs snapshot -r {WEB}@s$i; done",
        timeout_s=300,
    )
    hoster(source, f"vm replicate web -e {target.address}", timeout_s=900)
    for part in (WEB, f"{WEB}/d1", f"{WEB}/d{PARTS - 1}"):
        assert guids(target, part) == guids(source, part)
        assert len(guids(source, part)) == EACH
    with source.audit() as seen:
        idle = vm_report(hoster_json(source, f"vm replicate web -e {target.address}", timeout_s=600), "web")
    assert idle["outcome"] == "unchanged"
    assert seen.count("zfs", "get") == 1
