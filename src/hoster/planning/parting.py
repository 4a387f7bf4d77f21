"""What stands in the way where a replica and its VM part, or a dataset of the VM has got another name.

Pure. The remedies are renames on the target: what is there stays, and is found by its versions.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from hoster.model.plan import Ground, Refusal
from hoster.model.storage import Dataset, Version
from hoster.planning.refusals import SET_ASIDE, Subject, TargetSite, holds_newer, set_aside
from hoster.planning.transfers import ahead_of_base, common_base, is_sent_by


def refuse_swap(
    subject: Subject,
    site: TargetSite,
    replicas: Sequence[tuple[Dataset, Version | None]],
    orphans: Sequence[Dataset] = (),
) -> Refusal | None:
    """What stands in the way of setting the newer part of a replica aside: somebody is looking at it, or
    has put versions into one of its datasets that would go along, or a whole dataset below it.

    ``orphans`` are the datasets below the replica of which the VM has none, in name order: what was once
    sent from here goes along, and so does what a copy that gave way made of its own.
    """
    vm_id = subject.dataset.marks.vm_id
    for replica, base in replicas:
        if base is None:
            continue
        foreign = [s for s in ahead_of_base(replica, base) if not is_sent_by(s, vm_id)]
        if foreign and not replica.marks.demoted:
            return holds_newer(subject, site, replica, foreign, base)
    theirs = next((orphan for orphan in orphans if orphan.marks.vm_id != vm_id), None)
    if theirs is not None and not any(replica.marks.demoted for replica, _ in replicas):
        return _would_be_moved(subject, site, theirs)
    mounted = next((one for one in (*(replica for replica, _ in replicas), *orphans) if one.mounted), None)
    if mounted is None:
        return None
    return Refusal(
        subject.name,
        Ground.REPLICA_MOUNTED,
        f"this VM was rolled back, and the newer part of its replica on {site.node} cannot be set aside while"
        f" {mounted.name} is mounted there",
        site.there("zfs", "unmount", mounted.name),
    )


def refuse_renamed(
    subject: Subject,
    site: TargetSite,
    missing: Sequence[tuple[Dataset, str]],
    orphans: Sequence[Dataset],
    there: Container[str],
) -> Refusal | None:
    """A dataset that got another name here: its replica is among those that seem to be gone.

    ``there`` are the names that the target has: into what is not there yet nothing can be renamed.
    """
    for source, target in missing:
        for orphan in orphans:
            base = common_base(source, orphan)
            if base is not None and SET_ASIDE not in orphan.name:
                rename = site.there("zfs", "rename", orphan.name, target)
                return Refusal(
                    subject.name,
                    Ground.DESCENDANT_RENAMED,
                    f"{source.name} has the versions of {orphan.name} on {site.node} (newest: {base.name},"
                    f" guid {base.guid:016x}): it was renamed here since",
                    rename if target.rpartition("/")[0] in there else set_aside(site, orphan),
                )
    return None


def _would_be_moved(subject: Subject, site: TargetSite, theirs: Dataset) -> Refusal:
    """A rename takes all below along; what is somebody else's must not get another name unasked."""
    whose = "has no hoster:id" if theirs.marks.vm_id is None else "has the hoster:id of another VM"
    beside = f"{site.parent}/{theirs.name.removeprefix(f'{site.parent}/').replace('/', '.')}{SET_ASIDE}"
    return Refusal(
        subject.name,
        Ground.FOREIGN_DATASET,
        f"this VM was rolled back, and the newer part of its replica on {site.node} is to be set aside; but"
        f" {theirs.name}, which {whose}, lies below the replica and would get another name",
        site.there("zfs", "rename", theirs.name, beside),
    )
