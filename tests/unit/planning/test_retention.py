"""A count of N: what goes, what stays, and what stays although the count would have it gone."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hoster.model.names import SnapshotType
from hoster.planning.retention import needed_by_copies, plan_retention, plan_target_retention, typed
from hoster.testing import VM_ID, dataset, guid_of, words

HOURLY, DAILY, REPLICATION = SnapshotType.HOURLY, SnapshotType.DAILY, SnapshotType.REPLICATION


@pytest.mark.parametrize(
    ("history", "keep", "goes"),
    [
        ("h1 h2 h3 h4", 2, "h1 h2"),
        ("h1 h2 h3 h4", 4, ""),
        ("h1 h2 h3 h4", 9, ""),
        ("", 1, ""),
        ("h1 d1 h2 d2 h3", 1, "h1 h2"),
        ("h9 h1 h2", 1, "h9 h1"),  # a clock that went back: createtxg decides, not the name
        ("h1 manual h2 hourly_later h3", 1, "h1 h2"),
        ("h1* h2 h3 h4", 2, "h2"),
        ("h1^ h2 h3 h4", 2, "h2"),
        ("h1 h2* h3* h4", 1, "h1"),  # those protected count: h4 alone would be within the count anyway
        ("h1 h2 h3* h4*", 2, "h1 h2"),
        ("h1@1 h2 h3 h4", 2, "h2"),
        ("h1 h2@1 h3 h4@1 h5 h6", 1, "h1 h5"),
        ("h1@1 h2 #h3@1 h4 h5", 1, "h4"),  # the newer anchor's own snapshot is gone; the span still holds
        ("h1@1 h2@2 h3 h4 h5@2 h6 h7", 1, "h6"),
        ("#h1@1 h2 h3", 1, "h2"),
        ("#manual h1 h2", 1, "h1"),  # just any bookmark protects nothing
    ],
)
def test_beyond_the_count_goes_what_nothing_protects(history: str, keep: int, goes: str) -> None:
    plan = plan_retention(dataset("tank/vm/web", history), HOURLY, keep)
    assert words(step.victim for step in plan.destroys) == goes


@pytest.mark.parametrize(
    ("history", "keep", "incoming", "goes"),
    [
        ("h1 h2", 2, 1, "h1"),
        ("h1 h2", 1, 1, "h1 h2"),
        ("h1 h2", 1, 5, "h1 h2"),
        ("h1* h2", 1, 1, "h2"),
        ("h1 h2@1", 1, 1, "h1"),
    ],
)
def test_those_being_taken_count_as_the_newest(history: str, keep: int, incoming: int, goes: str) -> None:
    plan = plan_retention(dataset("tank/vm/web", history), HOURLY, keep, incoming=incoming)
    assert words(step.victim for step in plan.destroys) == goes


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("h1*", "it is held"),
        ("h1^", "tank/vm/web-clone-of-h1 is a clone of it"),
        ("h1@1", "a target needs it as the base of its next increment"),
    ],
)
def test_what_is_kept_beyond_the_count_says_what_protects_it(word: str, reason: str) -> None:
    plan = plan_retention(dataset("tank/vm/web", f"{word} h2"), HOURLY, 1)
    assert plan.destroys == ()
    assert [(words([kept.snapshot]), kept.reason) for kept in plan.kept] == [("h1", reason)]


def test_every_destruction_gives_its_reason() -> None:
    plan = plan_retention(dataset("tank/vm/web", "h1 h2"), HOURLY, 1)
    assert [step.reason for step in plan.destroys] == ["keep 1 hourly"]


@pytest.mark.parametrize("keep", [0, -1])
def test_a_count_that_would_leave_nothing_is_an_error(keep: int) -> None:
    with pytest.raises(ValueError, match="at least 1 snapshot must be kept"):
        plan_retention(dataset("tank/vm/web", "h1"), HOURLY, keep)


def test_a_count_without_limit_keeps_all() -> None:
    assert plan_retention(dataset("tank/vm/web", "h1 h2 h3"), HOURLY, 10**20).destroys == ()


def test_more_can_be_protected_by_guid() -> None:
    web = dataset("tank/vm/web", "h1 h2 h3")
    plan = plan_retention(web, HOURLY, 1, protected=frozenset({guid_of("h1")}))
    assert words(step.victim for step in plan.destroys) == "h2"


@pytest.mark.parametrize(
    ("history", "copies", "needed"),
    [
        ("h1! h2! h3", 1, "h1 h2"),  # any of them may be the last that one of the others has
        ("h1 h2!", 1, "h2"),
        ("h1! h2@1 h3@1", 2, "h1"),  # one target has anchors here, the old host has none yet
        ("h1! h2@1 h3@2", 2, ""),
        ("h1! #h2@1 h3", 1, ""),
        ("h1@1 h2! h3", 1, "h2"),  # an anchor from before the VM went elsewhere and came back
        ("h1! h2", 0, ""),
        ("h1! #manual h2", 1, "h1"),  # just any bookmark is of no target
        ("h1 h2", 1, ""),
        ("", 1, ""),
    ],
)
def test_the_versions_that_came_are_needed_until_every_copy_has_anchors(
    history: str, copies: int, needed: str
) -> None:
    assert words(needed_by_copies(dataset("tank/vm/web", history), copies)) == needed


def test_what_is_not_ours_stays_and_says_so() -> None:
    plan = plan_retention(dataset("tank/vm/web", "h1 h2 h3"), HOURLY, 1, ours=lambda s: s.name.endswith("2"))
    assert [kept.reason for kept in plan.kept] == [
        "this source did not send it",
        "this source did not send it",
    ]


def test_the_same_name_with_another_guid_is_protected_only_by_its_own_guid() -> None:
    web = dataset("tank/vm/web", "#h1@1 h1' h2 h3")
    assert words(s.victim for s in plan_retention(web, HOURLY, 1).destroys) == "h1 h2"


def test_snapshots_of_a_type_are_ordered_by_createtxg_however_they_were_listed() -> None:
    web = dataset("tank/vm/web", "h3 d1 h1 foreign h2")
    shuffled = replace(web, snapshots=web.snapshots[::-1])
    assert words(typed(shuffled, HOURLY)) == "h3 h1 h2"
    assert plan_retention(shuffled, HOURLY, 1) == plan_retention(web, HOURLY, 1)


@pytest.mark.parametrize(
    ("history", "goes"),
    [
        ("h1! h2! h3!", "h1 h2"),
        ("h1 h2 h3!", ""),  # not marked as sent by us
        ("h1! d1! h2! d2! d3! h3!", "h1 d1 h2"),  # across types, oldest first
        ("h1!* h2! h3!", "h2"),
        ("h1!^ h2! h3!", "h2"),
        ("c1! c2! c3! h1!", ""),  # no count for the type
        ("manual! h1!", ""),
    ],
)
def test_a_target_gives_up_by_its_own_counts_what_this_source_sent(history: str, goes: str) -> None:
    replica = dataset("backup/web", history)
    steps = plan_target_retention(replica, {HOURLY: 1, DAILY: 2}, newest_common=guid_of("h3"), sent_by=VM_ID)
    assert words(step.victim for step in steps) == goes


def test_a_target_never_gives_up_the_newest_common_version() -> None:
    replica = dataset("backup/web", "r1! r2! r3!")
    steps = plan_target_retention(replica, {REPLICATION: 1}, newest_common=guid_of("r1"), sent_by=VM_ID)
    assert words(step.victim for step in steps) == "r2"


@pytest.mark.parametrize("sent_by", ["another-vm/1", f"{VM_ID}0/1", "", f"x{VM_ID}/1"])
def test_a_target_keeps_what_another_vm_sent(sent_by: str) -> None:
    replica = dataset("backup/web", "h1! h2!")
    foreign = tuple(replace(s, sent_by=sent_by) for s in replica.snapshots)
    steps = plan_target_retention(
        replace(replica, snapshots=foreign), {HOURLY: 1}, newest_common=guid_of("h2"), sent_by=VM_ID
    )
    assert steps == ()


def test_a_target_gives_up_what_an_earlier_epoch_of_the_same_vm_sent() -> None:
    replica = dataset("backup/web", "h1! h2!")
    older = tuple(replace(s, sent_by=f"{VM_ID}/0") for s in replica.snapshots)
    steps = plan_target_retention(
        replace(replica, snapshots=older), {HOURLY: 1}, newest_common=guid_of("h2"), sent_by=VM_ID
    )
    assert words(step.victim for step in steps) == "h1"
