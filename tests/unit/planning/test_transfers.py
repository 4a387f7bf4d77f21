"""What is sent: found by GUID, ordered by createtxg, anchored at both ends before it travels."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hoster.model.anchors import anchor_name, needed_by_targets
from hoster.model.names import SnapshotType
from hoster.model.plan import Send
from hoster.model.storage import Bookmark, Dataset, DatasetKind, Mode, ResumeToken, Snapshot, Version
from hoster.planning.transfers import (
    STREAM_VERSIONS,
    Leg,
    ahead_of_base,
    common_base,
    continues_partial,
    left_anchors,
    plan_anchors,
    plan_sends,
    unsent,
)
from hoster.testing import dataset, guid_of, name_of, target_key, words

KEY = target_key("1")


def source(history: str) -> Dataset:
    return dataset("tank/vm/web", history)


def version_of(one: Dataset, word: str) -> Version | None:
    """The version written ``a`` or ``#a`` in the history of ``one``; None for a dash."""
    if word == "-":
        return None
    versions: tuple[Version, ...] = one.bookmarks if word[0] == "#" else one.snapshots
    return next(v for v in versions if v.guid == guid_of(word.lstrip("#")))


def described(step: Send) -> str:
    """A stream as one would type it: ``full a``, ``-i #a b``, ``-I a c``."""
    if step.base is None:
        return f"full {words([step.through])}"
    return f"{'-I' if step.intermediate else '-i'} {words([step.base])} {words([step.through])}"


@pytest.mark.parametrize(
    ("here", "there", "base"),
    [
        ("a b c d", "a b", "b"),
        ("#b c d", "a b", "#b"),
        ("a b c", "a x", "a"),
        ("c d", "a b", "-"),
        ("a b", "", "-"),
        ("", "a b", "-"),
        ("a b", "a b", "b"),
        ("a #a b #b", "a b", "b"),  # a snapshot is preferred to its bookmark
        ("a #b c", "a b", "#b"),  # a newer bookmark is preferred to an older snapshot
        ("a b c", "b a", "a"),  # the target's own order counts, since it continues from its newest
        ("a' b", "a", "-"),  # the same name with another GUID is another version
        ("r1@1 r2", "r1", "r1"),
    ],
)
def test_the_base_is_the_targets_newest_version_that_both_hold_by_guid(
    here: str, there: str, base: str
) -> None:
    found = common_base(source(here), dataset("backup/web", there))
    assert found == version_of(source(here), base)


def test_a_version_renamed_on_the_target_is_still_the_base() -> None:
    theirs = dataset("backup/web", "a")
    renamed = replace(theirs, snapshots=tuple(replace(s, name="renamed") for s in theirs.snapshots))
    assert common_base(source("a b"), renamed) == source("a b").snapshots[0]


@pytest.mark.parametrize(
    ("here", "base", "chain"),
    [
        ("a b c", "-", "a b c"),
        ("a b c", "a", "b c"),
        ("a b c", "c", ""),
        ("a #b c", "#b", "c"),
        ("", "-", ""),
    ],
)
def test_unsent_is_everything_newer_than_the_base(here: str, base: str, chain: str) -> None:
    assert words(unsent(source(here), version_of(source(here), base))) == chain


@pytest.mark.parametrize(
    ("there", "base", "ahead"),
    [("a b c", "a", "b c"), ("a b c", "c", ""), ("b a c", "a", "c")],
)
def test_ahead_of_the_base_is_what_the_target_holds_after_its_own_copy(
    there: str, base: str, ahead: str
) -> None:
    found = version_of(source("c b a"), base)
    assert found is not None
    assert words(ahead_of_base(dataset("backup/web", there), found)) == ahead


def test_a_base_that_the_target_does_not_hold_is_an_error() -> None:
    with pytest.raises(ValueError, match="backup/web does not hold version"):
        ahead_of_base(dataset("backup/web", "a"), source("b").snapshots[0])


@pytest.mark.parametrize(
    ("here", "base", "streams"),
    [
        ("", "-", []),
        ("a b", "b", []),
        ("a b", "a", ["-I a b"]),
        ("a b c d", "b", ["-I b d"]),
        ("b c d", "b", ["-I b d"]),
        ("b c", "b", ["-I b c"]),
        ("#b c", "#b", ["-i #b c"]),
        ("#b c d", "#b", ["-i #b c", "-I c d"]),
        ("#b c d e", "#b", ["-i #b c", "-I c e"]),
        ("a", "-", ["full a"]),
        ("a b", "-", ["full a", "-I a b"]),
        ("a b c", "-", ["full a", "-I a c"]),
    ],
)
def test_one_stream_from_a_snapshot_and_two_from_a_bookmark_or_from_nothing(
    here: str, base: str, streams: list[str]
) -> None:
    steps = plan_sends(Leg(source(here), version_of(source(here), base), "backup/web"))
    assert [described(step) for step in steps] == streams


MANY = [f"s{number:03}" for number in range(2 * STREAM_VERSIONS + 2)]
"""A base, what two streams bring at most, and one more."""


@pytest.mark.parametrize(
    ("here", "base", "streams"),
    [
        (MANY[:251], "s000", ["-I s000 s250"]),
        (MANY[:252], "s000", ["-I s000 s250", "-I s250 s251"]),
        (MANY[:501], "s000", ["-I s000 s250", "-I s250 s500"]),
        (MANY, "s000", ["-I s000 s250", "-I s250 s500", "-I s500 s501"]),
        (MANY[:252], "-", ["full s000", "-I s000 s250", "-I s250 s251"]),
        (["#s000", *MANY[1:253]], "#s000", ["-i #s000 s001", "-I s001 s251", "-I s251 s252"]),
    ],
)
def test_a_great_many_versions_travel_in_several_streams(
    here: list[str], base: str, streams: list[str]
) -> None:
    web = source(" ".join(here))
    steps = plan_sends(Leg(web, version_of(web, base), "backup/web"))
    assert [described(step) for step in steps] == streams


@pytest.mark.parametrize(
    ("here", "base", "reasons"),
    [
        ("a b", "a", ["continues from a"]),
        ("#a b c", "#a", ["only the base's bookmark is left", "continues from b"]),
        ("a b", "-", ["the target has nothing of it yet", "continues from a"]),
    ],
)
def test_every_stream_says_why_and_where_to(here: str, base: str, reasons: list[str]) -> None:
    steps = plan_sends(Leg(source(here), version_of(source(here), base), "backup/web"))
    assert [(step.target, step.reason) for step in steps] == [("backup/web", reason) for reason in reasons]


@pytest.mark.parametrize(
    ("here", "base", "taken", "anchored"),
    [
        ("a b c", "a", None, ["a", "c"]),
        ("a b c", "a", "new", ["a", "new"]),
        ("a b c", "-", None, ["a", "c"]),
        ("a b c", "-", "new", ["a", "new"]),
        ("a", "-", None, ["a"]),
        ("", "-", "new", ["new"]),
        ("", "-", None, []),
        ("a", "a", None, ["a"]),
        ("a@1 b c", "a", None, ["c"]),
        ("a@1 b c@1", "a", None, []),
        ("a@2 b c@2", "a", None, ["a", "c"]),  # another target's anchors are of no help
        ("#a@1 b c", "#a", None, ["c"]),
        ("#a b", "#a", "new", ["new"]),
    ],
)
def test_both_ends_of_a_transfer_are_anchored_once(
    here: str, base: str, taken: str | None, anchored: list[str]
) -> None:
    anchors = plan_anchors(source(here), version_of(source(here), base), KEY, taken)
    assert [anchor.name for anchor in anchors] == anchored
    assert all(anchor.full_name == f"tank/vm/web@{anchor.name}" for anchor in anchors)
    assert all(anchor.target == KEY and anchor.reason for anchor in anchors)


def test_an_anchor_carries_the_guid_that_was_seen_and_none_for_what_was_taken_just_now() -> None:
    anchors = plan_anchors(source("a b"), version_of(source("a b"), "a"), KEY, "new")
    assert [anchor.guid for anchor in anchors] == [guid_of("a"), None]


def test_an_anchor_whose_name_contradicts_its_guid_does_not_count() -> None:
    web = source("a b")
    forged = Bookmark(web.name, anchor_name(KEY, guid_of("other")), guid_of("a"), web.snapshots[0].createtxg)
    anchors = plan_anchors(replace(web, bookmarks=(forged,)), web.snapshots[0], KEY, None)
    assert [anchor.name for anchor in anchors] == ["a", "b"]


def test_the_order_of_a_listing_changes_nothing() -> None:
    web, theirs = source("h3 d1 manual #r1@1 h1 h2"), dataset("backup/web", "h3 d1 r1")
    mixed = replace(web, snapshots=(*web.snapshots[2:], *web.snapshots[:2]), bookmarks=web.bookmarks[::-1])
    theirs_mixed = replace(theirs, snapshots=theirs.snapshots[::-1])
    base = common_base(mixed, theirs_mixed)
    assert base == common_base(web, theirs)
    assert plan_sends(Leg(mixed, base, "backup/web")) == plan_sends(Leg(web, base, "backup/web"))
    assert plan_anchors(mixed, base, KEY, None) == plan_anchors(web, base, KEY, None)


def test_a_snapshot_of_any_type_can_be_the_base() -> None:
    names = [f"{stype.value[0]}1" for stype in SnapshotType]
    for name in names:
        web = source(f"{name} new")
        base = common_base(web, dataset("backup/web", name))
        assert isinstance(base, Snapshot)
        assert base.name == name_of(name)


def token(base: str, through: str, *, raw: bool = False) -> ResumeToken:
    """What a stream of tank/vm/web left that broke off on its way from ``base`` to ``through``."""
    start = None if base == "-" else guid_of(base.lstrip("#"))
    return ResumeToken("1-a-b-c", guid_of(through), start, f"tank/vm/web@{name_of(through)}", raw)


def verdict(here: str, base: str, partial: ResumeToken, mode: Mode = Mode.PLAIN) -> str:
    """To which version the rest of a stream goes, or why it is not sent."""
    found = continues_partial(
        source(here),
        replace(dataset("backup/web"), partial=partial),
        version_of(source(here), base),
        mode,
    )
    return found if isinstance(found, str) else words([found])


@pytest.mark.parametrize(
    ("here", "base", "partial", "through"),
    [
        ("a b", "a", token("a", "b"), "b"),
        ("a b c", "a", token("a", "b"), "b"),
        ("#a b c", "#a", token("a", "b"), "b"),
        ("a b", "-", token("-", "a"), "a"),
        ("a b", "a", replace(token("a", "b"), to_name="tank/vm/web@old"), "b"),  # renamed here since
        ("a b", "a", replace(token("a", "b"), to_name="tank/vm/old@b"), "b"),
    ],
)
def test_the_rest_of_a_stream_goes_on_to_the_version_that_it_was_begun_for(
    here: str, base: str, partial: ResumeToken, through: str
) -> None:
    assert verdict(here, base, partial) == through
    assert verdict(here, base, replace(partial, raw=True), Mode.RAW) == through


@pytest.mark.parametrize(
    ("here", "base", "partial", "reason"),
    [
        ("a b", "a", ResumeToken("x"), "its token cannot be read"),
        ("a c", "a", token("a", "b"), f"tank/vm/web@b (guid {guid_of('b'):016x}) is gone here"),
        ("a #b c", "a", token("a", "b"), f"tank/vm/web@b (guid {guid_of('b'):016x}) is gone here"),
        ("a b", "a", token("a", "b", raw=True), "it was no plain stream"),
        ("a b c", "b", token("a", "c"), "it continued from another version than the newest common one"),
        ("a b", "a", token("-", "b"), "it continued from another version than the newest common one"),
        ("a b", "-", token("a", "b"), "it continued from another version than the newest common one"),
        ("b a c", "a", token("a", "b"), "b is no newer than what has arrived"),
    ],
)
def test_a_stream_that_cannot_go_on_says_why(here: str, base: str, partial: ResumeToken, reason: str) -> None:
    assert verdict(here, base, partial) == reason


def test_a_plain_stream_does_not_go_on_raw() -> None:
    assert verdict("a b", "a", token("a", "b"), Mode.RAW) == "it was no raw stream"


@pytest.mark.parametrize(
    ("here", "base", "under_way", "left"),
    [
        ("a@1 b@1 c@1", "a", "-", "b c"),
        ("a@1 b@1", "b", "-", "a"),
        ("a@1 b@2 c@1", "a", "-", "c"),  # another target's anchors are its own
        ("a@1 b c@1", "a", "b", ""),  # under way is a snapshot that is no end of a transfer
        ("a@1 b c@1 d@1 e@1", "a", "b", "d e"),  # refused again and again, something written each time
        ("a@1 b@1 c@1 d@1", "a", "b", "c d"),
        ("a@1 b@1 c d@1 e@1", "a", "c", "b e"),
        ("a@1 b@1 c@1", "-", "a", "b c"),
    ],
)
def test_a_stream_under_way_needs_two_anchors_however_many_runs_have_failed(
    here: str, base: str, under_way: str, left: str
) -> None:
    partial = None if under_way == "-" else token(base, under_way)
    leg = Leg(source(here), version_of(source(here), base), "backup/web", partial=partial)
    given_up = left_anchors(leg, KEY)
    assert {anchor.guid for anchor in given_up} == {guid_of(word) for word in left.split()}
    if partial is not None:
        kept = replace(leg.source, bookmarks=tuple(b for b in leg.source.bookmarks if b not in given_up))
        assert partial.to_guid in needed_by_targets(kept)


def test_where_nothing_after_the_stream_under_way_is_anchored_no_anchor_is_given_up() -> None:
    leg = Leg(source("a@1 b@1 c"), version_of(source("a"), "a"), "backup/web", partial=token("a", "c"))
    assert left_anchors(leg, KEY) == ()


@pytest.mark.parametrize(
    ("here", "base", "partial", "streams"),
    [
        ("a b", "a", token("a", "b"), ["-t b"]),
        ("a b c d", "a", token("a", "b"), ["-t b", "-I b d"]),
        ("a b c d", "a", token("a", "c"), ["-t c", "-I c d"]),
        ("#a b c", "#a", token("a", "b"), ["-t b", "-I b c"]),
        ("a b", "-", token("-", "a"), ["-t a", "-I a b"]),
        ("a", "-", token("-", "a"), ["-t a"]),
        ("a", "a", token("a", "a"), []),
        ("a b", "a", ResumeToken("x"), ["-I a b"]),
    ],
)
def test_the_rest_of_a_stream_goes_before_what_is_newer(
    here: str, base: str, partial: ResumeToken, streams: list[str]
) -> None:
    leg = Leg(source(here), version_of(source(here), base), "backup/web", partial=partial)
    steps = plan_sends(leg)
    assert [f"-t {words([s.through])}" if s.resume else described(s) for s in steps] == streams
    assert all(step.resume in (None, partial) for step in steps)


def test_every_stream_is_made_as_its_dataset_is_and_as_its_replica_was_begun() -> None:
    web = dataset("tank/vm/web/d0", "a b", kind=DatasetKind.VOLUME)
    steps = plan_sends(Leg(web, None, "backup/web/d0", Mode.RAW))
    assert [(step.kind, step.mode) for step in steps] == [(DatasetKind.VOLUME, Mode.RAW)] * 2
