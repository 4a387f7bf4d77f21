"""Carries out a swap: a VM's datasets go back to a version, and what is newer becomes a branch beside them.

Every step can be the last one before a crash: the intent is on the datasets, and :func:`finish` does whatever
is still to do. It looks before every run, so it is also how a swap that was just begun is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from hoster.errors import HosterError, NoSpace, OperationFailed, Refused
from hoster.model.plan import Anchor
from hoster.model.storage import Dataset, Intent, Role, Snapshot, View
from hoster.planning.promotions import DropBookmark, KeepBookmark, Promote
from hoster.planning.swap import (
    KEPT_CANMOUNT,
    Clone,
    Forget,
    Place,
    Rename,
    RollBack,
    Settle,
    SwapStep,
    Unmount,
    branch_name,
    branch_of,
    coming_name,
    parting_anchors,
    plan_swap,
    taking_back,
    unfinished,
)
from hoster.zfs.programs import Telling
from hoster.zfs.store import ZfsStore

_RESERVATIONS = ("reservation", "refreservation")
_OF_THE_VM = ("hoster:id", "hoster:role", "hoster:epoch", "hoster:parent", "hoster:production")
"""The marks that belong to the VM whatever its state: a branch that becomes the VM again gets them."""


def new_stamp(now: datetime, root: str, taken: Collection[str]) -> str:
    """The UTC time as branches are named by it; a time without a zone is local time.

    Where a branch of ``root`` among the names ``taken`` has it, the next second that is free.
    """
    while branch_name(root, stamp := f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}") in taken:
        now += timedelta(seconds=1)
    return stamp


Reopen = Callable[[Sequence[str]], Collection[str]]
"""Loads the keys of these datasets that are not loaded any more (:mod:`hoster.operations.opening`); the
encryption roots that stay closed."""


def swap(
    zfs: ZfsStore,
    root: str,
    stamp: str,
    wanted: Sequence[tuple[Dataset, Snapshot]],
    reopen: Reopen | None = None,
) -> str:
    """Lets the datasets of ``root`` go back to the ``wanted`` versions; the name of the branch with the rest.

    Descendants that are not among ``wanted`` become part of the branch. OperationFailed, with everything as
    it was or with the intent in place, where a step fails, or where the VM's own dataset is not of the role
    and the epoch any more that were seen; Refused, with everything as it was, where a mounted filesystem
    cannot be unmounted.
    """
    _intend(zfs, root, stamp, wanted, in_place=False)
    _begin(zfs, root, stamp, reopen)
    return branch_name(root, stamp)


def roll_back_in_place(
    zfs: ZfsStore, root: str, stamp: str, wanted: Sequence[tuple[Dataset, Snapshot]]
) -> None:
    """Gives up what was written to the datasets since the ``wanted`` versions, which are the newest there."""
    _intend(zfs, root, stamp, wanted, in_place=True)
    there = _look(zfs, root, stamp)
    for number, step in enumerate(_steps(zfs, root, stamp, there)):
        try:
            _carry_out(zfs, step, None)
        except HosterError:
            if number == 0:
                _forget(zfs, taking_back(root, stamp, there))
            raise


def restore(
    zfs: ZfsStore,
    root: str,
    stamp: str,
    branch: str,
    vm: Sequence[Dataset],
    anchors: Sequence[Anchor],
    reopen: Reopen | None = None,
) -> str:
    """Lets a branch of ``root``, by its stamp, take the place of the datasets of the VM; the name of the
    branch that these become. ``anchors`` are made first. Errors as of :func:`swap`.
    """
    _anchor(zfs, anchors)
    local = zfs.local_properties([dataset.name for dataset in vm])
    intents = []
    for dataset in vm:
        canmount = local[dataset.name].get("canmount", "-")
        intents.append((dataset, Intent(stamp, 0, canmount, root, mounted=dataset.mounted, restores=branch)))
    _write_down(zfs, root, intents)
    _begin(zfs, root, stamp, reopen)
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


def finish(zfs: ZfsStore, root: str, stamp: str, reopen: Reopen | None = None) -> None:
    """Does what is still to do of one swap."""
    for step in _steps(zfs, root, stamp, _look(zfs, root, stamp)):
        _carry_out(zfs, step, reopen)


def _begin(zfs: ZfsStore, root: str, stamp: str, reopen: Reopen | None) -> None:
    """The first attempt: as long as nothing was done but to unmount, it is taken back where that fails."""
    there = _look(zfs, root, stamp)
    for step in _steps(zfs, root, stamp, there):
        try:
            _carry_out(zfs, step, reopen)
        except HosterError as error:
            if not isinstance(step, Unmount):
                raise
            _forget(zfs, taking_back(root, stamp, there))
            raise Refused(
                f"{error.message}; nothing was changed", hint="fuser -vm shows what uses a mounted filesystem"
            ) from error


def _intend(
    zfs: ZfsStore, root: str, stamp: str, wanted: Sequence[tuple[Dataset, Snapshot]], *, in_place: bool
) -> None:
    _anchor(zfs, [anchor for dataset, version in wanted for anchor in parting_anchors(dataset, version)])
    local = zfs.local_properties([dataset.name for dataset, _ in wanted])
    intents = []
    for dataset, version in wanted:
        canmount = local[dataset.name].get("canmount", "-")
        intent = Intent(stamp, version.guid, canmount, root, mounted=dataset.mounted, in_place=in_place)
        intents.append((dataset, intent))
    _write_down(zfs, root, intents)


def _write_down(zfs: ZfsStore, root: str, intents: Sequence[tuple[Dataset, Intent]]) -> None:
    """The VM's own dataset last, and only as what it was seen as: without an intent on that one, the others
    count for nothing."""
    for dataset, intent in sorted(intents, key=lambda item: item[0].name, reverse=True):
        value = {"hoster:swap": str(intent)}
        if dataset.name != root:
            zfs.set_properties(value, [dataset.name])
            continue
        (answer,) = zfs.tell([Telling(dataset, value)])
        if not answer.done:
            for name in (other.name for other, _ in intents if other.name != root):
                zfs.inherit("hoster:swap", [name])
            raise OperationFailed(f"{root} on {zfs.node} was not changed: {answer.explained}")


def _anchor(zfs: ZfsStore, anchors: Sequence[Anchor]) -> None:
    for answer in zfs.anchor(anchors):
        if not answer.done:
            raise OperationFailed(f"{answer.name} cannot be kept for its target: {answer.explained}")


def _look(zfs: ZfsStore, root: str, stamp: str) -> tuple[Dataset, ...]:
    """What is at and below the names of a swap; where a branch is restored, its other branches as well."""
    names = [root, branch_name(root, stamp), coming_name(root, stamp)]
    view = zfs.look_for(names)
    if any(_is_restoring(dataset, root, stamp) for dataset in view.datasets.values()):
        view = zfs.look_for([*names[:2], *branches_beside(zfs, root)])
    return tuple(view.datasets.values())


def branches_beside(zfs: ZfsStore, root: str) -> tuple[str, ...]:
    """The names of all datasets beside ``root`` that are called like branches of it."""
    beside: View = zfs.look_beside([root.rpartition("/")[0]])
    return tuple(n for n in beside.names if (found := branch_of(n)) is not None and found[0] == root)


def _is_restoring(dataset: Dataset, root: str, stamp: str) -> bool:
    intent = dataset.marks.swap
    return intent is not None and (intent.root, intent.stamp) == (root, stamp) and intent.restores != ""


def _steps(zfs: ZfsStore, root: str, stamp: str, there: Sequence[Dataset]) -> tuple[SwapStep, ...]:
    asked = [dataset.name for dataset in there if dataset.marks.swap is not None]
    if any(_is_restoring(dataset, root, stamp) for dataset in there):
        asked = [dataset.name for dataset in there]
    local = zfs.local_properties(asked) if asked else {}
    try:
        return plan_swap(root, stamp, there, local)
    except ValueError as error:
        raise OperationFailed(f"{zfs.node}: {error}") from None


def _carry_out(zfs: ZfsStore, step: SwapStep, reopen: Reopen | None) -> None:
    match step:
        case Unmount(name):
            zfs.unmount(name)
        case Clone(snapshot, name, properties):
            zfs.clone(snapshot, name, properties)
        case KeepBookmark(bookmark):
            zfs.bookmark(bookmark.full_name, step.full_name)
        case DropBookmark(bookmark):
            zfs.destroy_bookmarks([bookmark])
        case Promote(name):
            zfs.promote(name)
        case Rename(name, becomes):
            zfs.rename(name, becomes)
        case RollBack(snapshot):
            zfs.rollback(snapshot)
        case Forget() as forget:
            _forget(zfs, forget)
        case Settle() as settle:
            _settle(zfs, settle, reopen)


def _forget(zfs: ZfsStore, step: Forget) -> None:
    for name in step.mounts:
        zfs.mount(name)
    for name in step.intents:
        zfs.inherit("hoster:swap", [name])


def _settle(zfs: ZfsStore, step: Settle, reopen: Reopen | None) -> None:
    places = [place.name for place in step.places]
    local = zfs.local_properties(list(dict.fromkeys([*step.intents, *step.aside, *places])))
    for place in step.places:
        _set_canmount(zfs, place)
        if place.old is not None:
            _move_reservations(zfs, place.old, place.name, local)
            zfs.copy_delegations(place.old, place.name)
    if step.restored:
        _unmark(zfs, step, local)
    for name in step.aside:
        if name != step.branch and _canmount_set_aside(local[name]):
            zfs.set_properties(_canmount_set_aside(local[name]), [name])
    to_mount = [place.name for place in step.places if place.mount]
    closed = reopen(places) if to_mount and reopen is not None else ()
    for name in to_mount:
        if not any(f"{name}/".startswith(f"{root}/") for root in closed):
            zfs.mount(name)
    if step.restored:
        for name in places:
            if KEPT_CANMOUNT in local[name]:
                zfs.inherit(KEPT_CANMOUNT, [name])
    zfs.set_properties(_marks_of_branch(step, local[step.branch]), [step.branch])
    for old in sorted(step.intents, reverse=True):
        zfs.inherit("hoster:swap", [old])


def _set_canmount(zfs: ZfsStore, place: Place) -> None:
    if place.canmount == "-":
        zfs.set_default("canmount", place.name)
    elif place.canmount is not None:
        zfs.set_properties({"canmount": place.canmount}, [place.name])


def _unmark(zfs: ZfsStore, step: Settle, local: Mapping[str, Mapping[str, str]]) -> None:
    """What had been a branch gets the marks of the VM, unless an earlier run got as far as marking the old
    one as a branch."""
    old, new = local[step.branch], local[step.root]
    if old.get("hoster:role") == Role.BRANCH.value:
        return
    marks = {key: old[key] for key in _OF_THE_VM if key in old}
    if marks:
        zfs.set_properties(marks, [step.root])
    for key in (*_OF_THE_VM, "hoster:branch-of", "hoster:branched-at"):
        if key in new and key not in marks:
            zfs.inherit(key, [step.root])


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


def _canmount_set_aside(local: Mapping[str, str]) -> dict[str, str]:
    """What keeps a filesystem of a branch from being mounted in the VM's place, and what was set before."""
    was = local.get("canmount", "-")
    return {} if was == "noauto" else {"canmount": "noauto", KEPT_CANMOUNT: was}


def _marks_of_branch(step: Settle, local: Mapping[str, str]) -> dict[str, str]:
    """The marks of what was set aside."""
    stamp = step.branch.rpartition("-")[2]
    name = step.root.rpartition("/")[2]
    return {
        "hoster:role": Role.BRANCH.value,
        "hoster:branch-of": name,
        "hoster:branched-at": stamp,
        "canmount": "noauto",
        **_canmount_set_aside(local),
    }
