"""A VM that was rolled back here: what is newer on the target is set aside, if all of it came from here."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hoster.model.plan import Ground
from hoster.model.storage import Marks, Mode
from hoster.planning.replication import is_up_to_date
from hoster.planning.transfers import has_diverged
from hoster.testing import VM_ID, dataset, words
from tests.unit.planning.judging import (
    HERE,
    SITE,
    TARGET,
    cleared,
    encrypted,
    partly,
    refused,
    replica,
    subject,
)

ANOTHER = f"{VM_ID}x/1"


@pytest.mark.parametrize(
    ("there", "mode", "diverged"),
    [
        ("a! b!+1", Mode.PLAIN, True),
        ("a! b! c!+1", Mode.PLAIN, True),
        ("a! b!", Mode.PLAIN, False),  # holds the same data: an increment is received all the same
        ("a! b!", Mode.RAW, True),
        ("a! b+1", Mode.PLAIN, False),
        ("a! b!+1 x", Mode.PLAIN, False),
        ("a! x", Mode.RAW, False),
        ("a!", Mode.RAW, False),
        ("b+1 a!", Mode.PLAIN, False),
    ],
)
def test_a_replica_has_diverged_if_all_that_is_in_the_way_was_sent_from_here(
    there: str, mode: Mode, diverged: bool
) -> None:
    base = dataset(TARGET, "a").snapshots[0]
    assert has_diverged(replica(there), base, mode, VM_ID) is diverged
    assert not has_diverged(replica(there), base, mode, None)
    assert not has_diverged(replica(there), base, mode, VM_ID + "x")


def test_a_vm_that_was_rolled_back_parts_from_what_is_newer_on_the_target() -> None:
    clearance = cleared(subject("a@1"), replica("a! b!+1 c!+1"))
    (part,) = clearance.parts
    assert clearance.parting
    assert part.diverged
    assert part.base is not None
    assert words([part.base]) == "a"
    assert not is_up_to_date(clearance)


@pytest.mark.parametrize("here", ["a@1", "a b"])
def test_a_vm_that_was_not_rolled_back_parts_from_nothing(here: str) -> None:
    assert not cleared(subject(here), replica("a!")).parting


def test_one_dataset_that_diverged_lets_the_whole_vm_part() -> None:
    clearance = cleared(subject("a", d0="a", d1="a"), replica("a!"), replica("a! b!+1", "d0"))
    assert clearance.parting
    assert [part.diverged for part in clearance.parts] == [False, True, False]


@pytest.mark.parametrize("sent_by", [None, ANOTHER])
def test_newer_versions_that_this_source_did_not_send_are_a_refusal(sent_by: str | None) -> None:
    there = replica("a! b!+1")
    kept, newer = there.snapshots
    there = replace(there, snapshots=(kept, replace(newer, sent_by=sent_by)))
    assert refused(subject("a"), there).ground is Ground.REPLICA_AHEAD


def test_one_foreign_version_among_the_newer_ones_is_a_refusal() -> None:
    assert refused(subject("a"), replica("a! b!+1 x")).ground is Ground.REPLICA_AHEAD


def test_a_foreign_version_of_one_dataset_refuses_the_parting_of_the_others() -> None:
    refusal = refused(subject("a", d0="a"), replica("a! b!+1"), replica("a! x+1", "d0"))
    assert refusal.ground is Ground.REPLICA_AHEAD
    assert f"{TARGET}/d0" in refusal.evidence


def test_a_foreign_version_that_changed_nothing_does_not_go_along_into_a_branch() -> None:
    refusal = refused(subject("a", d0="a"), replica("a! b!+1"), replica("a! x b!", "d0"))
    assert refusal.ground is Ground.REPLICA_AHEAD
    assert f"{TARGET}/d0" in refusal.evidence


def test_a_dataset_of_which_only_a_part_has_arrived_does_not_keep_the_others_from_parting() -> None:
    there = (replica("a! b!+1"), partly(replica("", "d0"), "-", "a"))
    clearance = cleared(subject("a", d0="a"), *there)
    assert clearance.parting
    assert clearance.parts[1].give_up == "the newer part of this replica is set aside first"


def test_names_that_will_be_set_aside_are_in_nobodys_way() -> None:
    assert cleared(subject("a b' c"), replica("a! b!+1")).parting
    assert refused(subject("a b c"), replica("b' a! d!+1")).ground is Ground.NAME_TAKEN


@pytest.mark.parametrize("site", [SITE, HERE])
def test_a_replica_that_is_looked_at_cannot_be_set_aside(site: object) -> None:
    at = HERE if site is HERE else SITE
    theirs = [replica("a! b!+1"), replace(replica("a!", "d0"), mounted=True)]
    refusal = refused(subject("a", d0="a"), *theirs, site=at)
    assert refusal.ground is Ground.REPLICA_MOUNTED
    assert refusal.evidence == (
        f"this VM was rolled back, and the newer part of its replica on {at.node} cannot be set aside while"
        f" {TARGET}/d0 is mounted there"
    )
    assert refusal.remedy == at.there("zfs", "unmount", f"{TARGET}/d0")


def test_a_mounted_replica_is_no_obstacle_while_nothing_is_to_be_set_aside() -> None:
    assert not cleared(subject("a b"), replace(replica("a!"), mounted=True)).parting


def test_what_arrived_in_part_is_given_up_before_anything_is_set_aside() -> None:
    theirs = [partly(replica("a! b!+1"), "b", "c"), partly(replica("a!", "d0"), "a", "b")]
    clearance = cleared(subject("a", d0="a b", d1="a"), *theirs)
    assert [part.give_up for part in clearance.parts] == [
        *["the newer part of this replica is set aside first"] * 2,
        "",
    ]
    assert all(part.leg.partial is None for part in clearance.parts)


def test_a_raw_replica_parts_from_versions_that_changed_nothing_too() -> None:
    clearance = cleared(encrypted(subject("a c")), replica("a! b!", mode=Mode.RAW))
    assert clearance.parting


def test_what_was_written_to_a_replica_that_diverged_is_refused_with_a_rollback_that_can_be_typed() -> None:
    """zfs rolls back to the newest snapshot only: one that is named with newer ones after it is refused."""
    refusal = refused(subject("a"), replica("a! b!+1 ~512"))
    assert refusal.ground is Ground.REPLICA_MODIFIED
    assert refusal.remedy.startswith(f"ssh backup1 zfs rollback {TARGET}@b ")


@pytest.mark.parametrize(
    ("vm_id", "whose"), [(None, "has no hoster:id"), (f"{VM_ID}x", "has the hoster:id of another VM")]
)
def test_somebody_elses_dataset_below_a_replica_is_not_renamed_along_with_it(
    vm_id: str | None, whose: str
) -> None:
    theirs = replace(dataset(f"{TARGET}/a/b", "x"), marks=Marks(vm_id))
    below = replace(dataset(f"{TARGET}/a/b/c", "y"), marks=Marks(vm_id))
    there = (replica("a! b!+1"), replica("a!", "a"), theirs, below)
    refusal = refused(subject("a", a="a"), *there)
    assert refusal.ground is Ground.FOREIGN_DATASET
    assert f"{TARGET}/a/b, which {whose}, lies below the replica" in refusal.evidence
    assert refusal.remedy == f"ssh backup1 zfs rename {TARGET}/a/b {TARGET}.a.b.set-aside"
    assert cleared(subject("a", a="a"), *there[:2]).parting
    assert not cleared(subject("a b c", a="a"), *there).parting, "in nobody's way where nothing is set aside"


def test_what_a_copy_that_gave_way_made_below_itself_goes_along() -> None:
    there = replica("a! b+1")
    there = replace(there, marks=replace(there.marks, demoted=True))
    clearance = cleared(subject("a"), there, dataset(f"{TARGET}/new", "x"))
    assert (clearance.parting, clearance.orphans) == (True, (f"{TARGET}/new",))


def test_what_was_once_sent_from_here_goes_along_unless_it_is_looked_at() -> None:
    gone = replica("x!", "gone")
    clearance = cleared(subject("a"), replica("a! b!+1"), gone)
    assert (clearance.parting, clearance.orphans) == (True, (f"{TARGET}/gone",))
    refusal = refused(subject("a"), replica("a! b!+1"), replace(gone, mounted=True))
    assert refusal.ground is Ground.REPLICA_MOUNTED
    assert refusal.remedy == f"ssh backup1 zfs unmount {TARGET}/gone"
