"""A VM of a model node goes back: refused, stopped, started, finished after a crash; what is said of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.errors import Busy, OperationFailed, UsageError
from hoster.hypervisors.memory import InMemory
from hoster.hypervisors.protocol import GuestRef
from hoster.model.plan import Ground, Outcome, VmReport
from hoster.operations.branches import list_branches
from hoster.operations.going_back import Power
from hoster.operations.history import hold_history
from hoster.operations.inventory import look_around
from hoster.operations.power import hold_power
from tests.unit.operations.going_back import (
    AFTER,
    BEFORE,
    BRANCH,
    DISK,
    KEY,
    WEB,
    World,
    anchor,
    open_elsewhere,
)
from tests.zfsmodel.state import Kind


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("snapshot", ["a", f"{WEB}@a"])
def test_it_goes_back_with_all_of_its_disks_and_what_was_newer_is_a_branch(
    world: World, snapshot: str
) -> None:
    report = world.roll_back(snapshot)
    assert (report.outcome, report.branch) == (Outcome.DONE, BRANCH)
    assert report.reason == f"VM has been rolled back to: {WEB}@a; what was newer is kept in {BRANCH}"
    assert report.remedy.startswith(f"hoster vm branches restore {BRANCH} ")
    assert world.versions() == AFTER
    assert world.contents()[2]
    assert world.node.dataset(WEB).written == world.node.dataset(DISK).written == 0
    assert [vm.name for vm in look_around(world.context).vms] == ["web"]
    assert world.machines.starts == []


def test_a_vm_that_is_there_already_is_left_alone(world: World) -> None:
    world.roll_back()
    report = world.roll_back()
    assert (report.outcome, report.branch) == (Outcome.UNCHANGED, "")
    assert world.versions() == AFTER


def test_two_times_in_one_second_make_two_branches(world: World) -> None:
    world.roll_back("b")
    report = world.roll_back("a")
    assert report.branch == "web.branch-20240101T120001Z"
    assert [branch.snapshots for branch in list_branches(world.context)] == [(), ("b",)]


def test_a_dry_run_says_what_would_be_and_changes_nothing(world: World) -> None:
    world.run()
    before = world.seen()
    report = world.roll_back(power=Power(force_stop=True), dry_run=True)
    assert (report.outcome, report.branch) == (Outcome.PLANNED, "web.branch-…")
    assert report.notes[0] == "it would be stopped first"
    assert world.seen() == before
    assert world.machines.machines


def test_a_dry_run_for_a_vm_that_is_there_says_unchanged(world: World) -> None:
    world.roll_back()
    assert world.roll_back(dry_run=True).outcome is Outcome.UNCHANGED


def refuse(world: World, ground: Ground, **asked: object) -> VmReport:
    before = world.seen()
    report = world.roll_back(**asked)  # type: ignore[arg-type]
    assert (report.outcome, report.ground) == (Outcome.REFUSED, ground)
    assert world.seen() == before
    return report


def test_a_vm_that_runs_is_refused_and_runs_on(world: World) -> None:
    world.run()
    report = refuse(world, Ground.RUNNING, power=Power(force_start=True))
    assert "add --force-stop" in report.remedy
    assert world.machines.starts == ["web"]
    assert world.machines.machines


@pytest.mark.parametrize(("force_start", "starts"), [(False, 1), (True, 2)])
def test_a_vm_that_runs_is_stopped_and_started_if_that_is_asked_for(
    world: World, force_start: bool, starts: int
) -> None:
    world.run()
    report = world.roll_back(power=Power(force_stop=True, force_start=force_start))
    assert report.outcome is Outcome.DONE
    assert report.notes[0] == "it was stopped"
    assert world.versions() == AFTER
    assert len(world.machines.starts) == starts
    assert bool(world.machines.machines) is force_start


def test_a_guest_that_does_not_power_down_is_ended(world: World) -> None:
    world.machines.deaf = frozenset({"web"})
    world.run()
    report = world.roll_back(power=Power(force_stop=True, stop_limit_s=0.01))
    assert report.notes[0].startswith("its process was ended")
    assert world.versions() == AFTER


def test_a_vm_that_was_off_is_started_if_that_is_asked_for_even_where_it_is_there_already(
    world: World,
) -> None:
    world.roll_back(power=Power(force_start=True))
    assert world.machines.starts == ["web"]
    world.machines.crash("web")
    report = world.roll_back(power=Power(force_start=True))
    assert report.outcome is Outcome.UNCHANGED
    assert world.machines.starts == ["web", "web"]


def test_a_vm_that_runs_and_is_there_was_done_something_to(world: World) -> None:
    world.roll_back()
    world.run()
    report = world.roll_back(power=Power(force_stop=True, force_start=True))
    assert (report.outcome, report.branch) == (Outcome.DONE, "")
    assert world.machines.starts == ["web", "web"]
    assert world.versions() == AFTER


def test_a_vm_that_was_stopped_is_started_again_where_it_could_not_go_back(world: World) -> None:
    world.run()
    before = world.seen()
    world.node.dataset(WEB).busy = True
    report = world.roll_back(power=Power(force_stop=True, force_start=True))
    assert (report.outcome, report.ground) == (Outcome.REFUSED, Ground.IN_USE)
    assert "busy" in report.reason
    assert world.machines.starts == ["web", "web"]
    assert world.seen() == before


def test_what_fails_after_the_stop_is_said_with_the_stop_and_the_vm_started(world: World) -> None:
    """The version is destroyed while the guest powers down."""
    world.run()
    stop = world.machines.stop

    class Slow(InMemory):
        def stop(self, ref: GuestRef, *, force: bool, limit_s: float) -> bool:
            world.node.drop(world.node.dataset(DISK), world.node.dataset(DISK).snapshots[0], "destroy")
            world.node.drop(world.node.dataset(WEB), world.node.dataset(WEB).snapshots[0], "destroy")
            return stop(ref, force=force, limit_s=limit_s)

    world.context = replace(world.context, driver=Slow(world.machines.machines))
    report = world.roll_back(power=Power(force_stop=True, force_start=True))
    assert (report.outcome, report.reason) == (Outcome.FAILED, "web has no snapshot a")
    assert report.notes == ("it was stopped", "it was started")


def test_a_vm_that_does_not_start_again_has_gone_back_and_failed(world: World) -> None:
    world.machines.broken = {"web": "no memory"}
    report = world.roll_back(power=Power(force_start=True))
    assert report.outcome is Outcome.FAILED
    assert "VM has been rolled back to" in report.reason
    assert report.reason.endswith("it could not be started: web: no memory")
    assert world.versions() == AFTER


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_what_a_process_uses_is_refused_and_the_process_named(world: World) -> None:
    with open_elsewhere(world.home / "disk0.img") as pid:
        report = refuse(world, Ground.IN_USE)
        assert f"(process {pid}) uses {world.home}" in report.reason
        assert report.remedy == f"end it first: ps {pid}"
        world.run()
        report = world.roll_back(power=Power(force_stop=True, force_start=True))
        assert report.ground is Ground.IN_USE
        assert world.machines.starts == ["web"], "it was not stopped for that"


def test_another_vms_snapshot_is_refused(world: World) -> None:
    assert (
        "tank/vm/db@a is not a snapshot of web"
        in refuse(world, Ground.OF_ANOTHER_VM, snapshot="tank/vm/db@a").reason
    )


def test_a_replica_is_refused_whatever_it_is_asked_for(world: World) -> None:
    world.node.dataset(WEB).properties["hoster:role"] = "replica"
    refuse(world, Ground.IS_REPLICA)
    refuse(world, Ground.IS_REPLICA, snapshot="nothing")


def test_a_snapshot_that_nothing_has_is_an_error(world: World) -> None:
    with pytest.raises(OperationFailed, match="web has no snapshot c"):
        world.roll_back("c")


def test_a_disk_that_was_added_later_goes_along_into_the_branch_if_it_is_left_out(world: World) -> None:
    world.node.create(f"{WEB}/new", {"volsize": "8192"}, Kind.VOLUME)
    assert "--without new" in refuse(world, Ground.VERSION_MISSING).remedy
    report = world.roll_back(without=("new",))
    assert f"{WEB}/new goes along into the branch: it has no snapshot a" in report.notes
    assert f"tank/vm/{BRANCH}/new" in world.versions()
    assert f"{WEB}/new" not in world.versions()


@pytest.mark.parametrize(
    ("disk", "said"), [("d7", "web has no dataset"), ("d0", f"{DISK} has the snapshot a")]
)
def test_a_disk_to_leave_out_must_be_one_without_the_snapshot(world: World, disk: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        world.roll_back(without=(disk,))


def test_a_vm_that_is_replicated_started_or_going_back_is_busy(world: World) -> None:
    with hold_history(world.context, "web", "a replication", shared=True), pytest.raises(Busy):
        world.roll_back()
    with hold_power(world.context, "web"), pytest.raises(Busy):
        world.roll_back()
    assert world.versions() == BEFORE


def test_the_report_says_what_the_next_replication_will_do(world: World) -> None:
    anchor(world, "b")
    (note,) = world.roll_back("b").notes
    assert note == f"the next replication to the target {KEY} goes on from b"
    (note,) = world.roll_back("a").notes
    assert note.startswith(f"the target {KEY} has newer versions than a: the next replication sets them")


def test_destroying_what_is_newer_destroys_that_and_rolls_back(world: World) -> None:
    world.node.bookmark(f"{WEB}@b", f"{WEB}#mine")
    report = world.roll_back(destroy_newer=True)
    assert (report.outcome, report.branch) == (Outcome.DONE, "")
    gone = [one.snapshot for one in report.destroyed]
    assert gone == [f"{WEB}@b", f"{DISK}@b", f"{WEB}#mine"]
    assert world.versions() == {"tank/vm": "", WEB: "a", DISK: "a"}
    assert world.node.dataset(WEB).written == world.node.dataset(DISK).written == 0
    assert world.node.dataset(WEB).bookmarks == {}
    assert not any("-r" in command for command in world.cluster.commands if command[1] == "rollback")


@pytest.mark.parametrize(("protected", "ground"), [("held", Ground.HELD), ("base", Ground.NEEDED_BY_TARGET)])
def test_nothing_dies_where_one_of_them_is_needed(world: World, protected: str, ground: Ground) -> None:
    if protected == "held":
        world.node.hold("mine", [f"{DISK}@b"])
    else:
        anchor(world, "b")
    refuse(world, ground, destroy_newer=True)


def test_only_what_was_agreed_to_dies(world: World) -> None:
    planned = world.roll_back(destroy_newer=True, dry_run=True)
    assert planned.outcome is Outcome.PLANNED
    agreed = frozenset(gone.snapshot for gone in planned.destroyed)
    world.node.snapshot([f"{WEB}@c", f"{DISK}@c"], {})
    before = world.seen()
    with pytest.raises(OperationFailed, match="@c was not among what was shown"):
        world.roll_back(destroy_newer=True, agreed=agreed)
    assert world.seen() == before
    world.roll_back("b", destroy_newer=True, agreed=frozenset({f"{WEB}@c", f"{DISK}@c"}))
    assert world.versions() == BEFORE


def test_a_disk_that_is_left_out_stays_where_nothing_becomes_a_branch(world: World) -> None:
    world.node.create(f"{WEB}/new", {"volsize": "8192"}, Kind.VOLUME)
    report = world.roll_back(without=("new",), destroy_newer=True)
    assert f"{WEB}/new stays as it is: it has no snapshot a" in report.notes
    assert f"{WEB}/new" in world.versions()
