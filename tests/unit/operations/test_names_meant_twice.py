"""One name for two VMs, or one VM under two names: no backup stops in silence, and no VM runs twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.cli.render import exit_code
from hoster.errors import ExitCode
from hoster.hypervisors.memory import InMemory
from hoster.model.names import SnapshotType
from hoster.model.plan import Ground, Outcome
from hoster.operations.cireset import cireset
from hoster.operations.inventory import look_around
from hoster.operations.permission import Asking
from hoster.operations.power import start_held
from hoster.operations.power_batches import start_all
from hoster.operations.replicate import replicate
from hoster.operations.request import ReplicationRequest
from hoster.operations.snapshots import SnapshotRequest, snapshot_all
from hoster.operations.status import node_status
from hoster.operations.takeover import TakeoverRequest
from hoster.planning.reset import Wishes
from tests.properties.world import Quiet
from tests.unit.operations.nodes import CONFIG, DISK, WEB, NodeContext, Nodes
from tests.zfsmodel.state import Kind


def with_a_second_pool(nodes: Nodes, name: str) -> None:
    node = nodes.cluster.nodes[name]
    node.pools = ("tank", "ssd")
    node.txg["ssd"] = 1
    node.datasets["ssd"] = node.new_dataset("ssd", Kind.FILESYSTEM)
    node.datasets["ssd"].mounted = True


@pytest.mark.parametrize("names", [None, ("web",)], ids=["all", "by name"])
def test_a_copy_of_a_vm_in_another_pool_does_not_stop_its_backup_in_silence(
    two_vms: Nodes, names: tuple[str, ...] | None
) -> None:
    """As ``zfs send tank/vm/web | zfs receive ssd/vm/web`` makes one."""
    nodes, folder = two_vms, two_vms.folder / "ssd"
    for name in ("a", "b"):
        with_a_second_pool(nodes, name)
        nodes.cluster.nodes[name].create("ssd/vm", {"mountpoint": str(folder)})
    (folder / "web").mkdir(parents=True)
    (folder / "web" / "vm_config.json").write_text(json.dumps(CONFIG))
    nodes.cluster.nodes["a"].create("ssd/vm/web", {})
    own = nodes.contexts["a"]
    context = replace(own, settings=replace(own.settings, datasets=("tank/vm", "ssd/vm")))
    report = replicate(context, replace(nodes.request("b"), names=names), Quiet())
    told = {vm.vm: (vm.outcome, vm.reason) for vm in report.vms}
    assert told["web"] == (Outcome.FAILED, "web is not unique: tank/vm/web, ssd/vm/web")
    assert "zfs rename tank/vm/web tank/vm/web-2" in report.vms[0].remedy
    assert [vm.outcome for vm in report.vms[1:]] == ([Outcome.DONE] if names is None else [])
    assert exit_code(report) is ExitCode.FAILED


def with_replicas_beside(nodes: Nodes) -> tuple[NodeContext, ReplicationRequest]:
    """Node a with a second pool, an active dataset too; and what sends its VMs there."""
    with_a_second_pool(nodes, "a")
    (nodes.folder / "ssd").mkdir()
    nodes.cluster.nodes["a"].create("ssd/vm", {"mountpoint": str(nodes.folder / "ssd")})
    own = nodes.contexts["a"]
    context = replace(own, settings=replace(own.settings, datasets=("tank/vm", "ssd/vm")))
    return context, replace(nodes.request("local"), target_dataset="ssd/vm")


def test_a_replica_in_another_pool_of_the_node_does_not_keep_its_vm_from_being_sent(two_vms: Nodes) -> None:
    context, here = with_replicas_beside(two_vms)
    for request in (here, here, two_vms.request("b")):
        two_vms.write("a")
        (report,) = replicate(context, request, Quiet()).vms
        assert report.outcome is Outcome.DONE, report


def test_a_replica_in_another_pool_of_the_node_hides_no_target_of_its_vm(two_vms: Nodes) -> None:
    context, here = with_replicas_beside(two_vms)
    for request in (here, two_vms.request("b")):
        replicate(context, request, Quiet())
    found = {vm.dataset: [target.node for target in vm.targets] for vm in node_status(context).vms}
    assert found == {"tank/vm/web": ["b"], "tank/vm/zdb": [], "ssd/vm/web": []}


def test_of_two_vms_of_one_name_each_gets_its_snapshot_and_none_is_pruned_for_the_other(
    two_vms: Nodes,
) -> None:
    node, folder = two_vms.cluster.nodes["a"], two_vms.folder / "ssd"
    with_a_second_pool(two_vms, "a")
    node.create("ssd/vm", {"mountpoint": str(folder)})
    (folder / "web").mkdir(parents=True)
    (folder / "web" / "vm_config.json").write_text(json.dumps(CONFIG))
    node.create("ssd/vm/web", {})
    own = two_vms.contexts["a"]
    context = replace(own, settings=replace(own.settings, datasets=("tank/vm", "ssd/vm")))
    for _ in range(2):
        two_vms.write("a")
        node.write("ssd/vm/web", 10)
        report = snapshot_all(context, SnapshotRequest(SnapshotType.HOURLY, keep=1), always=True)
        assert exit_code(report) is ExitCode.DONE
        there = {f"{name}@{s.name}" for name, d in node.datasets.items() for s in d.snapshots}
        assert len(there) == 4, there
        assert there == {name for vm in report.vms for name in vm.taken}


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def running(nodes: Nodes) -> list[str]:
    found: list[str] = []
    for name, context in nodes.contexts.items():
        assert isinstance(context.driver, InMemory)
        found += [f"{name}:{vm}" for vm in context.driver.machines]
    return found


def start_by_hand(nodes: Nodes, node: str, vm: str) -> None:
    """``hoster vm start VM --isolated``: whoever takes over knows that the old host is dead."""
    context = nodes.contexts[node]
    start_held(context, look_around(context).named(vm), Asking(isolated=True))


@pytest.fixture
def renamed(nodes: Nodes) -> Nodes:
    """Node b took web over with ``hoster vm cireset web --new-name web2``, and a is back."""
    nodes.replicate("a", "b")
    nodes.cut.add("a")
    wishes, takeover = Wishes(new_name="web2"), TakeoverRequest("web")
    cireset(nodes.contexts["b"], "web", wishes, takeover, lambda _: None, lambda _: False)
    (nodes.folder / "b" / "web").rename(nodes.folder / "b" / "web2")  # what the mount does
    start_by_hand(nodes, "b", "web2")
    nodes.cut.clear()
    return nodes


def test_the_old_host_does_not_start_what_was_taken_over_and_renamed(renamed: Nodes) -> None:
    (report,) = start_all(renamed.contexts["a"]).vms
    assert report.outcome is Outcome.REFUSED
    assert running(renamed) == ["b:web2"]
    assert renamed.mark("a", "role") == "superseded"


def test_the_old_host_sends_nothing_beside_what_was_taken_over_and_renamed(renamed: Nodes) -> None:
    renamed.write("a")
    report = renamed.replicate("a", "b")
    assert (report.outcome, report.ground) == (Outcome.REFUSED, Ground.SUPERSEDED)
    assert "tank/vm/web2 on b is of epoch 2@b, this copy of 1@a" in report.reason
    assert WEB not in renamed.cluster.nodes["b"].datasets
    assert renamed.mark("a", "role") == "superseded"


def test_a_node_whose_copy_is_gone_cannot_say_that_nobody_took_the_vm_over(nodes: Nodes) -> None:
    for target in ("c", "b"):
        nodes.replicate("a", target)
    for name in (DISK, WEB):
        del nodes.cluster.nodes["c"].datasets[name]
    nodes.cut.add("a")
    nodes.take_over("b")
    start_by_hand(nodes, "b", "web")
    nodes.cut.clear()
    nodes.cut.add("b")
    (report,) = start_all(nodes.contexts["a"]).vms
    assert report.outcome is Outcome.REFUSED
    assert "none of the nodes with a copy of it can be asked" in report.reason
    assert running(nodes) == ["b:web"]
