"""The names, addresses and keys of the nodes, written into every image for all nodes at once.

All images hold the same ones, so that nodes of different releases know each other. A node takes those of its
number when it starts (guest/root/usr/local/sbin/lab-identity).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = [
    "CONTROL_HOST",
    "MOST_NODES",
    "control_address",
    "data_address",
    "install_identities",
    "make_identities",
    "node_name",
]

MOST_NODES = 3
CONTROL_HOST = "10.78.0.1"


def node_name(number: int) -> str:
    return f"node{number}"


def control_address(number: int) -> str:
    """Where the lab reaches the node; no fault disturbs that network."""
    return f"10.78.0.{10 + number}"


def data_address(number: int) -> str:
    """Where the nodes reach each other, and what their names stand for."""
    return f"10.77.0.{10 + number}"


def make_identities(directory: Path) -> None:
    """Make every node's host key and key pairs, known to all the others, and the lab's own key, `key`, which
    logs in as root everywhere. The directory must not exist."""
    numbers = range(1, MOST_NODES + 1)
    authorized: list[str] = []
    known: list[str] = []
    for number in numbers:
        home = directory / "nodes" / node_name(number) / "root/.ssh"
        host = directory / "nodes" / node_name(number) / "etc/ssh"
        home.mkdir(parents=True, mode=0o700)
        host.mkdir(parents=True)
        comment = f"root@{node_name(number)}"
        authorized.append(_new_key(home / "id_rsa", "rsa", comment))
        authorized.append(_new_key(home / "id_ed25519", "ed25519", comment))
        host_key = _new_key(host / "ssh_host_ed25519_key", "ed25519", comment)
        known.append(f"{node_name(number)},{data_address(number)} {' '.join(host_key.split()[:2])}\n")
    for number in numbers:
        home = directory / "nodes" / node_name(number) / "root/.ssh"
        (home / "authorized_keys").write_text("".join(authorized))
        (home / "known_hosts").write_text("".join(known))
    (directory / "nodes/authorized_keys").write_text(_new_key(directory / "key", "ed25519", "lab"))


def install_identities(directory: Path, root: Path) -> None:
    """Put what `make_identities` has made into a node's root file system."""
    for leftover in (root / "etc/ssh").glob("ssh_host_*"):
        leftover.unlink()
    shutil.copytree(directory / "nodes", root / "etc/lab", dirs_exist_ok=True)
    hosts = ["127.0.0.1 localhost\n", "::1 localhost\n"]
    hosts += [f"{data_address(number)} {node_name(number)}\n" for number in range(1, MOST_NODES + 1)]
    (root / "etc/hosts").write_text("".join(hosts))
    shutil.copy(root / "etc/hosts", root / "etc/lab/hosts")
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)


def _new_key(path: Path, kind: str, comment: str) -> str:
    """Make a key pair at `path` and `path`.pub; the public line."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", str(path)],
        check=True,
        capture_output=True,
    )
    return path.with_name(path.name + ".pub").read_text()
