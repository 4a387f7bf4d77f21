"""VMs go back to a snapshot, and branches become the VM again: hoster's own commands at the source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hoster.errors import Busy, OperationFailed, Refused
from hoster.model.names import SnapshotType
from hoster.model.plan import Outcome, Report
from hoster.operations.branches import list_branches, restore_branch
from hoster.operations.going_back import Power
from hoster.operations.rollback import RollbackRequest, roll_back
from hoster.operations.snapshots import SnapshotRequest, snapshot_all
from tests.campaign.judge import Act, Judge
from tests.campaign.world import ACTIVE, Violation, World
from tests.zfsmodel.cluster import Accident, Fault, Killed

KILLED = (Accident.KILLED_BEFORE, Accident.KILLED_AFTER)
LAST_COMMAND = 60


@dataclass
class GoingBack:
    """Does one of them, by chance; in one of three it is killed, and the next command has to finish it."""

    world: World
    judge: Judge

    def to_snapshot(self) -> None:
        """``hoster snapshot rollback``, which keeps what is newer as a branch."""
        vm = self.world.random.choice(self.world.vms)
        snapshots = self.world.datasets_of(vm)[0].snapshots
        if snapshots:
            short = self.world.random.choice(snapshots[-5:]).name
            self._note(f"hoster snapshot rollback {vm} {short}")
            self._do(lambda: roll_back(self.world.context, RollbackRequest(vm, short)))

    def to_branch(self) -> None:
        """``hoster vm branches restore``."""
        found = list_branches(self.world.context)
        if found:
            name = self.world.random.choice(found).name
            self._note(f"hoster vm branches restore {name}")
            self._do(lambda: restore_branch(self.world.context, name, Power(), dry_run=False))

    def _do(self, command: Callable[[], Report]) -> None:
        cluster, nested = self.world.cluster, bool(self.judge.acts)
        if not nested:
            cluster.begin(self._some_fault())
        act = Act({}, moves=True)
        try:
            self._watched(act, command)
        except Killed:
            if nested:
                raise
            self._note(f"  killed, {cluster.count} commands were run")
            self.world.events["killed while a VM went back"] += 1
            cluster.begin()
            cluster.dead = False
            self._finish(act)
        finally:
            if not nested:
                cluster.begin()

    def _finish(self, begun: Act) -> None:
        """The next command, whatever it is, finishes it or takes it back."""
        act = Act({SnapshotType.HOURLY: 3}, moves=True, before=begun.before)
        request = SnapshotRequest(SnapshotType.HOURLY, 3)
        self._note("  hoster snapshot all --stype hourly --keep 3")
        self._watched(act, lambda: snapshot_all(self.world.context, request))
        for one in self.world.source.below(ACTIVE):
            if "hoster:swap" in one.properties or ".swap-" in one.name:
                raise Violation("a swap at the source", "finished by the next command", one.name)

    def _watched(self, act: Act, command: Callable[[], Report]) -> None:
        with self.judge.watching(act):
            try:
                report = command()
            except (Refused, Busy, OperationFailed) as error:
                self._note(f"  {error.message}")
                return
        for vm in report.vms:
            self._note(f"  {vm.vm}: {vm.outcome.value} {vm.ground or ''} {vm.reason}")
            self.world.events["VMs that went back"] += vm.branch != "" and vm.outcome is Outcome.DONE
        failed = report.with_outcome(Outcome.FAILED)
        if failed and not act.raced:
            raise Violation(f"{failed[0].vm} goes back", "done or refused", failed[0].reason)
        # Which target shares what with a VM that went back is another question than before.
        self.judge.look(by_hand=True)

    def _some_fault(self) -> Fault | None:
        random = self.world.random
        if random.random() < 0.7:
            return None
        return Fault(random.choice(KILLED), random.randint(0, LAST_COMMAND))

    def _note(self, words: str) -> None:
        self.world.trace.append(f"    {words}")
