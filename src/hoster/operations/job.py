"""One VM on its way to a target: what was decided, and how far it has come."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from hoster.errors import HosterError
from hoster.model.plan import Common, Destroyed, Refusal, Send
from hoster.model.storage import Dataset, Marks, Mode, Site, Snapshot, Version
from hoster.model.vms import Vm
from hoster.planning.lag import Pair, newest_common
from hoster.planning.refusals import TargetSite
from hoster.planning.replication import Clearance, Part
from hoster.planning.transfers import VERSION_BYTES, Leg


class Passage(Struct):
    """One dataset of the VM; ``source`` and ``replica`` are kept up to date as things happen to them."""

    part: Part
    source: Dataset
    replica: Dataset | None
    chain: tuple[Snapshot, ...] = ()
    sends: tuple[Send, ...] = ()
    arrived: tuple[Snapshot, ...] = ()

    @property
    def target(self) -> str:
        return self.part.target

    @property
    def base(self) -> Version | None:
        return self.part.base

    @property
    def mode(self) -> Mode:
        return self.part.mode

    @property
    def leg(self) -> Leg:
        """What is to be sent of it, from what is known of its source by now."""
        return Leg(self.source, self.base, self.target, self.mode, self.part.leg.partial)


class Job(Struct):
    """One VM that is to be sent, and how far it has come. Filled in by the steps, in their order."""

    vm: Vm
    site: TargetSite
    needs_snapshot: bool
    passages: tuple[Passage, ...]
    vm_id: str = ""
    """The VM's identity; every job has one before anything is sent."""
    left_holds: tuple[str, ...] = ()
    """Snapshots that a run which ended badly has left held."""
    sites: tuple[Site, ...] = ()
    """Where its replicas are, this target among them."""
    told: Marks = Marks()
    """What its own dataset is to be marked with on the target."""
    taken: str = ""
    sent_bytes: int = 0
    seconds: float = 0.0
    failure: HosterError | None = None
    refusal: Refusal | None = None
    """Why its streams must not be sent, where that showed only when they were about to be."""
    destroyed: list[Destroyed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def estimated_bytes(self) -> int:
        """What the streams will hold, roughly: the versions that travel and what was written between them."""
        return sum(s.written + VERSION_BYTES for passage in self.passages for s in passage.chain)

    @property
    def ends(self) -> tuple[str, ...]:
        """The snapshots that its streams begin and end at, by their full names."""
        sends = [send for passage in self.passages for send in passage.sends]
        versions = [version for send in sends for version in (send.base, send.through)]
        return tuple(dict.fromkeys(v.full_name for v in versions if isinstance(v, Snapshot)))

    @property
    def complete(self) -> bool:
        """Nothing has gone wrong so far."""
        return self.failure is None and self.refusal is None

    def fail(self, error: HosterError) -> None:
        """The first failure of a job is the one that is reported."""
        self.failure = self.failure or error


def newest_of(pairs: Sequence[Pair]) -> Common | None:
    """The newest version that both ends have, for the report."""
    found = newest_common(pairs)
    return None if found is None else Common(found.name, str(found.guid), found.creation)


def hold_tag(site: TargetSite) -> str:
    """The tag of the holds on what is being sent to a target."""
    return f"hoster-{site.key}"


def job_of(vm: Vm, site: TargetSite, clearance: Clearance, left_holds: tuple[str, ...]) -> Job:
    """The job for a VM that may be replicated."""
    passages = tuple(Passage(part, part.source, part.replica) for part in clearance.parts)
    kept = "goes along into the branch" if clearance.parting else "is kept"
    notes = [f"{name} on {site.node} {kept}: it is gone here" for name in clearance.orphans]
    vm_id = vm.dataset.marks.vm_id or ""
    return Job(vm, site, clearance.needs_snapshot, passages, vm_id, left_holds, notes=notes)
