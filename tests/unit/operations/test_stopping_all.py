"""Whatever runs on a node by hoster's doing is stopped with the rest, whatever else is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.model.plan import Outcome
from hoster.model.storage import Role
from hoster.operations.power_batches import stop_all
from hoster.testing import Says, ScriptedRunner, dataset, listing
from hoster.zfs.store import ZfsStore
from tests.unit.operations.test_power import Node, open_elsewhere


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_vm_whose_file_was_mangled_while_it_runs_is_stopped_too(node: Node) -> None:
    home = node.vm("web", None)
    node.vm("db")
    (node.folder / "notes").mkdir()
    node.start("web")
    (home / "vm_config.json").write_text("{")
    report = stop_all(node.context)
    assert node.machines.machines == {}
    assert {vm.vm: vm.outcome for vm in report.vms} == {"db": Outcome.UNCHANGED, "web": Outcome.DONE}


def test_what_another_process_writes_to_is_not_said_to_be_stopped(node: Node) -> None:
    home = node.vm("web")
    node.vm("db")
    with open_elsewhere(home / "disk0.img", "r+") as pid:
        db, web = sorted(stop_all(node.context).vms, key=lambda report: report.vm)
    assert db.outcome is Outcome.UNCHANGED
    assert web.outcome is Outcome.REFUSED
    assert f"process {pid} (" in web.reason
    assert web.remedy == f"end it first: ps {pid} shows what it is"


def test_a_name_that_two_have_is_one_machine(node: Node) -> None:
    """A VM and a replica of it in another pool of this node, which is an active dataset, too."""
    node.vm("web")
    node.start("web")
    copy = dataset("usb/vm/web", "", Role.REPLICA)
    runner = ScriptedRunner()
    own = node._datasets
    runner.answer(
        ("zfs", "get"), lambda argv, stdin: Says(listing(dataset("tank/vm"), *own, dataset("usb/vm"), copy))
    )
    settings = replace(node.context.settings, datasets=("tank/vm", "usb/vm"))
    zfs = ZfsStore(node.context.zfs.host, runner)
    report = stop_all(replace(node.context, settings=settings, runner=runner, zfs=zfs))
    assert [(vm.vm, vm.outcome) for vm in report.vms] == [("web", Outcome.DONE)]
