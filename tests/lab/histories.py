"""Words for the lab tests of going back: volumes, what is set on datasets, every version of a pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from lab.node import Node
from tests.lab.world import DATASET, hoster_json

WEB = f"{DATASET}/web"
DISK, LOGS = f"{WEB}/d0", f"{WEB}/logs"
FIRST = "custom_2026-01-01_00-00-00"
"""The version that the VM goes back to."""

HOSTER = "run_module"
"""A word of the command line by which a node's hoster is started, and of nothing else's."""

_DEVICE = f"/dev/zvol/{DISK}"
_AWAIT_DEVICE = f"for i in $(seq 50); do [ -e {_DEVICE} ] && break; sleep 0.1; done"


def write_volume(node: Node, kib: int = 128) -> None:
    node.run(
        f"{_AWAIT_DEVICE}; dd if=/dev/urandom of={_DEVICE} bs=64k count={kib // 64} conv=fsync status=none"
    )


def volume_hash(node: Node) -> str:
    """SHA-256 of the volume, shown as a device for it where it has none; what is set locally is put back.

    One that has a device is left alone: setting ``volmode`` to what it is makes the device anew,
    and who opens it then may find none (ENXIO, seen on OpenZFS 2.3.9).
    """
    hash_it = f"{_AWAIT_DEVICE}; sha256sum <{_DEVICE}"
    if node.run(f"zfs get -H -o value volmode {DISK}").stdout.strip() != "none":
        return node.run(hash_it).stdout.split()[0]
    kept = node.run(f"zfs get -H -s local -o value volmode {DISK}").stdout.strip()
    node.run(f"zfs set volmode=default {DISK}")
    said = node.run(hash_it).stdout.split()[0]
    node.run(f"zfs set volmode={kept} {DISK}" if kept else f"zfs inherit volmode {DISK}")
    return said


def every_guid(node: Node) -> set[str]:
    """The GUIDs of all snapshots of the pool, wherever they are."""
    return set(node.run("zfs list -Hp -r -t snapshot -o guid tank").stdout.split())


def settings(node: Node, parts: Sequence[str]) -> list[str]:
    """What is set on each dataset itself, and who may do what with it; intents of a swap are seen as well.
    Where the VM's replicas are is left out: the first replication adds that.
    """
    asked = " ".join(parts)
    listed = node.run(
        f"zfs get -Hp -s local -o name,property,value all {asked};"
        f" for part in {asked}; do zfs allow $part; done"
    )
    return sorted(line for line in listed.stdout.splitlines() if "\thoster:sites\t" not in line)


def branch_names(node: Node) -> list[str]:
    """The names of the branches, the oldest first."""
    return [branch["name"] for branch in hoster_json(node, "vm branches web")]


def until(happened: Callable[[], object], *, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
