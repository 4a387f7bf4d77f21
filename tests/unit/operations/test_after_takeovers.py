"""When a VM changes hands: the page's command goes through, and all copies go on from their bases."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.host.ssh import SshOptions
from hoster.model.names import Endpoint
from hoster.model.plan import Ground, Outcome, VmReport
from hoster.operations.replicate import replicate
from hoster.operations.rollback import RollbackRequest, roll_back
from tests.properties.world import Quiet
from tests.unit.operations.nodes import DISK, WEB, Nodes
from tests.unit.operations.test_late_endings import replicated


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    """Its VM is replicated from a to b and, less often, to c."""
    nodes = Nodes(tmp_path)
    nodes.replicate("a", "c")
    nodes.replicate("a", "b")
    return nodes


class PowerCut(BaseException):
    """The source is switched off."""


def written_and_sent(nodes: Nodes, here: str, there: str, times: int) -> VmReport:
    for _ in range(times):
        nodes.write(here)
        report = nodes.replicate(here, there)
        assert report.outcome is Outcome.DONE, report
    return report


def branches(nodes: Nodes, name: str) -> list[str]:
    return [dataset for dataset in nodes.cluster.nodes[name].datasets if ".branch-" in dataset]


def test_a_snapshot_that_somebody_took_of_the_replica_keeps_nobody_from_taking_over(nodes: Nodes) -> None:
    nodes.cluster.nodes["b"].snapshot([f"{WEB}@zfs-auto-snap_daily", f"{DISK}@zfs-auto-snap_daily"], {})
    nodes.cut.add("a")
    assert nodes.take_over("b").outcome is Outcome.DONE


def test_what_had_arrived_when_the_host_died_over_another_vm_takes_over(two_vms: Nodes) -> None:
    replicate(two_vms.contexts["a"], replace(two_vms.request("b"), names=None), Quiet())
    two_vms.write("a")
    two_vms.cluster.nodes["a"].write("tank/vm/zdb", 10)

    def dies() -> None:
        raise PowerCut

    with pytest.raises(PowerCut):
        replicated(two_vms, ["receive", "tank/vm/zdb"], dies)
    two_vms.cut.add("a")
    assert two_vms.take_over("b").outcome is Outcome.DONE
    assert two_vms.content("b") == two_vms.content("a")


def test_an_old_host_does_not_take_over_where_another_node_knows_of_the_new_one(nodes: Nodes) -> None:
    nodes.replicate("a", "c")  # which learns of b by it
    nodes.cut.add("a")
    assert nodes.take_over("c", accept_loss=True).outcome is Outcome.DONE
    nodes.start("c")
    nodes.cut.clear()
    nodes.cut.add("c")
    assert nodes.mark("b", "epoch") == "2@c"
    report = nodes.take_over("a")
    assert (report.outcome, report.ground) == (Outcome.REFUSED, Ground.MAY_LOSE_DATA)
    assert "b was told that c has taken it over (epoch 2@c)" in report.reason
    assert not nodes.can_start("a")


def test_a_third_node_goes_on_after_a_takeover_and_the_way_home(nodes: Nodes) -> None:
    written_and_sent(nodes, "a", "b", 2)
    nodes.cut.add("a")
    assert nodes.take_over("b").outcome is Outcome.DONE
    nodes.cut.clear()
    nodes.write("b")
    assert nodes.failback("b", "a").outcome is Outcome.DONE
    report = nodes.replicate("b", "c")
    assert report.outcome is Outcome.DONE, report
    assert nodes.content("c") == nodes.content("b")


def test_a_third_node_goes_on_after_a_migration(nodes: Nodes) -> None:
    written_and_sent(nodes, "a", "b", 2)
    assert nodes.migrate("a", "b").outcome is Outcome.DONE
    written_and_sent(nodes, "b", "a", 1)
    report = nodes.replicate("b", "c")
    assert report.outcome is Outcome.DONE, report


def test_a_rollback_does_not_destroy_the_last_version_in_common_with_the_old_host(nodes: Nodes) -> None:
    written_and_sent(nodes, "a", "b", 1)
    there = nodes.cluster.nodes["b"].dataset(WEB)
    first, last = (snapshot.name for snapshot in there.snapshots)
    nodes.cut.add("a")
    assert nodes.take_over("b").outcome is Outcome.DONE
    request = RollbackRequest("web", first, destroy_newer=True)
    (report,) = roll_back(nodes.contexts["b"], request).vms
    assert (report.outcome, report.ground) == (Outcome.REFUSED, Ground.NEEDED_BY_TARGET)
    assert last in {snapshot.name for snapshot in there.snapshots}


def test_to_and_fro_leaves_no_branch_where_nothing_parted(nodes: Nodes) -> None:
    assert nodes.migrate("a", "b").outcome is Outcome.DONE
    written_and_sent(nodes, "b", "a", 3)
    assert nodes.migrate("b", "a").outcome is Outcome.DONE
    written_and_sent(nodes, "a", "c", 4)
    report = nodes.replicate("a", "b")
    assert report.outcome is Outcome.DONE, report
    assert branches(nodes, "b") == []


def test_what_the_old_host_had_is_pruned_once_it_is_sent_to_under_another_user(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    nodes.replicate("a", "b")
    nodes.cut.add("a")
    nodes.take_over("b")
    nodes.cut.clear()
    nodes.demote("a")
    there = nodes.cluster.nodes["b"].dataset(WEB)
    came = there.snapshots[0].name
    request = replace(nodes.request("a"), ssh=SshOptions(Endpoint("a", "root")))
    for _ in range(5):
        nodes.write("b")
        (report,) = replicate(nodes.contexts["b"], request, Quiet()).vms
        assert report.outcome is Outcome.DONE, report
    assert came not in {snapshot.name for snapshot in there.snapshots}
