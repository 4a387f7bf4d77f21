"""Replication as a whole, on the simulated nodes of the properties: what is chosen, refused, previewed."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.errors import Busy, UsageError
from hoster.host.ssh import SshOptions
from hoster.model.names import Endpoint, SnapshotType
from hoster.model.plan import Ground, Outcome, Report
from hoster.model.storage import Intent
from hoster.operations.replicate import replicate
from hoster.operations.request import ReplicationRequest
from tests.properties.cluster import Fault
from tests.properties.world import BYSTANDER, WEB, Quiet, World

REQUEST = ReplicationRequest(SshOptions(Endpoint("a")))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(0, tmp_path)


def run(world: World, request: ReplicationRequest) -> Report:
    return replicate(world.context, request, Quiet())


def outcomes(report: Report) -> dict[str, Outcome]:
    return {vm.vm: vm.outcome for vm in report.vms}


@pytest.mark.parametrize(
    ("names", "everything", "chosen"),
    [
        (None, False, ["web"]),
        (None, True, ["web", "web2"]),
        (("web2",), False, ["web2"]),
        (("web", "web"), False, ["web"]),
    ],
)
def test_production_vms_are_chosen_unless_others_are_named(
    world: World, names: tuple[str, ...] | None, everything: bool, chosen: list[str]
) -> None:
    report = run(world, replace(REQUEST, names=names, include_non_production=everything))
    assert outcomes(report) == dict.fromkeys(chosen, Outcome.DONE)


def test_a_vm_that_is_not_there_fails_and_the_others_go_on(world: World) -> None:
    report = run(world, replace(REQUEST, names=("nowhere", "web")))
    assert outcomes(report) == {"nowhere": Outcome.FAILED, "web": Outcome.DONE}


def test_replicas_of_other_nodes_are_left_out_and_refused_where_they_are_named(world: World) -> None:
    world.web.marks["hoster:role"] = "replica"
    assert run(world, REQUEST).vms == ()
    report = run(world, replace(REQUEST, names=("web",)))
    assert report.vms[0].ground is Ground.IS_REPLICA
    assert WEB not in world.cluster.nodes["a"].volumes


def test_a_dry_run_changes_nothing_on_either_side(world: World) -> None:
    world.snapshot(SnapshotType.HOURLY, None)
    before = [repr(node.volumes) for node in world.cluster.nodes.values()]
    report = run(world, replace(REQUEST, dry_run=True))
    assert [repr(node.volumes) for node in world.cluster.nodes.values()] == before
    assert outcomes(report) == {"web": Outcome.PLANNED}
    assert report.vms[0].sent == (f"{world.web.name}@hourly_2024-03-31_01-30-00 in full",)


def test_a_dry_run_plans_nothing_on_top_of_a_swap_that_is_half_done(world: World) -> None:
    run(world, REQUEST)
    world.write(1)
    intent = Intent("20240131T000000Z", 5, "-", WEB)
    world.cluster.nodes["a"].volumes[WEB].marks["hoster:swap"] = str(intent)
    before = [repr(node.volumes) for node in world.cluster.nodes.values()]
    planned = run(world, replace(REQUEST, dry_run=True, include_non_production=True))
    assert [repr(node.volumes) for node in world.cluster.nodes.values()] == before
    assert outcomes(planned) == {"web": Outcome.PLANNED, "web2": Outcome.PLANNED}
    web, other = planned.vms
    assert (web.sent, web.taken) == ((), ())
    assert (
        "setting aside the newer part of tank/vm/web was interrupted, and would be finished" in web.notes[0]
    )
    assert other.sent != ()


def test_a_second_run_of_the_same_job_is_busy(world: World) -> None:
    lock = f"the replication job {REQUEST.job_name}"
    with world.context.locks.hold(lock, holder="another run"), pytest.raises(Busy, match="another run"):
        run(world, REQUEST)


def test_a_vm_that_another_job_is_sending_is_busy_and_the_others_go_on(world: World) -> None:
    with world.context.locks.hold("the replication of web to a", holder="another run"):
        report = run(world, replace(REQUEST, include_non_production=True))
    assert outcomes(report) == {"web": Outcome.BUSY, "web2": Outcome.DONE}


@pytest.mark.parametrize("parent", ["tank/-x", "/tank", "a b", "x" * 300])
def test_an_impossible_target_dataset_is_a_usage_error(world: World, parent: str) -> None:
    with pytest.raises(UsageError, match="--target-dataset"):
        run(world, replace(REQUEST, target_dataset=parent))


def test_a_missing_parent_is_refused_unless_it_is_to_be_made(world: World) -> None:
    request = replace(REQUEST, target_dataset="pool/backup")
    report = run(world, request)
    assert report.vms[0].ground is Ground.TARGET_PARENT_MISSING
    assert run(world, replace(request, create_parent=True, dry_run=True)).vms[0].ground is not None
    assert outcomes(run(world, replace(request, create_parent=True))) == {"web": Outcome.DONE}
    assert "pool/backup/web" in world.cluster.nodes["a"].volumes


def test_one_vm_that_is_refused_stops_no_other(world: World) -> None:
    world.cluster.nodes["a"].create(WEB)
    report = run(world, replace(REQUEST, include_non_production=True))
    assert outcomes(report) == {"web": Outcome.REFUSED, "web2": Outcome.DONE}
    assert report.vms[0].ground is Ground.FOREIGN_DATASET
    assert len(world.cluster.nodes["a"].volumes[WEB].snapshots) == 0


def test_the_counts_of_the_command_line_go_before_those_of_the_settings(world: World) -> None:
    for _ in range(4):
        world.write(1)
        world.tick()
        world.snapshot(SnapshotType.CUSTOM, None)
    world.pruning = (SnapshotType.CUSTOM, 1)
    world.keep = {SnapshotType.CUSTOM: 1}
    report = run(world, replace(REQUEST, target_keep={SnapshotType.CUSTOM: 1}))
    replica = world.replica("a")
    assert replica is not None
    assert len(replica.snapshots) == 1
    assert [gone.node for gone in report.vms[0].destroyed] == ["a", "a", "a"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("stream", "a: sending tank/vm/web@hourly_2024-03-31_01-30-00: cannot receive: failed to read"),
        ("lie", "a does not list hourly_2024-03-31_01-30-00 (guid "),
        ("link", "a: the connection was lost while"),
    ],
)
def test_what_did_not_arrive_is_a_failure_in_the_words_of_whoever_knew(
    world: World, kind: str, said: str
) -> None:
    world.snapshot(SnapshotType.HOURLY, None)
    world.cluster.begin(Fault(kind, 5))
    vm = run(world, REQUEST).vms[0]
    assert vm.outcome is Outcome.FAILED
    assert vm.reason.startswith(said)
    assert vm.sent == ()
    assert vm.destroyed == ()


def test_the_bystander_is_a_vm_of_its_own(world: World) -> None:
    run(world, replace(REQUEST, names=("web2",)))
    assert BYSTANDER in world.cluster.nodes["a"].volumes
    assert WEB not in world.cluster.nodes["a"].volumes
