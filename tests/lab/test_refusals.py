"""Every ground on which replication of a VM is refused: evidence, exit code, and a remedy that is typed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hoster.model.plan import Ground
from lab.lab import Lab
from tests.lab.world import everything, guids, hoster, hoster_json, make_vm, prepare, vm_report, write

pytestmark = pytest.mark.lab

WEB = "tank/vm/web"


@dataclass(frozen=True)
class Case:
    """How the ground comes about (shell on either node), what must be said, and where the remedy is typed.

    ``replicated`` says whether the VM was replicated before. ``arguments`` go with both runs; where the
    remedy is not a shell line, ``instead`` is what an administrator makes of it.
    """

    ground: Ground
    evidence: str
    remedy: str
    source: str = "true"
    target: str = "true"
    replicated: bool = True
    arguments: str = "--endpoint node2"
    instead: str = ""
    full: bool = False


CASES = (
    Case(
        Ground.IS_REPLICA,
        "parent_host is 'elsewhere'",
        "hoster vm adopt web",
        source=f"for p in id role epoch parent production; do zfs inherit hoster:$p {WEB}; done;"
        f' sed -i \'s/"parent_host": "[^"]*"/"parent_host": "elsewhere"/\' /{WEB}/vm_config.json',
        replicated=False,
        instead="hoster vm adopt web --parent-was elsewhere",
    ),
    Case(
        Ground.IS_REPLICA,
        "marked replica",
        "on node2: hoster vm replicate web",
        source=f"zfs set hoster:role=replica hoster:parent=node2 {WEB}",
        replicated=False,
        instead=f"zfs set hoster:role=primary hoster:parent=node1 {WEB}",
    ),
    Case(
        Ground.UNSUPPORTED,
        "datasets below it (tank/vm/web/data)",
        "--filter",
        source=f"zfs create {WEB}/data",
        replicated=False,
        instead=f"zfs destroy {WEB}/data",
    ),
    Case(
        Ground.SAME_DATASET,
        "this very node",
        "--target-dataset",
        replicated=False,
        arguments="--endpoint node1",
        instead="hoster vm replicate web --endpoint node2",
    ),
    Case(
        Ground.TARGET_PARENT_MISSING,
        "node2 has no dataset tank/nosuch/vms",
        "zfs create -p -o canmount=off tank/nosuch/vms",
        replicated=False,
        arguments="--endpoint node2 --target-dataset tank/nosuch/vms",
    ),
    Case(
        Ground.FOREIGN_DATASET,
        "is not this VM's replica",
        f"zfs rename {WEB} {WEB}.set-aside",
        target=f"zfs create {WEB}; zfs snapshot {WEB}@precious",
        replicated=False,
    ),
    Case(
        Ground.FOREIGN_DATASET,
        "though it shares",
        "zfs set hoster:id=",
        target=f"for p in id role; do zfs inherit hoster:$p {WEB}; done",
    ),
    Case(
        Ground.NOT_A_REPLICA,
        "not a replica: primary",
        "zfs set hoster:role=replica",
        target=f"zfs set hoster:role=primary {WEB}",
    ),
    Case(
        Ground.PARTIAL_RECEIVE,
        "partly received stream",
        "zfs receive -A",
        source=f"head -c 3000000 /dev/urandom >/{WEB}/disk0.img; zfs snapshot {WEB}@cut;"
        f" zfs send -i $(zfs list -Ht snapshot -o name {WEB} | head -1) {WEB}@cut | head -c 2000000"
        f" | ssh node2 zfs receive -s -u {WEB}; true",
    ),
    Case(
        Ground.NAME_TAKEN,
        "another version",
        "zfs rename tank/vm/web@backup",
        source=f"zfs snapshot {WEB}@backup",
        target=f"zfs snapshot {WEB}@backup",
    ),
    Case(
        Ground.NO_COMMON_VERSION,
        "no version of tank/vm/web on node2 exists here",
        "zfs rename",
        source=f"zfs destroy {WEB}@%; zfs list -Ht bookmark -o name {WEB} | xargs -n 1 zfs destroy;"
        f" zfs snapshot {WEB}@fresh",
        full=True,
    ),
    Case(
        Ground.REPLICA_MODIFIED,
        "bytes were written",
        "zfs rollback",
        target=f"zfs set readonly=off {WEB}; zfs mount {WEB}; echo x >/{WEB}/written-here; zfs unmount {WEB};"
        " zpool sync",
    ),
    Case(
        Ground.REPLICA_AHEAD,
        "newer version(s) with data of their own",
        "zfs rename",
        target=f"zfs set readonly=off {WEB}; zfs mount {WEB}; echo x >/{WEB}/written-here; zfs unmount {WEB};"
        f" zfs snapshot {WEB}@theirs",
        full=True,
    ),
)


def test_the_table_is_complete() -> None:
    assert {case.ground for case in CASES} == set(Ground)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.ground}: {case.evidence}")
def test_it_is_refused_with_evidence_and_the_remedy_works(fresh_lab: Lab, case: Case) -> None:
    prepare(fresh_lab)
    source, target = fresh_lab.node1, fresh_lab.node2
    for name in ("web", "other"):
        make_vm(source, name)
    if case.replicated:
        hoster(source, f"vm replicate-all {case.arguments}")
        write(source, "web")
    source.run(case.source)
    target.run(case.target)
    before = everything(target)
    document = hoster_json(source, f"vm replicate web {case.arguments}", code=10)
    assert everything(target) == before, "a refusal changes nothing there"
    report = vm_report(document, "web")
    assert report["ground"] == case.ground
    assert case.evidence in report["reason"]
    assert case.remedy in report["remedy"]

    source.run(case.instead or report["remedy"].partition("    (")[0])
    if case.ground is Ground.SAME_DATASET:
        return
    hoster(source, f"vm replicate web {case.arguments}")
    where = case.arguments.partition("--target-dataset ")[2] or "tank/vm"
    assert guids(target, f"{where}/web")[-1] == guids(source, WEB)[-1]
    if case.full:
        assert target.run(f"zfs list -H -o name {WEB}.set-aside").stdout.strip()


def test_one_refused_vm_does_not_stop_the_others(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    source, target = fresh_lab.node1, fresh_lab.node2
    for name in ("web", "other"):
        make_vm(source, name)
    target.run(f"zfs create {WEB}")
    said = hoster(source, "vm replicate-all --endpoint node2", code=10)
    assert "web: refused" in said.stdout
    assert guids(target, "tank/vm/other") == guids(source, "tank/vm/other")
