"""A VM of a model node that goes back, for the tests beside this: stopped, started, used by others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from hoster.config.settings import Settings
from hoster.host.locks import Locks
from hoster.host.reach import LocalHost
from hoster.hypervisors.memory import InMemory
from hoster.model.plan import VmReport
from hoster.operations.branches import restore_branch
from hoster.operations.context import Context
from hoster.operations.going_back import Power
from hoster.operations.inventory import look_around
from hoster.operations.power import start_vm
from hoster.operations.rollback import RollbackRequest, roll_back
from hoster.zfs.store import ZfsStore
from tests.unit.operations.test_swapping import Delegating
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.state import Kind

WEB, DISK = "tank/vm/web", "tank/vm/web/d0"
NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)
BRANCH = "web.branch-20240101T120000Z"
KEY = "00000000000000aa"
CONFIG = {
    "production": True,
    "parent_host": "node1",
    "memory": "32M",
    "disks": [{"disk_type": "nvme", "disk_location": "internal", "disk_image": "disk0.img"}],
}


AS_IT_IS = Power()


class World:
    """A VM with a volume, with versions a and b of both, and data newer than both."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "web"
        self.home.mkdir()
        (self.home / "vm_config.json").write_text(json.dumps(CONFIG))
        (self.home / "disk0.img").write_bytes(b"x")
        self.node = ModelNode("node1")
        self.node.create("tank/vm", {})
        marks = {"hoster:id": "5b", "hoster:role": "primary", "hoster:epoch": "1@node1"}
        self.node.create(WEB, {**marks, "hoster:parent": "node1", "mountpoint": str(self.home)})
        self.node.create(DISK, {"volsize": "8192"}, Kind.VOLUME)
        for label in ("a", "b"):
            self.node.snapshot([f"{WEB}@{label}", f"{DISK}@{label}"], {})
            self.write()
        self.cluster = Delegating({"local": self.node})
        self.cluster.allowed = {}
        self.machines = InMemory()
        settings = Settings(Path("/nowhere"), ("tank/vm",), run_dir=folder / "run")
        zfs = ZfsStore(LocalHost(), self.cluster)
        self.context = Context(
            settings, "node1", self.cluster, zfs, Locks(folder / "locks"), lambda: NOW, self.machines
        )

    def write(self) -> None:
        self.node.write(WEB, 10)
        self.node.write(DISK, 10)

    def run(self) -> None:
        """Starts the VM."""
        start_vm(self.context, look_around(self.context).named("web"))

    def roll_back(self, snapshot: str = "a", power: Power = AS_IT_IS, **more: object) -> VmReport:
        request = RollbackRequest("web", snapshot, power, **more)  # type: ignore[arg-type]
        (report,) = roll_back(self.context, request).vms
        return report

    def restore(self, name: str = BRANCH, power: Power = AS_IT_IS) -> VmReport:
        (report,) = restore_branch(self.context, name, power, dry_run=False).vms
        return report

    def versions(self) -> dict[str, str]:
        """The names of the snapshots of every dataset."""
        found = sorted(self.node.datasets.items())
        return {name: " ".join(s.name for s in one.snapshots) for name, one in found if name != "tank"}

    def contents(self) -> tuple[str, str, bool]:
        web = self.node.dataset(WEB)
        return (web.content.digest, self.node.dataset(DISK).content.digest, web.mounted)

    def seen(self) -> object:
        """Everything that a refusal must leave as it is."""
        marks = {name: dict(one.properties) for name, one in self.node.datasets.items()}
        bookmarks = {name: set(one.bookmarks) for name, one in self.node.datasets.items()}
        return self.versions(), self.contents(), marks, bookmarks


BEFORE = {"tank/vm": "", WEB: "a b", DISK: "a b"}
AFTER = {"tank/vm": "", WEB: "a", f"tank/vm/{BRANCH}": "b", f"tank/vm/{BRANCH}/d0": "b", DISK: "a"}


@contextmanager
def open_elsewhere(path: Path) -> Iterator[int]:
    """Another process that has the file open."""
    script = "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process.pid
        process.kill()


def anchor(world: World, label: str) -> None:
    """Lets that version of the VM be known to be on a target."""
    for name in (WEB, DISK):
        guid = next(s.guid for s in world.node.dataset(name).snapshots if s.name == label)
        world.node.bookmark(f"{name}@{label}", f"{name}#hoster-{KEY}-{guid:016x}")
