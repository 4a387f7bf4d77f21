"""What is brought back by the name of a version is said to be in part, where a disk has no such version."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoster.host.ssh import SshOptions
from hoster.model.names import Endpoint
from hoster.model.plan import Outcome, VmReport
from hoster.operations.restore import RestoreRequest, restore
from tests.unit.operations.nodes import DISK, WEB, Nodes, _Silent


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    """Node b has a replica of the VM; the version "before" is of its own dataset alone."""
    nodes = Nodes(tmp_path)
    nodes.cluster.nodes["a"].snapshot([f"{WEB}@before"], {})
    nodes.write("a")
    nodes.cluster.nodes["a"].snapshot([f"{WEB}@after", f"{DISK}@after"], {})
    nodes.replicate("a", "b")
    nodes.cut.add("a")
    return nodes


def bring(nodes: Nodes, version: str, *, dry_run: bool = False) -> VmReport:
    request = RestoreRequest("web", SshOptions(Endpoint("b")), snapshot=version, dry_run=dry_run)
    (report,) = restore(nodes.contexts["c"], request, _Silent(), lambda _: None).vms
    return report


def test_a_vm_without_one_of_its_disks_does_not_become_the_one_that_runs(nodes: Nodes) -> None:
    said = f"{DISK} on b has no snapshot before, and is left out"
    assert said in bring(nodes, "before", dry_run=True).notes
    report = bring(nodes, "before")
    assert report.outcome is Outcome.DONE
    assert f"it stays a replica here: {said}" in report.notes
    assert "to run it here: hoster change parent --vm web" in report.notes
    assert nodes.mark("c", "role") == "replica"
    assert nodes.mark("b", "parent") == "a"


def test_one_with_all_of_them_does(nodes: Nodes) -> None:
    report = bring(nodes, "after")
    assert not any("left out" in note for note in report.notes)
    assert nodes.mark("c", "role") == "primary"
