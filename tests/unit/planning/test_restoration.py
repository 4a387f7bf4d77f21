"""A branch becomes the VM again: what it is promoted over, what stays, and that crashes change nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hoster.model.plan import Ground, Refusal
from hoster.model.storage import Dataset, Intent, ResumeToken, Role
from hoster.planning.promotions import DropBookmark, KeepBookmark, Promote, promotions
from hoster.planning.refusals import Subject
from hoster.planning.rollback import (
    Outlook,
    Restoration,
    plan_restoration,
)
from hoster.planning.swap import (
    KEPT_CANMOUNT,
    Clone,
    Place,
    Rename,
    Settle,
    Unmount,
    plan_swap,
)
from hoster.testing import dataset, guid_of, target_key, words
from tests.unit.planning.swapped import ROOT, STAMP, Pool, pools

BRANCH = f"{ROOT}.branch-{STAMP}"
LATER = "20240202T120000Z"


def vm(*histories: str, role: Role = Role.PRIMARY) -> Subject:
    """A VM whose own dataset has the first history, and d0, d1 … below it the others."""
    web, *below = histories
    disks = tuple(dataset(f"{ROOT}/d{n}", history) for n, history in enumerate(below))
    return Subject("web", dataset(ROOT, web, role), role, "node1", disks)


def parted(history: str = "c d", now: str = "a b e", at: str = "b") -> tuple[Subject, dict[str, Dataset]]:
    """A VM that went back, and its branch: the family by name."""
    subject = vm(now)
    branch = replace(dataset(BRANCH, history, Role.BRANCH), origin=f"{ROOT}@{at}")
    return subject, {ROOT: subject.dataset, BRANCH: branch}


def restoration(subject: Subject, family: dict[str, Dataset]) -> Restoration | Refusal:
    tree = [dataset for name, dataset in sorted(family.items()) if name.startswith(BRANCH)]
    return plan_restoration(subject, tree, family)


def test_a_branch_can_be_restored_and_the_plan_says_where_it_parted() -> None:
    assert restoration(*parted()) == Restoration("b")


def test_the_base_of_a_target_stays_when_what_the_vm_is_now_becomes_a_branch() -> None:
    plan = restoration(*parted(now="a b e@1"))
    assert isinstance(plan, Restoration)
    assert [anchor.full_name for anchor in plan.anchors] == [f"{ROOT}@a", f"{ROOT}@b"]
    assert plan.outlooks == (Outlook(target_key("1"), "b", parts=True),)


def test_where_the_vm_depends_on_the_branch_the_base_is_kept_there() -> None:
    """Somebody has promoted the branch by hand."""
    subject = vm("e@1")
    newer = tuple(replace(b, createtxg=1 << 40) for b in subject.dataset.bookmarks)
    web = replace(subject.dataset, origin=f"{BRANCH}@b", bookmarks=newer)
    family = {ROOT: web, BRANCH: dataset(BRANCH, "a b c #mine", Role.BRANCH)}
    plan = restoration(replace(subject, dataset=web), family)
    assert isinstance(plan, Restoration)
    assert [anchor.full_name for anchor in plan.anchors] == [f"{BRANCH}@a", f"{BRANCH}@b"]
    assert plan.parted == "b"


def test_a_branch_of_a_branch_parted_from_the_vm_where_the_first_one_did() -> None:
    subject, family = parted(now="a b@1", at="a")
    family[OTHER] = replace(dataset(OTHER, "b c", Role.BRANCH), origin=f"{ROOT}@a")
    family[BRANCH] = replace(family[BRANCH], origin=f"{OTHER}@b")
    plan = restoration(subject, family)
    assert isinstance(plan, Restoration)
    assert plan.parted == "a"
    assert [anchor.full_name for anchor in plan.anchors] == [f"{ROOT}@a"]


def test_a_branch_that_shares_nothing_is_restored_all_the_same() -> None:
    subject, family = parted()
    family[BRANCH] = replace(family[BRANCH], origin=None)
    assert restoration(subject, family) == Restoration("")


def test_a_disk_that_is_in_the_branch_alone_comes_back_with_it() -> None:
    subject, family = parted()
    family[f"{BRANCH}/d9"] = dataset(f"{BRANCH}/d9", "x")
    assert restoration(subject, family) == Restoration("b")


def test_a_disk_says_nothing_of_where_the_vm_parted() -> None:
    subject, family = parted()
    family[BRANCH] = replace(family[BRANCH], origin=None)
    family[f"{ROOT}/d0"] = dataset(f"{ROOT}/d0", "a b")
    family[f"{BRANCH}/d0"] = replace(dataset(f"{BRANCH}/d0", "c"), origin=f"{ROOT}/d0@a")
    assert restoration(subject, family) == Restoration("")


@pytest.mark.parametrize(
    ("change", "ground"),
    [
        ({"role": Role.REPLICA}, Ground.IS_REPLICA),
        ({"dataset": dataset(ROOT, f"a b {'x' * 230}", Role.PRIMARY)}, Ground.NAME_TOO_LONG),
    ],
)
def test_what_keeps_a_vm_from_going_back_keeps_a_branch_from_coming_back(
    change: dict[str, object], ground: Ground
) -> None:
    subject, family = parted()
    plan = restoration(replace(subject, **change), family)
    assert isinstance(plan, Refusal)
    assert plan.ground is ground


def test_a_part_of_a_stream_in_the_branch_is_given_up_first() -> None:
    subject, family = parted()
    family[BRANCH] = replace(family[BRANCH], partial=ResumeToken("1-x"))
    plan = restoration(subject, family)
    assert isinstance(plan, Refusal)
    assert plan.ground is Ground.PARTLY_RECEIVED


def test_two_versions_of_one_name_cannot_be_in_one_dataset() -> None:
    plan = restoration(*parted(history="b' d"))
    assert isinstance(plan, Refusal)
    assert plan.ground is Ground.NAME_TAKEN
    remedy = f"zfs rename {BRANCH}@b {BRANCH}@b.{guid_of(chr(98) + chr(39)):016x}"
    assert plan.remedy.startswith(remedy)


OTHER = f"{ROOT}.branch-20240115T120000Z"


def hops_of(history: str, *owners: tuple[str, str, str]) -> tuple[object, ...]:
    """The promotions of a branch with that history; ``owners`` are name, history and origin of each."""
    family = {name: replace(dataset(name, of), origin=origin or None) for name, of, origin in owners}
    first = owners[0]
    branch = replace(dataset(BRANCH, history), origin=f"{first[0]}@{first[1].split()[-1]}")
    family[BRANCH] = branch
    return promotions(branch, "", family, [ROOT, BRANCH, OTHER])


def test_a_branch_of_a_branch_is_promoted_until_it_holds_all() -> None:
    assert hops_of("d", (OTHER, "b c", f"{ROOT}@a"), (ROOT, "a", "")) == (Promote(BRANCH), Promote(BRANCH))


def test_what_the_vm_was_cloned_from_stays_what_it_is() -> None:
    assert hops_of("c", (ROOT, "a b", "tank/template@x"), ("tank/template", "x", "")) == (Promote(BRANCH),)
    assert hops_of("c", (ROOT, "a b", "tank/gone@x")) == (Promote(BRANCH),)


def test_an_origin_that_nobody_saw_is_not_promoted_over() -> None:
    family = {BRANCH: replace(dataset(BRANCH, "c"), origin=f"{ROOT}@x"), ROOT: dataset(ROOT, "a")}
    assert promotions(family[BRANCH], "", family, [ROOT, BRANCH]) == ()


@pytest.mark.parametrize(
    ("branch", "now", "steps"),
    [
        ("c #x", "a #x b", ["x as x.2", "drop x", "promote"]),
        ("#a c", "#a b", ["drop a", "promote"]),
        ("c #x #x.2", "a #x b", ["x as x.3", "drop x", "promote"]),
        ("c #x", "a #x #x.2 b", ["x as x.3", "drop x", "promote"]),
        ("c #x", "a b #x", ["promote"]),
        ("c #y", "a #x b", ["promote"]),
    ],
)
def test_of_two_bookmarks_of_one_name_that_of_the_branch_gives_way(
    branch: str, now: str, steps: list[str]
) -> None:
    """Here #a is of one version on both sides, and all others are not."""
    web = dataset(ROOT, now)
    one = replace(dataset(BRANCH, branch), origin=f"{ROOT}@b")
    others = tuple(b if b.name == "a" else replace(b, guid=b.guid ^ 1) for b in one.bookmarks)
    one = replace(one, bookmarks=others)
    said = []
    for step in promotions(one, "", {ROOT: web, BRANCH: one}, [ROOT, BRANCH]):
        match step:
            case KeepBookmark(bookmark):
                said.append(f"{bookmark.name} as {step.full_name.removeprefix(f'{BRANCH}#')}")
            case DropBookmark(bookmark):
                said.append(f"drop {bookmark.name}")
            case Promote():
                said.append("promote")
    assert said == steps


def test_a_bookmark_that_got_another_name_before_a_crash_is_only_dropped() -> None:
    web = dataset(ROOT, "a #x b")
    one = replace(dataset(BRANCH, "c #x #x.2"), origin=f"{ROOT}@b")
    same = tuple(replace(b, guid=7, createtxg=7) for b in one.bookmarks)
    family = {ROOT: web, BRANCH: replace(one, bookmarks=same)}
    steps = promotions(family[BRANCH], "", family, [ROOT, BRANCH])
    assert steps == (DropBookmark(replace(same[0], name="x")), Promote(BRANCH))


def restoring(one: Dataset, stamp: str = LATER, *, mounted: bool = False) -> Dataset:
    """``one`` with the intent to give way to the branch."""
    intent = Intent(stamp, 0, "on", ROOT, mounted=mounted, restores=STAMP)
    return replace(one, marks=replace(one.marks, swap=intent), mounted=mounted)


def test_a_branch_is_promoted_and_takes_the_place_of_the_vm() -> None:
    subject, family = parted()
    extra = dataset(f"{BRANCH}/d9", "x")
    there = (restoring(subject.dataset, mounted=True), replace(family[BRANCH], mounted=True), extra)
    local = {extra.name: {KEPT_CANMOUNT: "-"}, BRANCH: {}}
    aside = f"{ROOT}.branch-{LATER}"
    assert plan_swap(ROOT, LATER, there, local) == (
        Unmount(BRANCH),
        Unmount(ROOT),
        Promote(BRANCH),
        Rename(ROOT, aside),
        Rename(BRANCH, ROOT),
        Settle(
            ROOT,
            aside,
            (aside,),
            (Place(ROOT, aside, "on", True), Place(f"{ROOT}/d9", None, "-", True)),
            (aside,),
            restored=True,
        ),
    )


def test_a_disk_that_is_in_the_branch_alone_is_as_it_was_kept() -> None:
    subject, family = parted()
    logs, disk = dataset(f"{BRANCH}/logs", "x"), dataset(f"{BRANCH}/d9", "x")
    there = (restoring(subject.dataset, mounted=True), family[BRANCH], logs, disk)
    (*_, last) = plan_swap(ROOT, LATER, there, {logs.name: {KEPT_CANMOUNT: "off"}})
    assert isinstance(last, Settle)
    assert last.places[1:] == (
        Place(f"{ROOT}/d9", None, None, False),
        Place(f"{ROOT}/logs", None, "off", False),
    )


def test_a_branch_that_is_gone_is_an_error() -> None:
    with pytest.raises(ValueError, match=f"{BRANCH} is gone"):
        plan_swap(ROOT, LATER, (restoring(dataset(ROOT, "a")),), {})


def versions(pool: Pool, root: str) -> dict[str, str]:
    """The versions of each dataset at and below ``root``, by what comes after it in the name."""
    return {name.removeprefix(root): words(one.snapshots) for name, one in pool.of(root).items()}


@given(pool=pools(), cuts=st.lists(st.integers(0, 6), max_size=9))
def test_to_and_fro_every_version_is_where_it_was_wherever_crashes_cut_it(
    pool: Pool, cuts: list[int]
) -> None:
    before = versions(pool, ROOT)
    pool.intend()
    pool.finish()
    went_back = versions(pool, ROOT)
    pool.intend_restore(STAMP, LATER)
    for cut in cuts:
        pool.finish(cut, LATER)
    pool.finish(stamp=LATER)
    assert versions(pool, ROOT) == before
    assert all(one.marks.swap is None for one in pool.datasets.values())
    assert {name for name in pool.datasets if name.startswith(f"{ROOT}.")} == set(
        pool.of(f"{ROOT}.branch-{LATER}")
    )
    assert not any(one.origin for one in pool.of(ROOT).values())
    pool.intend_restore(LATER, "20240303T120000Z")
    pool.finish(stamp="20240303T120000Z")
    assert versions(pool, ROOT) == went_back


@given(pool=pools(), cuts=st.lists(st.integers(0, 5), max_size=6))
def test_bookmarks_of_one_name_never_meet(pool: Pool, cuts: list[int]) -> None:
    """The pool of these tests asserts what would panic a kernel."""
    pool.intend()
    pool.finish()
    for root, word in ((ROOT, "kept"), (BRANCH, "newer")):
        for name, one in list(pool.of(root).items()):
            if one.snapshots:
                mark = dataset(name, f"#{word}").bookmarks[0]
                mark = replace(mark, name="keep", createtxg=one.snapshots[0].createtxg)
                pool.datasets[name] = replace(one, bookmarks=(*one.bookmarks, mark))
    pool.intend_restore(STAMP, LATER)
    for cut in cuts:
        pool.finish(cut, LATER)
    pool.finish(stamp=LATER)
    marks = [b for one in pool.of(ROOT).values() for b in one.bookmarks if b.name.startswith("keep")]
    assert len({(b.dataset, b.name) for b in marks}) == len(marks)


def test_a_clone_is_not_made_for_a_branch_that_comes_back() -> None:
    subject, family = parted()
    steps = plan_swap(ROOT, LATER, (restoring(subject.dataset), family[BRANCH]), {})
    assert not any(isinstance(step, Clone) for step in steps)
