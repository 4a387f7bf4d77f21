"""A branch becomes the VM again, and what a crash has left of a way back is finished by the next command."""

from __future__ import annotations

import itertools
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.config.settings import BranchSettings
from hoster.errors import OperationFailed, UsageError
from hoster.model.names import SnapshotType
from hoster.model.plan import Ground, Outcome
from hoster.operations.branches import destroy_branch, expire_branches, list_branches
from hoster.operations.context import Context
from hoster.operations.going_back import Power
from hoster.operations.history import hold_history
from hoster.operations.inventory import look_around
from hoster.operations.snapshots import SnapshotRequest, snapshot_all
from tests.unit.operations.going_back import (
    BRANCH,
    DISK,
    KEY,
    WEB,
    World,
    anchor,
    open_elsewhere,
)
from tests.zfsmodel.cluster import Accident, Fault, Killed
from tests.zfsmodel.lineage import clone, rename


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_branch_is_the_vm_again_and_back(world: World) -> None:
    before = world.contents()
    world.roll_back()
    went_back = world.contents()
    report = world.restore()
    assert (report.outcome, report.branch) == (Outcome.DONE, "web.branch-20240101T120001Z")
    assert world.contents() == before
    assert [vm.name for vm in look_around(world.context).vms] == ["web"]
    assert look_around(world.context).named("web").is_primary
    assert [branch.name for branch in list_branches(world.context)] == [report.branch]
    assert list_branches(world.context)[0].parted_from == f"{WEB}@a"
    again = world.restore(report.branch)
    assert world.contents() == went_back
    assert again.branch == BRANCH


def test_a_branch_of_a_vm_that_runs_is_not_restored_unless_it_may_be_stopped(world: World) -> None:
    world.roll_back()
    world.run()
    assert world.restore().ground is Ground.RUNNING
    report = world.restore(power=Power(force_stop=True, force_start=True))
    assert report.outcome is Outcome.DONE
    assert world.machines.starts == ["web", "web"]


def test_a_replicas_branch_is_not_restored(world: World) -> None:
    world.roll_back()
    world.node.dataset(WEB).properties["hoster:role"] = "replica"
    before = world.seen()
    assert world.restore().ground is Ground.IS_REPLICA
    assert world.seen() == before


def test_a_branch_of_another_vm_that_had_the_name_is_not_restored(world: World) -> None:
    world.roll_back()
    world.node.dataset(WEB).properties["hoster:id"] = "77"
    before = world.seen()
    report = world.restore()
    assert report.ground is Ground.OF_ANOTHER_VM
    assert f"zfs rename tank/vm/{BRANCH} tank/vm/ITS_NAME.branch-" in report.remedy
    assert world.seen() == before


@pytest.mark.parametrize("name", ["web", "web.branch-20230101T120000Z"])
def test_what_is_no_branch_is_not_restored(world: World, name: str) -> None:
    with pytest.raises(OperationFailed, match=f"there is no branch {name}"):
        world.restore(name)


def test_a_branch_without_its_vm_is_not_restored(world: World) -> None:
    world.roll_back()
    rename(world.node, WEB, "tank/vm/other")
    with pytest.raises(OperationFailed, match="web: there is no VM of that name"):
        world.restore()


def test_the_last_version_that_a_target_shares_is_not_destroyed_with_its_branch(world: World) -> None:
    anchor(world, "b")
    world.roll_back()
    assert destroy_branch(world.context, BRANCH, dry_run=True).vms[0].outcome is Outcome.PLANNED
    web = world.node.dataset(WEB)
    web.bookmarks = {name: mark for name, mark in web.bookmarks.items() if KEY not in name}
    before = world.seen()
    report = expire_branches(world.context, older_than=timedelta(), dry_run=False).vms[0]
    assert report.outcome is Outcome.REFUSED
    assert f"hoster-{KEY}-" in report.reason
    assert world.seen() == before


@pytest.mark.parametrize("accident", [Accident.KILLED_BEFORE, Accident.KILLED_AFTER])
@pytest.mark.parametrize("destroy_newer", [False, True])
def test_killed_anywhere_the_next_command_finds_the_old_or_the_new_state_whole(
    tmp_path: Path, accident: Accident, destroy_newer: bool
) -> None:
    states: list[tuple[str, str, bool]] = []
    for at in itertools.count():
        folder = tmp_path / str(at)
        folder.mkdir()
        world = World(folder)
        world.cluster.begin(Fault(accident, at))
        try:
            world.roll_back(destroy_newer=destroy_newer)
        except Killed:
            world.cluster.begin()
        else:
            assert at > 12
            break
        stock = look_around(world.context)
        assert [vm.name for vm in stock.vms] == ["web"], f"killed at {at}"
        assert stock.unusable == ()
        contents = world.contents()
        assert contents[2], f"killed at {at}"
        assert not any("hoster:swap" in one.properties for one in world.node.datasets.values())
        states.append(contents)
        world.roll_back(destroy_newer=destroy_newer)
        assert world.node.dataset(WEB).written == 0
        assert world.versions()[WEB] == "a"
    assert len({digests[:2] for digests in states}) > 1


def half_way(world: World) -> None:
    """Lets the VM be killed between the two renames."""
    folder = world.home.parent / "calm"
    folder.mkdir()
    calm = World(folder)
    calm.cluster.begin()
    calm.roll_back()
    at = next(n for n, command in enumerate(calm.cluster.commands) if command[1] == "rename")
    world.cluster.begin(Fault(Accident.KILLED_AFTER, at))
    with pytest.raises(Killed):
        world.roll_back()
    world.cluster.begin()
    assert WEB not in world.node.datasets


def test_the_look_of_a_dry_run_finishes_nothing_and_the_vm_is_said_to_be_half_way(world: World) -> None:
    half_way(world)
    before = world.versions()
    stock = look_around(world.context, mend=False)
    assert stock.vms == ()
    (unusable,) = stock.unusable
    assert (unusable.name, unusable.dataset) == ("web", WEB)
    assert "no dry run" in unusable.problem
    assert world.versions() == before
    mended = look_around(world.context).mended
    assert mended["web"].startswith("finished how web went back (as of 20240101T1200")


def test_what_somebody_is_at_work_on_is_left_to_him(world: World) -> None:
    half_way(world)
    with hold_history(world.context, "web", "a rollback"):
        (unusable,) = look_around(world.context).unusable
        assert "the history of web is in use by process" in unusable.problem
    assert [vm.name for vm in look_around(world.context).vms] == ["web"]


def test_the_next_rollback_finishes_the_one_before_and_says_so(world: World) -> None:
    half_way(world)
    report = world.roll_back()
    assert report.outcome is Outcome.UNCHANGED
    assert report.notes[0].startswith("finished how web went back")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_nothing_is_finished_under_somebody_who_uses_it(world: World) -> None:
    half_way(world)
    name = next(n for n in world.node.datasets if n.startswith("tank/vm/web.branch-") and "/d0" not in n)
    world.node.dataset(name).mounted = True
    with open_elsewhere(world.home / "disk0.img") as pid:
        (unusable,) = look_around(world.context).unusable
        assert f"(process {pid}) uses" in unusable.problem
    assert [vm.name for vm in look_around(world.context).vms] == ["web"]


def test_a_swap_on_a_replica_is_left_to_the_node_that_sends_it(world: World) -> None:
    half_way(world)
    for one in world.node.datasets.values():
        if "hoster:role" in one.properties:
            one.properties["hoster:role"] = "replica"
    before = world.versions()
    look_around(world.context)
    assert world.versions() == before


def expiring(world: World, days: int | None) -> Context:
    """The node with that age in its settings."""
    return replace(world.context, settings=replace(world.context.settings, branches=BranchSettings(days)))


def test_how_old_branches_get_is_said_by_the_settings(world: World) -> None:
    world.roll_back()
    with pytest.raises(UsageError, match="said neither here nor in the configuration") as caught:
        expire_branches(world.context, dry_run=False)
    assert "expire-after-days" in caught.value.hint
    (report,) = expire_branches(expiring(world, 30), dry_run=False).vms
    assert (report.vm, report.outcome) == (BRANCH, Outcome.DONE)
    assert list_branches(world.context) == ()
    assert world.versions() == {"tank/vm": "", WEB: "a", DISK: "a"}


def test_one_that_another_one_hangs_on_goes_after_it(world: World) -> None:
    world.roll_back()
    younger = "tank/vm/web.branch-20240102T120000Z"
    clone(world.node, f"tank/vm/{BRANCH}@b", younger, {"hoster:role": "branch", "canmount": "noauto"})
    reports = expire_branches(world.context, older_than=timedelta(days=1), dry_run=False).vms
    assert {report.vm: report.outcome for report in reports} == {
        BRANCH: Outcome.DONE,
        younger.rpartition("/")[2]: Outcome.DONE,
    }
    assert list_branches(world.context) == ()


@pytest.mark.parametrize("dry_run", [False, True])
def test_snapshots_of_all_let_old_branches_expire_only_if_the_settings_say_so(
    world: World, dry_run: bool
) -> None:
    world.roll_back()
    request = SnapshotRequest(SnapshotType.HOURLY, None, dry_run=dry_run)
    assert [report.vm for report in snapshot_all(world.context, request).vms] == ["web"]
    reports = snapshot_all(expiring(world, 30), request).vms
    assert [report.vm for report in reports] == ["web", BRANCH]
    assert reports[1].outcome is (Outcome.PLANNED if dry_run else Outcome.DONE)
    assert bool(list_branches(world.context)) is dry_run


def test_a_branch_that_must_stay_does_not_make_a_run_of_snapshots_refused(world: World) -> None:
    world.roll_back()
    world.node.hold("mine", [f"tank/vm/{BRANCH}@b"])
    request = SnapshotRequest(SnapshotType.HOURLY, None)
    (_, kept) = snapshot_all(expiring(world, 30), request).vms
    assert kept.outcome is Outcome.UNCHANGED
    assert kept.reason == f"old enough to go, and kept: tank/vm/{BRANCH}@b cannot be destroyed: it is held"
    assert [branch.name for branch in list_branches(world.context)] == [BRANCH]
