"""Datasets of a VM that have got another name here: what is said about their replicas."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hoster.model.plan import Ground
from hoster.planning.refusals import TargetSite
from hoster.testing import dataset, guid_of
from tests.unit.planning.judging import HERE, SITE, TARGET, cleared, refused, replica, subject


@pytest.mark.parametrize("site", [SITE, HERE])
def test_a_descendant_that_was_renamed_here_is_refused_with_the_rename(site: TargetSite) -> None:
    refusal = refused(subject("a", disk1="x y"), replica("a!"), replica("x!", "disk0"), site=site)
    assert refusal.ground is Ground.DESCENDANT_RENAMED
    assert refusal.evidence == (
        f"tank/vm/web/disk1 has the versions of tank/vm/web/disk0 on {site.node} (newest: x,"
        f" guid {guid_of('x'):016x}): it was renamed here since"
    )
    assert refusal.remedy == site.there("zfs", "rename", "tank/vm/web/disk0", "tank/vm/web/disk1")


def test_of_a_tree_that_was_renamed_here_the_topmost_dataset_is_named() -> None:
    here = subject("a", new="x")
    here = replace(here, descendants=(*here.descendants, dataset(f"{TARGET}/new/part", "y")))
    refusal = refused(here, replica("a!"), replica("x!", "old"), replica("y!", "old/part"))
    assert refusal.remedy == f"ssh backup1 zfs rename {TARGET}/old {TARGET}/new"


def test_what_was_renamed_into_something_new_is_set_aside_and_sent_again() -> None:
    """Nothing can be renamed into a dataset that is not there yet (zfs-rename(8))."""
    here = subject("a", new="y")
    here = replace(here, descendants=(*here.descendants, dataset(f"{TARGET}/new/part", "x")))
    refusal = refused(here, replica("a!"), replica("x!", "old"))
    assert refusal.ground is Ground.DESCENDANT_RENAMED
    assert refusal.remedy.startswith(f"ssh backup1 zfs rename {TARGET}/old {TARGET}/old.set-aside ")
    aside = replica("x!", "old.set-aside")
    assert cleared(here, replica("a!"), aside).parts[-1].replica is None


def test_a_new_descendant_beside_one_that_is_gone_is_no_rename() -> None:
    assert cleared(subject("a", new="x"), replica("a!"), replica("y!", "old")).orphans == (f"{TARGET}/old",)
