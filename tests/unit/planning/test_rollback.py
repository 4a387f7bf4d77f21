"""Going back: what is wanted on each dataset, what dies if that was asked for, what the targets will do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hoster.model.anchors import needed_by_targets
from hoster.model.names import MAX_DATASET_NAME
from hoster.model.plan import Ground, Refusal
from hoster.model.storage import ResumeToken, Role
from hoster.planning.refusals import Subject
from hoster.planning.rollback import (
    Outlook,
    Rollback,
    left_out,
    plan_rollback,
)
from hoster.testing import dataset, guid_of, target_key, words
from tests.unit.planning.swapped import ROOT, STAMP

BRANCH = f"{ROOT}.branch-{STAMP}"
LATER = "20240202T120000Z"


def vm(*histories: str, role: Role = Role.PRIMARY) -> Subject:
    """A VM whose own dataset has the first history, and d0, d1 … below it the others."""
    web, *below = histories
    disks = tuple(dataset(f"{ROOT}/d{n}", history) for n, history in enumerate(below))
    return Subject("web", dataset(ROOT, web, role), role, "node1", disks)


def planned(subject: Subject, version: str, **options: object) -> Rollback:
    plan = plan_rollback(subject, version, **options)  # type: ignore[arg-type]
    assert isinstance(plan, Rollback), plan
    return plan


def refused(subject: Subject, version: str, **options: object) -> Refusal:
    plan = plan_rollback(subject, version, **options)  # type: ignore[arg-type]
    assert isinstance(plan, Refusal), plan
    return plan


def test_every_dataset_goes_back_to_its_own_version_of_that_name() -> None:
    subject = vm("a b c", "b c d")
    plan = planned(subject, "b")
    assert [(d.name, v.full_name) for d, v in plan.wanted] == [
        (ROOT, f"{ROOT}@b"),
        (f"{ROOT}/d0", f"{ROOT}/d0@b"),
    ]
    assert (plan.left, plan.destroys, plan.bookmarks, plan.outlooks) == ((), (), (), ())


@pytest.mark.parametrize(
    ("histories", "there"),
    [
        (["a b"], True),
        (["a b", "b"], True),
        (["a b ~1"], False),
        (["a b", "b ~1"], False),
        (["a b c"], False),
        (["a b", "b c"], False),
        (["a b #c"], True),
    ],
)
def test_a_vm_is_there_already_if_nothing_is_newer_and_nothing_was_written(
    histories: list[str], there: bool
) -> None:
    assert planned(vm(*histories), "b").is_there is there


def test_a_vm_with_a_disk_that_would_leave_it_is_not_there() -> None:
    subject = vm("a b", "x")
    assert not planned(subject, "b", without=left_out(subject, ["d0"])).is_there


def test_versions_are_of_one_moment_if_one_transaction_group_made_them() -> None:
    one, other = dataset(ROOT, "a", Role.PRIMARY), dataset(f"{ROOT}/d0", "a")
    together = replace(other.snapshots[0], createtxg=one.snapshots[0].createtxg)
    same = Subject("web", one, Role.PRIMARY, "node1", (replace(other, snapshots=(together,)),))
    assert planned(same, "a").is_one_moment
    assert not planned(Subject("web", one, Role.PRIMARY, "node1", (other,)), "a").is_one_moment


def test_a_disk_that_was_added_later_is_refused_with_the_word_that_leaves_it_out() -> None:
    refusal = refused(vm("a b", "a b", "b"), "a")
    assert (refusal.ground, refusal.evidence) == (Ground.VERSION_MISSING, f"{ROOT}/d1 has no snapshot a")
    assert "--without d1" in refusal.remedy


def test_the_vms_own_dataset_cannot_be_left_out() -> None:
    refusal = refused(vm("b", "a"), "a")
    assert (refusal.evidence, refusal.remedy) == (f"{ROOT} has no snapshot a", "hoster snapshot list web")


@pytest.mark.parametrize("word", ["d1", f"{ROOT}/d1"])
def test_what_is_left_out_takes_no_part_with_all_below_it(word: str) -> None:
    subject = vm("a b", "a b", "b")
    below = (*subject.descendants, dataset(f"{ROOT}/d1/x", "a"), dataset(f"{ROOT}/d10", "a"))
    subject = replace(subject, descendants=below)
    without = left_out(subject, [word])
    assert without == {f"{ROOT}/d1", f"{ROOT}/d1/x"}
    plan = planned(subject, "a", without=without)
    assert plan.left == (f"{ROOT}/d1", f"{ROOT}/d1/x")
    assert [d.name for d, _ in plan.wanted] == [ROOT, f"{ROOT}/d0", f"{ROOT}/d10"]


@pytest.mark.parametrize("word", ["d7", ROOT, "", "d"])
def test_a_word_that_names_no_disk_is_an_error(word: str) -> None:
    with pytest.raises(ValueError, match="web has no dataset"):
        left_out(vm("a", "a"), [word])


@pytest.mark.parametrize(("parent", "where"), [("node1", "node1"), ("", "its parent")])
@pytest.mark.parametrize("role", [Role.REPLICA, Role.SUPERSEDED])
def test_what_is_not_the_primary_does_not_go_back(role: Role, parent: str, where: str) -> None:
    refusal = refused(replace(vm("a b", role=role), parent=parent), "a")
    assert refusal.ground is Ground.IS_REPLICA
    assert refusal.remedy == f"on {where}: hoster snapshot rollback web a"


def test_a_part_of_a_stream_is_given_up_first() -> None:
    subject = vm("a b", "a b")
    half = replace(subject.descendants[0], partial=ResumeToken("1-x"))
    refusal = refused(replace(subject, descendants=(half,)), "a")
    assert refusal.ground is Ground.PARTLY_RECEIVED
    assert refusal.remedy.startswith(f"zfs receive -A {ROOT}/d0 ")


@pytest.mark.parametrize(("length", "fits"), [(MAX_DATASET_NAME, True), (MAX_DATASET_NAME + 1, False)])
@pytest.mark.parametrize("sign", ["", "#"])
def test_all_must_have_room_for_the_name_of_the_branch(length: int, fits: bool, sign: str) -> None:
    filler = "x" * (length - len(f"{BRANCH}/d0@"))
    subject = vm("a b", f"a {sign}{filler}")
    if fits:
        planned(subject, "a")
        return
    refusal = refused(subject, "a")
    assert refusal.ground is Ground.NAME_TOO_LONG
    assert f"name of {length} characters" in refusal.evidence
    planned(subject, "a", destroy_newer=True)


def test_what_is_newer_dies_if_asked_for_and_all_of_it_is_in_the_plan() -> None:
    plan = planned(vm("a b c #x #b@1 d", "a b"), "b", destroy_newer=True)
    assert [step.victim.full_name for step in plan.destroys] == [f"{ROOT}@c", f"{ROOT}@d"]
    assert [bookmark.full_name for bookmark in plan.bookmarks] == [f"{ROOT}#x"]
    assert {step.reason for step in plan.destroys} == {"newer than b"}


def test_a_disk_that_is_left_out_loses_nothing() -> None:
    subject = vm("a b", "x y")
    plan = planned(subject, "a", destroy_newer=True, without=left_out(subject, ["d0"]))
    assert [step.victim.full_name for step in plan.destroys] == [f"{ROOT}@b"]


@pytest.mark.parametrize(
    ("histories", "ground", "evidence"),
    [
        (["a b c*"], Ground.HELD, "c, which would be destroyed, is held"),
        (["a b", "a c^"], Ground.CLONED, "-clone-of-c is a clone of"),
        (["a b c@1"], Ground.NEEDED_BY_TARGET, "starts from"),
        (["a@1 b c@1"], Ground.NEEDED_BY_TARGET, f"{ROOT}@b"),
        (["a #c@1"], Ground.NEEDED_BY_TARGET, f"{ROOT}#hoster-"),
    ],
)
def test_nothing_that_is_needed_dies(histories: list[str], ground: Ground, evidence: str) -> None:
    refusal = refused(vm(*histories), "a", destroy_newer=True)
    assert refusal.ground is ground
    assert evidence in refusal.evidence
    assert "leave out --destroy-newer" in refusal.remedy


@pytest.mark.parametrize("history", ["a* b^ c", "a@1 b@1 c", "a b #b@1 c"])
def test_what_protects_the_version_itself_and_older_ones_keeps_nothing_newer(history: str) -> None:
    assert words(s.victim for s in planned(vm(history), "b", destroy_newer=True).destroys) == "c"


@given(history=st.lists(st.sampled_from(["", "*", "^", "@1", "@2"]), min_size=1, max_size=7), data=st.data())
def test_no_plan_destroys_what_is_held_cloned_or_needed_and_none_destroys_what_is_no_newer(
    history: list[str], data: st.DataObject
) -> None:
    subject = vm(" ".join(f"{chr(ord('a') + n)}{signs}" for n, signs in enumerate(history)))
    version = data.draw(st.sampled_from(subject.dataset.snapshots))
    plan = plan_rollback(subject, version.name, destroy_newer=True)
    if isinstance(plan, Refusal):
        return
    needed = needed_by_targets(subject.dataset)
    dying = {step.victim.guid for step in plan.destroys}
    newer = [s for s in subject.dataset.snapshots if s.createtxg > version.createtxg]
    assert dying == {s.guid for s in newer}
    assert not dying & needed
    assert not any(s.holds or s.clones for s in newer)


@pytest.mark.parametrize(
    ("histories", "outlooks"),
    [
        (["a b c"], []),
        (["a b@1 c"], [("1", "b", False)]),
        (["a@1 b c"], [("1", "a", False)]),
        (["a #b@1 c@2"], [("1", "#", False), ("2", "b", True)]),
        (["a b c@1"], [("1", "b", True)]),
        (["a b@1 c", "a b c@1"], [("1", "b", True)]),
        (["a b c", "a b@1 c"], [("1", "b", False)]),
    ],
)
def test_the_plan_says_for_each_target_what_its_next_replication_will_do(
    histories: list[str], outlooks: list[tuple[str, str, bool]]
) -> None:
    subject = vm(*histories)
    if "b" not in {s.name for s in subject.dataset.snapshots}:
        subject = vm(histories[0].replace("#b@1", "b@1"), *histories[1:])
        outlooks = [(key, "b" if base == "#" else base, parts) for key, base, parts in outlooks]
    found = planned(subject, "b").outlooks
    assert [(o.target, o.base, o.parts) for o in found] == [
        (target_key(key), base, parts) for key, base, parts in outlooks
    ]


def test_a_base_of_which_only_the_bookmark_is_left_is_named_by_it() -> None:
    (outlook,) = planned(vm("#a@1 b c"), "b").outlooks
    assert outlook.base == f"hoster-{target_key('1')}-{guid_of('a'):016x}"


def test_an_outlook_reads_as_a_sentence() -> None:
    key = target_key("1")
    assert str(Outlook(key, "b", parts=False)) == f"the next replication to the target {key} goes on from b"
    assert "sets them aside there as a branch" in str(Outlook(key, "b", parts=True))
