"""One VM on its way to a target: what was decided, and how far it has come."""

from __future__ import annotations

from msgspec import Struct, field

from hoster.errors import HosterError
from hoster.model.plan import Destroyed, Send
from hoster.model.storage import Dataset, Snapshot
from hoster.model.vms import Vm
from hoster.planning.replication import Clearance, Subject, TargetSite


class Job(Struct):
    """One VM that is to be sent, and how far it has come. Filled in by the steps, in their order."""

    vm: Vm
    subject: Subject
    site: TargetSite
    clearance: Clearance
    replica: Dataset | None
    taken: str = ""
    chain: tuple[Snapshot, ...] = ()
    sends: tuple[Send, ...] = ()
    sent_bytes: int = 0
    seconds: float = 0.0
    failure: HosterError | None = None
    arrived: tuple[Snapshot, ...] = ()
    destroyed: list[Destroyed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def source(self) -> Dataset:
        return self.subject.dataset

    @property
    def target(self) -> str:
        return self.clearance.target

    @property
    def vm_id(self) -> str:
        """The VM's identity; every job has one before anything is sent."""
        assert self.source.marks.vm_id is not None
        return self.source.marks.vm_id

    @property
    def estimated_bytes(self) -> int:
        """What the streams will hold, roughly: what was written between the versions that travel."""
        return sum(s.written for s in self.chain)

    def fail(self, error: HosterError) -> None:
        """The first failure of a job is the one that is reported."""
        self.failure = self.failure or error
