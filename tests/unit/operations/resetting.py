"""A node with VMs that can be given a new cloud-init set: its commands scripted, its folders real."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from hoster.config.settings import Settings
from hoster.host.locks import Locks
from hoster.host.reach import LocalHost
from hoster.hypervisors.memory import InMemory
from hoster.hypervisors.protocol import Running
from hoster.model.storage import Dataset, Role
from hoster.operations.cireset import ResetReport, cireset
from hoster.operations.context import Context
from hoster.operations.takeover import TakeoverRequest
from hoster.planning.reset import Wishes
from hoster.testing import Says, ScriptedRunner, dataset, listing
from hoster.zfs.store import ZfsStore

KEYS = ("ssh-ed25519 AAAA1 root@node1", "ssh-rsa AAAA2")
NETWORKS = [
    {
        "network_name": name,
        "network_gateway": f"10.0.{number}.1",
        "network_subnet": f"10.0.{number}.0/24",
        "network_range_start": f"10.0.{number}.10",
        "network_range_end": f"10.0.{number}.20",
        "comment": f"the {name} network",
    }
    for number, name in enumerate(("internal", "outside"))
]
CARD = {
    "network_adaptor_type": "e1000",
    "network_bridge": "outside",
    "network_mac": "58:9c:fc:00:00:01",
    "ip_address": "10.0.1.10",
    "comment": "old",
    "x_vlan": 12,
}
SECOND_CARD = {"network_adaptor_type": "virtio-net", "ip_address": "10.0.1.11", "network_mac": "x"}
CD = {"disk_type": "ahci-cd", "disk_location": "internal", "disk_image": "seed.iso", "comment": "CD"}
CUSTOM_KEY = {"key_owner": "anna", "key_value": "ssh-rsa BBBB", "comment": "anna's", "x_note": "gone"}
KEPT_KEY = {"key_owner": "System", "key_value": KEYS[0], "comment": "root@node1", "x_note": "kept"}
WEB = {
    "memory": "3G",
    "parent_host": "dead-node",
    "vnc_port": 5905,
    "vnc_password": "old",
    "uuid": "7a2f2c5e",
    "networks": [CARD, SECOND_CARD],
    "disks": [CD],
    "vm_ssh_keys": [CUSTOM_KEY, KEPT_KEY],
    "x_unknown": {"deep": [1, 2.50]},
}


class Node:
    """node1, with the VMs that it is given, their folders real."""

    def __init__(self, folder: Path, *running: str) -> None:
        self.folder = folder
        self.runner = ScriptedRunner()
        self.datasets: list[Dataset] = []
        self.rename_says = Says()
        self.seen_at_rename: Any = None
        (folder / "network_config.json").write_text(json.dumps(NETWORKS))
        self.context = Context(
            settings=Settings(folder / "hoster.toml", ("tank/vm",), ssh_keys=KEYS, run_dir=folder / "run"),
            hostname="node1",
            runner=self.runner,
            zfs=ZfsStore(LocalHost(), self.runner),
            locks=Locks(folder / "locks"),
            driver=InMemory({name: Running(7, datetime(2024, 6, 1, tzinfo=UTC)) for name in running}),
        )
        self.runner.answer(("zfs", "get"), lambda *_: Says(listing(dataset("tank/vm"), *self.datasets)))
        self.runner.answer(("zpool", "sync"), Says())
        self.runner.answer(("ps", "axeww"), Says("  PID COMMAND\n"))
        self.runner.answer(("zfs", "rename"), lambda *_: self.renaming())

    def renaming(self) -> Says:
        """How a rename goes, and what is seen of the VM's folder then."""
        self.seen_at_rename = config_of(self.folder / "web")
        return self.rename_says

    def has(
        self, name: str, config: dict[str, Any], *, role: Role | None = Role.PRIMARY, history: str = ""
    ) -> Path:
        """A VM of that name; its folder."""
        place = self.folder / name
        place.mkdir()
        (place / "vm_config.json").write_text(json.dumps(config))
        (place / "seed.iso").write_bytes(b"old")
        one = dataset(f"tank/vm/{name}", history, role)
        self.datasets.append(replace(one, mounted=True, mountpoint=str(place)))
        return place

    def reset(self, name: str = "web", *, dry_run: bool = False, **wishes: str) -> ResetReport:
        return reset_by(self.context, name, Wishes(**wishes), dry_run=dry_run)


def reset_by(context: Context, name: str, wishes: Wishes, *, dry_run: bool = False) -> ResetReport:
    """`hoster vm cireset` where nobody is there to be asked."""
    takeover = TakeoverRequest(name, dry_run=dry_run)
    return cireset(context, name, wishes, takeover, lambda _dataset: None, lambda _evidence: False)


def config_of(place: Path) -> Any:
    return json.loads((place / "vm_config.json").read_text())
