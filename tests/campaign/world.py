"""The nodes of one run: a source with its VMs, the targets, and what lies beside them.

hoster's real use cases run here on the model of ZFS. Everything random comes from one seed, time included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from hoster.config.settings import ReplicationSettings, Settings
from hoster.errors import Busy
from hoster.host.locks import Locks
from hoster.host.process import Completed, Meter, Piped
from hoster.host.reach import LocalHost
from hoster.host.ssh import SshOptions
from hoster.hypervisors.protocol import Guest, GuestRef, Plan, Running
from hoster.model.anchors import TargetKey
from hoster.model.names import Endpoint, SnapshotType
from hoster.model.plan import VmReport
from hoster.operations.context import Context
from hoster.operations.request import ReplicationRequest
from hoster.planning.refusals import Terms
from hoster.testing import NamedHost
from hoster.zfs.store import ZfsStore
from tests.zfsmodel.cluster import HERE, Killed, ModelCluster
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.state import Dataset

ACTIVE = "tank/vm"
NAMES = ("web", "web2", "db")
"""VMs; one has a name that another's begins with."""

HOMES = {"backup/vm": HERE, ACTIVE: "b", "pool/hosted/replicas": "c"}
"""Where replicas may lie, and on which node."""

DESCENDANTS = ("data", "disk0", "data/deep", "logs")
VOLUMES = frozenset({"disk0"})
TARGET_KEEP = {SnapshotType.HOURLY: 2, SnapshotType.DAILY: 3, SnapshotType.REPLICATION: 2}
SOURCE_KEEP = 2
MARKS = {"hoster:role": "primary", "hoster:epoch": "1@node1", "hoster:parent": "node1"}


class Violation(Exception):
    """Something that must never be was seen."""

    def __init__(self, what: str, expected: object, got: object) -> None:
        super().__init__(f"{what}: expected {expected}, got {got}")


@dataclass(frozen=True, slots=True)
class Target:
    """Where replicas go: the node, and the dataset on it that they lie in; ``no_raw`` if encrypted VMs are
    sent decrypted, which by a slip can be otherwise in one run."""

    node: str
    home: str
    no_raw: bool = field(default=False, compare=False)

    def name_of(self, source: str) -> str:
        """The replica of a dataset of the source."""
        return f"{self.home}{source.removeprefix(ACTIVE)}"

    def request(self, *, allow_plain_child: bool) -> ReplicationRequest:
        terms = Terms(no_raw=self.no_raw, allow_plain_child=allow_plain_child)
        return ReplicationRequest(SshOptions(Endpoint(self.node)), target_dataset=self.home, terms=terms)


class MemoryLocks(Locks):
    """Locks of one process, without files; nobody waits."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self._held: dict[str, list[bool]] = {}
        """Of each lock, who has it: whether it is shared."""

    @contextmanager
    def hold(self, what: str, *, holder: str, wait_s: float = 0.0, shared: bool = False) -> Iterator[float]:
        holders = self._held.setdefault(what, [])
        if holders and not (shared and all(holders)):
            raise Busy(f"{what} is under way")
        holders.append(shared)
        try:
            yield 0.0
        finally:
            holders.pop()


@dataclass
class MortalCluster(ModelCluster):
    """A cluster in which hoster, once killed, does nothing more, and whose streams are looked at."""

    dead: bool = False
    on_stream: Callable[[Sequence[str], Sequence[str]], object] = lambda sending, receiving: None
    on_command: Callable[[Sequence[str]], object] = lambda argv: None

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        with self._mortally():
            self.on_command(argv)
            return super().run(argv, stdin=stdin, timeout_s=timeout_s)

    def pipe(self, producer: Sequence[str], consumer: Sequence[str], meter: Meter) -> Piped:
        with self._mortally():
            self.on_stream(producer, consumer)
            return super().pipe(producer, consumer, meter)

    @contextmanager
    def _mortally(self) -> Iterator[None]:
        if self.dead:
            raise Killed
        try:
            yield
        except Killed:
            self.dead = True
            raise


class CampaignContext(Context, frozen=True):
    """A context whose other nodes are in the model too."""

    @contextmanager
    def reach(self, options: SshOptions) -> Iterator[Callable[[], ZfsStore]]:
        if options.endpoint.host == HERE:
            yield lambda: self.zfs
        else:
            yield lambda: ZfsStore(NamedHost(str(options.endpoint)), self.runner)


class Nothing:
    """A hypervisor on which no VM ever runs."""

    name = "nothing"

    def running(self, ref: GuestRef) -> None:
        """Never."""

    def plan(self, guest: Guest) -> Plan:
        raise AssertionError("nothing is started here")

    def start(self, guest: Guest) -> Running:
        raise AssertionError("nothing is started here")

    def stop(self, ref: GuestRef, *, force: bool, limit_s: float) -> bool:
        return False


class Quiet:
    """Watches a run and says nothing."""

    def begin(self, sizes: Mapping[str, int]) -> None:
        """Nothing."""

    def advance(self, vm: str, amount: int) -> None:
        """Nothing."""

    def finish(self, report: VmReport) -> None:
        """Nothing."""


@dataclass
class World:
    """Everything that there is in one run. ``trace`` says in words what happened."""

    random: Random
    clock: datetime = datetime(2024, 3, 31, 1, 30)
    trace: list[str] = field(default_factory=list)
    vms: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    cluster: MortalCluster = field(init=False)
    context: CampaignContext = field(init=False)
    serial: int = 0
    events: Counter[str] = field(default_factory=Counter)
    """What has happened how often, of what is worth counting."""
    readable: set[Target] = field(default_factory=set)
    """Targets on which the plain datasets of encrypted VMs may lie readable."""

    def __post_init__(self) -> None:
        self.vms = NAMES[: self.random.randint(1, 3)]
        sealed = self.random.random() < 0.4
        strange = Target("c", "pool/hosted/replicas", no_raw=sealed and self.random.random() < 0.5)
        choices = (Target("b", ACTIVE), Target(HERE, "backup/vm"), strange)
        self.targets = tuple(self.random.sample(choices, self.random.randint(1, 2)))
        self.cluster = MortalCluster(
            {
                HERE: ModelNode(HERE, ("tank", "backup"), {"tank": 5000, "backup": 70}),
                "b": ModelNode("b", ("tank",), {"tank": 100}),
                "c": ModelNode("c", ("pool",), {"pool": 90_000}),
            },
            shuffle=Random(self.random.random()),
        )
        self._populate(sealed=sealed)
        self.context = CampaignContext(
            Settings(
                Path("/nowhere"),
                (ACTIVE,),
                state_dir=Path("/nowhere"),
                replication=ReplicationSettings(SOURCE_KEEP, TARGET_KEEP),
            ),
            "node1",
            self.cluster,
            ZfsStore(LocalHost(), self.cluster),
            MemoryLocks(),
            now=lambda: self.clock,
            driver=Nothing(),
        )

    @property
    def source(self) -> ModelNode:
        return self.cluster.nodes[HERE]

    def node_of(self, target: Target) -> ModelNode:
        return self.cluster.nodes[target.node]

    def is_sealed(self, target: Target) -> bool:
        """Whether what is received there gets encrypted by the target."""
        return self.node_of(target).datasets[target.home].encrypted

    def key_of(self, target: Target) -> TargetKey:
        return TargetKey(self.node_of(target).datasets[target.home].guid)

    def datasets_of(self, vm: str) -> list[Dataset]:
        """The datasets of a VM, its own first."""
        root = self.source.datasets[f"{ACTIVE}/{vm}"]
        return [root, *sorted(self.source.below(root.name), key=lambda one: one.name)]

    def all_sources(self) -> list[Dataset]:
        return [dataset for vm in self.vms for dataset in self.datasets_of(vm)]

    def replica(self, target: Target, source: Dataset) -> Dataset | None:
        return self.node_of(target).datasets.get(target.name_of(source.name))

    def tick(self) -> None:
        """A second goes by."""
        self.clock += timedelta(seconds=1)

    def next_serial(self) -> int:
        self.serial += 1
        return self.serial

    def load_keys(self) -> None:
        """Somebody loads all keys and mounts what mounts by itself; of replicas that were received raw, which
        nobody opens, only at the source."""
        for node in self.cluster.nodes.values():
            for dataset in node.datasets.values():
                here = node is self.source and dataset.name.startswith(f"{ACTIVE}/")
                if dataset.key_root is dataset and (here or dataset.name in HOMES):
                    dataset.key_loaded = True
            for dataset in node.datasets.values():
                if not dataset.mounted:
                    node.mount(dataset)

    def _populate(self, *, sealed: bool) -> None:
        """VMs with their marks, some of them encrypted, and others' datasets beside them; where replicas
        lie bears misleading marks, which are only inherited by what lies in it, and may be encrypted."""
        misleading = {"hoster:id": id_of("web"), "hoster:role": "replica", "hoster:from": f"{id_of('web')}/1"}
        for home, name in HOMES.items():
            node = self.cluster.nodes[name]
            encryption = {"encryption": "on"} if name == "c" and sealed else {}
            node.create(home, misleading | encryption, parents=True)
            node.datasets[home].properties.update(misleading)
            node.create(f"{home}/web-of-others", {})
            node.write(f"{home}/web-of-others", 1000)
            node.snapshot([f"{home}/web-of-others@hourly_2024-01-01_00-00-00"], {})
        stray = {**MARKS, "hoster:id": "stray", "hoster:production": "yes"}
        self.source.create(ACTIVE, stray)
        self.source.create("tank/home", {})
        self.source.create(f"{ACTIVE}/scratch", {})
        for name in ("tank/home", f"{ACTIVE}/scratch"):
            self.source.write(name, 1000)
            self.source.snapshot([f"{name}@hourly_2024-01-01_00-00-00"], {})
        for vm in self.vms:
            marks = {**MARKS, "hoster:id": id_of(vm), "hoster:production": "yes"}
            encryption = {"encryption": "on"} if self.random.random() < 0.4 else {}
            self.source.create(f"{ACTIVE}/{vm}", marks | encryption)
            self.source.write(f"{ACTIVE}/{vm}", 100_000)


def id_of(vm: str) -> str:
    """The identity of a VM."""
    return f"id-of-{vm}"
