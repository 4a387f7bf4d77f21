"""Machines run by hoster on a node with real OpenZFS: QEMU emulates a guest inside an emulated node."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from lab.counting_guest import counted, disk_image
from lab.lab import Lab
from lab.node import Node
from tests.lab.world import DATASET, configure, hoster, hoster_json, prepare

pytestmark = pytest.mark.lab

_ROOT = Path(__file__).parents[2]
_SUITE = ("tests/contracts/hypervisors.py", "tests/contracts/grounds.py", "tests/contracts/inside.py")
_CONFIG: dict[str, Any] = {
    "production": True,
    "cpu_cores": 1,
    "memory": "32M",
    "loader": "bios",
    "vnc_port": 5901,
    "vnc_password": "secretly",
    "parent_host": "node1",
}


@pytest.fixture
def node(fresh_lab: Lab) -> Node:
    """A node whose run directory outlives a reboot, so that what is left in it is stale then."""
    prepare(fresh_lab)
    node = fresh_lab.node1
    configure(node, 'run-dir = "/tank/run"')
    return node


def make_machine(node: Node, name: str, *, kind: str = "nvme", obeys: bool = True, **more: Any) -> None:
    """A VM of this node with one disk, on which the counting guest is."""
    folder = f"/{DATASET}/{name}"
    node.run(f"zfs create {DATASET}/{name}")
    node.put(disk_image(obeys=obeys), f"{folder}/disk0.img")
    disks = [{"disk_type": kind, "disk_location": "internal", "disk_image": "disk0.img"}]
    node.write(f"{folder}/vm_config.json", json.dumps({**_CONFIG, "disks": disks, **more}))
    hoster(node, f"vm adopt {name}")


def _sectors(node: Node, disk: str) -> bytes:
    return bytes.fromhex(
        node.run(["python3", "-c", f"print(open({disk!r}, 'rb').read(1024).hex())"]).stdout.strip()
    )


def counts_on(node: Node, disk: str, since: int, *, limit_s: float = 90.0) -> int:
    """Waits until the guest has counted beyond ``since``; what it has come to."""
    gives_up_at = time.monotonic() + limit_s
    while (now := counted(_sectors(node, disk))) <= since:
        assert time.monotonic() < gives_up_at, f"the guest has stopped at {now}"
        time.sleep(0.5)
    return now


def status(node: Node, name: str) -> str:
    """The icons of the VM in the list."""
    lines = hoster(node, "vm list -u").stdout.splitlines()
    return next(line.split()[2] for line in lines if line.split()[1] == name)


def test_the_contract_of_hypervisors_is_kept_in_a_node(node: Node) -> None:
    for path in (*_SUITE, "lab/counting_guest.py"):
        node.put(_ROOT / path, f"/tank/suite/{path}")
    done = node.run(
        "cd /tank/suite && PYTHONPATH=/usr/local/lib/hoster-src:. python3 -m tests.contracts.inside /tank/vm",
        check=False,
        timeout_s=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed:") == 10


def test_a_vm_is_started_and_stopped_and_outlives_what_befalls_it(node: Node) -> None:
    make_machine(node, "web")
    disk = f"/{DATASET}/web/disk0.img"

    # Only to be shown: nothing runs and nothing is written.
    shown = hoster(node, "vm start web --debug-run").stdout
    assert "qemu-system-x86_64 -name web" in shown
    assert "secretly" not in shown
    assert node.run("ls /tank/vm/web").stdout.split() == ["disk0.img", "vm_config.json"]

    hoster(node, "vm start web")
    info = hoster_json(node, "vm info web")
    assert (info["running"], info["state"]) == (True, "running")
    assert "secretly" not in node.run(["cat", f"/proc/{info['pid']}/cmdline"]).stdout
    assert node.run("readlink /tank/vm/web/vm.log").stdout.strip() == "/var/log/hoster/vm/web.log"
    assert "starting: qemu-system-x86_64" in hoster(node, "vm show-log web").stdout
    first = counts_on(node, disk, 0)
    assert "count 0000000" in hoster(node, "vm show-log web --console").stdout
    assert "runs already" in hoster(node, "vm start web", code=10).stderr

    # A guest that obeys powers down.
    assert status(node, "web") == "🟢🔁"
    hoster(node, "vm stop web --wait 60")
    assert status(node, "web") == "🔴🔁"
    assert "does not run" in hoster(node, "vm stop web").stdout
    node.run(f"sleep 60 >>{disk} 2>/dev/null </dev/null &")
    assert f"(sleep) has {disk} open for writing" in hoster(node, "vm stop web", code=10).stderr
    node.run("pkill sleep")

    # Its process is killed: it does not run, and is started again.
    hoster(node, "vm start web")
    node.run(["kill", "-9", str(hoster_json(node, "vm info web")["pid"])])
    assert hoster_json(node, "vm info web")["state"] == "stopped"
    hoster(node, "vm start web")
    second = counts_on(node, disk, first)

    # The power goes: what is left in the run directory is stale.
    node.power_cut()
    node.start()
    node.run("test -S /tank/run/vm/web/qmp && test -e /tank/run/vm/web/pid")
    assert status(node, "web") == "🔴🔁"
    hoster(node, "vm start web")
    assert counts_on(node, disk, second - 5) > 0
    hoster(node, "vm stop web --force")
    assert status(node, "web") == "🔴🔁"


def test_a_deaf_guest_on_a_volume_is_waited_for_and_what_it_wrote_is_in_a_snapshot(node: Node) -> None:
    make_machine(node, "db", obeys=False, memory="32M")
    node.run(f"zfs create -s -V 1M {DATASET}/db/data && udevadm settle")
    disks = [{"disk_type": "virtio-blk", "disk_location": "internal", "disk_image": "data"}]
    node.run(f"cat /{DATASET}/db/disk0.img >/dev/zvol/{DATASET}/db/data")
    node.write(f"/{DATASET}/db/vm_config.json", json.dumps({**_CONFIG, "disks": disks}))
    hoster(node, "vm start db")
    seen = counts_on(node, f"/dev/zvol/{DATASET}/db/data", 2)
    node.run(
        f"zfs snapshot {DATASET}/db/data@now && zfs clone {DATASET}/db/data@now tank/look && udevadm settle"
    )
    assert counted(_sectors(node, "/dev/zvol/tank/look")) >= seen

    # Somebody else writes to a volume through the buffer cache, which a sync of the pool does not reach.
    for volume, command in ("more", "snapshot all --stype hourly"), ("most", "snapshot new db"):
        name = f"{DATASET}/db/{volume}"
        node.run(f"zfs create -s -V 1M {name} && udevadm settle")
        words = f"f = open('/dev/zvol/{name}', 'r+b'); f.write(b'late'); f.flush()"
        script = f"{words}; open('/tank/{volume}', 'w'); input()"
        node.run(f'(sleep 600 | python3 -c "{script}") >/dev/null 2>&1 &')
        node.run(f"until [ -e /tank/{volume} ]; do sleep 0.1; done")
        hoster(node, command)
        taken = node.run(f"zfs list -H -t snapshot -o name -s createtxg {name} | tail -1").stdout.strip()
        node.run(f"zfs clone {taken} tank/look-{volume} && udevadm settle")
        assert _sectors(node, f"/dev/zvol/tank/look-{volume}")[:4] == b"late", command

    failed = hoster(node, "vm stop db --wait 2", code=3).stderr
    assert "still runs after 2 seconds" in failed
    assert "vm stop db --force" in failed
    assert status(node, "db") == "🟢🔁"
    hoster(node, "vm stop-all --force")
    assert status(node, "db") == "🟡🔁", "those who write to its other volumes"
    node.run("pkill -f 'f[.]write'; while pgrep -f 'f[.]write'; do sleep 0.1; done")
    assert status(node, "db") == "🔴🔁"


def test_a_vm_is_deployed_from_an_image_and_plugged_into_a_bridge(node: Node) -> None:
    node.put(disk_image(), "/tank/golden.img")
    node.run("ip link add vm-internal type bridge && ip link set vm-internal up")
    try:
        before = node.run("zfs list -H -o name").stdout
        order = "vm deploy --name app1 --ram 32M --cpu-cores 1 --loader bios --from-image /tank/golden.img"
        refused = hoster(node, f"{order} --network-name nosuch --start-now", code=2).stderr
        assert "one of this node's networks: internal" in refused
        assert "would be made" in hoster(node, f"{order} --dry-run").stdout
        assert node.run("zfs list -H -o name").stdout == before
        hoster(node, f"{order} --network-name internal --disk-size 2M --start-now")
        info = hoster_json(node, "vm info app1")
        assert (info["running"], info["role"], info["config"]["memory"]) == (True, "primary", "32M")
        counts_on(node, f"/{DATASET}/app1/disk0.img", 0)
        plugged = node.run("ls /sys/class/net/vm-internal/brif").stdout.split()
        assert len(plugged) == 1
        assert "already" in hoster(node, order, code=10).stderr
        hoster(node, "vm start-all -p")
        hoster(node, "vm stop-all --wait 60")
        assert node.run("ls /sys/class/net/vm-internal/brif").stdout.split() == []
        node.run(f"zfs set hoster:role=replica hoster:parent=node9 {DATASET}/app1")
        assert "on node9: hoster vm start app1" in hoster(node, "vm start app1", code=10).stderr
    finally:
        node.run("ip link del vm-internal")
