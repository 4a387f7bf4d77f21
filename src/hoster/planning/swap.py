"""Going back without losing anything: what is newer is set aside as a branch beside the VM.

Pure, and the same for both ends: a rollback at the source, and the replica of a VM that was rolled back. The
VM's datasets at the wanted versions are cloned beside it, promoted, and take its place::

    tank/vm/web with a b c  ->  tank/vm/web with a b, which goes on from b
                                tank/vm/web.branch-20240101T120000Z with c and all that was written since

Nothing is destroyed, every version keeps its GUID, bookmarks follow their versions. What is intended is
written on the datasets first (``hoster:swap``), so that whoever comes after a crash finishes it: the steps
that are still to do follow from what is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from hoster.model.storage import Dataset, DatasetKind, Intent

_STAMP = r"[0-9]{8}T[0-9]{6}Z"
_BRANCH = re.compile(rf"(?P<vm>.+)\.branch-(?P<stamp>{_STAMP})")
_COMING = re.compile(rf"(?P<vm>.+)\.swap-(?P<stamp>{_STAMP})")

NOT_COPIED = frozenset(
    {
        *("hoster:swap", "canmount", "volsize", "version", "keylocation", "encryption", "keyformat"),
        *("pbkdf2iters", "utf8only", "normalization", "casesensitivity", "reservation", "refreservation"),
    }
)
"""Local properties that a clone must not get on its command line: those that are settled by its origin, and
``canmount``, which would mount it where its origin is; reservations come when the origin's is given up."""


class Clone(Struct, frozen=True):
    """Clone ``snapshot`` as ``name``, with these local properties."""

    snapshot: str
    name: str
    properties: Mapping[str, str]


class Promote(Struct, frozen=True):
    """Make the clone ``name`` the one that holds the versions it shares with its origin."""

    name: str


class Rename(Struct, frozen=True):
    """Give a dataset, with all below it, another name."""

    name: str
    becomes: str


class Settle(Struct, frozen=True):
    """The swap is done: mark the branch as one, and give what took its place its last properties.

    ``intents`` are the datasets from which the intent is to be taken.
    """

    root: str
    branch: str
    intents: tuple[str, ...]


class Forget(Struct, frozen=True):
    """Take the intent from these datasets: it was never complete, and nothing else was done."""

    intents: tuple[str, ...]


SwapStep = Clone | Promote | Rename | Settle | Forget


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


def plan_swap(
    root: str, stamp: str, there: Sequence[Dataset], local: Mapping[str, Mapping[str, str]]
) -> tuple[SwapStep, ...]:
    """The steps that are still to do; ``there`` is what was seen at and below the three names of a swap.

    ``local`` holds the local properties of the datasets that have an intent. ValueError where a version
    that was wanted is gone.
    """
    branch, coming = branch_name(root, stamp), coming_name(root, stamp)
    seen = {dataset.name: dataset for dataset in there}
    set_aside = branch in seen
    if set_aside and root in seen and (mine := seen[root].marks.swap) is not None and mine.stamp == stamp:
        raise ValueError(f"{branch} exists already")
    old = branch if set_aside else root
    intents = [
        (dataset, dataset.marks.swap)
        for dataset in sorted(there, key=lambda d: d.name)
        if dataset.marks.swap is not None
        and (dataset.marks.swap.root, dataset.marks.swap.stamp) == (root, stamp)
        and _is_within(dataset.name, old)
    ]
    if not any(dataset.name == old for dataset, _ in intents):
        return (Forget(tuple(dataset.name for dataset, _ in intents)),)
    steps: list[SwapStep] = []
    if not set_aside:
        promotes: list[SwapStep] = []
        for dataset, intent in intents:
            name = coming + dataset.name.removeprefix(root)
            made = seen.get(name)
            if made is None:
                steps.append(_clone(dataset, intent, name, local.get(dataset.name, {})))
            if made is None or made.snapshot_with(intent.guid) is None:
                promotes.append(Promote(name))
        steps += [*promotes, Rename(root, branch)]
    if not set_aside or coming in seen:
        steps.append(Rename(coming, root))
    steps.append(Settle(root, branch, tuple(branch + d.name.removeprefix(old) for d, _ in intents)))
    return tuple(steps)


def _clone(dataset: Dataset, intent: Intent, name: str, local: Mapping[str, str]) -> Clone:
    version = dataset.snapshot_with(intent.guid)
    if version is None:
        raise ValueError(f"{dataset.name} has no version {intent.guid:016x} to go back to")
    properties = {key: value for key, value in local.items() if key not in NOT_COPIED}
    if dataset.kind is DatasetKind.FILESYSTEM:
        properties["canmount"] = "noauto"
    return Clone(version.full_name, name, properties)


def _is_within(name: str, root: str) -> bool:
    return name == root or name.startswith(f"{root}/")
