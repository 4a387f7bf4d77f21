"""Going back without losing anything: the steps, and that they end alike wherever a crash cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hoster.model.anchors import anchor_target
from hoster.model.storage import Dataset, DatasetKind, Intent
from hoster.planning.promotions import Promote
from hoster.planning.swap import (
    NOT_COPIED,
    Clone,
    Forget,
    Place,
    Rename,
    RollBack,
    Settle,
    Unmount,
    branch_name,
    branch_of,
    coming_name,
    is_part_of_a_swap,
    parting_anchors,
    plan_swap,
    taking_back,
    unfinished,
)
from hoster.testing import dataset, guid_of, target_key, words
from tests.unit.planning.swapped import ROOT, STAMP, Pool, intended, pools

BRANCH, COMING = f"{ROOT}.branch-{STAMP}", f"{ROOT}.swap-{STAMP}"


def planned(*there: Dataset, local: dict[str, dict[str, str]] | None = None) -> list[object]:
    return list(plan_swap(ROOT, STAMP, there, local or {}))


def settled(steps: list[object]) -> Settle:
    """The last step, which settles the swap."""
    assert isinstance(steps[-1], Settle)
    return steps[-1]


def test_all_are_cloned_then_all_promoted_then_the_old_and_the_new_one_are_renamed() -> None:
    web, disk = intended(dataset(ROOT, "a b c"), "a"), intended(dataset(f"{ROOT}/d0", "a b"), "b")
    assert planned(disk, web) == [
        Clone(f"{ROOT}@a", COMING, {"canmount": "noauto"}),
        Clone(f"{ROOT}/d0@b", f"{COMING}/d0", {"canmount": "noauto"}),
        Promote(COMING),
        Promote(f"{COMING}/d0"),
        Rename(ROOT, BRANCH),
        Rename(COMING, ROOT),
        Settle(
            ROOT,
            BRANCH,
            (BRANCH, f"{BRANCH}/d0"),
            (Place(ROOT, BRANCH, "-", False), Place(f"{ROOT}/d0", f"{BRANCH}/d0", "-", False)),
            (BRANCH, f"{BRANCH}/d0"),
        ),
    ]


def test_what_has_no_intent_becomes_a_part_of_the_branch() -> None:
    steps = planned(intended(dataset(ROOT, "a b"), "a"), dataset(f"{ROOT}/new", "x"))
    assert [step.name for step in steps if isinstance(step, Clone)] == [COMING]
    assert settled(steps).intents == (BRANCH,)
    assert settled(steps).aside == (BRANCH, f"{BRANCH}/new")
    assert [place.name for place in settled(steps).places] == [ROOT]


def test_a_vm_whose_name_begins_alike_is_none_of_it() -> None:
    steps = planned(intended(dataset(ROOT, "a"), "a"), intended(dataset(f"{ROOT}2", "a"), "a"))
    assert settled(steps).intents == settled(steps).aside == (BRANCH,)


def test_local_properties_go_along_but_for_those_that_a_clone_must_not_get() -> None:
    local = dict.fromkeys(NOT_COPIED, "x") | {"hoster:id": "5b", "compression": "zstd", "volmode": "none"}
    (clone, *_) = planned(intended(dataset(ROOT, "a"), "a"), local={ROOT: local})
    assert isinstance(clone, Clone)
    assert clone.properties == {
        "hoster:id": "5b",
        "compression": "zstd",
        "volmode": "none",
        "canmount": "noauto",
    }


def test_the_intent_and_reservations_are_never_copied() -> None:
    assert {"hoster:swap", "canmount", "reservation", "refreservation", "volsize"} <= NOT_COPIED


def test_a_volume_knows_no_canmount() -> None:
    disk = dataset(f"{ROOT}/d0", "a", kind=DatasetKind.VOLUME)
    steps = planned(
        intended(dataset(ROOT, "a"), "a"), intended(disk, "a"), local={disk.name: {"volmode": "none"}}
    )
    assert steps[1] == Clone(f"{disk.name}@a", f"{COMING}/d0", {"volmode": "none"})


def test_a_version_that_is_gone_is_an_error_and_nothing_is_planned() -> None:
    web = intended(dataset(ROOT, "a b"), "x")
    with pytest.raises(ValueError, match=f"{ROOT} has no version {guid_of('x'):016x} to go back to"):
        planned(web)


def test_intents_that_were_never_complete_are_forgotten() -> None:
    disks = [intended(dataset(f"{ROOT}/d{n}", "a b"), "a") for n in range(2)]
    assert planned(dataset(ROOT, "a b"), *disks) == [Forget((f"{ROOT}/d0", f"{ROOT}/d1"))]


def test_an_intent_of_another_swap_is_no_part_of_this_one() -> None:
    """One that a crash has left on a descendant which is gone at the source by now."""
    web = intended(dataset(ROOT, "a b c"), "b")
    left = replace(dataset(f"{ROOT}/d0", "a b"), marks=intended(web, "a", stamp="20231231T000000Z").marks)
    assert [step.name for step in planned(web, left) if isinstance(step, Clone)] == [COMING]


def test_a_dataset_that_has_the_branchs_name_already_is_never_taken_for_it() -> None:
    """It bears no intent, while the VM still does: it was there before."""
    with pytest.raises(ValueError, match=BRANCH):
        planned(intended(dataset(ROOT, "a b"), "a"), dataset(BRANCH, "x"))


def mounted(one: Dataset, word: str, **of: bool) -> Dataset:
    """``one``, mounted, with the intent to go back to the version written ``word``."""
    intent = Intent(STAMP, guid_of(word), "on", ROOT, mounted=True)
    return replace(one, mounted=True, marks=replace(one.marks, swap=intent), **of)


def test_what_is_mounted_is_unmounted_first_the_deepest_first_and_what_took_its_place_is_mounted() -> None:
    web, logs = mounted(dataset(ROOT, "a b"), "a"), mounted(dataset(f"{ROOT}/logs", "a"), "a")
    new = replace(dataset(f"{ROOT}/new", "x"), mounted=True)
    steps = planned(web, logs, new)
    assert steps[:3] == [Unmount(f"{ROOT}/new"), Unmount(f"{ROOT}/logs"), Unmount(ROOT)]
    assert settled(steps).places == (
        Place(ROOT, BRANCH, "on", True),
        Place(f"{ROOT}/logs", f"{BRANCH}/logs", "on", True),
    )


def test_what_was_mounted_is_to_be_mounted_whether_or_not_its_key_is_loaded_by_now() -> None:
    """A promotion leaves the key behind; whoever carries the plan out loads it again, if it can be had."""
    steps = planned(mounted(dataset(ROOT, "a b"), "a", key_loaded=False))
    assert settled(steps).places == (Place(ROOT, BRANCH, "on", True),)


def test_what_has_taken_its_place_already_stays_mounted_while_the_rest_is_settled() -> None:
    """Killed in the middle of the last step: the old one is unmounted if a start has mounted it again."""
    steps = planned(replace(dataset(ROOT, "a"), mounted=True), renamed(mounted(dataset(BRANCH, "b"), "a")))
    assert steps[0] == Unmount(BRANCH)
    assert len(steps) == 2
    assert settled(steps).places == (Place(ROOT, BRANCH, "on", True),)


def renamed(one: Dataset) -> Dataset:
    return replace(one, marks=replace(one.marks, swap=Intent(STAMP, guid_of("a"), "on", ROOT, mounted=True)))


def test_neither_the_old_nor_the_new_one_being_there_is_an_error() -> None:
    with pytest.raises(ValueError, match=f"neither {ROOT} nor {COMING} is there"):
        planned(intended(dataset(BRANCH, "b"), "a"))


def in_place(one: Dataset, word: str) -> Dataset:
    intent = Intent(STAMP, guid_of(word), "-", ROOT, in_place=True)
    return replace(one, marks=replace(one.marks, swap=intent))


def test_in_place_every_dataset_is_rolled_back_and_the_vms_own_intent_is_the_last_to_go() -> None:
    web, disk = in_place(dataset(ROOT, "a"), "a"), in_place(dataset(f"{ROOT}/d0", "b"), "b")
    assert planned(web, disk) == [
        RollBack(f"{ROOT}@a"),
        RollBack(f"{ROOT}/d0@b"),
        Forget((f"{ROOT}/d0", ROOT)),
    ]


def test_taking_back_mounts_what_was_mounted_and_takes_the_vms_own_intent_first() -> None:
    web, disk = mounted(dataset(ROOT, "a b"), "a"), intended(dataset(f"{ROOT}/d0", "a"), "a")
    other = intended(dataset(f"{ROOT}/d1", "a"), "a", stamp="20231231T000000Z")
    left = replace(dataset(f"{ROOT}/d2"), mounted=True)
    assert taking_back(ROOT, STAMP, [disk, other, left, web]) == Forget(
        (ROOT, f"{ROOT}/d0"), (ROOT, f"{ROOT}/d2")
    )


@pytest.mark.parametrize(
    ("history", "back_to", "anchored"),
    [
        ("a b c d@1", "b", "1:a 1:b"),
        ("a b@1 c d@1", "c", "1:c"),
        ("a b@1 c d@1", "b", ""),
        ("a b@1 c", "b", ""),
        ("a b c@1", "a", "1:a"),
        ("a b c@1@2 d@2", "b", "1:a 1:b 2:a 2:b"),
        ("a b c #mine", "b", ""),
    ],
)
def test_the_base_of_a_target_stays_when_what_is_newer_leaves(
    history: str, back_to: str, anchored: str
) -> None:
    web = dataset(ROOT, history)
    version = next(s for s in web.snapshots if s.name == back_to)
    names = {str(target_key(name)): name for name in "12"}
    found = [f"{names[str(anchor.target)]}:{anchor.name}" for anchor in parting_anchors(web, version)]
    assert found == anchored.split()
    guids = {s.name: s.guid for s in web.snapshots}
    assert all(anchor.guid == guids[anchor.name] for anchor in parting_anchors(web, version))
    assert all(anchor_target(b) is not None for b in web.bookmarks if b.name != "mine")


@given(pool=pools())
def test_a_swap_keeps_every_version_and_puts_the_wanted_ones_in_place(pool: Pool) -> None:
    before = pool.copy()
    wanted = pool.intend()
    pool.finish()
    for name, version in wanted.items():
        old, branch = before.datasets[name], pool.datasets[BRANCH + name.removeprefix(ROOT)]
        new = pool.datasets[name]
        through = next(s for s in old.snapshots if s.guid == version)
        assert words(new.snapshots) == words(s for s in old.snapshots if s.createtxg <= through.createtxg)
        assert words(branch.snapshots) == words(s for s in old.snapshots if s.createtxg > through.createtxg)
        assert words(new.bookmarks) == words(b for b in old.bookmarks if b.createtxg <= through.createtxg)
        assert new.origin is None
        assert branch.origin == f"{name}@{through.name}"
        assert branch.guid == old.guid
    assert unfinished(tuple(pool.datasets.values())) == ()
    assert not [name for name in pool.datasets if name.startswith(COMING)]


@given(pool=pools(), cuts=st.lists(st.integers(0, 6), max_size=12))
def test_a_swap_that_crashes_again_and_again_ends_as_if_it_never_had(pool: Pool, cuts: list[int]) -> None:
    calm = pool.copy()
    calm.intend()
    calm.finish()
    pool.intend()
    for cut in cuts:
        pool.finish(cut)
    pool.finish()
    assert pool == calm


@given(pool=pools(), written=st.integers(0, 4))
def test_a_crash_before_the_last_intent_is_written_leaves_everything_as_it_was(
    pool: Pool, written: int
) -> None:
    before = pool.copy()
    wanted = pool.intend(written)
    if ROOT in wanted:
        return  # all of them were written: the swap is done
    pool.finish()
    assert pool == before


def test_a_swap_that_is_done_is_not_done_again() -> None:
    pool = Pool({ROOT: dataset(ROOT, "a b")}, {ROOT: {}}, {ROOT: "a"})
    pool.intend()
    pool.finish()
    done = pool.copy()
    pool.finish()
    assert pool == done


def test_each_swap_that_was_begun_is_found_once_by_what_its_intents_say() -> None:
    other = replace(dataset("ssd/vm/db").marks, swap=Intent("20240202T000000Z", 1, "-", "ssd/vm/db"))
    seen = [
        intended(dataset(ROOT, "a"), "a"),
        intended(dataset(f"{ROOT}/d0", "a"), "a"),
        dataset(f"{ROOT}/d1", "a"),
        replace(dataset("ssd/vm/db"), marks=other),
    ]
    assert unfinished(seen) == ((ROOT, STAMP), ("ssd/vm/db", "20240202T000000Z"))
    assert unfinished([]) == ()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (f"{ROOT}.branch-{STAMP}", (ROOT, STAMP)),
        ("web.branch-20240101T120000Z", ("web", "20240101T120000Z")),
        (
            "a.branch-20240101T120000Z.branch-20250101T120000Z",
            ("a.branch-20240101T120000Z", "20250101T120000Z"),
        ),
        (f"{ROOT}.branch-{STAMP}/d0", None),
        (f"{ROOT}.branch-20240101", None),
        (f"{ROOT}.branch-{STAMP}x", None),
        (f"{ROOT}-branch-{STAMP}", None),
        (f".branch-{STAMP}", None),
        (f"{ROOT}.swap-{STAMP}", None),
        (ROOT, None),
    ],
)
def test_a_branch_is_known_by_its_name(name: str, found: tuple[str, str] | None) -> None:
    assert branch_of(name) == found


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (branch_name(ROOT, STAMP), True),
        (coming_name(ROOT, STAMP), True),
        (ROOT, False),
        (f"{ROOT}.swap", False),
        (f"{ROOT}.branch", False),
    ],
)
def test_neither_a_branch_nor_what_is_about_to_take_a_place_is_a_vm(name: str, part: bool) -> None:
    assert is_part_of_a_swap(name) is part
