"""Going back without losing anything: what is newer is set aside as a branch beside the VM.

Pure, and the same for both ends: a rollback at the source, and the replica of a VM that was rolled back. The
VM's datasets at the wanted versions are cloned beside it, promoted, and take its place::

    tank/vm/web with a b c  ->  tank/vm/web with a b, which goes on from b
                                tank/vm/web.branch-20240101T120000Z with c and all that was written since

A branch becomes the VM again in the same way: it is promoted, and takes the place of what the VM is by then,
which becomes a branch in turn.

Nothing is destroyed, every version keeps its GUID, bookmarks follow their versions. What is intended is
written on the datasets first (``hoster:swap``), so that whoever comes after a crash finishes it: the steps
that are still to do follow from what is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from hoster.model.anchors import anchor_target, anchors_of
from hoster.model.plan import Anchor
from hoster.model.storage import Dataset, DatasetKind, Intent, Snapshot
from hoster.planning.promotions import DropBookmark, KeepBookmark, Promote, promotions

_STAMP = r"[0-9]{8}T[0-9]{6}Z"
_BRANCH = re.compile(rf"(?P<vm>.+)\.branch-(?P<stamp>{_STAMP})")
_COMING = re.compile(rf"(?P<vm>.+)\.swap-(?P<stamp>{_STAMP})")

KEPT_CANMOUNT = "hoster:canmount"
"""What a filesystem of a branch had as its local ``canmount`` (``-``: nothing), for when it comes back."""

NOT_COPIED = frozenset(
    {
        *(
            "hoster:swap",
            "hoster:demoted",
            "canmount",
            "volsize",
            "version",
            "keylocation",
            "encryption",
            "keyformat",
        ),
        *("pbkdf2iters", "utf8only", "normalization", "casesensitivity", "reservation", "refreservation"),
    }
)
"""Local properties that a clone must not get on its command line: those that are settled by its origin, and
``canmount``, which would mount it where its origin is; reservations come when the origin's is given up."""


class Unmount(Struct, frozen=True):
    """Unmount a filesystem, so that nobody works in what is about to be moved."""

    name: str


class Clone(Struct, frozen=True):
    """Clone ``snapshot`` as ``name``, with these local properties."""

    snapshot: str
    name: str
    properties: Mapping[str, str]


class Rename(Struct, frozen=True):
    """Give a dataset, with all below it, another name."""

    name: str
    becomes: str


class RollBack(Struct, frozen=True):
    """Give up what was written since a snapshot that nothing is newer than."""

    snapshot: str


class Place(Struct, frozen=True):
    """A dataset that has taken its place. ``old`` is what had that name before, in the branch by now (None:
    there was none). ``canmount`` is the local value to give it: ``-`` for none, None to leave it alone."""

    name: str
    old: str | None
    canmount: str | None
    mount: bool


class Settle(Struct, frozen=True):
    """The swap is done: mark the branch as one, and give what took its place its last properties.

    ``aside`` are the filesystems of the branch, ``intents`` the datasets from which the intent is to be
    taken. ``restored``: what took the place had been a branch, and must not be marked as one any more.
    """

    root: str
    branch: str
    intents: tuple[str, ...]
    places: tuple[Place, ...]
    aside: tuple[str, ...]
    restored: bool = False


class Forget(Struct, frozen=True):
    """Take the intent from these datasets, in this order, once ``mounts`` are mounted again."""

    intents: tuple[str, ...]
    mounts: tuple[str, ...] = ()


SwapStep = Unmount | Clone | KeepBookmark | DropBookmark | Promote | Rename | RollBack | Settle | Forget


def branch_of(name: str) -> tuple[str, str] | None:
    """Of which dataset ``name`` is a branch, and since when (UTC, ``20240131T235959Z``); None if of none."""
    match = _BRANCH.fullmatch(name)
    return None if match is None else (match["vm"], match["stamp"])


def is_part_of_a_swap(name: str) -> bool:
    """Whether ``name`` is of a branch, or of what has not taken its place yet: no VM, whatever its marks."""
    return _BRANCH.fullmatch(name) is not None or _COMING.fullmatch(name) is not None


def branch_name(root: str, stamp: str) -> str:
    """What the newer part of ``root`` is called once it is set aside."""
    return f"{root}.branch-{stamp}"


def coming_name(root: str, stamp: str) -> str:
    """What the dataset that is to take the place of ``root`` is called before it does."""
    return f"{root}.swap-{stamp}"


def unfinished(datasets: Sequence[Dataset]) -> tuple[tuple[str, str], ...]:
    """The swaps that were begun and not finished, as the root's name and the stamp, from their intents."""
    found: dict[tuple[str, str], None] = {}
    for dataset in datasets:
        intent = dataset.marks.swap
        if intent is not None:
            found[intent.root, intent.stamp] = None
    return tuple(found)


def parting_anchors(dataset: Dataset, version: Snapshot) -> tuple[Anchor, ...]:
    """The anchors without which ``dataset`` could lose the base of a target when what is newer than
    ``version`` leaves it, the anchors on that included.

    What such a target still has of the versions that stay is seen by the next replication only, so all that
    may be its base stays until then. ``@`` is an anchor::

        source a b c d@, back to b   ->  a@ b@
        source a b@ c d@, back to c  ->  b@ is there already, c@
    """
    known = (
        anchor_target(bookmark) for bookmark in dataset.bookmarks if bookmark.createtxg > version.createtxg
    )
    anchors: list[Anchor] = []
    for key in dict.fromkeys(target for target in known if target is not None):
        older = {b.guid for b in anchors_of(dataset, key) if b.createtxg <= version.createtxg}
        ends = [version] if older else [dataset.snapshots[0], version]
        reason = "what the target still has of these is seen by its next replication"
        anchors += [
            Anchor(dataset.name, end.name, end.guid, key, reason)
            for end in dict.fromkeys(ends)
            if end.guid not in older
        ]
    return tuple(anchors)


def plan_swap(
    root: str, stamp: str, there: Sequence[Dataset], local: Mapping[str, Mapping[str, str]]
) -> tuple[SwapStep, ...]:
    """The steps that are still to do; ``there`` is what was seen at and below the names of a swap: the root,
    the branch, what is to come, and where a branch is restored every other branch of the VM.

    ``local`` holds the local properties of the datasets that have an intent, and of a branch that is
    restored. ValueError where a version that was wanted is gone, or a name that is needed is taken.
    """
    branch = branch_name(root, stamp)
    seen = {dataset.name: dataset for dataset in sorted(there, key=lambda d: d.name)}
    set_aside = branch in seen
    if set_aside and root in seen and (mine := seen[root].marks.swap) is not None and mine.stamp == stamp:
        raise ValueError(f"{branch} exists already")
    old = branch if set_aside else root
    intents = {
        dataset.name: dataset.marks.swap
        for dataset in seen.values()
        if dataset.marks.swap is not None
        and (dataset.marks.swap.root, dataset.marks.swap.stamp) == (root, stamp)
        and _is_within(dataset.name, old)
    }
    first = intents.get(old)
    if first is None:
        return (Forget(tuple(intents)),)
    if first.in_place:
        rollbacks = [RollBack(_version(seen[name], intent).full_name) for name, intent in intents.items()]
        return (*rollbacks, Forget(tuple(sorted(intents, reverse=True))))
    coming = branch_name(root, first.restores) if first.restores else coming_name(root, stamp)
    if coming not in seen and (first.restores and not set_aside):
        raise ValueError(f"{coming} is gone")
    steps: list[SwapStep] = _unmounts(seen, old, coming)
    made: dict[str, DatasetKind] = {}
    if not set_aside:
        if first.restores:
            steps += _restore(seen, (root, branch, coming))
        else:
            steps += _copy(seen, intents, local, (root, branch, coming))
            made = {coming + name.removeprefix(root): seen[name].kind for name in intents}
        steps.append(Rename(root, branch))
    if not set_aside or coming in seen:
        steps.append(Rename(coming, root))
    made |= {name: dataset.kind for name, dataset in seen.items() if _is_within(name, coming)}
    if not made:
        made = {coming + d.name.removeprefix(root): d.kind for d in seen.values() if _is_within(d.name, root)}
    if not made:
        raise ValueError(f"neither {root} nor {coming} is there")
    steps.append(_settle(root, branch, old, coming, seen, intents, made, local))
    return tuple(steps)


def taking_back(root: str, stamp: str, there: Sequence[Dataset]) -> Forget:
    """What undoes a swap of which nothing was done yet but to unmount; ``there`` was seen before that. The
    VM's own intent goes first, since without it the others count for nothing."""
    ordered = sorted(there, key=lambda d: d.name)
    ours = (
        dataset.name
        for dataset in ordered
        if (intent := dataset.marks.swap) is not None and (intent.root, intent.stamp) == (root, stamp)
    )
    return Forget(tuple(ours), tuple(dataset.name for dataset in ordered if dataset.mounted))


def _unmounts(seen: Mapping[str, Dataset], *roots: str) -> list[SwapStep]:
    """Of what is still under an old name; the deepest first."""
    mounted = [d.name for d in seen.values() if d.mounted and any(_is_within(d.name, r) for r in roots)]
    return [Unmount(name) for name in sorted(mounted, reverse=True)]


def _copy(
    seen: Mapping[str, Dataset],
    intents: Mapping[str, Intent],
    local: Mapping[str, Mapping[str, str]],
    names: tuple[str, str, str],
) -> list[SwapStep]:
    root, _, coming = names
    clones: list[SwapStep] = []
    promotes: list[SwapStep] = []
    for old, intent in intents.items():
        name = coming + old.removeprefix(root)
        made = seen.get(name)
        if made is None:
            clones.append(_clone(seen[old], intent, name, local.get(old, {})))
        if made is None or made.snapshot_with(intent.guid) is None:
            promotes.append(Promote(name))
    return [*clones, *promotes]


def _restore(seen: Mapping[str, Dataset], names: tuple[str, str, str]) -> list[SwapStep]:
    root, _, coming = names
    family = [root, *(name for name in seen if (parsed := branch_of(name)) is not None and parsed[0] == root)]
    steps: list[SwapStep] = []
    for name, dataset in seen.items():
        if _is_within(name, coming):
            steps += promotions(dataset, name.removeprefix(coming), seen, family)
    return steps


def _settle(
    root: str,
    branch: str,
    old: str,
    coming: str,
    seen: Mapping[str, Dataset],
    intents: Mapping[str, Intent],
    made: Mapping[str, DatasetKind],
    local: Mapping[str, Mapping[str, str]],
) -> Settle:
    first = intents[old]
    places: list[Place] = []
    for name in sorted(made):
        suffix = name.removeprefix(coming)
        intent = intents.get(old + suffix)
        canmount: str | None = None
        mount = False
        if made[name] is DatasetKind.FILESYSTEM and intent is not None:
            canmount, mount = intent.canmount, intent.mounted
        elif made[name] is DatasetKind.FILESYSTEM and first.restores:
            canmount = _own(local, name, root + suffix).get(KEPT_CANMOUNT)
            mount = first.mounted and canmount in {"-", "on"}
        replaced = branch + suffix if intent is not None else None
        places.append(Place(root + suffix, replaced, canmount, mount))
    aside = (name for name, dataset in seen.items() if dataset.kind is DatasetKind.FILESYSTEM)
    return Settle(
        root,
        branch,
        tuple(branch + name.removeprefix(old) for name in intents),
        tuple(places),
        tuple(branch + name.removeprefix(old) for name in aside if _is_within(name, old)),
        restored=bool(first.restores),
    )


def _own(local: Mapping[str, Mapping[str, str]], *names: str) -> Mapping[str, str]:
    return next((local[name] for name in names if name in local), {})


def _clone(dataset: Dataset, intent: Intent, name: str, local: Mapping[str, str]) -> Clone:
    properties = {key: value for key, value in local.items() if key not in NOT_COPIED}
    if dataset.kind is DatasetKind.FILESYSTEM:
        properties["canmount"] = "noauto"
    return Clone(_version(dataset, intent).full_name, name, properties)


def _version(dataset: Dataset, intent: Intent) -> Snapshot:
    version = dataset.snapshot_with(intent.guid)
    if version is None:
        raise ValueError(f"{dataset.name} has no version {intent.guid:016x} to go back to")
    return version


def _is_within(name: str, root: str) -> bool:
    return name == root or name.startswith(f"{root}/")
