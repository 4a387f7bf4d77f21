"""A source with one VM and two targets: real use cases of hoster at work on simulated ZFS, and what must
hold after every one of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from hoster.config.settings import ReplicationSettings, Settings
from hoster.errors import HosterError, OperationFailed, Refused
from hoster.host.locks import Locks
from hoster.host.reach import LocalHost
from hoster.host.ssh import SshOptions
from hoster.model.anchors import TargetKey, anchor_target, anchors_of
from hoster.model.names import Endpoint, SnapshotType, snapshot_label
from hoster.model.plan import Outcome, Report, VmReport
from hoster.operations.context import Context
from hoster.operations.replicate import replicate
from hoster.operations.request import ReplicationRequest
from hoster.operations.snapshots import SnapshotRequest, destroy_snapshot, snapshot_one
from hoster.testing import VM_ID, NamedHost
from hoster.zfs.store import ZfsStore
from tests.properties.cluster import Cluster, Fault, Killed
from tests.properties.simulated import Held, SimulatedNode, Volume

WEB = "tank/vm/web"
BYSTANDER = "tank/vm/web2"
KEEP = {SnapshotType.HOURLY: 2, SnapshotType.DAILY: 3, SnapshotType.REPLICATION: 2}
"""The targets' counts; other types are never pruned there."""

SOURCE_KEEP = 2

ASKED_FOR = -1
"""Stands for a count where a person has named the snapshot to destroy."""


class SimulatedContext(Context, frozen=True):
    """A context whose other nodes are in the simulation too."""

    @contextmanager
    def reach(self, options: SshOptions) -> Iterator[Callable[[], ZfsStore]]:
        yield lambda: ZfsStore(NamedHost(str(options.endpoint)), self.runner)


class Quiet:
    """Watches a run and says nothing."""

    def begin(self, sizes: Mapping[str, int]) -> None:
        """Nothing."""

    def advance(self, vm: str, amount: int) -> None:
        """Nothing."""

    def finish(self, report: VmReport) -> None:
        """Nothing."""


@dataclass(slots=True)
class World:
    """The source ``local`` and the targets ``a`` and ``b``, with what was seen of them so far."""

    seed: int
    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    clock: datetime = datetime(2024, 3, 31, 1, 30)
    shared: set[str] = field(default_factory=set)
    given_up: dict[str, set[int]] = field(default_factory=lambda: {"a": set(), "b": set(), "local": set()})
    concurrent: bool = False
    lost: bool = False
    sending: str = ""
    pruning: tuple[SnapshotType, int] = (SnapshotType.REPLICATION, SOURCE_KEEP)
    keep: dict[SnapshotType, int] = field(default_factory=lambda: dict(KEEP))
    cluster: Cluster = field(init=False)
    context: SimulatedContext = field(init=False)

    def __post_init__(self) -> None:
        shuffle = Random(self.seed)
        nodes = {
            name: SimulatedNode(name, shuffle, txg)
            for name, txg in (("local", 5000), ("a", 100), ("b", 90_000))
        }
        self.cluster = Cluster(nodes)
        for node in nodes.values():
            node.create("tank/vm")
            node.watch = self._judge_destruction
        for name, identity, production in ((WEB, VM_ID, "yes"), (BYSTANDER, "another", "no")):
            marks = {
                "hoster:id": identity,
                "hoster:role": "primary",
                "hoster:epoch": "1@node1",
                "hoster:parent": "node1",
                "hoster:production": production,
            }
            self.source.create(name, marks)
            self.source.write(name, 8)
        self.source.snapshot([f"{BYSTANDER}@hourly_2024-03-31_01-30-00"])
        settings = Settings(
            read_from=Path("/nowhere"),
            datasets=("tank/vm",),
            replication=ReplicationSettings(keep=SOURCE_KEEP, target_keep=KEEP),
        )
        self.context = SimulatedContext(
            settings,
            "node1",
            self.cluster,
            ZfsStore(LocalHost(), self.cluster),
            Locks(self.folder),
            now=lambda: self.clock,
        )

    @property
    def source(self) -> SimulatedNode:
        return self.cluster.nodes["local"]

    @property
    def web(self) -> Volume:
        return self.source.volumes[WEB]

    def replica(self, target: str) -> Volume | None:
        return self.cluster.nodes[target].volumes.get(WEB)

    def write(self, size: int) -> None:
        self.source.write(WEB, size)

    def jump(self, minutes: int) -> None:
        self.clock += timedelta(minutes=minutes)

    def tick(self) -> None:
        """A second goes by; no two snapshots of a history bear the same one, however the clock jumps."""
        self.clock += timedelta(seconds=1)

    def foreign(self, name: str) -> None:
        """Somebody takes a snapshot of the VM, under a name that has not been used before."""
        self.source.snapshot([f"{WEB}@{name}-{self.source.txg}"])

    def foreign_on(self, target: str, name: str) -> None:
        """Somebody takes a snapshot of the replica, in which nothing can have been written."""
        self.cluster.nodes[target].snapshot([f"{WEB}@{name}"])

    def lose(self, index: int) -> None:
        """Somebody destroys a snapshot of the VM by hand; a target is left with an anchor then, at worst."""
        found = self._pick("local", index)
        if found and not found.holds and not found.clones:
            self.web.snapshots.remove(found)
            self.lost = True

    def hold(self, node: str, index: int) -> None:
        if found := self._pick(node, index):
            found.holds = 0 if found.holds else 1

    def clone(self, node: str, index: int) -> None:
        if found := self._pick(node, index):
            found.clones = () if found.clones else ("tank/clone",)

    def snapshot(self, stype: SnapshotType, keep: int | None) -> None:
        """``hoster snapshot new``, with or without pruning; what disappears is what it reports."""
        self.source.destroyed.clear()
        with self._by_count(stype, keep or 10**6):
            report = snapshot_one(self.context, "web", SnapshotRequest(stype, keep))
        assert not report.with_outcome(Outcome.FAILED), report
        if not self.concurrent:
            assert sorted(self.source.destroyed) == destroyed_on(report, "local")

    def destroy(self, index: int) -> None:
        """``hoster snapshot destroy``, which refuses what a target needs."""
        found = self._pick("local", index)
        if found is None:
            return
        with self._by_count(SnapshotType.REPLICATION, ASKED_FOR):
            try:
                destroy_snapshot(self.context, "web", found.name)
            except Refused:
                assert found in self.web.snapshots
            except OperationFailed:
                if not self.concurrent:
                    raise

    def replicate(self, target: str, fault: Fault | None = None) -> Report | None:
        """``hoster vm replicate``; None where it was killed, or failed as a whole."""
        for node in self.cluster.nodes.values():
            node.destroyed.clear()
        bookmarks = dict(self.web.bookmarks)
        if fault is not None:
            self.cluster.begin(fault)
        request = ReplicationRequest(SshOptions(Endpoint(target)), ("web",))
        report: Report | None = None
        outer, self.sending = self.sending, target
        with self._by_count(SnapshotType.REPLICATION, SOURCE_KEEP), suppress(Killed, HosterError):
            report = replicate(self.context, request, Quiet())
        self.sending = outer
        self.cluster.begin()
        there = self.replica(target)
        if there is not None and there.guids & self.web.guids:
            self.shared.add(target)
        if report is not None and not self.concurrent:
            self._judge_report(report, target)
        for bookmark, (guid, _) in bookmarks.items():
            if bookmark not in self.web.bookmarks and not self.concurrent:
                key = target_key_of(self, target)
                assert bookmark == f"hoster-{key}-{guid:016x}", "only this target's anchors are superseded"
        return report

    def meanwhile(self, outer: Callable[[], object], at: int, inner: Callable[[], object]) -> None:
        """``outer``, one run of hoster, in which ``inner``, another one, happens before command ``at``."""
        self.concurrent = True
        self.cluster.begin(Fault("meanwhile", at))

        def interrupt() -> None:
            self.tick()
            inner()

        self.cluster.meanwhile = interrupt
        outer()
        self.tick()
        self.cluster.begin()
        self.concurrent = False

    def check(self) -> None:
        """What holds at every moment."""
        for target in ("a", "b"):
            there = self.replica(target)
            if there is None:
                assert target not in self.shared
                continue
            ours = {s.guid: s for s in self.web.snapshots}
            for version in there.snapshots:
                if version.guid in ours:
                    assert version.content == ours[version.guid].content, "one GUID, one content"
            if target in self.shared:
                known = set(ours) | (
                    {guid for guid, _ in self.web.bookmarks.values()} if self.lost else set()
                )
                assert there.guids & known, f"{target} and the source share no snapshot any more"
        assert len(self.source.volumes[BYSTANDER].snapshots) == 1
        assert not self.source.volumes[BYSTANDER].bookmarks
        assert not any(BYSTANDER in self.cluster.nodes[target].volumes for target in ("a", "b"))

    def check_converged(self, target: str, report: Report, wanted: set[int], *, raced: bool = False) -> None:
        """What one whole run must have brought about; ``wanted`` is what the source held at its start.

        Missing may be what the target's own counts have given up, and replication snapshots that the source
        has given up before they could be sent. Where two runs ``raced``, also what was taken before the
        first version that was ever sent.
        """
        vm = report.vms[0]
        assert vm.outcome in {Outcome.DONE, Outcome.UNCHANGED}, vm
        assert not [note for note in vm.notes if not note.startswith("kept")], vm.notes
        there = self.replica(target)
        assert there is not None
        assert self.web.snapshots[-1].guid in there.guids
        assert (there.content, there.total) == (self.web.content, self.web.total)
        first = min(s.createtxg for s in self.web.snapshots if s.guid in there.guids)
        since = {s.guid for s in self.web.snapshots if s.createtxg >= first} if raced else wanted
        given_up = self.given_up[target] | self.given_up["local"]
        assert wanted & since <= there.guids | given_up, "a version of the source is missing"
        seen = self.source.seen(WEB)
        key = target_key_of(self, target)
        known = self.web.guids | {b.guid for b in seen.bookmarks}
        base = [s.guid for s in there.snapshots if s.guid in known][-1]
        assert [b.guid for b in anchors_of(seen, key)] == [base]
        assert all(s.sent_by == f"{VM_ID}/1" for s in there.snapshots if s.guid in self.web.guids)

    def _judge_report(self, report: Report, target: str) -> None:
        """A report says what was destroyed, and no more; what is called done has arrived."""
        for name in ("local", target):
            assert sorted(self.cluster.nodes[name].destroyed) == destroyed_on(report, name)
        for vm in report.vms:
            assert not [note for note in vm.notes if "by now" in note], "known before, if one had looked"
            there = self.replica(target)
            if vm.outcome is Outcome.FAILED:
                left_by_others = [
                    g for g in vm.destroyed if g.node == "local" and "@replication_" in g.snapshot
                ]
                assert list(vm.destroyed) == left_by_others, "a run that has failed destroys nothing else"
            elif vm.outcome is not Outcome.REFUSED:
                assert there is not None
                assert self.web.snapshots[-1].guid in there.guids, f"{vm.outcome}, and it is not there"

    @contextmanager
    def _by_count(self, stype: SnapshotType, keep: int) -> Iterator[None]:
        before, self.pruning = self.pruning, (stype, keep)
        try:
            yield
        finally:
            self.pruning = before

    def _judge_destruction(self, node: SimulatedNode, volume: Volume, victim: Held) -> None:
        """Whatever is destroyed, by whatever plan, is of the right type, old enough, and needed by nobody."""
        assert volume.name == WEB
        if not self.concurrent:  # what is held or cloned meanwhile, ZFS keeps by itself
            assert not victim.holds, f"{victim.name} is held"
            assert not victim.clones, f"{victim.name} is cloned"
        asked_for = self.pruning[1] == ASKED_FOR
        label = snapshot_label(victim.name)
        assert asked_for or label is not None, f"{victim.name} is the user's"
        if node.name != "local" or _is(victim, SnapshotType.REPLICATION):
            self.given_up[node.name].add(victim.guid)
        if node.name == "local":
            spans: dict[object, list[int]] = {}
            for bookmark in sorted(self.source.seen(WEB).bookmarks, key=lambda b: b.createtxg):
                spans.setdefault(anchor_target(bookmark), []).append(bookmark.createtxg)
            for key, span in spans.items():
                if self.sending and key == target_key_of(self, self.sending):
                    del span[:-1]  # what arrived has superseded the rest
                assert not min(span) <= victim.createtxg <= max(span), f"a target needs {victim.name}"
            for target in ("a", "b"):
                there = self.replica(target)
                held = [s.guid for s in there.snapshots if s.guid in self.web.guids] if there else []
                assert self.lost or victim.guid not in held[-1:], f"{victim.name} is the base of {target}"
            stype, keep = self.pruning
        else:
            assert label is not None
            stype, keep = label.stype, self.keep.get(label.stype, 10**6)
            assert victim.sent_by == f"{VM_ID}/1", f"{victim.name} was not sent by us"
            common = [s for s in volume.snapshots if s.guid in self.web.guids]
            assert victim is not common[-1], "the base of the next increment"
        if not asked_for and label is not None:
            assert label.stype is stype
            newer = [s for s in volume.snapshots if s.createtxg > victim.createtxg and _is(s, stype)]
            assert self.concurrent or len(newer) >= keep, f"{victim.name} is among the newest {keep}"

    def _pick(self, node: str, index: int) -> Held | None:
        volume = self.cluster.nodes[node].volumes.get(WEB)
        return volume.snapshots[index % len(volume.snapshots)] if volume and volume.snapshots else None


def target_key_of(world: World, target: str) -> TargetKey:
    """The key of a target: the GUID of the dataset that its replicas lie in."""
    return TargetKey(world.cluster.nodes[target].volumes["tank/vm"].guid)


def destroyed_on(report: Report, node: str) -> list[str]:
    """The snapshots that a report says were destroyed on a node."""
    return sorted(gone.snapshot for vm in report.vms for gone in vm.destroyed if gone.node == node)


def _is(snapshot: Held, stype: SnapshotType) -> bool:
    label = snapshot_label(snapshot.name)
    return label is not None and label.stype is stype
