"""The host is dead: its machines run elsewhere; and when it comes back, nothing is overwritten."""

from __future__ import annotations

from collections.abc import Callable

from lab.lab import Lab
from lab.node import Node
from tests.lab.cutting import HOSTER, kill_points
from tests.lab.world import (
    DATASET,
    disk_hash,
    guids,
    hoster,
    hoster_json,
    make_vm,
    names,
    prepare,
    replica_hash,
    value,
    vm_report,
    write,
)

WEB = f"{DATASET}/web"
ALL = "replicate-all --endpoint"


def test_a_dead_hosts_vm_runs_elsewhere_and_its_return_harms_nothing(fresh_lab: Lab) -> None:
    """The chapter "Start the VM on a new host", and what comes after it."""
    one, two = fresh_lab.node1, fresh_lab.node2
    prepare(fresh_lab)
    make_vm(one, "web")
    one.run(f"zfs create -s -V 1M {WEB}/disk1; {_with_device(WEB)} echo data >/dev/zvol/{WEB}/disk1")
    hoster(one, f"vm {ALL} node2")
    sent = disk_hash(one, "web")
    write(one, "web")
    alone = disk_hash(one, "web")
    hoster(one, "snapshot new web")
    own = guids(one, WEB)
    one.run("sync")
    one.power_cut()

    told = hoster(two, "change parent --vm web").stdout
    assert "goes on from replication_" in told
    assert "node1 could not be asked" in told
    assert value(two, WEB, "hoster:epoch") == "2@node2"
    assert (value(two, WEB, "mounted"), value(two, WEB, "readonly")) == ("yes", "off")
    assert '"parent_host": "node2"' in two.run(f"cat /{WEB}/vm_config.json").stdout
    assert two.run(f"head -c 4 /dev/zvol/{WEB}/disk1").stdout == "data"
    assert disk_hash(two, "web") == sent
    assert names(two, WEB)[-1].startswith("custom_"), "the moment is marked"
    assert vm_report(hoster_json(two, "change parent --vm web"), "web")["outcome"] == "unchanged"
    write(two, "web")
    working = disk_hash(two, "web")

    one.start()
    refused = vm_report(hoster_json(one, f"vm {ALL} node2", code=10), "web")
    assert refused["ground"] == "superseded"
    assert value(one, WEB, "hoster:role") == "superseded"
    assert disk_hash(two, "web") == working
    again = vm_report(hoster_json(one, f"vm {ALL} node2", code=10), "web")
    assert again["ground"] == "superseded", "it is said until it is settled"
    hoster(one, "snapshot all --stype hourly --keep 3")
    assert guids(one, WEB) == own, "no schedule touches it"
    assert "has taken it over" in hoster(one, "vm start web", code=10).stderr

    hoster(two, "vm failback web --endpoint node1")
    assert value(one, WEB, "hoster:role") == "replica"
    assert value(one, WEB, "hoster:epoch") == "2@node2"
    assert guids(one, WEB)[-1] == guids(two, WEB)[-1]
    branch = one.run(f"zfs list -H -o name -d 1 {DATASET} | grep web.branch-").stdout.strip()
    assert guids(one, branch)[-1] == own[-1], "what the old host wrote alone is kept, under its identity"
    one.run(f"zfs mount {branch}")
    assert one.run(f"sha256sum </{branch}/disk0.img").stdout.split()[0] == alone
    one.run(f"zfs unmount {branch}")

    moved = hoster(two, "vm migrate web --endpoint node1").stdout
    assert "epoch 3@node1" in moved
    assert disk_hash(one, "web") == working
    assert (value(two, WEB, "hoster:role"), value(two, WEB, "mounted")) == ("replica", "no")
    write(one, "web")
    hoster(one, f"vm {ALL} node2")
    assert replica_hash(two, "web") == disk_hash(one, "web"), "replication goes the other way round by itself"


def test_three_nodes_and_a_split(fresh_lab: Lab, third_node: Callable[[], Node]) -> None:
    one, two = fresh_lab.node1, fresh_lab.node2
    three = third_node()
    prepare(fresh_lab)
    make_vm(one, "web")
    hoster(one, f"vm {ALL} node3")
    hoster(one, f"vm {ALL} node2")
    assert "node3" in value(two, WEB, "hoster:sites"), "a replica knows of the others"
    fresh_lab.link.cut("node1")

    assert "told node3" in hoster(two, "change parent --vm web").stdout
    assert value(three, WEB, "hoster:epoch") == "2@node2"
    fresh_lab.restore_links()
    write(one, "web")
    refused = vm_report(hoster_json(one, f"vm {ALL} node3", code=10), "web")
    assert refused["ground"] == "superseded", "the third node refuses the old host as well"
    hoster(two, f"vm {ALL} node3")

    # Apart, the third one is promoted too.
    fresh_lab.link.cut("node2")
    three.run(f"zfs set hoster:epoch=1@node1 {WEB}")
    hoster(three, "change parent --vm web --accept-loss")
    fresh_lab.restore_links()
    write(two, "web")
    write(three, "web")
    for here, other in ((two, "node3"), (three, "node2")):
        split = vm_report(hoster_json(here, f"vm replicate web --endpoint {other}", code=10), "web")
        assert split["ground"] == "split"
    assert "was promoted too" in hoster(two, "vm start web", code=10).stderr

    hoster(two, "change parent --vm web --accept-loss")
    assert value(two, WEB, "hoster:epoch") == "3@node2"
    lost = disk_hash(three, "web")
    hoster(two, "vm failback web --endpoint node3")
    assert replica_hash(three, "web") == disk_hash(two, "web")
    branch = three.run(f"zfs list -H -o name -d 1 {DATASET} | grep web.branch-").stdout.strip()
    three.run(f"zfs mount {branch}")
    assert three.run(f"sha256sum </{branch}/disk0.img").stdout.split()[0] == lost


def test_an_encrypted_vm_takes_over_with_its_key_only(fresh_lab: Lab) -> None:
    one, two = fresh_lab.node1, fresh_lab.node2
    prepare(fresh_lab)
    one.run(f"echo password1 | zfs create -o encryption=on -o keyformat=passphrase {DATASET}/home")
    one.run(f"sed -i 's|^datasets.*|datasets = [\"{DATASET}/home\"]|' /etc/hoster/hoster.toml")
    two.run(
        f"zfs create {DATASET}/home &&"
        f" sed -i 's|^datasets.*|datasets = [\"{DATASET}/home\"]|' /etc/hoster/hoster.toml"
    )
    crypt = f"{DATASET}/home/web"
    one.run(
        f"zfs create {crypt} && zfs create -s -V 1M {crypt}/disk1 && echo canary >/{crypt}/disk0.img;"
        f" {_with_device(crypt)} echo data >/dev/zvol/{crypt}/disk1 && hoster vm adopt web"
    )
    hoster(one, f"vm {ALL} node2")
    fresh_lab.link.cut("node1")

    without = hoster(two, "change parent --vm web </dev/null", code=10)
    assert "nobody is here to be asked" in without.stderr
    assert value(two, crypt, "hoster:role") == "replica", "nothing was changed"
    two.run("mkdir -p /root/keys && echo wrong-one >/root/keys/web && chmod 600 /root/keys/web")
    two.run("sed -i '1i key-location = \"/root/keys/{vm}\"' /etc/hoster/hoster.toml")
    assert "could not be opened" in hoster(two, "change parent --vm web", code=10).stderr
    two.run("echo password1 >/root/keys/web")
    hoster(two, "change parent --vm web")
    assert two.run(f"cat /{crypt}/disk0.img").stdout == "canary\n"
    assert two.run(f"head -c 4 /dev/zvol/{crypt}/disk1").stdout == "data"

    hoster(two, "vm demote web")
    assert value(two, crypt, "keystatus") == "unavailable"
    two.run("zpool sync")
    search = "grep -c canary /dev/disk/by-id/virtio-disk-a-part1"
    assert two.run(search, check=False, timeout_s=300).stdout.strip() == "0"
    hoster(two, "change parent --vm web")
    two.run(f"echo more >>/{crypt}/disk0.img")
    fresh_lab.restore_links()
    hoster(two, "vm failback web --endpoint node1")
    one.run(f"zfs mount {crypt}")
    assert one.run(f"cat /{crypt}/disk0.img").stdout == "canary\nmore\n", "raw both ways"


def test_a_vm_is_brought_back_to_a_node_that_lost_it(fresh_lab: Lab) -> None:
    one, two = fresh_lab.node1, fresh_lab.node2
    prepare(fresh_lab)
    make_vm(one, "web")
    hoster(one, "snapshot new web")
    older, first = disk_hash(one, "web"), names(one, WEB)[0]
    write(one, "web")
    hoster(one, f"vm {ALL} node2")
    newer, had = disk_hash(one, "web"), guids(one, WEB)
    one.run(f"zfs destroy -r {WEB}")

    before = two.run("zfs list -H -t all -o name,guid -r tank").stdout
    hoster(one, "vm restore web --from node2")
    assert guids(one, WEB)[: len(had)] == had
    assert disk_hash(one, "web") == newer
    assert value(one, WEB, "hoster:epoch") == "2@node1"
    assert "exists already" in hoster(one, "vm restore web --from node2", code=10).stderr
    hoster(one, f"vm restore web --from node2 --snapshot {first} --as web-old")
    assert disk_hash(one, "web-old") == older
    assert value(one, f"{DATASET}/web-old", "hoster:id") != value(one, WEB, "hoster:id")
    assert two.run("zfs list -H -t all -o name,guid -r tank").stdout == before, "nothing is changed there"
    write(one, "web")
    hoster(one, f"vm {ALL} node2")
    assert replica_hash(two, "web") == disk_hash(one, "web")


def test_a_takeover_killed_at_any_command_is_finished_by_the_next(fresh_lab: Lab) -> None:
    one, two = fresh_lab.node1, fresh_lab.node2
    prepare(fresh_lab)
    make_vm(one, "web")
    hoster(one, f"vm {ALL} node2")
    sent = disk_hash(one, "web")
    fresh_lab.link.cut("node1")
    hoster(two, "change parent --vm web --accept-loss")
    _make_replica_again(two)
    with two.audit() as seen:
        hoster(two, "change parent --vm web --accept-loss")
    committed, turns = 0, kill_points(range(1, len(seen.starts) + 1), 8)
    for when, point in turns:
        _make_replica_again(two)
        two.audit.arm(when, point, kill=HOSTER)
        killed = hoster(two, "change parent --vm web --accept-loss", code=None)
        two.audit.disarm()
        assert killed.returncode not in {0, 3, 10}, f"point {point} hit nothing that was alive"
        role, epoch = value(two, WEB, "hoster:role"), value(two, WEB, "hoster:epoch")
        assert (role, epoch) in {("replica", "1@node1"), ("primary", "2@node2")}, "one side or the other"
        committed += role == "primary"
        hoster(two, "change parent --vm web --accept-loss")
        assert value(two, WEB, "hoster:epoch") == "2@node2", "the same epoch, not one for each attempt"
        assert (value(two, WEB, "mounted"), value(two, WEB, "readonly")) == ("yes", "off")
        assert sum(name.startswith("custom_") for name in names(two, WEB)) == 1
        assert disk_hash(two, "web") == sent
    assert 0 < committed < len(turns), "both sides of the commit point were tried"


def test_a_source_that_died_while_it_set_something_aside_leaves_a_vm_that_takes_over(fresh_lab: Lab) -> None:
    one, two = fresh_lab.node1, fresh_lab.node2
    prepare(fresh_lab)
    make_vm(one, "web")
    one.run(f"zfs create -V 4M {WEB}/d1 && zfs snapshot -r {WEB}@first")
    first = disk_hash(one, "web")

    def goes_back() -> None:
        write(one, "web")
        hoster(one, f"vm {ALL} node2")
        hoster(one, "snapshot rollback web first")
        write(one, "web")

    goes_back()
    with one.audit() as seen:
        hoster(one, f"vm {ALL} node2")
    renames = [n for n, start in enumerate(seen.starts, 1) if "zfs rename" in " ".join(start.arguments)]
    assert len(renames) == 2
    goes_back()
    before = guids_below(two)
    one.audit.start()
    one.audit.arm("before", renames[1], kill=HOSTER)
    one.run(f"hoster vm {ALL} node2", check=False)
    assert one.audit.disarm() == 1
    one.audit.stop()
    assert hoster_json(two, "vm list") == [], "it has no name in this moment"

    busy = hoster(two, "change parent --vm web", code=11).stderr
    assert f"sets the newer part of {WEB} aside" in busy
    fresh_lab.link.cut("node1")
    done = hoster(two, "change parent --vm web").stdout
    assert f"finished setting aside the newer part of {WEB}" in done
    assert (value(two, WEB, "hoster:role"), value(two, WEB, "hoster:epoch")) == ("primary", "2@node2")
    assert disk_hash(two, "web") == first
    assert before < guids_below(two)
    fresh_lab.restore_links()
    refused = vm_report(hoster_json(one, f"vm {ALL} node2", code=10), "web")
    assert refused["ground"] == "superseded"
    hoster(two, "vm failback web --endpoint node1")
    assert guids(one, WEB)[-1] == guids(two, WEB)[-1]


def guids_below(node: Node) -> set[str]:
    """The GUIDs of all snapshots of the active dataset."""
    return set(node.run(f"zfs list -Hp -r -t snapshot -o guid {DATASET}").stdout.split())


def _with_device(vm: str) -> str:
    """Waits for udev to make the volume's device."""
    return f"for i in $(seq 100); do [ -e /dev/zvol/{vm}/disk1 ] && break; sleep 0.1; done;"


def _make_replica_again(node: Node) -> None:
    node.run(
        f"zfs unmount {WEB}; zfs rollback $(zfs list -H -t snapshot -o name {WEB} | grep custom_);"
        f" zfs destroy {WEB}@$(zfs list -H -t snapshot -o name {WEB} | grep -o 'custom_.*');"
        f" zfs set readonly=on canmount=noauto hoster:role=replica hoster:epoch=1@node1"
        f" hoster:parent=node1 {WEB}"
    )
