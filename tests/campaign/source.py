"""What the source is like: it stays as it is whatever hoster does, or a VM goes back, and nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.campaign.world import ACTIVE, Violation, World
from tests.zfsmodel.cluster import HERE
from tests.zfsmodel.state import Dataset

Place = tuple[str, str]
"""A node and a full name on it."""

_CHANGING = frozenset({"hoster:sites", "hoster:swap"})
"""Properties that hoster changes there: the list of a VM's copies, and what a swap intends."""


@dataclass(frozen=True, slots=True)
class State:
    """What a dataset of the source is."""

    guid: int
    digest: str
    properties: frozenset[tuple[str, str]]
    mounted: bool


@dataclass(frozen=True, slots=True)
class Before:
    """The source before something was done: its datasets, and whose data was in no snapshot, by digest."""

    source: dict[Place, State]
    data: dict[str, str]


def seen(world: World) -> Before:
    """The source as it is now."""
    here = _vms(world)
    states = {
        (HERE, one.name): State(
            one.guid,
            one.content.digest,
            frozenset((key, value) for key, value in one.properties.items() if key not in _CHANGING),
            one.mounted,
        )
        for one in here
    }
    return Before(states, {one.content.digest: one.name for one in here if one.written})


def is_half_moved(world: World) -> bool:
    """Whether a swap was begun there: any command may finish it."""
    return any("hoster:swap" in one.properties for one in _vms(world))


def check_source(world: World, before: Before, *, moved: bool) -> None:
    """Violation unless the source is as it was; or, if a VM has ``moved``, unless that has the properties
    that it had, and its data are in it, in one of its snapshots, or in a branch."""
    now = seen(world)
    if not moved:
        if now.source != before.source:
            changed = difference(before.source, now.source)
            raise Violation("the source's datasets or data", "as they were", changed)
        return
    for place in sorted(before.source.keys() & now.source.keys()):
        was, has = before.source[place], now.source[place]
        if (was.properties, was.mounted) != (has.properties, has.mounted):
            differ = [*sorted(was.properties ^ has.properties), f"mounted: {has.mounted}"]
            raise Violation(f"the properties of {place[1]}", "as they were", differ)
    there = {state.digest for state in now.source.values()}
    there |= {snapshot.content.digest for one in _vms(world) for snapshot in one.snapshots}
    for digest in before.data.keys() - there:
        raise Violation(f"live data of {before.data[digest]}", "in the VM or in a branch", "gone")


def difference(before: Mapping[Place, object], after: Mapping[Place, object]) -> str:
    """The names of what is not as it was."""
    names = sorted(
        place
        for place in before.keys() | after.keys()
        if (place in before) != (place in after) or before.get(place) != after.get(place)
    )
    return ", ".join(f"{name} on {node}" for node, name in names)


def _vms(world: World) -> list[Dataset]:
    """All that lies in the active dataset: VMs, their branches, and what is neither."""
    return [one for one in world.source.datasets.values() if one.name.startswith(f"{ACTIVE}/")]
