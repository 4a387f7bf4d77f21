"""What must hold at every moment, judged from the outside: it knows what is on the nodes and what hoster has
reported, and nothing of hoster's plans.

Every snapshot that hoster destroys is judged in that moment; what is there is compared after every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hoster.model.anchors import TargetKey
from hoster.model.names import SnapshotType, snapshot_label
from hoster.model.plan import Outcome, Report
from hoster.planning.refusals import SET_ASIDE
from tests.campaign.source import Before, Place, check_source, difference, is_half_moved, seen
from tests.campaign.world import ACTIVE, TARGET_KEEP, Target, Violation, World, id_of
from tests.zfsmodel.cluster import HERE
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.state import Dataset, Snapshot, split

FOREIGN = "campaign:foreign"
"""A property of snapshots and datasets that somebody else has made on a target."""


@dataclass
class Act:
    """One run of hoster: what it may prune on the source, where it sends, what it has destroyed."""

    counts: dict[SnapshotType, int]
    target: Target | None = None
    asked_for: str = ""
    moves: bool = False
    """A VM goes back, or is brought back: its datasets change, and nothing of them is lost."""
    raced: bool = False
    before: Before | None = None
    """How it was; of a command that finishes what another one began, before that one."""
    drops: list[Place] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)


@dataclass
class Judge:
    """Watches the nodes of a world. ``limits`` counts losses that nobody could have known of."""

    world: World
    limits: Counter[str] = field(default_factory=Counter)
    reported: dict[Target, dict[int, str]] = field(default_factory=dict)
    pruned: dict[Target, set[int]] = field(default_factory=dict)
    shared: set[tuple[Target, int]] = field(default_factory=set)
    loose: set[tuple[Target, int]] = field(default_factory=set)
    """Whose anchor somebody has destroyed by hand, by a rollback for one."""
    content: dict[int, str] = field(default_factory=dict)
    agreed: set[tuple[Target, str, int]] = field(default_factory=set)
    """Replicas of which somebody has said that they may open with another key, and with which."""
    beside: dict[Place, object] = field(default_factory=dict)
    acts: list[Act | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        for target in self.world.targets:
            self.reported[target], self.pruned[target] = {}, set()
        for node in self.world.cluster.nodes.values():
            node.watchers.append(self._watch)
        self.beside = self._beside()

    @contextmanager
    def watching(self, act: Act) -> Iterator[None]:
        """hoster is at work in this block."""
        before = act.before = act.before or seen(self.world)
        versions = self._versions()
        act.moves = act.moves or is_half_moved(self.world)
        foreign = self._foreign_places()
        keys = self._keys_of_replicas()
        outer = self.acts[-1] if self.acts else None
        act.raced = act.raced or outer is not None
        self.acts.append(act)
        try:
            yield
        finally:
            self.acts.pop()
        if act.raced:
            return
        self._look_at_keys(keys)
        check_source(self.world, before, moved=act.moves)
        dropped = set(act.names.values())
        now = self._versions()
        for (node, guid), name in versions.items():
            if (node, guid) not in now and guid not in dropped:
                raise Violation("every version stays", f"{name} on {node}", "it is gone")
        self._look_at_foreign(foreign, self._foreign_places())

    @contextmanager
    def by_hand(self) -> Iterator[None]:
        """Somebody else than hoster is at work in this block."""
        for act in self.acts:
            if act is not None:
                act.raced = True
        self.acts.append(None)
        try:
            yield
        finally:
            self.acts.pop()

    def look(self, *, by_hand: bool = False) -> None:
        """Everything that must hold after a step."""
        for node in self.world.cluster.nodes.values():
            for dataset in node.datasets.values():
                for snapshot in dataset.snapshots:
                    digest = snapshot.content.digest
                    if self.content.setdefault(snapshot.guid, digest) != digest:
                        raise Violation("one GUID, one content", self.content[snapshot.guid], digest)
        for target, reported in self.reported.items():
            there = self._guids_on(target)
            for guid in reported.keys() - there - self.pruned[target]:
                raise Violation("what was reported replicated", reported[guid], f"gone from {target.node}")
        beside = self._beside()
        if beside != self.beside:
            raise Violation("what is nobody's business", "untouched", difference(self.beside, beside))
        self._look_at_bases(by_hand=by_hand)

    def hear(self, report: Report, act: Act) -> None:
        """What a report says is true; what it says was sent is owed from now on."""
        names = act.names | {
            f"{dataset.name}@{snapshot.name}": snapshot.guid
            for dataset in self.world.all_sources()
            for snapshot in dataset.snapshots
        }
        destroyed = sorted((gone.node, gone.snapshot) for vm in report.vms for gone in vm.destroyed)
        if not act.raced and destroyed != sorted(act.drops):
            raise Violation("the report of what was destroyed", sorted(act.drops), destroyed)
        if act.target is None:
            return
        for vm in report.vms:
            for full_name in vm.sent:
                if full_name in names:
                    self.reported[act.target][names[full_name]] = full_name
            if vm.outcome in {Outcome.DONE, Outcome.UNCHANGED} and not act.raced:
                self._is_complete(act.target, vm.vm)

    def agree(self, target: Target, replica: str) -> None:
        """Somebody says that a replica may open with the key that its source has now, and no other."""
        for source in self.world.all_sources():
            if target.name_of(source.name) == replica and source.key_root is not None:
                self.agreed.add((target, replica, source.key_root.wrapping))

    def common(self, target: Target, source: Dataset) -> list[Snapshot]:
        """The versions of the replica that its source still has, if only as bookmarks; oldest first."""
        replica = self.world.replica(target, source)
        known = versions_of(source)
        return [] if replica is None else [one for one in replica.snapshots if one.guid in known]

    def _keys_of_replicas(self) -> dict[tuple[Target, str], int]:
        """With which key each replica opens that brought its own along."""
        return {
            (target, replica.name): replica.key_root.wrapping
            for target in self.world.targets
            for replica in self.world.node_of(target).datasets.values()
            if replica.name.startswith(f"{target.home}/") and replica.key_root is not None
        }

    def _look_at_keys(self, before: dict[tuple[Target, str], int]) -> None:
        for (target, name), key in self._keys_of_replicas().items():
            agreed = (target, name, key) in self.agreed or ".branch-" in name
            if before.get((target, name), key) != key and not agreed:
                raise Violation(f"{name} on {target.node}", "opens with the key it had", "another")

    def _is_complete(self, target: Target, vm: str) -> None:
        for source in self.world.datasets_of(vm):
            replica, newest = self.world.replica(target, source), source.newest
            if newest is None or source.written:
                raise Violation(f"{source.name} is called replicated", "a snapshot of its data", "none")
            if replica is None or replica.by_guid(newest.guid) is None:
                raise Violation(f"{source.name} is called replicated", newest.name, f"not on {target.node}")
            if replica.content.digest != newest.content.digest or replica.partial is not None:
                raise Violation(f"{source.name} is called replicated", "equal data", "other data")
            self.shared.add((target, source.guid))
            self.loose.discard((target, source.guid))

    def _look_at_bases(self, *, by_hand: bool) -> None:
        sources = {dataset.guid: dataset for dataset in self.world.all_sources()}
        for target, guid in list(self.shared):
            source = sources.get(guid)
            there = self._guids_on(target, set_aside=False)
            if source is not None and not there.isdisjoint(versions_of(source)):
                continue
            self.shared.discard((target, guid))
            if by_hand or source is None:
                continue
            if (target, guid) not in self.loose:
                raise Violation(f"a base of {source.name} on {target.node}", "at least one", "none")
            self.limits["base pruned after its anchor was destroyed by hand"] += 1

    def _watch(self, node: ModelNode, full_name: str, snapshot: Snapshot | None, verb: str) -> None:
        act = self.acts[-1] if self.acts else None
        if act is None:
            return
        if snapshot is None:
            raise Violation(f"live data of {full_name} on {node.name}", "kept", f"lost by {verb}")
        if verb != "program":
            raise Violation(f"{full_name} on {node.name}", "never destroyed so", verb)
        act.drops.append((node.name, full_name))
        act.names[full_name] = snapshot.guid
        name = split(full_name)[0]
        if node.name == HERE and any(one.name == name for one in self.world.all_sources()):
            self._judge_source(act, node.datasets[name], snapshot)
        elif act.target is not None and node.name == act.target.node:
            self._judge_target(act.target, node.datasets[name], snapshot, raced=act.raced)
        else:
            raise Violation(f"{full_name} on {node.name}", "nobody's business", "destroyed")

    def _judge_source(self, act: Act, source: Dataset, victim: Snapshot) -> None:
        what = f"{source.name}@{victim.name}"
        if any(mark.guid == victim.guid for mark in source.bookmarks.values() if _is_anchor(mark.name)):
            raise Violation(f"{what}, which has an anchor", "kept", "destroyed")
        if act.raced:  # somebody else may have destroyed newer ones meanwhile
            return
        if act.asked_for != victim.name:
            self._judge_count(source, victim, act.counts, what)
        for key, span in _spans(source).items():
            if min(span) <= victim.createtxg <= max(span):
                raise Violation(f"{what}, which target {key} needs", "kept", "destroyed")
        for target in self.world.targets:
            own = {one.guid for one in source.snapshots}
            common = [one for one in self.common(target, source) if one.guid in own]
            loose = (target, source.guid) in self.loose or (target, source.guid) not in self.shared
            if common and common[-1].guid == victim.guid and not loose:
                raise Violation(f"{what}, the base of {target.node}", "kept", "destroyed")

    def _judge_target(self, target: Target, replica: Dataset, victim: Snapshot, *, raced: bool) -> None:
        what = f"{replica.name}@{victim.name} on {target.node}"
        self._judge_count(replica, victim, TARGET_KEEP, what)
        source = next(
            (one for one in self.world.all_sources() if target.name_of(one.name) == replica.name), None
        )
        if source is None and raced:  # it was renamed meanwhile
            self.pruned[target].add(victim.guid)
            return
        if source is None:
            raise Violation(f"{what}, no replica of anything here", "kept", "destroyed")
        vm = source.name.removeprefix(f"{ACTIVE}/").partition("/")[0]
        if victim.properties.get("hoster:from") != f"{id_of(vm)}/1":
            raise Violation(f"{what}, which was not sent from here", "kept", "destroyed")
        common = self.common(target, source)
        if not raced and common and common[-1] is victim:
            raise Violation(f"{what}, the base of the next increment", "kept", "destroyed")
        self.pruned[target].add(victim.guid)

    def _judge_count(
        self, dataset: Dataset, victim: Snapshot, counts: dict[SnapshotType, int], what: str
    ) -> None:
        label = snapshot_label(victim.name)
        keep = counts.get(label.stype) if label is not None else None
        if label is None or keep is None:
            raise Violation(f"{what}, of a type that is not counted", "kept", "destroyed")
        newer = [
            one
            for one in dataset.since(victim)
            if (other := snapshot_label(one.name)) is not None and other.stype is label.stype
        ]
        if len(newer) < keep:
            raise Violation(f"{what}, among the newest {keep}", "kept", "destroyed")

    def _guids_on(self, target: Target, *, set_aside: bool = True) -> set[int]:
        """What lies in the home of a target, with or without what was set aside by hand."""
        inside = [
            one
            for one in self.world.node_of(target).datasets.values()
            if one.name.startswith(f"{target.home}/")
        ]
        return {s.guid for one in inside if set_aside or SET_ASIDE not in one.name for s in one.snapshots}

    def _versions(self) -> dict[tuple[str, int], str]:
        return {
            (node.name, snapshot.guid): f"{dataset.name}@{snapshot.name}"
            for node in self.world.cluster.nodes.values()
            for dataset in node.datasets.values()
            for snapshot in dataset.snapshots
        }

    def _look_at_foreign(
        self, before: dict[tuple[str, int], tuple[str, str]], now: dict[tuple[str, int], tuple[str, str]]
    ) -> None:
        """What somebody else has made on a target keeps its name, and does not go along into a branch."""
        for (node, guid), (name, short) in before.items():
            becomes = now.get((node, guid), (name, short))[0]
            moved = becomes != name and (not short or self._is_on_source(node, name))
            if moved and (not short or ".branch-" in becomes):
                raise Violation("somebody else's work", f"{name} stays or is refused", f"in {becomes}")

    def _foreign_places(self) -> dict[tuple[str, int], tuple[str, str]]:
        """Datasets and snapshots that somebody else has made, by node and GUID: the dataset's name, and the
        snapshot's. What was put into a half done swap is left out: that has to be gone on with."""
        found: dict[tuple[str, int], tuple[str, str]] = {}
        for node in self.world.cluster.nodes.values():
            swapping = [f"{one.name}/" for one in node.datasets.values() if "hoster:swap" in one.properties]
            for dataset in node.datasets.values():
                if any(f"{dataset.name}/".startswith(root) for root in swapping):
                    continue
                if FOREIGN in dataset.properties:
                    found[node.name, dataset.guid] = dataset.name, ""
                for one in dataset.snapshots:
                    if FOREIGN in one.properties:
                        found[node.name, one.guid] = dataset.name, one.name
        return found

    def _is_on_source(self, node: str, name: str) -> bool:
        return any(
            target.name_of(source.name) == name
            for target in self.world.targets
            if target.node == node
            for source in self.world.all_sources()
        )

    def _beside(self) -> dict[Place, object]:
        """What is no VM's: hoster has no business there."""
        return {
            (node.name, one.name): (
                one.guid,
                one.content.digest,
                dict(one.properties),
                [snapshot.guid for snapshot in one.snapshots],
                [sorted(snapshot.properties) for snapshot in one.snapshots],
            )
            for node in self.world.cluster.nodes.values()
            for one in node.datasets.values()
            if not self._is_of_a_vm(one.name)
        }

    def _is_of_a_vm(self, name: str) -> bool:
        homes: Sequence[str] = (ACTIVE, "backup/vm", "pool/hosted/replicas")
        below = [name.removeprefix(f"{home}/") for home in homes if name.startswith(f"{home}/")]
        root = below[0].partition("/")[0].partition(".")[0] if below else ""
        return root in self.world.vms or "/clone-" in name


def versions_of(dataset: Dataset) -> set[int]:
    """The GUIDs of the snapshots of a dataset, and of those of which it has bookmarks."""
    return {one.guid for one in dataset.snapshots} | {one.guid for one in dataset.bookmarks.values()}


def _is_anchor(name: str) -> bool:
    return name.startswith("hoster-")


def _spans(source: Dataset) -> dict[TargetKey, list[int]]:
    """The anchors of each target, as createtxgs."""
    spans: dict[TargetKey, list[int]] = {}
    for mark in source.bookmarks.values():
        if _is_anchor(mark.name):
            spans.setdefault(TargetKey(int(mark.name.split("-")[1], 16)), []).append(mark.createtxg)
    return spans
