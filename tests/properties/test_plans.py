"""Properties of single plans, over histories of every kind."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hoster.model.anchors import anchor_target, needed_by_targets
from hoster.model.names import SnapshotType, snapshot_label
from hoster.model.plan import Send
from hoster.model.storage import Dataset, Snapshot
from hoster.planning.replication import unmarked
from hoster.planning.retention import plan_retention, plan_target_retention
from hoster.planning.snapshots import written_since
from hoster.planning.transfers import Leg, common_base, plan_anchors, plan_sends, unsent
from hoster.testing import VM_ID, dataset, target_key

LABELS = st.sampled_from([f"{letter}{number}" for letter in "hdr" for number in range(5)] + ["manual", "x"])
SIGNS = st.sampled_from(["", "", "", "", "*", "^", "!", "@1", "@2", "@1@2", "+4", "+4!"])


@st.composite
def histories(draw: st.DrawFn, labels: list[str] | None = None) -> str:
    """Distinct versions in any order of their names' dates, some of them with only their bookmark left."""
    found = draw(st.lists(LABELS, unique=True, max_size=9)) if labels is None else labels
    parts = [draw(st.sampled_from(["", "", "", "#"])) + label + draw(SIGNS) for label in found]
    return " ".join([*parts, f"~{draw(st.integers(0, 2))}"])


DATASETS = histories().map(lambda history: dataset("tank/vm/web", history))
REPLICAS = histories().map(lambda history: dataset("backup/web", history))
TYPES = st.sampled_from([SnapshotType.HOURLY, SnapshotType.DAILY, SnapshotType.REPLICATION])


def shuffled(draw: st.DrawFn, one: Dataset) -> Dataset:
    return replace(
        one,
        snapshots=tuple(draw(st.permutations(one.snapshots))),
        bookmarks=tuple(draw(st.permutations(one.bookmarks))),
    )


@settings(deadline=None)
@given(web=DATASETS, stype=TYPES, keep=st.integers(1, 4), incoming=st.integers(0, 2))
def test_a_count_destroys_only_what_is_beyond_it_and_free_of_everything(
    web: Dataset, stype: SnapshotType, keep: int, incoming: int
) -> None:
    plan = plan_retention(web, stype, keep, incoming=incoming)
    of_type = [s for s in web.snapshots if (label := snapshot_label(s.name)) and label.stype is stype]
    beyond = of_type[: max(len(of_type) - max(keep - incoming, 0), 0)]
    spans: dict[object, list[int]] = {}
    for bookmark in web.bookmarks:
        if anchor_target(bookmark) is not None:
            spans.setdefault(anchor_target(bookmark), []).append(bookmark.createtxg)
    free = [
        s
        for s in beyond
        if not s.holds
        and not s.clones
        and not any(
            s.createtxg <= max(span)
            and not any(s.createtxg < other.createtxg <= min(span) for other in web.snapshots)
            for span in spans.values()
        )
    ]
    assert [step.victim for step in plan.destroys] == free
    assert [kept.snapshot for kept in plan.kept] == [s for s in beyond if s not in free]


@settings(deadline=None)
@given(web=DATASETS, stype=TYPES, keep=st.integers(1, 4))
def test_what_a_count_has_kept_it_keeps_again(web: Dataset, stype: SnapshotType, keep: int) -> None:
    gone = {step.victim for step in plan_retention(web, stype, keep).destroys}
    after = replace(web, snapshots=tuple(s for s in web.snapshots if s not in gone))
    assert plan_retention(after, stype, keep).destroys == ()


@settings(deadline=None)
@given(there=REPLICAS, counts=st.dictionaries(TYPES, st.integers(1, 3)), index=st.integers(0, 8))
def test_a_target_gives_up_only_what_this_source_sent_and_never_the_newest_common(
    there: Dataset, counts: dict[SnapshotType, int], index: int
) -> None:
    newest = there.snapshots[index % len(there.snapshots)].guid if there.snapshots else 0
    steps = plan_target_retention(there, counts, newest_common=newest, sent_by=VM_ID)
    for step in steps:
        label = snapshot_label(step.victim.name)
        assert label is not None
        assert label.stype in counts
        assert step.victim.sent_by is not None
        assert not step.victim.holds
        assert not step.victim.clones
        assert step.victim.guid != newest
    for stype, count in counts.items():
        of_type = [s for s in there.snapshots if (label := snapshot_label(s.name)) and label.stype is stype]
        assert not {s.guid for s in of_type[-count:]} & {step.victim.guid for step in steps}


@settings(deadline=None)
@given(data=st.data(), web=DATASETS, there=REPLICAS, stype=TYPES, keep=st.integers(1, 3))
def test_the_order_of_a_listing_changes_no_plan(
    data: st.DataObject, web: Dataset, there: Dataset, stype: SnapshotType, keep: int
) -> None:
    mixed, theirs = data.draw(st.composite(shuffled)(web)), data.draw(st.composite(shuffled)(there))
    base, other = common_base(web, there), common_base(mixed, theirs)
    assert (type(base), base and base.guid) == (type(other), other and other.guid)
    assert unsent(mixed, base) == unsent(web, base)
    assert plan_sends(Leg(mixed, base, "backup/web")) == plan_sends(Leg(web, base, "backup/web"))
    key = target_key("1")
    assert plan_anchors(mixed, base, key, None) == plan_anchors(web, base, key, None)
    assert plan_retention(mixed, stype, keep) == plan_retention(web, stype, keep)
    assert needed_by_targets(mixed) == needed_by_targets(web)
    assert written_since(mixed, stype) == written_since(web, stype)
    assert set(unmarked(mixed, theirs)) == set(unmarked(web, there))


@settings(deadline=None)
@given(web=DATASETS, stype=TYPES, keep=st.integers(1, 3))
def test_dates_in_names_change_no_plan(web: Dataset, stype: SnapshotType, keep: int) -> None:
    later = replace(
        web, snapshots=tuple(_redated(s, len(web.snapshots) - i) for i, s in enumerate(web.snapshots))
    )
    plan, other = plan_retention(web, stype, keep), plan_retention(later, stype, keep)
    assert [s.victim.guid for s in plan.destroys] == [s.victim.guid for s in other.destroys]


@settings(deadline=None)
@given(web=DATASETS, there=REPLICAS)
def test_the_streams_take_the_target_from_the_base_to_the_newest_without_a_gap(
    web: Dataset, there: Dataset
) -> None:
    base = common_base(web, there)
    steps = plan_sends(Leg(web, base, "backup/web"))
    assert len(steps) <= 2
    arrived = [s.guid for step in steps for s in _carried(web, step)]
    assert arrived == [s.guid for s in unsent(web, base)]
    assert all(step.base is not None or base is None for step in steps)
    assert [step.base for step in steps[1:]] == [step.through for step in steps[:-1]]
    assert all(isinstance(step.base, Snapshot) for step in steps if step.intermediate)


@settings(deadline=None)
@given(web=DATASETS, there=REPLICAS)
def test_both_ends_of_what_travels_are_anchored_when_it_does(web: Dataset, there: Dataset) -> None:
    base, key = common_base(web, there), target_key("1")
    anchored = {b.guid for b in web.bookmarks if anchor_target(b) == key}
    anchored |= {anchor.guid or 0 for anchor in plan_anchors(web, base, key, None)}
    chain = unsent(web, base)
    if isinstance(base, Snapshot):
        assert base.guid in anchored
    if chain:
        assert chain[-1].guid in anchored
        assert base is not None or chain[0].guid in anchored


def _carried(web: Dataset, step: Send) -> list[Snapshot]:
    """What ``zfs send`` puts into the stream: with ``-I`` everything between as well."""
    if not step.intermediate or step.base is None:
        return [step.through]
    return [s for s in web.snapshots if step.base.createtxg < s.createtxg <= step.through.createtxg]


def _redated(snapshot: Snapshot, day: int) -> Snapshot:
    label = snapshot_label(snapshot.name)
    if label is None:
        return snapshot
    return replace(snapshot, name=f"{label.stype.value}_2030-01-{day:02}_00-00-00")
