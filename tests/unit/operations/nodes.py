"""Several model nodes, each with hoster on it, for the tests of takeovers: commands for one name their node.

What hoster would run on another node by ssh (``hoster vm demote …``) is run here by that node's context.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from hoster.cli.render import exit_code, report_document
from hoster.config.settings import Settings
from hoster.errors import HosterError, NoAnswer
from hoster.host.locks import Locks
from hoster.host.process import Completed
from hoster.host.ssh import SshOptions
from hoster.hypervisors.memory import InMemory
from hoster.model.names import Endpoint
from hoster.model.plan import Report, VmReport
from hoster.operations.cireset import ResetReport, cireset
from hoster.operations.context import Context
from hoster.operations.demotion import demote
from hoster.operations.handover import Migration, failback, migrate
from hoster.operations.inventory import look_around
from hoster.operations.power import hold_power, start_vm
from hoster.operations.replicate import replicate
from hoster.operations.request import ReplicationRequest
from hoster.operations.restore import RestoreRequest, restore
from hoster.operations.takeover import TakeoverRequest, take_over
from hoster.planning.reset import Wishes
from hoster.testing import NamedHost
from hoster.zfs.parse import parse_epoch
from hoster.zfs.store import ZfsStore
from tests.zfsmodel.cluster import ModelCluster
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.state import Kind

WEB, DISK = "tank/vm/web", "tank/vm/web/d0"
CONFIG = {"production": True, "parent_host": "a", "memory": "32M", "disks": []}


class _Silent:
    def begin(self, sizes: object) -> None:
        """Nothing."""

    def advance(self, vm: str, amount: int) -> None:
        """Nothing."""

    def finish(self, report: object) -> None:
        """Nothing."""


@dataclass
class HosterCluster(ModelCluster):
    """Model nodes on which hoster itself can be run, too."""

    refused: frozenset[str] = frozenset()
    """Words of commands that fail."""
    receiving: dict[str, str] = field(default_factory=dict)
    """What ps tells of a receive that runs on a node, until it is ended."""
    hoster: Callable[[str, tuple[str, ...]], Completed] = lambda node, words: Completed((), 127, "", "")

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        if any(word in self.refused for word in argv):
            return Completed(tuple(argv), 1, "", "permission denied")
        if tuple(argv[2:3]) == ("ps",) and argv[1] in self.receiving:
            return Completed(tuple(argv), 0, f"  PID COMMAND\n{self.receiving[argv[1]]}\n", "")
        if tuple(argv[2:4]) == ("sh", "-c") and argv[-1] in self.receiving.get(argv[1], "").split():
            del self.receiving[argv[1]]
            return Completed(tuple(argv), 0, "", "")
        if tuple(argv[2:3]) == ("hoster",):
            return self.hoster(argv[1], tuple(argv[3:]))
        return ModelCluster.run(self, argv, stdin=stdin, timeout_s=timeout_s)


class NodeContext(Context, frozen=True):
    """A context whose other nodes are in the model; ``cut`` are those that cannot be reached now."""

    cut: set[str] = msgspec.field(default_factory=set)

    @contextmanager
    def reach(self, options: SshOptions) -> Iterator[Callable[[], ZfsStore]]:
        name = options.endpoint.host

        def connect() -> ZfsStore:
            if name == "local":
                return self.zfs
            if name in self.cut or self.hostname in self.cut:
                raise NoAnswer(f"{name}: it does not answer")
            return ZfsStore(NamedHost(name, name), self.runner)

        yield connect


@dataclass
class Nodes:
    """A VM called web on node a, and empty nodes b and c."""

    folder: Path
    cluster: HosterCluster = field(init=False)
    contexts: dict[str, NodeContext] = field(init=False)
    cut: set[str] = field(default_factory=set)
    clock: datetime = datetime(2024, 1, 1, 12)

    def __post_init__(self) -> None:
        self.cluster = HosterCluster({name: ModelNode(name) for name in "abc"}, hoster=self._far)
        self.contexts = {name: self._context(name) for name in "abc"}
        for name, node in self.cluster.nodes.items():
            (self.folder / name / "web").mkdir(parents=True)
            (self.folder / name / "web/vm_config.json").write_text(json.dumps(CONFIG))
            node.create("tank/vm", {"mountpoint": str(self.folder / name)})
        marks = {"hoster:id": "5b", "hoster:role": "primary", "hoster:epoch": "1@a", "hoster:parent": "a"}
        self.cluster.nodes["a"].create(WEB, marks)
        self.cluster.nodes["a"].create(DISK, {"volsize": "8192"}, Kind.VOLUME)
        self.write("a")

    def _context(self, name: str) -> NodeContext:
        folder = self.folder / f"{name}-run"
        return NodeContext(
            Settings(Path("/nowhere"), ("tank/vm",), run_dir=folder, state_dir=folder / "state"),
            name,
            self.cluster,
            ZfsStore(NamedHost(name, name), self.cluster),
            Locks(folder / "locks"),
            self._now,
            InMemory(),
            cut=self.cut,
        )

    def _now(self) -> datetime:
        self.clock += timedelta(seconds=1)
        return self.clock

    def write(self, name: str) -> None:
        """New data in the VM there."""
        self.cluster.nodes[name].write(WEB, 10)
        self.cluster.nodes[name].write(DISK, 10)

    def content(self, name: str, dataset: str = WEB) -> str:
        return self.cluster.nodes[name].dataset(dataset).content.digest

    def mark(self, name: str, key: str) -> str | None:
        return self.cluster.nodes[name].dataset(WEB).properties.get(f"hoster:{key}")

    def primaries(self) -> list[str]:
        """Where the VM can be started, as hoster on that node has it."""
        return [name for name in self.contexts if self.can_start(name)]

    def can_start(self, name: str) -> bool:
        context = self.contexts[name]
        try:
            start_vm(context, look_around(context).named("web"))
        except HosterError:
            return False
        self.stop(name)
        return True

    def start(self, name: str) -> None:
        context = self.contexts[name]
        start_vm(context, look_around(context).named("web"))

    def stop(self, name: str) -> None:
        machines = self.contexts[name].driver
        assert isinstance(machines, InMemory)
        machines.machines.clear()

    def request(self, to: str) -> ReplicationRequest:
        return ReplicationRequest(SshOptions(Endpoint(to)), ("web",))

    def replicate(self, here: str, to: str) -> VmReport:
        (report,) = replicate(self.contexts[here], self.request(to), _Silent()).vms
        return report

    def take_over(self, name: str, *, accept_loss: bool = False, identity: str | None = None) -> VmReport:
        request = TakeoverRequest("web", accept_loss=accept_loss, identity=identity)
        return self._one(take_over(self.contexts[name], request, lambda _: None, lambda _: False))

    def cireset(self, name: str) -> ResetReport:
        takeover = TakeoverRequest("web")
        return cireset(self.contexts[name], "web", Wishes(), takeover, lambda _: None, lambda _: False)

    def demote(self, name: str, identity: str | None = None) -> VmReport:
        return self._one(demote(self.contexts[name], "web", identity=identity))

    def failback(self, here: str, to: str) -> VmReport:
        return self._one(failback(self.contexts[here], self.request(to), _Silent(), lambda _: None))

    def migrate(self, here: str, to: str) -> VmReport:
        migration = Migration(self.request(to), force_stop=True, limit_s=0.1)
        return self._one(migrate(self.contexts[here], migration, _Silent(), lambda _: None))

    def restore(self, here: str, source: str, called: str | None = None) -> VmReport:
        request = RestoreRequest("web", SshOptions(Endpoint(source)), called=called)
        return self._one(restore(self.contexts[here], request, _Silent(), lambda _: None))

    @staticmethod
    def _one(report: Report) -> VmReport:
        (vm,) = report.vms
        return vm

    def _far(self, name: str, words: tuple[str, ...]) -> Completed:
        """What hoster on that node does with these words."""
        context = self.contexts[name]
        try:
            match words:
                case ("vm", "demote", vm, "--id", identity, "--json"):
                    report = demote(context, vm, identity=identity)
                case ("change", "parent", "--vm", vm, "--id", identity, "--handed-over", epoch, "--json"):
                    request = TakeoverRequest(vm, parse_epoch(epoch), identity=identity)
                    report = take_over(context, request, lambda _: None, lambda _: False)
                case ("vm", "start", vm):
                    with hold_power(context, vm):
                        pass
                    start_vm(context, look_around(context).named(vm))
                    return Completed(words, 0, "", "")
                case _:
                    raise AssertionError(words)
        except HosterError as error:
            return Completed(words, error.exit_code, "", error.message)
        code = exit_code(report)
        return Completed(words, code, msgspec.json.encode(report_document(report, code)).decode(), "")
