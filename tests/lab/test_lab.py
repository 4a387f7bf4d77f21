"""The lab itself: each of its facilities seen to do, on real nodes, what the other tests take it to do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, LabError, Node
from lab.run import live_runs, remove_dead_runs

_ROOT = Path(__file__).parents[2]
_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=2"


@pytest.fixture
def linked(lab: Lab) -> Iterator[Lab]:
    """The lab as it is; its links are made whole again after the test."""
    lab.restore_links()
    yield lab
    lab.restore_links()


def _age_s(node: Node) -> float:
    return float(node.run("cut -d' ' -f1 /proc/uptime").stdout)


def _hears(node: Node, other: Node) -> bool:
    return node.run(f"ping -c 1 -W 1 {other.name}", check=False).returncode == 0


def test_nodes_run_real_openzfs_each_with_its_own_name_and_host_id(lab: Lab) -> None:
    host_ids = set()
    for node in lab.nodes:
        version, name, host_id, zone = node.run(
            "cat /sys/module/zfs/version; hostname; hostid; date +%Z"
        ).stdout.split()
        assert version.startswith(f"{lab.release_of(node.number).zfs}.")
        assert (name, zone) == (node.name, "UTC")
        host_ids.add(host_id)
    assert len(host_ids) == len(lab.nodes)


def test_a_reset_leaves_empty_pools_of_the_asked_disks_and_nothing_of_the_test_before(lab: Lab) -> None:
    lab.reset()
    lab.node1.run(
        """
        zfs create tank/vm && zfs snapshot tank/vm@kept && zfs hold mine tank/vm@kept
        zpool create backup /dev/disk/by-id/virtio-disk-c-part1
        mkdir -p /etc/hoster /run/hoster /var/run/replication && echo '* * * * * root true' >/etc/cron.d/mine
        rm -r /root/.ssh
        (cd /tank/vm && exec setsid sleep 1000) >/dev/null 2>&1 &
        """
    )
    began = time.monotonic()
    lab.reset(tank=2, usb=1)
    took_s = time.monotonic() - began

    pools = lab.node1.run(
        "zpool list -H -o name; zfs list -H -o name; zpool status tank | grep -c part1"
    ).stdout
    assert pools.split() == ["tank", "usb", "tank", "usb", "2"]
    gone = "/etc/hoster /run/hoster /var/run/replication /etc/cron.d/mine"
    assert lab.node1.run(f"ls -d {gone}", check=False).stdout == ""
    assert lab.node1.run("pgrep -x sleep", check=False).stdout == ""
    assert lab.node1.run(f"{_SSH} node2 hostname").stdout == "node2\n"
    assert took_s < 20


def test_each_node_logs_in_to_the_other_by_name_and_by_address(lab: Lab) -> None:
    first, second = lab.node1, lab.node2
    assert first.run(f"{_SSH} node2 hostname").stdout == "node2\n"
    assert second.run(f"{_SSH} {first.address} -i /root/.ssh/id_rsa hostname").stdout == "node1\n"


def test_commands_files_and_failures_come_back_as_they_are(lab: Lab) -> None:
    node = lab.node1
    done = node.run("cat; echo lost >&2; exit 3", check=False, input="words")
    assert (done.stdout, done.stderr, done.returncode) == ("words", "lost\n", 3)
    assert node.run(["printf", "%s", "a b; $c"]).stdout == "a b; $c"
    node.put(b"\0\xff", "/tmp/some/where", mode="700")
    assert node.get("/tmp/some/where") == b"\0\xff"
    assert node.run("stat -c %a /tmp/some/where").stdout == "700\n"
    with pytest.raises(LabError, match="node1: status 1 of: false"):
        node.run("false")
    with pytest.raises(LabError, match="no end after"):
        node.run("sleep 5", timeout_s=0.2)


def test_a_power_cut_keeps_what_was_synced_and_loses_what_only_ram_held(nodes: list[Node]) -> None:
    node = nodes[1]
    node.run("echo synced >/tank/kept && zpool sync && echo 600 >/sys/module/zfs/parameters/zfs_txg_timeout")
    # The group of transactions that is open now still has the old time.
    node.run("zpool sync && echo unsynced >/tank/lost")
    node.power_cut()
    with pytest.raises(LabError):
        node.run("true")
    began = time.monotonic()
    node.start()
    assert time.monotonic() - began < 60
    assert node.run("ls /tank").stdout == "kept\n"
    assert node.run("cat /sys/module/zfs/parameters/zfs_txg_timeout").stdout == "1\n"


def test_a_reboot_ends_the_node_in_order_and_brings_its_pools_back(nodes: list[Node]) -> None:
    node = nodes[1]
    node.run("echo unsynced >/tank/kept")
    before_s = _age_s(node)
    node.reboot()
    assert _age_s(node) < before_s + 60
    assert node.run("ls /tank").stdout == "kept\n"


def test_a_cut_link_is_heard_of_no_more_and_heals(linked: Lab) -> None:
    first, second = linked.node1, linked.node2
    assert _hears(first, second)
    linked.link.cut("node2")
    assert not _hears(first, second)
    assert not _hears(second, first)
    assert second.run("hostname").stdout == "node2\n"
    linked.restore_links()
    assert _hears(first, second)


def test_a_half_open_link_swallows_packets_and_open_connections_hear_nothing(linked: Lab) -> None:
    first = linked.node1
    first.run(f"{_SSH} -fMN -S /tmp/shared node2 >/dev/null 2>&1")
    linked.link.half_open("node2")
    began = time.monotonic()
    refused = first.run(f"{_SSH} node2 true", check=False)
    assert (refused.returncode, time.monotonic() - began >= 2) == (255, True)
    assert "timed out" in refused.stderr
    # Redirected, since the shared connection's process would hold the output open.
    waited = first.run("timeout 2 ssh -S /tmp/shared node2 true >/dev/null 2>&1", check=False)
    assert waited.returncode == 124
    linked.restore_links()
    assert first.run("timeout 20 ssh -S /tmp/shared node2 hostname").stdout == "node2\n"


@pytest.mark.parametrize(("sender", "receiver"), [("node1", "node2"), ("node2", "node1")])
def test_a_slow_link_lets_pass_no_more_than_its_rate_each_way(
    linked: Lab, sender: str, receiver: str
) -> None:
    linked.link.slow("node2", rate_mbit=8)
    began = time.monotonic()
    linked[sender].run(f"head -c 3000000 /dev/zero | {_SSH} {receiver} 'cat >/dev/null'")
    # 24 Mbit at 8 Mbit/s; the first 128 KiB may pass at once.
    assert 2.5 < time.monotonic() - began < 12


def test_a_late_link_delays_round_trips_until_it_is_restored(linked: Lab) -> None:
    def round_trip_ms() -> float:
        seen = linked.node1.run("ping -c 3 -i 0.2 -q node2").stdout
        found = re.search(r"= ([\d.]+)/", seen)
        assert found is not None
        return float(found[1])

    linked.link.slow("node2", delay_ms=300)
    assert round_trip_ms() >= 300
    linked.restore_links()
    assert round_trip_ms() < 300


def test_a_clock_is_set_runs_on_and_is_restored(lab: Lab) -> None:
    node = lab.node1
    node.set_clock("2026-01-01 00:00:00")
    assert node.run("date -u +%Y-%m-%dT%H:%M").stdout == "2026-01-01T00:00\n"
    node.restore_clock()
    assert abs(float(node.run("date +%s.%N").stdout) - time.time()) < 5


def test_every_start_of_zfs_zpool_and_ssh_is_counted_by_whatever_path_and_on_either_node(
    nodes: list[Node],
) -> None:
    first, second = nodes[:2]
    with first.audit() as here, second.audit() as there:
        first.run("zfs list >/dev/null; /usr/sbin/zfs list -H >/dev/null; env zpool list >/dev/null")
        first.run(f"{_SSH} node2 '/sbin/zfs get -H all tank; zpool status' >/dev/null")
        first.run(["zfs", "set", "my:words=a\tb\\n\nc", "tank"])
    first.run("zfs list")
    assert (here.count("zfs", "list"), here.count("zfs"), here.count("zpool"), here.count("ssh")) == (
        2,
        3,
        1,
        1,
    )
    assert (there.count("zfs", "get"), there.count("zpool", "status"), len(there.starts)) == (1, 1, 2)
    assert here.starts[-1].arguments == ("set", "my:words=a\tb\\n\nc", "tank")
    assert [start.at_ns for start in here.starts] == sorted(start.at_ns for start in here.starts)


@pytest.mark.parametrize(("when", "made"), [("before", ["tank/1"]), ("after", ["tank/1", "tank/2"])])
def test_a_fault_kills_the_caller_before_or_after_the_chosen_start(
    nodes: list[Node], when: str, made: list[str]
) -> None:
    node = nodes[0]
    assert when in {"before", "after"}
    node.write("/tmp/victim", "#!/bin/sh\nfor n in 1 2 3; do zfs create tank/$n; done\n", mode="755")
    node.audit.arm("before" if when == "before" else "after", 2, kill="victim")
    assert node.run("/tmp/victim", check=False).returncode == 255
    assert node.audit.disarm() == 1
    # Killed before the start, the caller is gone, but what it had asked for is still done.
    made = [*made, "tank/2"] if when == "before" else made
    assert node.run("zfs list -H -o name -d 1 -r tank").stdout.split() == ["tank", *made]


def test_a_fault_that_hits_nobody_says_so(nodes: list[Node]) -> None:
    node = nodes[0]
    node.audit.arm("before", 1, kill="victim")
    assert node.run("zfs create tank/1; zfs create tank/2").returncode == 0
    assert node.audit.disarm() == 0


def test_a_fault_cuts_the_power_at_the_chosen_start(nodes: list[Node]) -> None:
    node = nodes[1]
    node.audit.arm("after", 2)
    # The connection ends when the node is up again and knows nothing of it.
    node.run(
        "zfs create tank/1; zfs create tank/2; zpool sync; zfs create tank/3", check=False, timeout_s=180
    )
    node.await_boot()
    assert "tank/3" not in node.run("zfs list -H -o name").stdout


def test_nothing_is_left_of_a_lab_whose_holder_was_killed() -> None:
    held = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import signal
                from lab.network import make_bridges
                from lab.run import Run
                run = Run()
                make_bridges(run)
                run.spawn("long", ["sleep", "987654"], run.directory / "log")
                run.tell(["node1"])
                print(run.directory, flush=True)
                signal.pause()
            """),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    assert held.stdout is not None
    directory = Path(held.stdout.readline().strip())
    assert [run.pid for run in live_runs() if run.directory == directory] == [held.pid]
    os.kill(held.pid, signal.SIGKILL)
    held.wait()
    held.stdout.close()
    gives_up_at = time.monotonic() + 10
    while directory.exists() and time.monotonic() < gives_up_at:
        time.sleep(0.05)
    remove_dead_runs()
    assert not directory.exists()
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert b"sleep\x00987654\x00" not in running
