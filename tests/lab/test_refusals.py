"""Every ground on which replication of a VM is refused: evidence, exit code, and a remedy that is typed.

The grounds come about side by side, each on a VM of its own, so that two runs of hoster judge them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from hoster.model.plan import Ground
from lab.lab import Lab
from tests.lab.world import everything, guids, hoster, hoster_json, make_vm, prepare, vm_report

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("refusals")]


@dataclass(frozen=True)
class Case:
    """How a ground comes about (shell on either node, $D the VM's dataset), and what must be said.

    ``replicated``: the VM was replicated before, after ``first`` was done to it. Where the remedy is no shell
    line, ``instead`` is what an administrator makes of it. ``set_aside``: what was there is still there.
    """

    vm: str
    ground: Ground
    evidence: str
    remedy: str
    first: str = "true"
    source: str = "true"
    target: str = "true"
    replicated: bool = True
    instead: str = ""
    set_aside: bool = False


_WRITE_THERE = "zfs set readonly=off $D; zfs mount $D; echo x >/$D/written-here; zfs unmount $D; zpool sync"

CASES = (
    Case(
        "legacy-backup",
        Ground.IS_REPLICA,
        "parent_host is 'elsewhere'",
        "hoster vm adopt legacy-backup",
        source="for p in id role epoch parent production; do zfs inherit hoster:$p $D; done;"
        """ echo '{"production": true, "parent_host": "elsewhere"}' >/$D/vm_config.json""",
        replicated=False,
        instead="hoster vm adopt legacy-backup --parent-was elsewhere",
    ),
    Case(
        "replica",
        Ground.IS_REPLICA,
        "marked replica",
        "on node2: hoster vm replicate replica",
        source="zfs set hoster:role=replica hoster:parent=node2 $D",
        replicated=False,
        instead="zfs set hoster:role=primary hoster:parent=node1 $D",
    ),
    Case(
        "renamed",
        Ground.DESCENDANT_RENAMED,
        "tank/vm/renamed/new has the versions of tank/vm/renamed/old on node2",
        "zfs rename tank/vm/renamed/old tank/vm/renamed/new",
        first="zfs create $D/old",
        source="zfs rename $D/old $D/new",
    ),
    Case(
        "other-mode",
        Ground.MODE_MISMATCH,
        "was begun with raw streams, and these would be plain ones",
        "zfs rename",
        target="zfs set hoster:mode=raw $D",
        set_aside=True,
    ),
    Case(
        "foreign",
        Ground.FOREIGN_DATASET,
        "is not this VM's replica",
        "zfs rename tank/vm/foreign tank/vm/foreign.set-aside",
        target="zfs create $D; zfs snapshot $D@precious",
        replicated=False,
        set_aside=True,
    ),
    Case(
        "unmarked",
        Ground.FOREIGN_DATASET,
        "though it shares",
        "zfs set hoster:id=",
        target="for p in id role; do zfs inherit hoster:$p $D; done",
    ),
    Case(
        "taken-over",
        Ground.NOT_A_REPLICA,
        "not a replica: primary",
        "zfs set hoster:role=replica",
        target="zfs set hoster:role=primary $D",
    ),
    Case(
        "same-name",
        Ground.NAME_TAKEN,
        "another version",
        "zfs rename tank/vm/same-name@backup",
        source="zfs snapshot $D@backup",
        target="zfs snapshot $D@backup",
    ),
    Case(
        "no-base",
        Ground.NO_COMMON_VERSION,
        "no version of tank/vm/no-base on node2 exists here",
        "zfs rename",
        source="zfs destroy $D@%; zfs list -Ht bookmark -o name $D | xargs -n 1 zfs destroy",
        set_aside=True,
    ),
    Case("modified", Ground.REPLICA_MODIFIED, "bytes were written", "zfs rollback", target=_WRITE_THERE),
    Case(
        "ahead",
        Ground.REPLICA_AHEAD,
        "newer version(s) with data of their own",
        "zfs rename",
        target=f"{_WRITE_THERE}; zfs snapshot $D@theirs",
        set_aside=True,
    ),
)


@dataclass(frozen=True)
class Story:
    """What the two runs and the remedies between them gave."""

    lab: Lab
    refused: Mapping[str, Any]
    unchanged_by_refusals: bool
    typed: Mapping[str, int]
    mended: Mapping[str, Any]


@pytest.fixture(scope="module")
def story(lab: Lab) -> Story:
    lab.reset()
    prepare(lab)
    source, target = lab.node1, lab.node2
    for case in CASES:
        make_vm(source, case.vm, kib=64)
    source.run("".join(f"D=tank/vm/{case.vm}; {case.first}\n" for case in CASES))
    before_that = ",".join(case.vm for case in CASES if case.replicated)
    hoster(source, f"vm replicate-all -e node2 -f {before_that}")
    for case in CASES:
        source.run(f"D=tank/vm/{case.vm}; head -c 65536 /dev/urandom >/$D/disk0.img; {case.source}")
        target.run(f"D=tank/vm/{case.vm}; {case.target}")
    every = ",".join(case.vm for case in CASES)
    before = everything(target)
    refused = hoster_json(source, f"vm replicate-all -e node2 -f {every}", code=10)
    unchanged = everything(target) == before
    typed = {}
    for case in CASES:
        remedy = case.instead or vm_report(refused, case.vm)["remedy"].partition("    (")[0]
        typed[case.vm] = source.run(f"D=tank/vm/{case.vm}; {remedy}", check=False).returncode
    mended = hoster_json(source, f"vm replicate-all -e node2 -f {every}", code=None)
    return Story(lab, refused, unchanged, typed, mended)


def test_the_table_is_complete() -> None:
    elsewhere = {
        Ground.SAME_DATASET,
        Ground.TARGET_PARENT_MISSING,
        Ground.NAME_TOO_LONG,
        Ground.REPLICA_MOUNTED,
    }
    elsewhere |= {Ground.KEY_CHANGED, Ground.KEY_NOT_LOADED, Ground.WOULD_LIE_READABLE}  # test_encryption
    elsewhere |= {Ground.SUPERSEDED, Ground.SPLIT, Ground.MAY_LOSE_DATA}  # test_takeover
    elsewhere |= {
        Ground.RUNNING,
        Ground.IN_USE,
        Ground.OF_ANOTHER_VM,
        Ground.NEEDED_BY_TARGET,
    }  # test_rollback
    on_the_model = {Ground.NOTHING_WHOLE, Ground.VERSION_MISSING, Ground.PARTLY_RECEIVED}
    on_the_model |= {Ground.HELD, Ground.CLONED}  # the unit tests of planning and operations
    assert {case.ground for case in CASES} | elsewhere | on_the_model == set(Ground)


def test_refusals_change_nothing_on_the_target(story: Story) -> None:
    assert story.unchanged_by_refusals


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.vm)
def test_it_is_refused_with_evidence_and_the_remedy_works(story: Story, case: Case) -> None:
    report = vm_report(story.refused, case.vm)
    assert report["outcome"] == "refused"
    assert report["ground"] == case.ground
    assert case.evidence in report["reason"]
    assert case.remedy in report["remedy"]
    assert story.typed[case.vm] == 0
    assert vm_report(story.mended, case.vm)["outcome"] == "done", vm_report(story.mended, case.vm)
    source, target, dataset = story.lab.node1, story.lab.node2, f"tank/vm/{case.vm}"
    assert guids(target, dataset)[-1] == guids(source, dataset)[-1]
    if case.set_aside:
        assert guids(target, f"{dataset}.set-aside")


def test_the_node_itself_and_a_missing_parent_are_refused_and_others_go_on(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    source, target = fresh_lab.node1, fresh_lab.node2
    for name in ("web", "other"):
        make_vm(source, name, kib=64)
    itself = vm_report(hoster_json(source, "vm replicate web -e node1", code=10), "web")
    assert itself["ground"] == Ground.SAME_DATASET
    assert "this very node" in itself["reason"]
    assert "--target-dataset" in itself["remedy"]
    elsewhere = "vm replicate web -e node2 --target-dataset tank/nosuch/vms"
    orphan = vm_report(hoster_json(source, elsewhere, code=10), "web")
    assert orphan["ground"] == Ground.TARGET_PARENT_MISSING
    source.run(orphan["remedy"].partition("    (")[0])
    hoster(source, elsewhere)
    assert guids(target, "tank/nosuch/vms/web") == guids(source, "tank/vm/web")
    target.run("zfs create tank/vm/web")
    said = hoster(source, "vm replicate-all --endpoint node2", code=10)
    assert "web: refused" in said.stdout
    assert guids(target, "tank/vm/other") == guids(source, "tank/vm/other")
