"""What can happen between two replications: hoster's other commands, and what people do by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from hoster.errors import Busy, OperationFailed, Refused
from hoster.model.names import SnapshotType
from hoster.model.plan import Outcome, Report
from hoster.operations.snapshots import SnapshotRequest, destroy_snapshot, snapshot_all, snapshot_one
from tests.campaign.going_back import GoingBack
from tests.campaign.judge import FOREIGN, Act, Judge
from tests.campaign.world import ACTIVE, DESCENDANTS, VOLUMES, Violation, World
from tests.zfsmodel.command import command
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.state import Dataset, Failed, Kind

_TYPES = (SnapshotType.HOURLY, SnapshotType.HOURLY, SnapshotType.DAILY, SnapshotType.CUSTOM)


@dataclass
class Steps:
    """Does one thing at a time, by chance."""

    world: World
    judge: Judge

    def some(self) -> None:
        """One of them; what people do by hand is watched as theirs."""
        step = self.world.random.choices(_STEPS, _WEIGHTS)[0]
        if step in _HOSTERS:
            step(self)
        else:
            with self.judge.by_hand():
                step(self)
            self.judge.look(by_hand=True)

    def prepare(self) -> None:
        """Makes sure that a replication has something to do: it may have to set a branch aside, too."""
        with self.judge.by_hand():
            if self.world.random.random() < 0.7:
                self.world.load_keys()
            if self.world.random.random() < 0.4:
                self.rollback()
            self.write()
        self.judge.look(by_hand=True)

    def write(self) -> None:
        dataset = self.any_source()
        with suppress(Failed):  # its key may be unloaded
            self.world.source.write(dataset.name, self.world.random.choice((5000, 100_000)))
            self.note(f"write to {dataset.name}")

    def snapshot_all(self) -> None:
        stype, keep = self.world.random.choice(_TYPES), self.world.random.randint(1, 3)
        self.note(f"hoster snapshot all --stype {stype.value} --keep {keep}")
        request = SnapshotRequest(stype, keep)
        self.hoster(Act({stype: keep}), lambda: snapshot_all(self.world.context, request))

    def snapshot_one(self) -> None:
        vm, stype = self.world.random.choice(self.world.vms), self.world.random.choice(_TYPES)
        keep = self.world.random.choice((None, 1, 2, 3))
        self.note(f"hoster snapshot new {vm} --stype {stype.value} --keep {keep}")
        request = SnapshotRequest(stype, keep)
        counts = {} if keep is None else {stype: keep}
        self.hoster(Act(counts), lambda: snapshot_one(self.world.context, vm, request))

    def destroy_one(self) -> None:
        vm = self.world.random.choice(self.world.vms)
        dataset = self.world.random.choice(self.world.datasets_of(vm))
        if dataset.snapshots:
            name = self.world.random.choice(dataset.snapshots).name
            self.note(f"hoster snapshot destroy {vm} {name}")
            act = Act({}, asked_for=name)
            self.hoster(act, lambda: destroy_snapshot(self.world.context, vm, name))

    def go_back(self) -> None:
        GoingBack(self.world, self.judge).to_snapshot()

    def bring_back(self) -> None:
        GoingBack(self.world, self.judge).to_branch()

    def hoster(self, act: Act, command: Callable[[], Report]) -> None:
        """Runs a command of hoster's that needs no target."""
        with self.judge.watching(act):
            try:
                report = command()
            except (Refused, Busy, OperationFailed) as error:
                self.note(f"  {error.message}")
                return
        for vm in report.with_outcome(Outcome.FAILED):
            if not act.raced:
                raise Violation(f"taking snapshots of {vm.vm}", "done", vm.reason)
        self.judge.hear(report, act)
        self.judge.look()

    def foreign_name(self) -> None:
        """A snapshot with a name of the user's own, or one that hoster gives."""
        vm = self.world.random.choice(self.world.vms)
        label = self.world.random.choice(("mine", "hourly_of_mine"))
        name = f"{label}-{self.world.next_serial()}"
        self.note(f"zfs snapshot of {vm}: {name}")
        self.zfs(self.world.source, "snapshot", *(f"{one.name}@{name}" for one in self.world.datasets_of(vm)))

    def destroy_by_hand(self) -> None:
        dataset = self.any_source()
        if dataset.snapshots:
            name = f"{dataset.name}@{self.world.random.choice(dataset.snapshots).name}"
            self.zfs(self.world.source, "destroy", name)

    def rollback(self) -> None:
        """``zfs rollback -r`` of a VM, all of it or one dataset only."""
        vm = self.world.random.choice(self.world.vms)
        tree = self.world.datasets_of(vm)
        if self.world.random.random() < 0.2:
            tree = [self.world.random.choice(tree)]
        if not tree[0].snapshots:
            return
        short = self.world.random.choice(tree[0].snapshots[-5:]).name
        wanted = [(one, found) for one in tree if (found := one.find(short)) is not None]
        node = self.world.source
        newer = [(one, later) for one, found in wanted for later in one.since(found)]
        if any(later.holds or node.clones_of(later) for _, later in newer):
            return
        self.note(f"zfs rollback -r of {', '.join(one.name for one, _ in wanted)} to {short}")
        for one, later in newer:
            node.drop(one, later, "rollback -r")
        for one, found in wanted:
            for mark in [mark for mark in one.bookmarks.values() if mark.createtxg > found.createtxg]:
                del one.bookmarks[mark.name]
                self.judge.loose |= {(target, one.guid) for target in self.world.targets}
            command(node, ("zfs", "rollback", f"{one.name}@{short}"))

    def add_descendant(self) -> None:
        vm = self.world.random.choice(self.world.vms)
        short = self.world.random.choice(DESCENDANTS)
        name = f"{ACTIVE}/{vm}/{short}"
        words: tuple[str, ...] = ("-V", "1M") if short in VOLUMES else ()
        encryption = self.world.random.choices(("", "on", "off"), (8, 1, 1))[0]
        words += ("-o", f"encryption={encryption}") if encryption else ()
        if self.zfs(self.world.source, "create", *words, name) and self.world.random.random() < 0.7:
            with suppress(Failed):
                self.world.source.write(name, 5000)

    def exchange_descendant(self) -> None:
        """Somebody makes a dataset anew, encrypted if it was not, and the other way round."""
        gone = self.destroy_descendant()
        if gone is not None:
            words = ("-V", "1M") if gone.kind is Kind.VOLUME else ()
            encryption = f"encryption={'off' if gone.encrypted else 'on'}"
            self.zfs(self.world.source, "create", *words, "-o", encryption, gone.name)

    def destroy_descendant(self) -> Dataset | None:
        """The dataset that is gone, if any."""
        dataset = self.any_source()
        node = self.world.source
        if dataset.name.count("/") < 3 or node.below(dataset.name):
            return None
        if any(one.holds or node.clones_of(one) for one in dataset.snapshots):
            return None
        self.note(f"zfs destroy -r {dataset.name}")
        for one in list(dataset.snapshots):
            node.drop(dataset, one, "destroy -r")
        dataset.bookmarks.clear()
        command(node, ("zfs", "destroy", dataset.name))
        return dataset

    def rename_descendant(self) -> None:
        dataset = self.any_source()
        vm, _, short = dataset.name.removeprefix(f"{ACTIVE}/").partition("/")
        if short:
            becomes = self.world.random.choice([one for one in (*DESCENDANTS, "renamed") if one != short])
            self.zfs(self.world.source, "rename", dataset.name, f"{ACTIVE}/{vm}/{becomes}")

    def change_key(self) -> None:
        """Somebody gives an encrypted dataset, and all that inherits from it, another key."""
        root = self.any_source().key_root
        if root is not None:
            self.zfs(self.world.source, "change-key", root.name)

    def unload_key(self) -> None:
        root = self.any_source().key_root
        if root is not None:
            for one in (root, *self.world.source.below(root.name)):
                if one.mounted and one.key_root is root:
                    self.zfs(self.world.source, "unmount", one.name)
            self.zfs(self.world.source, "unload-key", root.name)

    def load_keys(self) -> None:
        self.note("all keys are loaded by hand, here and of what the replicas lie in")
        self.world.load_keys()

    def hold(self) -> None:
        node, words = self.any_version("hold", "keep")
        self.zfs(node, *words)

    def release(self) -> None:
        node, words = self.any_version("release", "keep")
        self.zfs(node, *words)

    def clone(self) -> None:
        node, words = self.any_version("clone")
        pool = words[1].partition("/")[0]
        if words[1] != "none":
            self.zfs(node, *words, f"{pool}/clone-{self.world.next_serial()}")

    def foreign_snapshot(self) -> None:
        """Somebody takes a snapshot of a replica, perhaps with a name that the source has as well."""
        found = self.any_replica()
        if found is None:
            return
        node, replica, source = found
        name = f"theirs-{self.world.next_serial()}"
        if self.world.random.random() < 0.3 and source.snapshots:
            name = self.world.random.choice(source.snapshots).name
        elif self.world.random.random() < 0.5:
            name = f"hourly_2024-01-01_00-00-{self.world.next_serial():02}"
        self.zfs(node, "snapshot", "-o", f"{FOREIGN}=yes", f"{replica.name}@{name}")

    def foreign_data(self) -> None:
        """Somebody writes to a replica, and may take a snapshot of that."""
        found = self.any_replica()
        if found is None or found[1].inconsistent:
            return
        node, replica, _ = found
        self.zfs(node, "set", "readonly=off", replica.name)
        if replica.kind is Kind.FILESYSTEM:
            self.zfs(node, "mount", replica.name)
        with suppress(Failed):
            node.write(replica.name, 7000)
            self.note(f"on {node.name}: write to {replica.name}")
        if self.world.random.random() < 0.6:
            name = f"{replica.name}@theirs-{self.world.next_serial()}"
            self.zfs(node, "snapshot", "-o", f"{FOREIGN}=yes", name)
        if replica.mounted and self.world.random.random() < 0.7:
            self.zfs(node, "unmount", replica.name)
        self.zfs(node, "set", "readonly=on", replica.name)

    def squat(self) -> None:
        """Somebody has a dataset of their own where a replica would go."""
        target = self.world.random.choice(self.world.targets)
        vm = self.world.random.choice(self.world.vms)
        short = self.world.random.choice(("", "/disk0", "/data", "/logs", "/theirs", "/theirs"))
        node, name = self.world.node_of(target), f"{target.home}/{vm}{short}"
        if name not in node.datasets and self.zfs(node, "create", "-o", f"{FOREIGN}=yes", name):
            with suppress(Failed):
                node.write(name, 3000)
            self.zfs(node, "snapshot", "-o", f"{FOREIGN}=yes", f"{name}@hourly_2024-01-01_00-00-00")

    def any_source(self) -> Dataset:
        return self.world.random.choice(self.world.all_sources())

    def any_replica(self) -> tuple[ModelNode, Dataset, Dataset] | None:
        """A replica, with its node and its source."""
        target, source = self.world.random.choice(self.world.targets), self.any_source()
        replica = self.world.replica(target, source)
        return None if replica is None else (self.world.node_of(target), replica, source)

    def any_version(self, *words: str) -> tuple[ModelNode, tuple[str, ...]]:
        """``words`` with a snapshot of the source behind them, or of a replica."""
        node, dataset = self.world.source, self.any_source()
        found = self.any_replica() if self.world.random.random() < 0.3 else None
        if found is not None:
            node, dataset, _ = found
        names = [f"{dataset.name}@{one.name}" for one in dataset.snapshots]
        return node, (*words, self.world.random.choice(names) if names else "none")

    def zfs(self, node: ModelNode, *words: str) -> bool:
        """A command that somebody types; whether it did anything."""
        code, _, said = command(node, ("zfs", *words))
        self.note(f"on {node.name}: zfs {' '.join(words)}{f'    ({said.strip()})' if code else ''}")
        return not code

    def note(self, words: str) -> None:
        self.world.trace.append(f"    {words}")


_TABLE: tuple[tuple[Callable[[Steps], object], int], ...] = (
    (Steps.write, 24),
    (Steps.snapshot_all, 14),
    (Steps.snapshot_one, 8),
    (Steps.destroy_one, 3),
    (Steps.go_back, 3),
    (Steps.bring_back, 2),
    (Steps.foreign_name, 3),
    (Steps.destroy_by_hand, 4),
    (Steps.rollback, 5),
    (Steps.add_descendant, 7),
    (Steps.destroy_descendant, 2),
    (Steps.rename_descendant, 2),
    (Steps.hold, 3),
    (Steps.release, 2),
    (Steps.clone, 2),
    (Steps.foreign_snapshot, 2),
    (Steps.foreign_data, 1),
    (Steps.squat, 2),
    (Steps.exchange_descendant, 1),
    (Steps.change_key, 2),
    (Steps.unload_key, 2),
    (Steps.load_keys, 4),
)
_STEPS = [step for step, _ in _TABLE]
_WEIGHTS = [weight for _, weight in _TABLE]
_HOSTERS = frozenset(
    {Steps.snapshot_all, Steps.snapshot_one, Steps.destroy_one, Steps.go_back, Steps.bring_back}
)
