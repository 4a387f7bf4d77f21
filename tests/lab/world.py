"""Words for the lab tests: make VMs, run hoster as a user would, see what is on a node."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lab.lab import Lab
from lab.node import Completed, Node

DATASET = "tank/vm"


@dataclass(frozen=True, slots=True)
class Version:
    """A snapshot as a node lists it."""

    name: str
    guid: str
    createtxg: int


def prepare(lab: Lab) -> None:
    """Makes tank/vm on every node and the configuration that `hoster init` writes (tested by itself)."""
    lab.on_all(lambda node: node.run(f"zfs create {DATASET} && mkdir -p /etc/hoster"))
    lab.on_all(lambda node: configure(node, f'datasets = ["{DATASET}"]'))


def configure(node: Node, lines: str) -> None:
    """Adds lines to the node's configuration, and has it on its disk: a power cut may follow."""
    node.run("cat >>/etc/hoster/hoster.toml && sync -f /etc/hoster", input=f"{lines}\n")


def make_vm(node: Node, name: str, *, kib: int = 512, production: bool = True) -> str:
    """A VM with a disk of random data; returns its dataset."""
    node.run(_made([name], node, kib * 1024, production=production))
    return f"{DATASET}/{name}"


def make_vms(node: Node, count: int) -> list[str]:
    """Many small VMs at once."""
    names = [f"vm-{number:02d}" for number in range(1, count + 1)]
    node.run(_made(names, node, 65536, production=True))
    return names


def _made(names: list[str], node: Node, size: int, *, production: bool) -> str:
    """Makes and marks VMs as `hoster vm adopt` does (tested by itself): what is tested comes after."""
    config = json.dumps({"production": production, "parent_host": node.name})
    return f"""
    set -e
    for name in {" ".join(names)}; do
        zfs create -o hoster:id=$(cat /proc/sys/kernel/random/uuid) -o hoster:role=primary \
            -o hoster:epoch=1@{node.name} -o hoster:parent={node.name} \
            -o hoster:production={"yes" if production else "no"} {DATASET}/$name
        head -c {size} /dev/urandom >/{DATASET}/$name/disk0.img
        echo '{config}' >/{DATASET}/$name/vm_config.json
    done
    """


def write(node: Node, name: str, *, kib: int = 64) -> None:
    """New random data in the VM's disk."""
    node.run(f"head -c {kib * 1024} /dev/urandom >/{DATASET}/{name}/disk0.img")


def hoster(node: Node, words: str, *, code: int | None = 0, timeout_s: float = 120.0) -> Completed:
    """Runs `hoster WORDS` as a shell line; asserts its exit code unless None."""
    done = node.run(f"hoster {words}", check=False, timeout_s=timeout_s)
    if code is not None:
        assert done.returncode == code, f"hoster {words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def hoster_json(node: Node, words: str, *, code: int | None = 0, timeout_s: float = 120.0) -> Any:
    """The same with --json, parsed."""
    return json.loads(hoster(node, f"{words} --json", code=code, timeout_s=timeout_s).stdout)


def vm_report(document: Any, name: str) -> Any:
    """One VM's part of a report."""
    return next(vm for vm in document["vms"] if vm["vm"] == name)


def snapshots(node: Node, dataset: str) -> list[Version]:
    """The snapshots of one dataset, oldest first."""
    listed = node.run(
        f"zfs list -Hp -d 1 -t snapshot -o name,guid,createtxg -s createtxg {dataset}", check=False
    )
    rows = (line.split("\t") for line in listed.stdout.splitlines())
    return [Version(name.partition("@")[2], guid, int(txg)) for name, guid, txg in rows]


def names(node: Node, dataset: str) -> list[str]:
    """Their names."""
    return [version.name for version in snapshots(node, dataset)]


def guids(node: Node, dataset: str) -> list[str]:
    """Their GUIDs."""
    return [version.guid for version in snapshots(node, dataset)]


def everything(node: Node) -> str:
    """Every dataset, snapshot, bookmark and mark of the pool: what must not change in a dry run."""
    return node.run(
        "zpool sync;"
        " zfs list -Hp -r -t all -o name,guid,createtxg,hoster:id,hoster:role,hoster:from,userrefs tank"
    ).stdout


def disk_hash(node: Node, name: str) -> str:
    """SHA-256 of the VM's disk where it is mounted."""
    return node.run(f"sha256sum </{DATASET}/{name}/disk0.img").stdout.split()[0]


def replica_hash(node: Node, name: str) -> str:
    """SHA-256 of a replica's disk, mounted for it (read-only) and unmounted again."""
    dataset = f"{DATASET}/{name}"
    return node.run(
        f"zfs mount {dataset} && sha256sum </{dataset}/disk0.img && zfs unmount {dataset}"
    ).stdout.split()[0]


def value(node: Node, name: str, key: str) -> str:
    """One property."""
    return node.run(f"zfs get -H -o value {key} {name}").stdout.strip()
