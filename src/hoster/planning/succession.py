"""Who may run a VM: compares epochs, and decides what a replica that takes over goes on from.

Pure. An epoch counts promotions, so the higher one is right; equal numbers made by different nodes are a
split, in which nobody can be right without a person. Evidence that something newer exists elsewhere never
stops a takeover for good: it is shown, and the person decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from msgspec import Struct

from hoster.model.plan import Ground, Refusal
from hoster.model.storage import Dataset, Epoch, Role, Site, Snapshot


class Standing(StrEnum):
    """How one copy's epoch stands to another's."""

    CURRENT = "current"
    """The other one's is older, or the same."""

    SUPERSEDED = "superseded"
    """The other copy was promoted after this one."""

    SPLIT = "split"
    """Both were promoted while they knew nothing of each other."""


class Witness(Struct, frozen=True):
    """What another node has of the VM: its datasets there, the VM's own first (none: it has no copy)."""

    node: str
    datasets: tuple[Dataset, ...] = ()
    site: Site | None = None

    @property
    def epoch(self) -> Epoch | None:
        """The epoch that its copy is of, or that it was told of."""
        return self.datasets[0].marks.epoch if self.datasets else None


class Takeover(Struct, frozen=True):
    """How a copy becomes the one that may run.

    ``versions`` are those it goes on from, the VM's own dataset first; ``set_aside`` says that some of its
    datasets hold newer ones, which do not belong together, and the VM goes back to ``versions`` first.
    ``give_up`` are datasets with a stream that broke off. ``evidence`` says, in words, what may be lost.
    """

    epoch: Epoch
    versions: tuple[tuple[Dataset, Snapshot], ...]
    set_aside: bool
    give_up: tuple[str, ...]
    evidence: tuple[str, ...]

    @property
    def taken_at(self) -> int:
        """When what the VM goes on from was snapshotted: Unix seconds by its source's clock."""
        return self.versions[0][1].creation


def standing(mine: Epoch | None, theirs: Epoch | None) -> Standing:
    """How a copy with the epoch ``mine`` stands to one with ``theirs``; no epoch is older than any."""
    if theirs is None or mine == theirs:
        return Standing.CURRENT
    if mine is None or theirs.number > mine.number:
        return Standing.SUPERSEDED
    return Standing.SPLIT if theirs.number == mine.number else Standing.CURRENT


def next_epoch(known: Iterable[Epoch | None], node: str) -> Epoch:
    """The epoch of a promotion on ``node`` that comes after all those known."""
    return Epoch(1 + max((epoch.number for epoch in known if epoch is not None), default=0), node)


def complete_versions(datasets: Sequence[Dataset]) -> tuple[tuple[Dataset, Snapshot], ...]:
    """The newest version of a replica that is whole: the same snapshot of every dataset that belongs to it.

    ``datasets`` are the VM's own first. What arrived is marked only after all of it did, so the newest
    marked snapshot tells which datasets belonged to the VM; a newer one counts if all of those have it.
    Empty where there is none::

        root a! b! c   disk a! b! c   old a!   ->  c of root and disk: "old" was gone before b
        root a! b! c   disk a! b!              ->  b of both: c never arrived whole
        root a b       disk a                  ->  a: nothing was marked yet
    """
    root = datasets[0]
    marked = next((s for s in reversed(root.snapshots) if s.sent_by is not None), None)
    named = [(dataset, {s.name: s for s in dataset.snapshots}) for dataset in datasets]
    members = [(d, by_name) for d, by_name in named if marked is None or marked.name in by_name]
    for snapshot in reversed(root.snapshots):
        if all(snapshot.name in by_name for _, by_name in members):
            return tuple((dataset, by_name[snapshot.name]) for dataset, by_name in members)
    return ()


def plan_takeover(
    name: str,
    datasets: Sequence[Dataset],
    hostname: str,
    witnesses: Sequence[Witness],
    handed_over: Epoch | None = None,
) -> Takeover | Refusal:
    """How the copy of the VM on this node takes over; ``datasets`` are the VM's own first.

    ``handed_over`` is the epoch of a primary that has stopped its VM and gives it up to this copy. A copy
    that was primary before is taken as it is, with all that it wrote; it never goes back. Refused only where
    nothing whole has ever arrived.
    """
    received = datasets[0].marks.role is Role.REPLICA and not datasets[0].marks.demoted
    versions = complete_versions(datasets) if received else _as_they_are(datasets)
    if not versions:
        return Refusal(
            name,
            Ground.NOTHING_WHOLE,
            f"no version of {datasets[0].name} is whole here: nothing that could run has ever arrived",
            f"hoster vm restore {name} --from NODE    (from a node that has one)",
        )
    known = [datasets[0].marks.epoch, *(w.epoch for w in witnesses)]
    partial = tuple(dataset.name for dataset in datasets if dataset.partial is not None)
    ahead = received and any(dataset.newest != version for dataset, version in versions)
    evidence = [*_own_evidence(datasets, versions, partial, ahead)]
    if received and not any(s.sent_by for s in datasets[0].snapshots):
        # Later runs send the VM's own dataset last: what it has of those is whole.
        evidence.append(
            f"the first run, which brought {versions[0][1].name}, did not come to its end:"
            " disks of the VM may be missing"
        )
    for witness in witnesses:
        evidence += _testimony(datasets, witness, handed_over)
    return Takeover(next_epoch(known, hostname), versions, ahead, partial, tuple(evidence))


def _as_they_are(datasets: Sequence[Dataset]) -> tuple[tuple[Dataset, Snapshot], ...]:
    """The newest versions of a copy that ran here before: it goes on from its live data, which is newer."""
    if datasets[0].newest is None:
        return ()
    return tuple((dataset, dataset.newest) for dataset in datasets if dataset.newest is not None)


def _own_evidence(
    datasets: Sequence[Dataset],
    versions: Sequence[tuple[Dataset, Snapshot]],
    partial: Sequence[str],
    ahead: bool,
) -> list[str]:
    found = []
    if datasets[0].marks.role is Role.SUPERSEDED:
        found.append(
            f"{datasets[0].name} is marked superseded: what was written elsewhere since is not in it"
        )
    if partial:
        found.append(f"a newer version was on its way to {', '.join(partial)} and did not arrive whole")
    if ahead:
        found.append(
            f"some of its datasets hold newer versions than {versions[0][1].name}, the newest that is whole:"
            " they are set aside as a branch"
        )
    return found


def _testimony(datasets: Sequence[Dataset], witness: Witness, handed_over: Epoch | None) -> list[str]:
    """What another node's copy says against a takeover here."""
    if not witness.datasets:
        return []
    mine, theirs = datasets[0], witness.datasets[0]
    found = []
    if theirs.marks.role is Role.PRIMARY and (handed_over is None or witness.epoch != handed_over):
        found.append(f"{witness.node} answers, and its copy may run (epoch {theirs.marks.epoch})")
    if (
        mine.marks.role is Role.PRIMARY
        and theirs.marks.role is Role.REPLICA
        and not theirs.marks.demoted
        and standing(mine.marks.epoch, theirs.marks.epoch) is not Standing.CURRENT
    ):
        found.append(
            f"{witness.node} was told that {theirs.marks.parent} has taken it over"
            f" (epoch {theirs.marks.epoch})"
        )
    here = {s.guid for s in mine.snapshots} | {b.guid for b in mine.bookmarks}
    newer = [s for s in theirs.snapshots if s.guid not in here]
    shared = [s for s in theirs.snapshots if s.guid in here]
    if newer and (not shared or newer[-1].createtxg > shared[-1].createtxg):
        found.append(f"{witness.node} has a newer version: {newer[-1].name} (guid {newer[-1].guid:016x})")
    return found
