"""The names, addresses and keys of the nodes, written into the image for all nodes at once.

A node takes those of its number when it starts (guest/root/usr/local/sbin/lab-identity).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["CONTROL_HOST", "MOST_NODES", "control_address", "data_address", "node_name", "write_identities"]

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


def write_identities(root: Path, control_key: Path) -> None:
    """Give every node its host key and key pairs, known to all the others, and make the lab's own key.

    `control_key` becomes the private key with which the lab logs in as root everywhere.
    """
    numbers = range(1, MOST_NODES + 1)
    authorized: list[str] = []
    known: list[str] = []
    for number in numbers:
        home = root / "etc/lab" / node_name(number) / "root/.ssh"
        host = root / "etc/lab" / node_name(number) / "etc/ssh"
        home.mkdir(parents=True, mode=0o700)
        host.mkdir(parents=True)
        comment = f"root@{node_name(number)}"
        authorized.append(_new_key(home / "id_rsa", "rsa", comment))
        authorized.append(_new_key(home / "id_ed25519", "ed25519", comment))
        host_key = _new_key(host / "ssh_host_ed25519_key", "ed25519", comment)
        known.append(f"{node_name(number)},{data_address(number)} {' '.join(host_key.split()[:2])}\n")
    for number in numbers:
        home = root / "etc/lab" / node_name(number) / "root/.ssh"
        (home / "authorized_keys").write_text("".join(authorized))
        (home / "known_hosts").write_text("".join(known))
    for leftover in (root / "etc/ssh").glob("ssh_host_*"):
        leftover.unlink()
    (root / "etc/lab/authorized_keys").write_text(_new_key(control_key, "ed25519", "lab"))
    hosts = ["127.0.0.1 localhost\n", "::1 localhost\n"]
    hosts += [f"{data_address(number)} {node_name(number)}\n" for number in numbers]
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
