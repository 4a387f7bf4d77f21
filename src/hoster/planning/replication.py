"""Decides, for one VM and one target, whether replication may go ahead, and from where.

Pure: what was seen on both nodes in, a :class:`Refusal` or a :class:`Clearance` out. No common version
is never a licence to start afresh over what is there; what the target holds that this source did not
send is never touched.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from hoster.model.anchors import TargetKey, anchors_of
from hoster.model.plan import Ground, Plan, Refusal, TakeSnapshot
from hoster.model.storage import Dataset, Role, Snapshot, Version
from hoster.planning.transfers import ahead_of_base, common_base, plan_sends, unsent


class TargetSite(Struct, frozen=True):
    """Where replicas go: the node as the user calls it, the dataset they lie in, its GUID (None: missing)."""

    node: str
    parent: str
    parent_guid: int | None
    same_pool: bool = False
    """The target is the pool that the source itself lies in, on this very node."""

    @property
    def key(self) -> TargetKey:
        """Identity of the target; ValueError where its parent dataset does not exist."""
        if self.parent_guid is None:
            raise ValueError(f"{self.parent} does not exist on {self.node}")
        return TargetKey(self.parent_guid)


class Subject(Struct, frozen=True):
    """One VM as its source sees it. ``role`` is what it is here, by its marks or, failing those, by
    ``parent_host``; ``descendants`` are the datasets below it."""

    name: str
    dataset: Dataset
    role: Role
    parent: str
    descendants: tuple[str, ...] = ()


class Clearance(Struct, frozen=True):
    """Replication may go ahead from ``base`` (None: the target has nothing of this VM yet).

    ``bookkeeping`` says that a run which was cut after its data arrived left anchors or marks to put right.
    """

    base: Version | None
    needs_snapshot: bool
    target: str
    bookkeeping: bool = False


def judge(
    subject: Subject, site: TargetSite, target_name: str, target: Dataset | None
) -> Clearance | Refusal:
    """Whether ``subject`` may be replicated to ``target_name``; ``target`` is what was seen there."""
    refusal = _at_source(subject, site) or _at_target(subject, site, target_name, target)
    if refusal is not None:
        return refusal
    source = subject.dataset
    base = None if target is None else common_base(source, target)
    changed = source.newest is None or source.written > 0
    pending = target is not None and base is not None and _is_pending(source, target, base, site.key)
    return Clearance(base, changed, target_name, pending)


def unmarked(source: Dataset, target: Dataset) -> tuple[Snapshot, ...]:
    """Snapshots of the target that are this source's, by GUID, and do not say so yet."""
    known = {s.guid for s in source.snapshots} | {b.guid for b in source.bookmarks}
    return tuple(s for s in target.snapshots if s.sent_by is None and s.guid in known)


def _is_pending(source: Dataset, target: Dataset, base: Version, key: TargetKey) -> bool:
    anchored = {b.guid for b in anchors_of(source, key)}
    return anchored != {base.guid} or bool(unmarked(source, target))


def is_up_to_date(subject: Subject, clearance: Clearance) -> bool:
    """Nothing was written since the newest snapshot, the target has every snapshot there is, and no run
    that was cut left anything to put right."""
    due = clearance.needs_snapshot or clearance.bookkeeping
    return not due and not unsent(subject.dataset, clearance.base)


def preview(subject: Subject, clearance: Clearance, snapshot_name: str) -> Plan:
    """What a run would do for a cleared VM, for ``--dry-run``: the snapshot it would take, then the streams.

    A snapshot that does not exist yet has no GUID; the streams are shown with 0 in its place.
    """
    source = subject.dataset
    if not clearance.needs_snapshot:
        return Plan(subject.name, plan_sends(source, clearance.base, clearance.target))
    take = TakeSnapshot(source.name, snapshot_name, why_taken(source))
    versions: tuple[Version, ...] = (*source.snapshots, *source.bookmarks)
    txg = 1 + max((v.createtxg for v in versions), default=0)
    coming = Snapshot(source.name, snapshot_name, guid=0, createtxg=txg, written=source.written)
    expected = replace(source, snapshots=(*source.snapshots, coming))
    return Plan(subject.name, (take, *plan_sends(expected, clearance.base, clearance.target)))


def why_taken(source: Dataset) -> str:
    """Why a snapshot is needed before this dataset can be replicated."""
    if source.newest is None:
        return "it has no snapshot yet"
    return f"{source.written} bytes were written since {source.newest.name}"


def _at_source(subject: Subject, site: TargetSite) -> Refusal | None:
    vm, source = subject.name, subject.dataset
    if subject.role is not Role.PRIMARY:
        if source.marks.role is None:
            remedy = f"hoster vm adopt {vm} --parent-was {subject.parent}    (if this node runs it now)"
            evidence = f"its parent_host is {subject.parent!r}, so here it is a backup of that node's VM"
        else:
            remedy = f"on {subject.parent}: hoster vm replicate {vm} --endpoint …"
            evidence = f"here it is marked {source.marks.role.value}; its parent is {subject.parent}"
        return Refusal(vm, Ground.IS_REPLICA, evidence, remedy)
    if subject.descendants:
        return Refusal(
            vm,
            Ground.UNSUPPORTED,
            f"it has datasets below it ({', '.join(subject.descendants)}),"
            " which this version of hoster cannot replicate",
            f"move its disks into files in {source.name}, or name the other VMs with --filter",
        )
    if source.encrypted:
        return Refusal(
            vm,
            Ground.UNSUPPORTED,
            f"{source.name} is encrypted, and this version of hoster does not send raw streams",
            "name the other VMs with --filter",
        )
    if site.same_pool:
        return Refusal(
            vm,
            Ground.SAME_DATASET,
            f"{site.node} is this very node, and {site.parent} lies in the pool {source.pool}"
            " that the VM itself lies in",
            "name another node with --endpoint, or a dataset of another pool with --target-dataset",
        )
    return None


def _at_target(
    subject: Subject, site: TargetSite, target_name: str, target: Dataset | None
) -> Refusal | None:
    vm = subject.name
    if site.parent_guid is None:
        return Refusal(
            vm,
            Ground.TARGET_PARENT_MISSING,
            f"{site.node} has no dataset {site.parent}",
            f"ssh {site.node} zfs create -p -o canmount=off {site.parent}    (or add --create-parent)",
        )
    if target is None:
        return None
    return _not_ours(subject, site, target) or _cannot_continue(subject, site, target_name, target)


def _not_ours(subject: Subject, site: TargetSite, target: Dataset) -> Refusal | None:
    vm, here, there = subject.name, subject.dataset.marks, target.marks
    if there.vm_id is None or there.vm_id != here.vm_id:
        whose = "no hoster:id" if there.vm_id is None else f"the hoster:id {there.vm_id} of another VM"
        base = common_base(subject.dataset, target)
        if base is not None and there.vm_id is None and here.vm_id is not None:
            return Refusal(
                vm,
                Ground.FOREIGN_DATASET,
                f"{target.name} on {site.node} has {whose}, though it shares {base.name}"
                f" (guid {base.guid:016x}) with this VM",
                f"ssh {site.node} zfs set hoster:id={here.vm_id} hoster:role=replica readonly=on"
                f" {target.name}    (if it is this VM's replica)",
            )
        return Refusal(
            vm,
            Ground.FOREIGN_DATASET,
            f"{target.name} exists on {site.node} and is not this VM's replica: it has {whose}",
            _set_aside(site, target),
        )
    if there.role is not Role.REPLICA:
        role = there.role.value if there.role else "no role"
        epoch = f", epoch {there.epoch}" if there.epoch else ""
        return Refusal(
            vm,
            Ground.NOT_A_REPLICA,
            f"{target.name} on {site.node} is this VM, but not a replica: {role}{epoch}",
            f"ssh {site.node} zfs set hoster:role=replica {target.name}"
            "    (only if that copy is not in use any more)",
        )
    return None


def _cannot_continue(subject: Subject, site: TargetSite, target_name: str, target: Dataset) -> Refusal | None:
    vm = subject.name
    if target.resume_token is not None:
        return Refusal(
            vm,
            Ground.PARTIAL_RECEIVE,
            f"{target_name} on {site.node} holds a partly received stream",
            f"ssh {site.node} zfs receive -A {target_name}",
        )
    base = common_base(subject.dataset, target)
    if base is None:
        newest = target.newest
        theirs = f"its newest is {newest.name} (guid {newest.guid:016x})" if newest else "it has no snapshot"
        return Refusal(
            vm,
            Ground.NO_COMMON_VERSION,
            f"no version of {target.name} on {site.node} exists here any more: {theirs}",
            _set_aside(site, target),
        )
    ahead = [s for s in ahead_of_base(target, base) if s.written > 0]
    if ahead:
        newest = ahead[-1]
        return Refusal(
            vm,
            Ground.REPLICA_AHEAD,
            f"{target.name} on {site.node} holds {len(ahead)} newer version(s) with data of their own,"
            f" unknown here: newest {newest.name} (guid {newest.guid:016x});"
            f" the last common one is {base.name}",
            _set_aside(site, target),
        )
    taken = _names_taken(subject.dataset, target, base)
    if taken:
        theirs = f"{target.name}@{taken[0].name}"
        return Refusal(
            vm,
            Ground.NAME_TAKEN,
            f"{theirs} on {site.node} is another version (guid {taken[0].guid:016x})"
            " than the one of that name that is to be sent",
            f"ssh {site.node} zfs rename {theirs} {theirs}.{taken[0].guid:016x}    (it is kept)",
        )
    if target.written > 0 and target.newest is not None:
        return Refusal(
            vm,
            Ground.REPLICA_MODIFIED,
            f"{target.written} bytes were written to {target.name} on {site.node}"
            f" since {target.newest.name} arrived there",
            f"ssh {site.node} zfs rollback {target.newest.full_name}    (discards what was written there)",
        )
    return None


def _names_taken(source: Dataset, target: Dataset, base: Version) -> tuple[Snapshot, ...]:
    """Snapshots of the target whose names versions that are still to be sent have as well."""
    coming = {s.name: s.guid for s in unsent(source, base)}
    return tuple(s for s in target.snapshots if coming.get(s.name, s.guid) != s.guid)


def _set_aside(site: TargetSite, target: Dataset) -> str:
    """Keeps everything that is there; the next run sends the VM in full beside it."""
    return (
        f"ssh {site.node} zfs rename {target.name} {target.name}.set-aside"
        "    (nothing is lost; the next run sends in full)"
    )
