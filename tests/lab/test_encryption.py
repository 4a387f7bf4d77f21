"""Encrypted VMs: the target never needs the key, never sees the data, and is never locked out of its past."""

from __future__ import annotations

import json
import subprocess

import pytest

from hoster.model.plan import Ground
from lab.lab import Lab
from lab.node import Node
from tests.lab.world import guids, hoster, hoster_json, prepare, value, vm_report

pytestmark = pytest.mark.lab

WEB = "tank/vm/web"
CANARY = "the-canary-that-nobody-may-read-2718281828"
CONTROL = "a-text-that-lies-open-1618033988"


@pytest.fixture
def pair(fresh_lab: Lab) -> Lab:
    prepare(fresh_lab)
    make_encrypted(fresh_lab.node1)
    return fresh_lab


def make_encrypted(node: Node) -> None:
    config = json.dumps({"production": True, "parent_host": node.name})
    node.run(
        f"""set -e
        printf '%032d' 1 >/tmp/key
        zfs create -o encryption=on -o keyformat=raw -o keylocation=file:///tmp/key -o compression=off \\
            -o atime=off {WEB}
        echo '{config}' >/{WEB}/vm_config.json
        zfs create -V 4M {WEB}/d0
        """
    )
    hoster(node, "vm adopt web")
    write_canary(node)


def write_canary(node: Node) -> None:
    node.run(
        f"yes '{CANARY}' | head -c 300000 >/{WEB}/disk0.img; head -c 1000 /dev/urandom >>/{WEB}/disk0.img"
    )


def found_on_disk(node: Node, text: str = CANARY) -> bool:
    """Whether a text is in the raw bytes of the pool's disk, as this machine has them in a file."""
    node.run("zpool sync")
    disk = node.directory / "disk-a.raw"
    return subprocess.run(["grep", "-aqF", text, disk], check=False).returncode == 0


def opened_hash(node: Node, key: int) -> str:
    """What the replica's disk holds once it is opened with the key, as an administrator would."""
    return node.run(
        f"printf '%032d' {key} >/tmp/try && zfs load-key -L file:///tmp/try {WEB} && zfs mount {WEB}"
        f" && sha256sum </{WEB}/disk0.img && zfs unmount {WEB} && zfs unload-key {WEB}"
    ).stdout.split()[0]


def test_the_target_holds_the_data_without_the_key_and_gives_it_back_with_it(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    hoster(source, f"vm replicate web -e {target.address}")
    write_canary(source)
    hoster(source, f"vm replicate web -e {target.address}")
    for part in (WEB, f"{WEB}/d0"):
        assert guids(target, part) == guids(source, part)
        assert (value(target, part, "keystatus"), value(target, part, "hoster:mode")) == (
            "unavailable",
            "raw",
        )
    assert found_on_disk(source) is found_on_disk(target) is False
    # Another text: what is written to a disk in plain outlives the pools of this test.
    target.run(f"zfs create -o compression=off tank/plain; echo '{CONTROL}' >/tank/plain/file")
    assert found_on_disk(target, CONTROL), "what looks for it finds it"
    here = source.run(f"sha256sum </{WEB}/disk0.img").stdout.split()[0]
    assert opened_hash(target, 1) == here
    idle = vm_report(hoster_json(source, f"vm replicate web -e {target.address}"), "web")
    assert idle["outcome"] == "unchanged", "having been opened read-only changed nothing"


def test_a_changed_key_is_noticed_before_it_would_lock_the_replica(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    hoster(source, f"vm replicate web -e {target.address}")
    source.run(f"printf '%032d' 2 >/tmp/key && zfs change-key -o keylocation=file:///tmp/key {WEB}")
    write_canary(source)
    before = guids(target, WEB)
    refused = vm_report(hoster_json(source, f"vm replicate web -e {target.address}", code=10), "web")
    assert refused["ground"] == Ground.KEY_CHANGED
    assert "would open with the new key only" in refused["reason"]
    assert guids(target, WEB) == before
    opened_hash(target, 1)
    while refused["outcome"] == "refused":  # the volume below it has that key too
        source.run(refused["remedy"].partition("    (")[0])
        refused = vm_report(hoster_json(source, f"vm replicate web -e {target.address}", code=None), "web")
    assert refused["outcome"] == "done", refused
    assert guids(target, WEB)[-1] == guids(source, WEB)[-1]
    opened_hash(target, 2)


def test_modes_are_never_mixed_and_nothing_lies_readable_unasked(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    to = f"vm replicate web -e {target.address}"
    readable = vm_report(hoster_json(source, f"{to} --no-raw", code=10), "web")
    assert readable["ground"] == Ground.WOULD_LIE_READABLE

    target.run(
        "printf '%032d' 3 >/tmp/own;"
        " zfs create -o encryption=on -o keyformat=raw -o keylocation=file:///tmp/own tank/safe"
    )
    into = f"{to} --target-dataset tank/safe"
    hoster(source, f"{into} --no-raw")
    assert value(target, "tank/safe/web", "hoster:mode") == "plain"
    assert value(target, "tank/safe/web", "encryptionroot") == "tank/safe"
    assert not found_on_disk(target)
    write_canary(source)
    mixed = vm_report(hoster_json(source, into, code=10), "web")
    assert mixed["ground"] == Ground.MODE_MISMATCH
    assert "--no-raw" in mixed["remedy"]
    hoster(source, f"{into} --no-raw")
    assert guids(target, "tank/safe/web")[-1] == guids(source, WEB)[-1]

    hoster(source, to)
    other = vm_report(hoster_json(source, f"{into.replace('tank/safe', 'tank/vm')} --no-raw", code=10), "web")
    assert other["ground"] == Ground.WOULD_LIE_READABLE

    source.run(f"zfs create -o encryption=off {WEB}/plain")
    plain = vm_report(hoster_json(source, to, code=10), "web")
    assert plain["ground"] == Ground.WOULD_LIE_READABLE
    assert f"{WEB}/plain is not encrypted" in plain["reason"]
    assert "--allow-plain-child" in plain["remedy"]
    hoster(source, f"{to} --allow-plain-child")
    assert guids(target, f"{WEB}/plain") == guids(source, f"{WEB}/plain") != []


def test_an_extra_version_on_a_raw_replica_is_named_and_not_rolled_over(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    hoster(source, f"vm replicate web -e {target.address}")
    target.run(f"zfs snapshot {WEB}@by-hand")
    write_canary(source)
    refused = vm_report(hoster_json(source, f"vm replicate web -e {target.address}", code=10), "web")
    assert refused["ground"] == Ground.REPLICA_AHEAD
    assert "by-hand" in refused["reason"]
    assert "by-hand" in target.run(f"zfs list -Ht snapshot -o name {WEB}").stdout


def test_without_the_key_loaded_no_raw_says_which_to_load(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    target.run("zfs create tank/other")
    source.run(f"zfs unmount {WEB} && zfs unload-key {WEB}")
    refused = vm_report(hoster_json(source, f"vm replicate web -e {target.address} --no-raw", code=10), "web")
    assert refused["ground"] == Ground.KEY_NOT_LOADED
    source.run(refused["remedy"])
