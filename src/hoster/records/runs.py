"""What is remembered of runs, and what is known of the replicas by it. Pure values; times in Unix seconds."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from hoster.errors import ExitCode
from hoster.model.plan import Common, Outcome, VmReport
from hoster.model.space import PoolSample


class RunKind(StrEnum):
    """What a run did."""

    REPLICATION = "replication"
    SNAPSHOT = "snapshot"
    TAKEOVER = "takeover"
    DEMOTION = "demotion"
    FAILBACK = "failback"
    MIGRATION = "migration"
    RESTORE = "restore"
    ROLLBACK = "rollback"
    BRANCH_RESTORE = "branch-restore"
    DESTRUCTION = "destruction"
    RESET = "reset"
    FORGETTING = "forgetting"

    @property
    def is_scheduled(self) -> bool:
        """Whether it is of a job that is to run again and again, and that stands as its last run ended; what
        a person does once is history, however it ends."""
        return self in {RunKind.REPLICATION, RunKind.SNAPSHOT}


class Run(Struct, frozen=True):
    """A run as it begins: its job, the other node if there is one, and the VM if it is about a single one, so
    that it is in the history of that VM however it ends."""

    kind: RunKind
    job: str
    node: str = ""
    vm: str = ""


class EndedRun(Struct, frozen=True):
    """A run that has ended. ``reason`` is why it ended as a whole, empty where it went through all VMs; with
    exit code 0, why there was to be none."""

    run: Run
    started: float
    ended: float
    exit_code: int
    reason: str = ""
    vms: tuple[VmReport, ...] = ()
    pools: tuple[PoolSample, ...] = ()

    @property
    def skipped(self) -> bool:
        """Whether it did nothing, as its schedule has it: neither a success nor a failure."""
        return self.exit_code == ExitCode.DONE and bool(self.reason)


class PastRun(Struct, frozen=True):
    """One run out of the journal, with how many VMs ended in which way."""

    number: int
    kind: str
    job: str
    node: str
    started: float
    ended: float
    exit_code: int
    reason: str
    done: int = 0
    unchanged: int = 0
    refused: int = 0
    busy: int = 0
    failed: int = 0
    sent_bytes: int = 0


class PastVm(Struct, frozen=True):
    """What one run did to one VM."""

    run: int
    kind: str
    job: str
    started: float
    vm: str
    vm_id: str
    node: str
    target: str
    outcome: str
    reason: str
    ground: str
    sent_bytes: int
    seconds: float
    newest: Common | None = None


class Remembered(Struct, frozen=True):
    """How a VM stands with one target, by the runs so far.

    ``target`` is the dataset there, empty where no run has got so far as to know it. ``equal_at`` is the last
    moment at which both ends were seen equal. ``failures`` are those since the last success.
    """

    vm: str
    vm_id: str
    node: str
    target: str
    job: str
    run_at: float
    outcome: str
    ground: str
    sent_bytes: int
    seconds: float
    newest: Common | None = None
    equal_at: float | None = None
    success_at: float | None = None
    failure_at: float | None = None
    failure: str = ""
    failures: int = 0

    @property
    def data_at(self) -> float | None:
        """From when the data on the target are, as far as is remembered; None where it has none.

        A version that is younger than the last run was taken while a clock was wrong: that run knew it.
        """
        moments = [] if self.equal_at is None else [self.equal_at]
        if self.newest is not None and (self.newest.taken_at <= self.run_at or not moments):
            moments.append(min(self.newest.taken_at, self.run_at))
        return max(moments, default=None)


class JobStanding(Struct, frozen=True):
    """How a job stands, by its runs so far. Busy runs count as none: the one that was busy counts."""

    job: str
    kind: str
    node: str
    run_at: float
    exit_code: int
    success_at: float | None = None
    failure_at: float | None = None
    failures: int = 0


_SUCCESSES = frozenset({Outcome.DONE, Outcome.UNCHANGED})
_FAILURES = frozenset({Outcome.FAILED, Outcome.REFUSED})


def job_after(old: JobStanding | None, ended: EndedRun) -> JobStanding:
    """How a job stands after a run that was not busy, if it stood like ``old`` before."""
    run, at = ended.run, ended.ended
    succeeded = ended.exit_code == ExitCode.DONE
    return JobStanding(
        run.job,
        run.kind.value,
        run.node,
        at,
        ended.exit_code,
        success_at=at if succeeded else (old.success_at if old else None),
        failure_at=(old.failure_at if old else None) if succeeded else at,
        failures=0 if succeeded else 1 + (old.failures if old else 0),
    )


def replica_after(old: Remembered | None, ended: EndedRun, vm: VmReport | None) -> Remembered:
    """How a VM stands with a target after a run, if it stood like ``old`` before (None: nothing is known).

    ``vm`` is the report on it, or None where the run ended as a whole; one of the two must be given. A busy
    VM stands as before: whoever is at work on it will say.
    """
    if vm is None:
        assert old is not None, "a run that ended as a whole is noted on what is known"
        return _failed(old, ended.ended, ended.reason)
    if old is None:
        old = Remembered(
            vm.vm, vm.vm_id, ended.run.node, vm.target, ended.run.job, ended.ended, "", "", 0, 0.0
        )
    now = replace(
        old,
        vm_id=vm.vm_id or old.vm_id,
        job=ended.run.job,
        run_at=ended.ended,
        outcome=vm.outcome.value,
        ground="" if vm.ground is None else vm.ground.value,
        sent_bytes=vm.sent_bytes,
        seconds=vm.seconds,
        newest=vm.newest or old.newest,
    )
    if vm.outcome in _SUCCESSES:
        # Both ends were looked at after the run had begun: what is equal was so at its beginning.
        return replace(now, equal_at=ended.started, success_at=ended.ended, failures=0)
    if vm.outcome in _FAILURES:
        return replace(now, failure_at=ended.ended, failure=vm.reason, failures=old.failures + 1)
    return now


def _failed(old: Remembered, at: float, reason: str) -> Remembered:
    return replace(
        old,
        run_at=at,
        outcome=Outcome.FAILED.value,
        ground="",
        sent_bytes=0,
        seconds=0.0,
        failure_at=at,
        failure=reason,
        failures=old.failures + 1,
    )
