"""Why replication of a VM must not go ahead: every ground, with its evidence and its remedy.

Pure. The first ground that is found counts; the remedies have been typed in the lab.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from msgspec import Struct

from hoster.model.anchors import TargetKey
from hoster.model.names import LONGEST_SUFFIX, MAX_DATASET_NAME
from hoster.model.plan import Ground, Refusal
from hoster.model.storage import Dataset, Mode, Role, Snapshot, Version
from hoster.planning.succession import Standing, standing
from hoster.planning.transfers import ahead_of_base, common_base, unsent

SET_ASIDE = ".set-aside"
"""What the remedies append to the name of what is in the way: that, with all below it, stays as it is."""

LOCAL = "local"
"""What this node itself is called as a target."""


_LOG_HEADER_BYTES = 65536
"""What the header of the intent log may take up, with its copies and parity. A clone of a snapshot in which
that log was in use counts so much as written, though nothing was (seen on OpenZFS 2.3.9): so does what took
the place of a copy that was set aside, if nothing has arrived since."""


class TargetSite(Struct, frozen=True):
    """Where replicas go: the node as the user calls it, the dataset they lie in, its GUID (None: missing).

    ``encrypted`` says that what is received there in plain gets encrypted by the target.
    """

    node: str
    parent: str
    parent_guid: int | None
    same_pool: bool = False
    """The target is the pool that the source itself lies in, on this very node."""
    encrypted: bool = False

    @property
    def key(self) -> TargetKey:
        """Identity of the target; ValueError where its parent dataset does not exist."""
        if self.parent_guid is None:
            raise ValueError(f"{self.parent} does not exist on {self.node}")
        return TargetKey(self.parent_guid)

    def there(self, *words: str) -> str:
        """A command as an administrator types it here for it to run on the target, names with blanks too."""
        command = shlex.join(words)
        if self.node == LOCAL:
            return command
        return f"ssh {self.node} {command if command == ' '.join(words) else shlex.quote(command)}"


class Subject(Struct, frozen=True):
    """One VM as its source sees it. ``role`` is what it is here, by its marks or, failing those, by
    ``parent_host``; ``descendants`` are the datasets below it, in name order."""

    name: str
    dataset: Dataset
    role: Role
    parent: str
    descendants: tuple[Dataset, ...] = ()

    @property
    def everything(self) -> tuple[Dataset, ...]:
        """The VM's own dataset first, then all below it."""
        return (self.dataset, *self.descendants)


class Terms(Struct, frozen=True):
    """What the user has allowed.

    ``no_raw``: encrypted datasets are sent decrypted, to a target that encrypts by itself.
    ``allow_plain_child``: so are the plain datasets of an encrypted VM. ``forward``: a replica is passed on.
    """

    no_raw: bool = False
    allow_plain_child: bool = False
    forward: bool = False

    def mode_of(self, source: Dataset) -> Mode:
        """How the streams of a dataset are made."""
        return Mode.RAW if source.encrypted and not self.no_raw else Mode.PLAIN


def refuse_at_source(subject: Subject, site: TargetSite, terms: Terms) -> Refusal | None:
    """The ground that lies in the VM or in the choice of the target, if any."""
    if subject.role is not Role.PRIMARY and not (terms.forward and subject.role is Role.REPLICA):
        return _is_replica(subject)
    if site.same_pool:
        return Refusal(
            subject.name,
            Ground.SAME_DATASET,
            f"{site.node} is this very node, and {site.parent} lies in the pool {subject.dataset.pool}"
            " that the VM itself lies in",
            "name another node with --endpoint, or a dataset of another pool with --target-dataset",
        )
    if site.parent_guid is None:
        make = site.there("zfs", "create", "-p", "-o", "canmount=off", site.parent)
        return Refusal(
            subject.name,
            Ground.TARGET_PARENT_MISSING,
            f"{site.node} has no dataset {site.parent}",
            f"{make}    (or add --create-parent)",
        )
    for source in subject.everything:
        refusal = _name_is_too_long(subject, source) or _would_be_readable(subject, site, terms, source)
        if refusal is not None:
            return refusal
    return None


def refuse_at_target(
    subject: Subject,
    site: TargetSite,
    source: Dataset,
    replica: Dataset,
    mode: Mode,
    base: Version | None,
    *,
    diverged: bool = False,
    parted: bool = False,
) -> Refusal | None:
    """The ground that lies in what the target has of one of the VM's datasets, if any.

    ``diverged``: what is newer there than ``base`` is going to be set aside, and is in nobody's way.
    ``parted``: it was set aside by an earlier run, and nothing has arrived since.
    """
    return (
        _not_ours(subject, site, source, replica)
        or _taken_over(subject, site, source, replica)
        or _not_a_replica(subject, site, replica)
        or _other_mode(subject, site, source, replica, mode)
        or _no_common_version(subject, site, replica, base)
        or (base is not None and not diverged and _is_ahead(subject, site, replica, mode, base))
        or (base is not None and _name_is_taken(subject, site, source, replica, base, diverged))
        or (not (diverged and replica.marks.demoted) and _was_modified(subject, site, replica, parted=parted))
        or None
    )


def holds_newer(
    subject: Subject, site: TargetSite, target: Dataset, ahead: Sequence[Snapshot], base: Version
) -> Refusal:
    """The refusal because of versions of a replica that were not sent from here."""
    newest = ahead[-1]
    what = "with data of their own, " if newest.written > 0 else ""
    return Refusal(
        subject.name,
        Ground.REPLICA_AHEAD,
        f"{target.name} on {site.node} holds {len(ahead)} newer version(s) {what}"
        f"unknown here: newest {newest.name} (guid {newest.guid:016x});"
        f" the last common one is {base.name}",
        set_aside(site, target),
    )


def set_aside(site: TargetSite, target: Dataset) -> str:
    """The remedy that keeps everything that is there; the next run sends the VM in full beside it."""
    rename = site.there("zfs", "rename", target.name, f"{target.name}{SET_ASIDE}")
    return f"{rename}    (nothing is lost; the next run sends in full)"


def _is_replica(subject: Subject) -> Refusal:
    vm, role = subject.name, subject.dataset.marks.role
    if role is None:
        remedy = f"hoster vm adopt {vm} --parent-was {subject.parent}    (if this node runs it now)"
        evidence = f"its parent_host is {subject.parent!r}, so here it is a backup of that node's VM"
    else:
        remedy = f"on {subject.parent}: hoster vm replicate {vm} --endpoint …"
        evidence = f"here it is marked {role.value}; its parent is {subject.parent}"
    return Refusal(vm, Ground.IS_REPLICA, evidence, remedy)


def _name_is_too_long(subject: Subject, source: Dataset) -> Refusal | None:
    room = MAX_DATASET_NAME - LONGEST_SUFFIX
    if len(source.name) <= room:
        return None
    return Refusal(
        subject.name,
        Ground.NAME_TOO_LONG,
        f"the name of {source.name} has {len(source.name)} characters: more than {room} leave no room for the"
        f" names of bookmarks (ZFS allows {MAX_DATASET_NAME} in all)",
        shlex.join(("zfs", "rename", source.name, f"{source.name[: source.name.rindex('/')]}/SHORTER")),
    )


def _would_be_readable(subject: Subject, site: TargetSite, terms: Terms, source: Dataset) -> Refusal | None:
    if source.encrypted and terms.no_raw:
        if not source.key_loaded:
            return Refusal(
                subject.name,
                Ground.KEY_NOT_LOADED,
                f"--no-raw sends {source.name} decrypted, and its key is not loaded",
                f"zfs load-key {source.name}",
            )
        if not site.encrypted:
            return Refusal(
                subject.name,
                Ground.WOULD_LIE_READABLE,
                f"--no-raw sends {source.name} decrypted, and {site.parent} on {site.node} is not encrypted",
                "leave out --no-raw    (the target then never needs the key)",
            )
    # Not even a target that encrypts by itself does it below a raw replica, whose key it has not.
    above = [one for one in subject.everything if one.encrypted and source.name.startswith(f"{one.name}/")]
    if above and not source.encrypted and not terms.allow_plain_child and not terms.no_raw:
        return Refusal(
            subject.name,
            Ground.WOULD_LIE_READABLE,
            f"{source.name} is not encrypted though {above[0].name} is: it would lie readable on {site.node}",
            "add --allow-plain-child    (if it may)",
        )
    return None


def _not_ours(subject: Subject, site: TargetSite, source: Dataset, target: Dataset) -> Refusal | None:
    vm, here, there = subject.name, subject.dataset.marks, target.marks
    if there.vm_id is None or there.vm_id != here.vm_id:
        whose = "no hoster:id" if there.vm_id is None else f"the hoster:id {there.vm_id} of another VM"
        base = common_base(source, target)
        if base is not None and there.vm_id is None and here.vm_id is not None:
            mark = site.there(
                "zfs", "set", f"hoster:id={here.vm_id}", "hoster:role=replica", "readonly=on", target.name
            )
            return Refusal(
                vm,
                Ground.FOREIGN_DATASET,
                f"{target.name} on {site.node} has {whose}, though it shares {base.name}"
                f" (guid {base.guid:016x}) with this VM",
                f"{mark}    (if it is this VM's replica)",
            )
        return Refusal(
            vm,
            Ground.FOREIGN_DATASET,
            f"{target.name} exists on {site.node} and is not this VM's replica: it has {whose}",
            set_aside(site, target),
        )
    return None


def _taken_over(subject: Subject, site: TargetSite, source: Dataset, target: Dataset) -> Refusal | None:
    """The copy there was promoted after this one, or was told of such a copy; what was demoted gives way."""
    if source.name != subject.dataset.name or target.marks.demoted:
        return None
    vm, here, there = subject.name, source.marks, target.marks
    match standing(here.epoch, there.epoch):
        case Standing.SUPERSEDED:
            return Refusal(
                vm,
                Ground.SUPERSEDED,
                f"{there.parent} has taken this VM over: {target.name} on {site.node} is of epoch"
                f" {there.epoch}, this copy of {here.epoch or 'none'}",
                f"hoster vm demote {vm}    (this copy becomes a replica; what it wrote alone is kept)",
            )
        case Standing.SPLIT:
            return Refusal(
                vm,
                Ground.SPLIT,
                f"both this copy (epoch {here.epoch}) and {target.name} on {site.node} (epoch {there.epoch})"
                " were promoted, knowing nothing of each other",
                f"hoster change parent --vm {vm}    (on the node whose copy is to go on)",
            )
        case _:
            return None


def taken_over_beside(
    subject: Subject, site: TargetSite, target: str, beside: Sequence[Dataset]
) -> tuple[Dataset, Refusal] | None:
    """A copy that took the VM over and has another name than ``target`` by now, among what lies ``beside``
    that; and the refusal because of it."""
    for copy in beside:
        same = copy.marks.vm_id is not None and copy.marks.vm_id == subject.dataset.marks.vm_id
        if same and copy.name != target and copy.marks.role is not Role.BRANCH:
            refusal = _taken_over(subject, site, subject.dataset, copy)
            if refusal is not None:
                return copy, refusal
    return None


def _not_a_replica(subject: Subject, site: TargetSite, target: Dataset) -> Refusal | None:
    vm, there = subject.name, target.marks
    if there.role is Role.REPLICA:
        return None
    role = there.role.value if there.role else "no role"
    epoch = f", epoch {there.epoch}" if there.epoch else ""
    own = subject.dataset.marks.epoch
    if there.epoch is not None and own is not None and there.epoch.number < own.number:
        remedy = (
            f"hoster vm failback {vm} --endpoint {site.node}"
            "    (makes it a replica again; what it wrote alone becomes a branch there)"
        )
    else:
        mark = site.there("zfs", "set", "hoster:role=replica", target.name)
        remedy = f"{mark}    (only if that copy is not in use any more)"
    evidence = f"{target.name} on {site.node} is this VM, but not a replica: {role}{epoch}"
    return Refusal(vm, Ground.NOT_A_REPLICA, evidence, remedy)


def _other_mode(
    subject: Subject, site: TargetSite, source: Dataset, target: Dataset, mode: Mode
) -> Refusal | None:
    began = target.marks.mode or Mode.PLAIN
    if began is mode:
        return None
    aside = set_aside(site, target)
    if mode is Mode.RAW:
        remedy = f"{aside}, or add --no-raw    (goes on as it began)"
    else:
        remedy = "leave out --no-raw" if source.encrypted else aside
    return Refusal(
        subject.name,
        Ground.MODE_MISMATCH,
        f"{target.name} on {site.node} was begun with {began.value} streams, and these would be {mode.value}"
        " ones: mixed, no later increment could be received",
        remedy,
    )


def _no_common_version(
    subject: Subject, site: TargetSite, target: Dataset, base: Version | None
) -> Refusal | None:
    newest = target.newest
    only_a_part = target.partial is not None and newest is None  # of the first stream, which goes on
    if base is not None or only_a_part:
        return None
    theirs = f"its newest is {newest.name} (guid {newest.guid:016x})" if newest else "it has no snapshot"
    return Refusal(
        subject.name,
        Ground.NO_COMMON_VERSION,
        f"no version of {target.name} on {site.node} exists here any more: {theirs}",
        set_aside(site, target),
    )


def _is_ahead(
    subject: Subject, site: TargetSite, target: Dataset, mode: Mode, base: Version
) -> Refusal | None:
    ahead = [s for s in ahead_of_base(target, base) if s.written > 0 or mode is Mode.RAW]
    return holds_newer(subject, site, target, ahead, base) if ahead else None


def _name_is_taken(
    subject: Subject, site: TargetSite, source: Dataset, target: Dataset, base: Version, diverged: bool
) -> Refusal | None:
    """Among the snapshots that stay where they are, one has the name of a version that is to be sent."""
    coming = {s.name: s.guid for s in unsent(source, base)}
    leaving = {s.guid for s in ahead_of_base(target, base)} if diverged else set()
    taken = [s for s in target.snapshots if coming.get(s.name, s.guid) != s.guid and s.guid not in leaving]
    if not taken:
        return None
    theirs = f"{target.name}@{taken[0].name}"
    rename = site.there("zfs", "rename", theirs, f"{theirs}.{taken[0].guid:016x}")
    return Refusal(
        subject.name,
        Ground.NAME_TAKEN,
        f"{theirs} on {site.node} is another version (guid {taken[0].guid:016x})"
        " than the one of that name that is to be sent",
        f"{rename}    (it is kept)",
    )


def _was_modified(subject: Subject, site: TargetSite, target: Dataset, *, parted: bool) -> Refusal | None:
    if target.written == 0 or target.newest is None:
        return None
    if parted and target.written <= _LOG_HEADER_BYTES:
        return None  # should it be more than the header after all, the receive itself refuses
    rollback = site.there("zfs", "rollback", target.newest.full_name)
    return Refusal(
        subject.name,
        Ground.REPLICA_MODIFIED,
        f"{target.written} bytes were written to {target.name} on {site.node}"
        f" since {target.newest.name} arrived there",
        f"{rollback}    (discards what was written there)",
    )
