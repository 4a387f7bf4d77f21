"""Whose anchors are whose where a target's node is gone, and what is free once they are given up."""

from __future__ import annotations

import pytest

from hoster.model.anchors import TargetKey
from hoster.model.storage import Dataset, Site
from hoster.planning.forgetting import Forgetting, KnownTarget, Undecided, key_to_forget, plan_forgetting
from hoster.testing import dataset, guid_of, target_key, words

GONE, SILENT, THERE = (Site(name, "tank/vm/web") for name in ("gone", "silent", "there"))
ONE, TWO, THREE = (target_key(name) for name in "123")


def known(site: Site, newest: str = "", key: TargetKey | None = None) -> KnownTarget:
    """A target, with the newest version that is remembered to be there and, if it answers, its key."""
    return KnownTarget(site, key, guid_of(newest) if newest else None)


def undecided(rival: Site | None, *candidates: TargetKey) -> Undecided:
    return Undecided(tuple(sorted(candidates, key=str)), (rival,) if rival else ())


def web(history: str) -> Dataset:
    return dataset("tank/vm/web", history)


@pytest.mark.parametrize(
    ("history", "target", "others", "found"),
    [
        # Nothing is anchored, or nothing that is not another's.
        ("a b", known(GONE, "a"), [], None),
        ("a@2 b", known(GONE, "a"), [known(THERE, "a", TWO)], None),
        # Its node answers.
        ("a@1 b@2", known(GONE, "b", ONE), [known(SILENT)], ONE),
        # Only one is left, and nothing speaks against it.
        ("a@1 b", known(GONE), [], ONE),
        ("a@1 b", known(GONE, "a"), [], ONE),
        ("a@1@2 b", known(GONE, "a"), [known(THERE, "a", TWO)], ONE),
        # The dataset there was made anew: what it has now is not what is remembered of it.
        ("a@1 b", known(GONE, "a", THREE), [], ONE),
        # What is remembered tells them apart.
        ("a@1 b@2", known(GONE, "a"), [], ONE),
        ("a@1 b@2", known(GONE, "a"), [known(SILENT, "b")], ONE),
        ("a@1 b c@1 d@2", known(GONE, "a"), [known(SILENT, "d")], ONE),
        # What the silent one may own is never taken.
        ("a@1 b", known(GONE, "a"), [known(SILENT, "a")], undecided(SILENT, ONE)),
        ("a@1 b", known(GONE, "a"), [known(SILENT)], undecided(SILENT, ONE)),
        ("a@1 b", known(GONE), [known(SILENT)], undecided(SILENT, ONE)),
        ("a@1@2 b", known(GONE, "a"), [known(SILENT, "a")], undecided(SILENT, ONE, TWO)),
        # Several fit, or the only one does not.
        ("a@1@2 b", known(GONE, "a"), [], undecided(None, ONE, TWO)),
        ("a@1 b@2", known(GONE), [], undecided(None, ONE, TWO)),
        ("a@1 b", known(GONE, "b"), [], undecided(None, ONE)),
    ],
)
def test_a_targets_anchors_are_found_or_nothing_is_decided(
    history: str, target: KnownTarget, others: list[KnownTarget], found: object
) -> None:
    assert key_to_forget(target, others, [web(history)]) == found


def test_anchors_of_branches_count_as_well() -> None:
    branch = dataset("tank/vm/web.branch-20240131T000000Z", "a b@1")
    assert key_to_forget(known(GONE, "b"), [], [web("a"), branch]) == ONE


@pytest.mark.parametrize(
    ("history", "anchors", "freed"),
    [
        ("a@1 b c@2 d", 1, "a"),
        ("a@1 b c@1 d", 2, "a b c"),
        ("a@1@2 b@1 c", 2, "b"),
        ("a@1@2 b", 1, ""),
        ("a@2 b", 0, ""),
        ("a #b@1 c", 1, "a"),
        ("a #b c@1", 1, "c"),
    ],
)
def test_what_only_that_target_needed_is_free(history: str, anchors: int, freed: str) -> None:
    plan = plan_forgetting([web(history)], ONE)
    assert len(plan.anchors) == anchors
    assert all(str(ONE) in anchor.name for anchor in plan.anchors)
    assert words(plan.freed) == freed


def test_what_is_nobodys_frees_nothing() -> None:
    assert plan_forgetting([web("a@1 b@2")], None) == Forgetting((), ())
