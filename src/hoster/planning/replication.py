"""Decides, for one VM and one target, whether replication may go ahead, and from where.

Pure: what was seen on both nodes in, a :class:`Refusal` or a :class:`Clearance` out. A VM is all of its
datasets: one that must not go on stops the others. No common version is never a licence to start afresh
over what is there; what the target holds that this source did not send is never touched.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from msgspec import Struct
from msgspec.structs import replace

from hoster.model.anchors import TargetKey, anchors_of
from hoster.model.plan import GiveUp, Plan, Refusal, Step, TakeSnapshot
from hoster.model.storage import Dataset, Mode, Role, Snapshot, Version
from hoster.planning.parting import refuse_renamed, refuse_swap
from hoster.planning.refusals import (
    Subject,
    TargetSite,
    Terms,
    refuse_at_source,
    refuse_at_target,
)
from hoster.planning.transfers import Leg, common_base, continues_partial, has_diverged, plan_sends, unsent


class Part(Struct, frozen=True):
    """One dataset of a VM and what the target has of it.

    ``base`` is the newest version that both have (None: the target has nothing of it yet). ``give_up`` says
    why a stream that broke off cannot go on (empty: there is none, or it goes on). ``pending`` says that a
    run which was cut after its data arrived left anchors or marks to put right.
    """

    source: Dataset
    target: str
    replica: Dataset | None
    base: Version | None
    mode: Mode
    give_up: str = ""
    pending: bool = False
    diverged: bool = False
    """The replica holds newer versions, all of them sent from here, that are gone here since."""

    @property
    def leg(self) -> Leg:
        """This part as the streams are planned from it."""
        partial = None if self.replica is None or self.give_up else self.replica.partial
        return Leg(self.source, self.base, self.target, self.mode, partial)


class Clearance(Struct, frozen=True):
    """Replication may go ahead with ``parts``, the VM's own dataset first.

    ``orphans`` are datasets of the replica that are gone at the source; they are kept.
    """

    parts: tuple[Part, ...]
    needs_snapshot: bool
    orphans: tuple[str, ...] = ()

    @property
    def parting(self) -> bool:
        """The VM was rolled back here: what is newer on the target is set aside as a branch first."""
        return any(part.diverged for part in self.parts)

    @property
    def bookkeeping(self) -> bool:
        """A run that was cut after its data arrived left something to put right."""
        return any(part.pending for part in self.parts)


def judge(
    subject: Subject,
    site: TargetSite,
    target_name: str,
    there: Sequence[Dataset],
    terms: Terms | None = None,
    origins: Container[str] = (),
) -> Clearance | Refusal:
    """Whether ``subject`` may be replicated to ``target_name``; ``there`` was seen at and below that.

    ``origins`` are the snapshots on the target that have a clone, by their full names.
    """
    terms = terms or Terms()
    found = {dataset.name: dataset for dataset in there}
    refusal = refuse_at_source(subject, site, terms)
    if refusal is not None:
        return refusal
    own = found.get(target_name)
    parted = own is not None and own.newest is not None and own.newest.full_name in origins
    parts: list[Part] = []
    for source in subject.everything:
        name = target_name + source.name.removeprefix(subject.dataset.name)
        part = _part(subject, source, name, found.get(name), site, terms.mode_of(source))
        if part.replica is not None:
            refusal = refuse_at_target(
                subject,
                site,
                source,
                part.replica,
                part.mode,
                part.base,
                diverged=part.diverged,
                parted=parted,
            )
            if refusal is not None:
                return refusal
        parts.append(part)
    orphans = [found[name] for name in sorted(found.keys() - {part.target for part in parts})]
    if any(part.diverged for part in parts):
        replicas = [(part.replica, part.base) for part in parts if part.replica is not None]
        refusal = refuse_swap(subject, site, replicas, orphans)
        if refusal is not None:
            return refusal
        parts = [_before_swap(part) for part in parts]
    missing = [(part.source, part.target) for part in parts if part.replica is None]
    refusal = refuse_renamed(subject, site, missing, orphans, found.keys())
    if refusal is not None:
        return refusal
    changed = any(d.newest is None or d.written > 0 for d in subject.everything)
    return Clearance(tuple(parts), changed and subject.role is Role.PRIMARY, tuple(d.name for d in orphans))


def unmarked(source: Dataset, target: Dataset) -> tuple[Snapshot, ...]:
    """Snapshots of the target that are this source's, by GUID, and do not say so yet."""
    known = {s.guid for s in source.snapshots} | {b.guid for b in source.bookmarks}
    return tuple(s for s in target.snapshots if s.sent_by is None and s.guid in known)


def is_up_to_date(clearance: Clearance) -> bool:
    """Nothing was written since the newest snapshot, the target has every snapshot there is, and no run
    that was cut left anything to put right."""
    due = clearance.needs_snapshot or clearance.bookkeeping or clearance.parting
    return not due and not any(p.give_up or unsent(p.source, p.base) for p in clearance.parts)


def preview(subject: Subject, clearance: Clearance, snapshot_name: str) -> Plan:
    """What a run would do for a cleared VM, for ``--dry-run``: the snapshot it would take, then the streams.

    A snapshot that does not exist yet has no GUID; the streams are shown with 0 in its place.
    """
    takes: list[Step] = []
    steps: list[Step] = []
    for part in clearance.parts:
        leg = part.leg
        if part.give_up:
            steps.append(GiveUp(part.target, part.give_up))
        if clearance.needs_snapshot:
            takes.append(TakeSnapshot(part.source.name, snapshot_name, why_taken(part.source)))
            leg = replace(leg, source=_with_coming(part.source, snapshot_name))
        steps += plan_sends(leg)
    return Plan(subject.name, (*takes, *steps))


def why_taken(source: Dataset) -> str:
    """Why a snapshot is needed before this dataset can be replicated."""
    if source.newest is None:
        return "it has no snapshot yet"
    if source.written == 0:
        return "another dataset of this VM has changed"
    return f"{source.written} bytes were written since {source.newest.name}"


def _with_coming(source: Dataset, name: str) -> Dataset:
    versions: tuple[Version, ...] = (*source.snapshots, *source.bookmarks)
    txg = 1 + max((v.createtxg for v in versions), default=0)
    coming = Snapshot(source.name, name, guid=0, createtxg=txg, written=source.written)
    return replace(source, snapshots=(*source.snapshots, coming))


def _part(
    subject: Subject, source: Dataset, target: str, replica: Dataset | None, site: TargetSite, mode: Mode
) -> Part:
    if replica is None:
        return Part(source, target, None, None, mode)
    base = common_base(source, replica)
    give_up = ""
    if replica.partial is not None:
        go_on = continues_partial(source, replica, base, mode)
        give_up = go_on if isinstance(go_on, str) else ""
    pending = base is not None and _is_pending(source, replica, base, site.key)
    diverged = base is not None and has_diverged(replica, base, mode, subject.dataset.marks.vm_id)
    return Part(source, target, replica, base, mode, give_up, pending, diverged)


def _before_swap(part: Part) -> Part:
    """A partly received stream would go along with the branch, and go on there (seen on OpenZFS 2.3.9)."""
    if part.replica is None or part.replica.partial is None:
        return part
    return replace(part, give_up="the newer part of this replica is set aside first")


def _is_pending(source: Dataset, target: Dataset, base: Version, key: TargetKey) -> bool:
    anchored = {b.guid for b in anchors_of(source, key)}
    return anchored != {base.guid} or bool(unmarked(source, target))
