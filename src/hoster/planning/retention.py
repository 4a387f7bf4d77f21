"""Decides which snapshots a count of N keeps and which it gives up.

Pure: no clock, no processes. Never proposes to destroy what is held, cloned, needed by a target, of
another type, or not named by hoster; and never destroys a younger one in place of a protected one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from hoster.model.anchors import anchor_target, needed_by_targets
from hoster.model.names import SnapshotType, snapshot_label
from hoster.model.plan import DestroySnapshot
from hoster.model.storage import Dataset, Snapshot


class Kept(Struct, frozen=True):
    """A snapshot beyond the count that stays all the same, and what protects it."""

    snapshot: Snapshot
    reason: str


class Retention(Struct, frozen=True):
    """What goes (oldest first) and what stays although the count would have it gone."""

    destroys: tuple[DestroySnapshot, ...]
    kept: tuple[Kept, ...]


def typed(dataset: Dataset, stype: SnapshotType) -> tuple[Snapshot, ...]:
    """The dataset's snapshots whose names hoster made and that are of that type, oldest first."""
    return tuple(
        s
        for s in sorted(dataset.snapshots, key=lambda s: s.createtxg)
        if (label := snapshot_label(s.name)) is not None and label.stype is stype
    )


def needed_by_copies(dataset: Dataset, copies: int) -> tuple[Snapshot, ...]:
    """The versions that came from another node, oldest first, as long as not all of the VM's ``copies`` on
    other nodes have anchors here: any of them may be the last that one of those has.

    After a takeover nobody has any: a target is not known before the first replication to it. Anchors older
    than the last version that came do not count: they were made before the VM went elsewhere and came back.
    """
    received = tuple(s for s in dataset.snapshots if s.sent_by is not None)
    if not received:
        return ()
    since = (b for b in dataset.bookmarks if b.createtxg >= received[-1].createtxg)
    anchored = {key for b in since if (key := anchor_target(b)) is not None}
    return received if len(anchored) < copies else ()


def plan_retention(
    dataset: Dataset,
    stype: SnapshotType,
    keep: int,
    *,
    incoming: int = 0,
    protected: frozenset[int] = frozenset(),
    ours: Callable[[Snapshot], bool] = lambda _: True,
) -> Retention:
    """Which snapshots of ``stype`` go so that the newest ``keep`` stay.

    ``incoming`` says how many newer ones were taken since ``dataset`` was seen: they count as the newest.
    ``protected`` adds GUIDs to those that held, cloned and anchored snapshots already are. Protected ones
    count in the ranking. ``ours`` narrows what may be destroyed (on a target: what this source sent).
    ``keep`` must be at least 1 (ValueError). With histories written oldest first::

        h1 h2 h3 h4        keep 2  ->  h1 h2 go
        h1* h2 h3 h4       keep 2  ->  h2 goes, h1 is held
        h1 h2              keep 2, incoming 1  ->  h1 goes
    """
    if keep < 1:
        raise ValueError(f"keep {keep} would leave nothing: at least 1 snapshot must be kept")
    needed = needed_by_targets(dataset)
    beyond = tuple(reversed(typed(dataset, stype)))[max(keep - incoming, 0) :]
    destroys: list[DestroySnapshot] = []
    kept: list[Kept] = []
    for snapshot in reversed(beyond):
        protection = _protection(snapshot, needed, protected, ours)
        if protection:
            kept.append(Kept(snapshot, protection))
        else:
            destroys.append(DestroySnapshot(snapshot, f"keep {keep} {stype.value}"))
    return Retention(tuple(destroys), tuple(kept))


def plan_target_retention(
    replica: Dataset, keep: Mapping[SnapshotType, int], *, newest_common: int, sent_by: str
) -> tuple[DestroySnapshot, ...]:
    """What goes on a target, by counts of its own: only what this source sent, never the newest common.

    ``newest_common`` is the GUID of the base of the next increment; ``sent_by`` is the VM's id, which the
    ``hoster:from`` mark of a snapshot must begin with for it to be ours.
    """
    destroys: list[DestroySnapshot] = []
    for stype, count in keep.items():
        retention = plan_retention(
            replica,
            stype,
            count,
            protected=frozenset({newest_common}),
            ours=lambda s: s.sent_by is not None and s.sent_by.partition("/")[0] == sent_by,
        )
        destroys.extend(retention.destroys)
    return tuple(sorted(destroys, key=lambda d: d.victim.createtxg))


def _protection(
    snapshot: Snapshot,
    needed: frozenset[int],
    protected: frozenset[int],
    ours: Callable[[Snapshot], bool],
) -> str:
    if snapshot.holds:
        return "it is held"
    if snapshot.clones:
        return f"{snapshot.clones[0]} is a clone of it"
    if snapshot.guid in needed or snapshot.guid in protected:
        return "a target needs it as the base of its next increment"
    if not ours(snapshot):
        return "this source did not send it"
    return ""
