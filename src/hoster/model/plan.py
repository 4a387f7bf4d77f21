"""Plans: steps in order, each with its reason; refusals with their evidence; reports of what happened.

Pure values. Everything that destroys is a step of a kind that :attr:`Plan.destroys` lists, and names
what it destroys by GUID, so that it can be shown, confirmed, checked again just before it runs, and tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from hoster.model.anchors import TargetKey
from hoster.model.space import PoolSample
from hoster.model.storage import DatasetKind, Mode, ResumeToken, Snapshot, Version, View


class TakeSnapshot(Struct, frozen=True):
    """Take ``dataset@name``; all of one pool go into one command, which is all or nothing."""

    dataset: str
    name: str
    reason: str

    @property
    def full_name(self) -> str:
        return f"{self.dataset}@{self.name}"


class Anchor(Struct, frozen=True):
    """Bookmark ``dataset@name`` on the source for ``target`` before anything is sent of it.

    ``guid`` is what the snapshot must have, or None where it was taken just now and is to be looked up:
    looking and anchoring are then one act.
    """

    dataset: str
    name: str
    guid: int | None
    target: TargetKey
    reason: str

    @property
    def full_name(self) -> str:
        return f"{self.dataset}@{self.name}"


class Send(Struct, frozen=True):
    """One stream into ``target``: full where ``base`` is None, else an increment from ``base``.

    ``intermediate`` asks for every snapshot in between as well (``-I``), which needs a snapshot, not a
    bookmark, as its base. ``resume`` is the token of a stream that broke off: the rest of that is sent.
    """

    base: Version | None
    through: Snapshot
    intermediate: bool
    target: str
    reason: str
    kind: DatasetKind = DatasetKind.FILESYSTEM
    mode: Mode = Mode.PLAIN
    resume: ResumeToken | None = None


class GiveUp(Struct, frozen=True):
    """Give up what has arrived in ``target`` of a stream that broke off and cannot go on."""

    target: str
    reason: str


class DestroySnapshot(Struct, frozen=True):
    """Destroy one snapshot, which must still have the GUID that was seen."""

    victim: Snapshot
    reason: str


Step = TakeSnapshot | Anchor | Send | GiveUp | DestroySnapshot


class Plan(Struct, frozen=True):
    """What is to be done for one VM, in order. Empty steps mean that nothing needs doing."""

    vm: str
    steps: tuple[Step, ...]

    @property
    def destroys(self) -> tuple[DestroySnapshot, ...]:
        """Everything that this plan destroys; what is not listed here is not destroyed."""
        return tuple(s for s in self.steps if isinstance(s, DestroySnapshot))

    @property
    def sends(self) -> tuple[Send, ...]:
        return tuple(s for s in self.steps if isinstance(s, Send))


class Ground(StrEnum):
    """Why something is refused for a VM; stable words, found in ``--json`` and in the reference."""

    IS_REPLICA = "is-replica"
    SAME_DATASET = "same-dataset"
    NAME_TOO_LONG = "name-too-long"
    TARGET_PARENT_MISSING = "target-parent-missing"
    FOREIGN_DATASET = "foreign-dataset"
    NOT_A_REPLICA = "not-a-replica"
    SUPERSEDED = "superseded"
    SPLIT = "split"
    NOTHING_WHOLE = "nothing-whole"
    MAY_LOSE_DATA = "may-lose-data"
    NO_COMMON_VERSION = "no-common-version"
    REPLICA_MODIFIED = "replica-modified"
    REPLICA_AHEAD = "replica-ahead"
    REPLICA_MOUNTED = "replica-mounted"
    NAME_TAKEN = "name-taken"
    MODE_MISMATCH = "mode-mismatch"
    KEY_CHANGED = "key-changed"
    KEY_NOT_LOADED = "key-not-loaded"
    WOULD_LIE_READABLE = "would-lie-readable"
    DESCENDANT_RENAMED = "descendant-renamed"
    OF_ANOTHER_VM = "of-another-vm"
    VERSION_MISSING = "version-missing"
    PARTLY_RECEIVED = "partly-received"
    RUNNING = "running"
    IN_USE = "in-use"
    HELD = "held"
    CLONED = "cloned"
    NEEDED_BY_TARGET = "needed-by-target"


class Refusal(Struct, frozen=True):
    """hoster must not: what was seen, and the command that would mend it (it has been tried)."""

    vm: str
    ground: Ground
    evidence: str
    remedy: str


class Outcome(StrEnum):
    """What became of one VM in a batch."""

    DONE = "done"
    UNCHANGED = "unchanged"
    PLANNED = "planned"
    REFUSED = "refused"
    BUSY = "busy"
    FAILED = "failed"


class Common(Struct, frozen=True):
    """The newest version that both ends have: its short name, its GUID in decimal, when it was taken (Unix
    seconds by the clock of whoever took it)."""

    name: str
    guid: str
    taken_at: int


class VmReport(Struct, frozen=True):
    """What happened to one VM. Sizes in bytes, durations in seconds."""

    vm: str
    outcome: Outcome
    reason: str = ""
    remedy: str = ""
    ground: Ground | None = None
    taken: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()
    sent_bytes: int = 0
    seconds: float = 0.0
    destroyed: tuple[Destroyed, ...] = ()
    branch: str = ""
    """What was set aside, by its name as ``vm branches`` lists it; empty where nothing was."""
    done: tuple[str, ...] = ()
    """What was changed, in words, beside what the other fields say."""
    notes: tuple[str, ...] = ()
    vm_id: str = ""
    """The VM's identity, where it is known."""
    target: str = ""
    """The dataset of the replica on the target, where it is known."""
    newest: Common | None = None
    """Of a replication: what the target was last seen to share with this node."""


class Destroyed(Struct, frozen=True):
    """A snapshot, bookmark or dataset that was destroyed (or, in a dry run, would be), where, and why."""

    node: str
    snapshot: str
    reason: str


class Report(Struct, frozen=True):
    """What one command did to each VM."""

    vms: tuple[VmReport, ...]
    dry_run: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    seen: View | None = None
    """What this node looked like before anything was done, for whoever measures."""
    pools: tuple[PoolSample, ...] = ()
    """How much room there was on the target, where it was looked at."""

    def with_outcome(self, outcome: Outcome) -> tuple[VmReport, ...]:
        """The VMs that ended so, in order."""
        return tuple(vm for vm in self.vms if vm.outcome is outcome)
