"""Carries out a swap: a VM's datasets go back to a version, and what is newer becomes a branch beside them.

Every step can be the last one before a crash: the intent is on the datasets, and :func:`finish` does whatever
is still to do. It looks before every run, so it is also how a swap that was just begun is carried out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from hoster.errors import HosterError, NoSpace, OperationFailed
from hoster.model.storage import Dataset, DatasetKind, Intent, Role, Snapshot
from hoster.planning.swap import (
    Clone,
    Forget,
    Promote,
    Rename,
    Settle,
    SwapStep,
    branch_name,
    coming_name,
    plan_swap,
    unfinished,
)
from hoster.zfs.store import ZfsStore

_RESERVATIONS = ("reservation", "refreservation")


def new_stamp(now: datetime) -> str:
    """The UTC time as branches are named by it; a time without a zone is local time."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def swap(zfs: ZfsStore, root: str, stamp: str, wanted: Sequence[tuple[Dataset, Snapshot]]) -> str:
    """Lets the datasets of ``root`` go back to the ``wanted`` versions; the name of the branch with the rest.

    Descendants that are not among ``wanted`` become part of the branch. OperationFailed, with everything as
    it was or with the intent in place, where a step fails.
    """
    local = zfs.local_properties([dataset.name for dataset, _ in wanted])
    # The VM's own dataset last: without an intent on that one, the others count for nothing.
    for dataset, version in sorted(wanted, key=lambda item: item[0].name, reverse=True):
        intent = Intent(stamp, version.guid, local[dataset.name].get("canmount", "-"), root)
        zfs.set_properties({"hoster:swap": str(intent)}, [dataset.name])
    finish(zfs, root, stamp)
    return branch_name(root, stamp)


def finish_left(
    zfs: ZfsStore, datasets: Sequence[Dataset], roots: Collection[str]
) -> dict[str, str | HosterError]:
    """Finishes or takes back the swaps of ``roots`` that a crash has left among ``datasets``.

    For each: what was done, in words, or why it could not be. Those of others are left alone: somebody may
    be at work on them.
    """
    done: dict[str, str | HosterError] = {}
    for root, stamp in unfinished(datasets):
        if root not in roots:
            continue
        try:
            finish(zfs, root, stamp)
        except HosterError as error:
            done[root] = error
        else:
            done[root] = (
                f"finished setting aside the newer part of {root} (as of {stamp}), which was interrupted"
            )
    return done


def finish(zfs: ZfsStore, root: str, stamp: str) -> None:
    """Does what is still to do of one swap."""
    view = zfs.look_for([root, branch_name(root, stamp), coming_name(root, stamp)])
    there = tuple(view.datasets.values())
    intents = [dataset.name for dataset in there if dataset.marks.swap is not None]
    local = zfs.local_properties(intents) if intents else {}
    try:
        steps = plan_swap(root, stamp, there, local)
    except ValueError as error:
        raise OperationFailed(f"{zfs.node}: {error}") from None
    began = {dataset.name: dataset for dataset in there if dataset.marks.swap is not None}
    for step in steps:
        _carry_out(zfs, step, began)


def _carry_out(zfs: ZfsStore, step: SwapStep, began: Mapping[str, Dataset]) -> None:
    match step:
        case Clone(snapshot, name, properties):
            zfs.clone(snapshot, name, properties)
        case Promote(name):
            zfs.promote(name)
        case Rename(name, becomes):
            zfs.rename(name, becomes)
        case Forget(names):
            for name in names:
                zfs.inherit("hoster:swap", [name])
        case Settle() as settle:
            _settle(zfs, settle, began)


def _settle(zfs: ZfsStore, step: Settle, began: Mapping[str, Dataset]) -> None:
    by_suffix = {name.removeprefix(step.branch): name for name in step.intents}
    local = zfs.local_properties([*step.intents, *(step.root + suffix for suffix in by_suffix)])
    for suffix, old in by_suffix.items():
        new = step.root + suffix
        dataset = began.get(old) or began[new]
        intent = dataset.marks.swap
        if dataset.kind is DatasetKind.FILESYSTEM and intent is not None:
            if intent.canmount == "-":
                zfs.inherit("canmount", [new])
            else:
                zfs.set_properties({"canmount": intent.canmount}, [new])
        _move_reservations(zfs, old, new, local)
        zfs.copy_delegations(old, new)
    zfs.set_properties(_marks_of_branch(step), [step.branch])
    for old in sorted(step.intents, reverse=True):
        zfs.inherit("hoster:swap", [old])


def _move_reservations(zfs: ZfsStore, old: str, new: str, local: Mapping[str, Mapping[str, str]]) -> None:
    """What was reserved for the old one is reserved for what took its place.

    Where there is no room for both, it is noted on the new one before the old one's is given up.
    """
    for key in _RESERVATIONS:
        note = f"hoster:{key}"
        wanted = local[new].get(note) or local[old].get(key, "none")
        if wanted in {"none", "0"}:
            continue
        try:
            zfs.set_properties({key: wanted}, [new])
        except NoSpace:
            zfs.set_properties({note: wanted}, [new])
            zfs.set_properties({key: "none"}, [old])
            zfs.set_properties({key: wanted}, [new])
            zfs.inherit(note, [new])
            continue
        zfs.set_properties({key: "none"}, [old])
        if note in local[new]:
            zfs.inherit(note, [new])


def _marks_of_branch(step: Settle) -> dict[str, str]:
    """The marks of what was set aside."""
    stamp = step.branch.rpartition("-")[2]
    name = step.root.rpartition("/")[2]
    return {
        "hoster:role": Role.BRANCH.value,
        "hoster:branch-of": name,
        "hoster:branched-at": stamp,
        "canmount": "noauto",
    }
