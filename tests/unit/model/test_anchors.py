"""Bookmarks that say what each target holds, and what lies between the oldest and the newest of them."""

from __future__ import annotations

import pytest

from hoster.model.anchors import (
    TargetKey,
    anchor_name,
    anchor_target,
    anchors_of,
    needed_by_targets,
    superseded_anchors,
)
from hoster.model.storage import Bookmark
from hoster.testing import dataset, guid_of, target_key, words

KEY = target_key("1")


@pytest.mark.parametrize("guid", [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_an_anchors_name_carries_the_target_and_the_guid(guid: int) -> None:
    name = anchor_name(TargetKey(guid), guid)
    assert name == f"hoster-{guid:016x}-{guid:016x}"
    assert anchor_target(Bookmark("tank/vm/web", name, guid, 5)) == TargetKey(guid)


@pytest.mark.parametrize(
    ("name", "guid"),
    [
        ("hoster-00000000000000aa-00000000000000bb", 0xBC),  # its name contradicts it
        ("hoster-00000000000000AA-00000000000000bb", 0xBB),
        ("hoster-aa-bb", 0xBB),
        ("xhoster-00000000000000aa-00000000000000bb", 0xBB),
        ("hoster-00000000000000aa-00000000000000bb0", 0xBB),
        ("hoster-00000000000000aa", 0xAA),
        ("manual", 1),
        ("", 0),
    ],
)
def test_any_other_bookmark_is_the_users(name: str, guid: int) -> None:
    assert anchor_target(Bookmark("tank/vm/web", name, guid, 5)) is None


def test_the_anchors_of_a_target_are_only_its_own() -> None:
    web = dataset("tank/vm/web", "a@1 b@2 #c@1 #d e@1@2")
    assert [b.guid for b in anchors_of(web, KEY)] == [guid_of("a"), guid_of("c"), guid_of("e")]


@pytest.mark.parametrize(
    ("history", "needed"),
    [
        ("a b c", ""),
        ("a #b c", ""),
        ("a b@1 c", "b"),
        ("a@1 b c d@1 e", "a b c d"),
        ("a@1 b c@2 d", "a c"),
        ("a@1 b@2 c@1 d@2 e", "a b c d"),
        ("#a@1 b c@1 d", "b c"),
        ("#a@1 b", ""),
        ("#a@1 b #c@1 d", "b"),
    ],
)
def test_a_target_needs_everything_from_its_oldest_anchor_to_its_newest(history: str, needed: str) -> None:
    web = dataset("tank/vm/web", history)
    assert words(s for s in web.snapshots if s.guid in needed_by_targets(web)) == needed


@pytest.mark.parametrize(
    ("history", "arrived", "superseded"),
    [
        ("a@1 b@1 c@1", "c", "a b"),
        ("a@1 b@1", "a", "b"),
        ("a@1", "a", ""),
        ("a@2 b@1", "b", ""),
        ("a b@1", "a", "b"),
    ],
)
def test_what_arrived_supersedes_every_other_anchor_of_its_target(
    history: str, arrived: str, superseded: str
) -> None:
    web = dataset("tank/vm/web", history)
    newest = next(s for s in web.snapshots if s.name == arrived)
    found = superseded_anchors(web, KEY, newest)
    assert [b.guid for b in found] == [guid_of(word) for word in superseded.split()]


def test_where_the_target_has_nothing_every_anchor_for_it_is_superseded() -> None:
    found = superseded_anchors(dataset("tank/vm/web", "a@1 b@2 c@1"), KEY, None)
    assert [b.guid for b in found] == [guid_of("a"), guid_of("c")]


def test_where_the_anchored_snapshot_is_gone_the_newest_one_before_it_is_needed() -> None:
    web = dataset("tank/vm/web", "a b #c@1 d")
    assert needed_by_targets(web) == {guid_of("b")}
