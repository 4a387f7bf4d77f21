"""Replication of plain VMs between two nodes with real OpenZFS and real sshd."""

from __future__ import annotations

import time

import pytest

from lab.lab import Lab
from tests.lab.world import (
    DATASET,
    disk_hash,
    everything,
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

pytestmark = pytest.mark.lab


@pytest.fixture
def pair(fresh_lab: Lab) -> Lab:
    prepare(fresh_lab)
    return fresh_lab


def test_one_run_brings_everything_first_run_or_not_and_the_next_finds_nothing_to_do(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web")
    source.run(f"zfs set mountpoint=/elsewhere compression=zstd {web}")
    for command in ("snapshot new web", "snapshot all --stype daily --keep 5 --always"):
        hoster(source, command)
    source.run(f"zfs snapshot {web}@by-hand && head -c 65536 /dev/urandom >/elsewhere/disk0.img")
    here = source.run("sha256sum </elsewhere/disk0.img").stdout.split()[0]
    hoster(source, f"vm replicate-all --endpoint {target.address}")
    assert len(guids(source, web)) == 4
    assert guids(target, web) == guids(source, web), "every snapshot, in one run"
    assert replica_hash(target, "web") == here
    wanted = {"readonly": "on", "canmount": "noauto", "mounted": "no", "mountpoint": f"/{web}"}
    assert {key: value(target, web, key) for key in wanted} == wanted
    assert value(target, web, "compression") != "zstd", "no property travels"
    vm_id = value(source, web, "hoster:id")
    assert value(target, f"{web}@by-hand", "hoster:from") == f"{vm_id}/1"
    before = everything(target), everything(source)
    report = hoster_json(source, f"vm replicate-all --endpoint {target.address}")
    assert vm_report(report, "web")["outcome"] == "unchanged"
    assert (everything(target), everything(source)) == before


def test_hosters_own_look_at_a_vm_is_no_change_even_where_every_access_is_recorded(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web")
    source.run(f"zfs set atime=on relatime=off {web}")
    hoster(source, f"vm replicate web -e {target.address}")
    hoster(source, "vm list")
    report = hoster_json(source, f"vm replicate web -e {target.address}")
    assert vm_report(report, "web")["outcome"] == "unchanged"


def test_the_advanced_command_of_the_page_works_as_printed(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web")
    hoster(source, f"vm replicate-all --endpoint {target.address} --speed-limit 90 --script-name to_hoster01")
    write(source, "web")
    hoster(source, f"vm replicate-all --endpoint {target.address} --speed-limit 90 --script-name to_hoster01")
    assert guids(target, web) == guids(source, web)
    assert len(guids(source, web)) == 2


def test_which_vms_go_follows_production_filter_and_role(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    for name in ("prod", "other"):
        make_vm(source, name, production=name == "prod")
    first = hoster_json(source, f"vm replicate-all -e {target.address}")
    assert [vm["vm"] for vm in first["vms"]] == ["prod"]
    named = hoster_json(source, f"vm replicate-all -e {target.address} -f 'other, nosuch'", code=3)
    assert [(vm["vm"], vm["outcome"]) for vm in named["vms"]] == [("nosuch", "failed"), ("other", "done")]
    listed = hoster(target, "vm list").stdout
    assert listed.count("💾 Backup from node1") == 2
    back = hoster_json(target, f"vm replicate-all -e {source.address}")
    assert back["vms"] == [], "replicas are not sent back"
    assert value(target, "tank/vm/prod", "mounted") == "no", "listing mounts nothing"
    refused = hoster(target, "snapshot new prod", code=10)
    assert "its snapshots are taken on node1" in refused.stderr


def test_source_keeps_two_and_the_base_while_the_target_keeps_more(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web")
    hoster(source, f"vm replicate web -e {target.address}")
    for _ in range(3):
        write(source, "web")
        hoster(source, f"vm replicate web -e {target.address} --target-keep replication=3")
    assert len(names(source, web)) == 2
    assert len(names(target, web)) == 3
    assert guids(source, web) == guids(target, web)[-2:]
    (bookmark,) = source.run(f"zfs list -H -t bookmark -o guid {web}").stdout.split()
    assert bookmark == guids(target, web)[-1]


def test_retention_never_takes_the_base_of_a_target_that_has_been_away(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web")
    hoster(source, "snapshot new web --stype hourly")
    hoster(source, f"vm replicate web -e {target.address}")
    (base,) = names(source, web)
    for _ in range(3):
        write(source, "web")
        hoster(source, "snapshot all --stype hourly --keep 1")
    assert names(source, web)[0] == base
    assert "target's next increment starts" in hoster(source, f"snapshot destroy web {base}", code=10).stderr
    hoster(source, f"vm replicate web -e {target.address}")
    assert guids(target, web)[-1] == guids(source, web)[-1]
    assert base in names(target, web)


def test_where_only_the_bookmark_of_the_base_is_left_it_goes_on_from_that(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web")
    hoster(source, f"vm replicate web -e {target.address}")
    (base,) = names(source, web)
    for _ in range(2):
        write(source, "web")
        hoster(source, "snapshot new web")
    source.run(f"zfs destroy {web}@{base}")
    write(source, "web")
    hoster(source, f"vm replicate web -e {target.address}")
    assert guids(target, web)[1:] == guids(source, web)
    assert replica_hash(target, "web") == disk_hash(source, "web")


def test_another_dataset_another_name_of_the_node_and_noise_at_login_make_no_difference(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    make_vm(source, "web")
    target.run(
        "touch /root/.bashrc; mv /root/.bashrc /root/.bashrc.kept;"
        " (echo 'echo welcome; echo to >&2'; cat /root/.bashrc.kept) >/root/.bashrc"
    )
    try:
        hoster(source, "vm replicate web -e node2 --target-dataset tank/backups/node1 --create-parent")
        write(source, "web")
        report = hoster_json(
            source, f"vm replicate web -e root@{target.address} --target-dataset tank/backups/node1"
        )
    finally:
        target.run("mv /root/.bashrc.kept /root/.bashrc")
    assert len(vm_report(report, "web")["sent"]) == 1, "the same target, whatever it is called"
    assert guids(target, "tank/backups/node1/web") == guids(source, f"{DATASET}/web")
    assert value(target, "tank/backups/node1", "canmount") == "off"
    bookmarks = source.run(f"zfs list -H -t bookmark -o name {DATASET}/web").stdout.split()
    assert len(bookmarks) == 1


def test_the_speed_limit_holds(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    make_vm(source, "web", kib=6 * 1024)
    report = vm_report(hoster_json(source, f"vm replicate web -e {target.address} --speed-limit 2"), "web")
    rate = report["sent_bytes"] / report["seconds"] / 1024 / 1024
    assert rate <= 2.2  # that it is reached is measured by bench-pump: this machine may be busy


def test_a_dry_run_changes_nothing_on_either_node_and_shows_what_would_go(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    make_vm(source, "web")
    hoster(source, f"vm replicate web -e {target.address}")
    write(source, "web")
    before = everything(source), everything(target)
    report = vm_report(hoster_json(source, f"vm replicate-all -e {target.address} --dry-run"), "web")
    assert (everything(source), everything(target)) == before
    assert report["outcome"] == "planned"
    assert len(report["taken"]) == 1
    assert len(report["sent"]) == 1


def test_a_second_run_of_the_same_job_or_vm_ends_with_11_and_names_the_holder_or_waits(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web", kib=3 * 1024)
    replicate = f"vm replicate-all -e {target.address}"
    source.run(f"nohup hoster {replicate} --speed-limit 0.3 >/root/first.log 2>&1 &")
    _until(lambda: "sending" in source.run("cat /root/first.log").stdout)
    same_job = hoster(source, replicate, code=11)
    assert "is in use by process" in same_job.stderr
    assert f"job to_{target.address}" in same_job.stderr
    same_vm = hoster(source, f"vm replicate web -e {target.address}", code=11)
    assert "the replication of web" in same_vm.stdout
    hoster(source, "snapshot new web")
    hoster(source, f"{replicate} --wait 60")
    assert guids(target, web) == guids(source, web)


def test_a_killed_run_leaves_nothing_that_blocks_the_next(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web", kib=4 * 1024)
    hoster(source, "snapshot new web")
    for first in (True, False):
        source.run("rm -f /root/run.log")
        source.run(
            f"nohup hoster vm replicate web -e {target.address} --speed-limit 0.5 >/root/run.log 2>&1 &"
        )
        _until(lambda: "web: sending" in source.run("cat /root/run.log", check=False).stdout)
        source.run("pkill -9 -f 'import run[p]y'")
        _until(lambda: not source.run("pgrep -f '[z]fs send|[C]ontrolMaster' || true").stdout.strip())
        _until(lambda: not target.run("pgrep -f '[z]fs receive' || true").stdout.strip())
        assert bool(guids(target, web)) is not first
        hoster(source, f"vm replicate web -e {target.address}")
        assert guids(target, web) == guids(source, web)
        assert replica_hash(target, "web") == disk_hash(source, "web")
        assert not source.run("ls -d /run/hoster/ssh-* 2>/dev/null || true").stdout
        write(source, "web", kib=4 * 1024)


def test_a_power_cut_of_the_target_amid_a_first_transfer_costs_one_more_run(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    web = make_vm(source, "web", kib=4 * 1024)
    source.run("rm -f /root/run.log /root/code")
    source.run(
        f"(nohup hoster vm replicate web -e {target.address} --speed-limit 0.5 >/root/run.log 2>&1;"
        " echo $? >/root/code) >/dev/null 2>&1 </dev/null &"
    )
    _until(lambda: "web: sending" in source.run("cat /root/run.log", check=False).stdout)
    target.power_cut()
    target.start()
    _until(lambda: source.run("cat /root/code", check=False).returncode == 0, within_s=90)
    assert source.run("cat /root/code").stdout.strip() == "3"
    hoster(source, f"vm replicate web -e {target.address}")
    assert guids(target, web) == guids(source, web)


def test_a_malformed_configuration_of_one_vm_is_said_and_the_others_go_on(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    for name in ("good", "bad"):
        make_vm(source, name)
    source.write("/tank/vm/bad/vm_config.json", '{"production": true,')
    report = hoster_json(source, "snapshot all --stype hourly")
    assert vm_report(report, "bad")["outcome"] == "done", "its marks say that it is a VM of this node"
    assert "vm_config.json" in " ".join(vm_report(report, "bad")["notes"])
    source.run("zfs inherit hoster:id tank/vm/bad && zfs inherit hoster:role tank/vm/bad")
    report = hoster_json(source, f"vm replicate-all -e {target.address}", code=3)
    assert vm_report(report, "bad")["outcome"] == "failed"
    assert vm_report(report, "good")["outcome"] == "done"


def test_a_vm_of_the_original_tool_is_replicated_without_being_adopted_first(pair: Lab) -> None:
    source, target = pair.node1, pair.node2
    source.run("zfs create tank/vm/old && head -c 65536 /dev/urandom >/tank/vm/old/disk0.img")
    source.write(
        "/tank/vm/old/vm_config.json",
        '{"live_status": "production", "cpu_cores": "2", "parent_host": "node1"}',
    )
    source.run("zfs snapshot tank/vm/old@hourly_20230812_132136.123456")
    hoster(source, f"vm replicate-all -e {target.address}")
    assert guids(target, "tank/vm/old") == guids(source, "tank/vm/old")
    assert value(target, "tank/vm/old", "hoster:id") == value(source, "tank/vm/old", "hoster:id") != "-"


def _until(happened: object, *, within_s: float = 30.0) -> None:
    assert callable(happened)
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
