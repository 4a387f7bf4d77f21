"""Decides what to send so that a target holds everything its source has.

Pure. The base is found by GUID alone; order is createtxg within each pool. Never proposes a forced
receive: a target on which a stream cannot simply continue is somebody else's decision
(:mod:`hoster.planning.replication`).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from hoster.model.anchors import TargetKey, anchors_of, superseded_anchors
from hoster.model.plan import Anchor, Send
from hoster.model.storage import Bookmark, Dataset, Mode, ResumeToken, Snapshot, Version

VERSION_BYTES = 624
"""What a version is of a stream beside its data (seen on OpenZFS 2.3.9)."""

STREAM_VERSIONS = 250
"""How many versions one stream brings at most. ``zfs receive`` needs two transaction groups or more for each,
however little is in it (:data:`VERSION_BYTES` where nothing was written), and the pipes and ssh on
the way hold some MiB: the last byte of thousands would have been sent many minutes before the last of them is
there, and nothing could tell such a receive from one that hangs."""


class Leg(Struct, frozen=True):
    """What is to be sent of one dataset: from ``base`` (None: from nothing) into ``target``, after the rest
    of a stream that broke off where there is ``partial``."""

    source: Dataset
    base: Version | None
    target: str
    mode: Mode = Mode.PLAIN
    partial: ResumeToken | None = None


def common_base(source: Dataset, target: Dataset) -> Version | None:
    """The newest version that both hold, by GUID: a snapshot of ``source`` if it still has it, else its
    bookmark. None where they share nothing.

    "Newest" is by the target's order, which is the order in which it must continue::

        source  a b c d    target  a b      ->  b
        source  #b c d     target  a b      ->  #b
        source  a b c      target  a x      ->  a
        source  c d        target  a b      ->  None
    """
    snapshots = {s.guid: s for s in source.snapshots}
    # Of several bookmarks of one version the one that is named first: which is all the same to zfs.
    bookmarks = {b.guid: b for b in sorted(source.bookmarks, key=lambda b: b.name, reverse=True)}
    for version in sorted(target.snapshots, key=lambda s: s.createtxg, reverse=True):
        found = snapshots.get(version.guid) or bookmarks.get(version.guid)
        if found is not None:
            return found
    return None


def unsent(source: Dataset, base: Version | None) -> tuple[Snapshot, ...]:
    """The snapshots of ``source`` newer than ``base`` (all of them where it is None), oldest first."""
    after = -1 if base is None else base.createtxg
    ordered = sorted(source.snapshots, key=lambda s: s.createtxg)
    return tuple(s for s in ordered if s.createtxg > after)


def ahead_of_base(target: Dataset, base: Version) -> tuple[Snapshot, ...]:
    """What the target holds that is newer, in its own order, than its copy of ``base``; oldest first."""
    own = target.snapshot_with(base.guid)
    if own is None:
        raise ValueError(f"{target.name} does not hold version {base.guid:016x}")
    ordered = sorted(target.snapshots, key=lambda s: s.createtxg)
    return tuple(s for s in ordered if s.createtxg > own.createtxg)


def is_sent_by(snapshot: Snapshot, vm_id: str | None) -> bool:
    """Whether a snapshot on a target was sent by the source of that VM, by its mark ``hoster:from``."""
    return vm_id is not None and (snapshot.sent_by or "").partition("/")[0] == vm_id


def has_diverged(target: Dataset, base: Version, mode: Mode, vm_id: str | None) -> bool:
    """Whether all that is in the way of an increment from ``base`` was sent from here: the source was rolled
    back since. What somebody else did on the target counts as that only where it was demoted: its
    administrator has said that what it wrote alone gives way.
    """
    ahead = ahead_of_base(target, base)
    if target.marks.demoted:
        return bool(ahead) or target.written > 0
    in_the_way = any(s.written > 0 or mode is Mode.RAW for s in ahead)
    return in_the_way and all(is_sent_by(s, vm_id) for s in ahead)


def plan_anchors(
    source: Dataset, base: Version | None, key: TargetKey, just_taken: str | None
) -> tuple[Anchor, ...]:
    """Both ends of what is about to travel, so that nothing in between is pruned if the transfer is cut.

    ``just_taken`` is the name of a snapshot taken since ``source`` was seen: it is the newest then. Ends
    that are anchored already are left out, and so is a base of which only the bookmark is left.
    """
    chain = unsent(source, base)
    present = {b.guid for b in anchors_of(source, key)}
    ends: list[Snapshot] = [base] if isinstance(base, Snapshot) else []
    if base is None and chain:
        ends.append(chain[0])
    if just_taken is None and chain and chain[-1] not in ends:
        ends.append(chain[-1])
    anchors = [
        Anchor(source.name, s.name, s.guid, key, "an end of this transfer")
        for s in ends
        if s.guid not in present
    ]
    if just_taken is not None:
        anchors.append(Anchor(source.name, just_taken, None, key, "the newest version of this transfer"))
    return tuple(anchors)


def left_anchors(leg: Leg, key: TargetKey) -> tuple[Bookmark, ...]:
    """The anchors that runs which did not arrive have left, and that nothing needs.

    Where a stream goes on, it and all that lies before it stay protected: by the base, and by the first
    anchor that is no older than what it goes on to. Those after that came with the runs since, one for each,
    and would keep every snapshot that a target refuses to take. ``@`` is an anchor::

        base a, nothing under way,       source a@ b@ c@      ->  b@ c@
        base a, the rest of b under way, source a@ b c@ d@    ->  d@
    """
    old = superseded_anchors(leg.source, key, leg.base)
    if leg.partial is None:
        return old
    under_way = [s.createtxg for s in leg.source.snapshots if s.guid == leg.partial.to_guid]
    after = [anchor for anchor in old if under_way and anchor.createtxg >= under_way[0]]
    return tuple(anchor for anchor in old if anchor != after[0]) if after else ()


def continues_partial(source: Dataset, replica: Dataset, base: Version | None, mode: Mode) -> Snapshot | str:
    """The snapshot that the stream which broke off in ``replica`` goes on to, or why it cannot go on.

    ``zfs send -t`` finds the snapshot by its GUID, renamed or not (seen on OpenZFS 2.3.9).
    """
    token = replica.partial
    assert token is not None
    if token.to_guid is None:
        return "its token cannot be read"
    through = source.snapshot_with(token.to_guid)
    if through is None:
        return f"{token.to_name} (guid {token.to_guid:016x}) is gone here"
    if token.raw is not (mode is Mode.RAW):
        return f"it was no {mode.value} stream"
    if token.from_guid != (None if base is None else base.guid):
        return "it continued from another version than the newest common one"
    if base is not None and replica.newest is not None and replica.newest.guid != base.guid:
        # One that was taken since it broke off stops it for good, one from before would not (seen on 2.3.9).
        return f"{replica.newest.name} was taken there since"
    if base is not None and through.createtxg <= base.createtxg:
        return f"{through.name} is no newer than what has arrived"
    return through


def plan_sends(leg: Leg) -> tuple[Send, ...]:
    """The streams that bring the target from the base up to the newest snapshot of the source.

    One stream where the base is a snapshot; two where there is none or only its bookmark is left, since
    ``zfs send -I`` takes neither (zfs-send(8); tried on OpenZFS 2.3.9)::

        base b (snapshot), source b c d   ->  -I b..d
        base #b,           source c d e   ->  -i #b c,  -I c..e
        base None,         source a b c   ->  full a,   -I a..c

    Of more than :data:`STREAM_VERSIONS` to come, each stream brings so many, and the last one the rest.

    ``-I`` also where nothing is known to lie in between: what was taken between the look and the newest
    snapshot travels along; with ``-i`` it would never reach the target, whose base is newer from then on.
    """
    source, base = leg.source, leg.base
    chain = unsent(source, base)
    if not chain:
        return ()
    first = chain[0]
    if leg.partial is not None and leg.partial.to_guid is not None:
        first = source.snapshot_with(leg.partial.to_guid) or first
        opening = _send(leg, base, first, False, "the rest of a stream that broke off", leg.partial)
    elif isinstance(base, Snapshot):
        return _increments(leg, base, chain)
    else:
        reason = "the target has nothing of it yet" if base is None else "only the base's bookmark is left"
        opening = _send(leg, base, first, False, reason)
    return (opening, *_increments(leg, first, unsent(source, first)))


def _increments(leg: Leg, base: Snapshot, chain: Sequence[Snapshot]) -> tuple[Send, ...]:
    """The streams that bring all of ``chain``, the versions after ``base``, one stream after another."""
    sends = []
    for start in range(0, len(chain), STREAM_VERSIONS):
        through = chain[start : start + STREAM_VERSIONS][-1]
        sends.append(_send(leg, base, through, True, f"continues from {base.name}"))
        base = through
    return tuple(sends)


def _send(
    leg: Leg,
    base: Version | None,
    through: Snapshot,
    intermediate: bool,
    reason: str,
    resume: ResumeToken | None = None,
) -> Send:
    return Send(base, through, intermediate, leg.target, reason, leg.source.kind, leg.mode, resume)
