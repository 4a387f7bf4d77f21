"""Schedules by a real cron and a real systemd, on nodes whose clocks are set to just before a job is due."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.lab import Lab
from lab.node import Node
from tests.lab.test_cron import run_cron_at
from tests.lab.world import guids, hoster, hoster_json, make_vm, names, prepare, write

pytestmark = pytest.mark.lab

SCHEDULE = """
datasets = ["tank/vm"]

[schedules.all]
production = true

[schedules.all.snapshots]
frequent = 2
daily = 3

[schedules.all.targets.backup]
endpoint = "{target}"
every = 5
keep = {{ frequent = 1 }}
"""

NIGHT = """
[schedules.all.targets.night]
endpoint = "{target}"
dataset = "tank/night"
windows = ["22:00-06:00"]
rpo = 300

[schedules.all.targets.away]
endpoint = "10.77.0.99"
when-reachable = true

[schedules.all.targets.usb]
endpoint = "local"
dataset = "usb/vm"
when-reachable = true
"""

OVERRIDE = "/etc/systemd/system/hoster-all-backup.service.d"


def settle(lab: Lab, more: str = "") -> tuple[Node, Node, str]:
    """A VM on node1, with a schedule that sends it to node2."""
    prepare(lab)
    node, target = lab.node1, lab.node2
    node.write("/etc/hoster/hoster.toml", (SCHEDULE + more).format(target=target.address))
    return node, target, make_vm(node, "web")


def until(happened: str, node: Node, *, within_s: float) -> None:
    """Waits for a command to succeed."""
    deadline = time.monotonic() + within_s
    while node.run(happened, check=False).returncode != 0:
        said = node.run("journalctl -n 40; systemctl list-timers --all", check=False).stdout
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


def last_run(node: Node, job: str) -> dict[str, Any]:
    """The newest entry of a job in the journal."""
    found: dict[str, Any] = hoster_json(node, f"history --job {job}")[0]
    return found


def test_cron_takes_snapshots_and_replicates_by_the_schedule(fresh_lab: Lab) -> None:
    node, target, web = settle(fresh_lab)
    hoster(node, "config check")
    hoster(node, "schedule install --cron")
    assert "there is nothing to change" in hoster(node, "schedule install --cron").stdout
    assert {job["installed"] for job in hoster_json(node, "schedule show")} == {"cron"}
    taken = f"zfs list -H -t snapshot -o name | grep -q '{web}@frequent_2026-07'"
    run_cron_at(node, "2026-07-07 10:14:57", taken, within_s=60)
    run_cron_at(node, "2026-07-07 10:17:57", f"ssh {target.address} zfs list {web}", within_s=60)
    until("hoster history --job all_backup -u | grep -q .", node, within_s=60)
    assert last_run(node, "all_backup")["exit_code"] == 0
    assert guids(target, web)[-1] == guids(node, web)[-1]
    hoster(node, "schedule remove")
    assert node.run("ls /etc/cron.d/hoster", check=False).returncode != 0


def test_a_target_that_may_not_be_reached_now_is_no_error(fresh_lab: Lab) -> None:
    node, target, web = settle(fresh_lab, NIGHT)
    target.run("zfs create tank/night")
    node.set_clock("2026-07-07 12:00:00")
    for target_name, why in (
        ("night", "only in its windows: 22:00-06:00"),
        ("away", "is not reachable: 10.77.0.99"),
        ("usb", "the pool usb is not imported"),
    ):
        said = hoster(node, f"schedule run all --replicate {target_name}").stdout
        assert f"all_{target_name}: skipped: " in said
        assert why in str(last_run(node, f"all_{target_name}")["reason"])
    assert names(node, web) == []
    assert node.run("ls /var/run/replication", check=False).stdout == ""
    node.set_clock("2026-07-07 22:30:00")
    hoster(node, "schedule run all --replicate night")
    assert guids(target, "tank/night/web") == guids(node, web) != []
    write(node, "web")
    replica = replica_at_night(node)
    assert replica["late_at"] == replica["data_at"] + 5 * 3600
    # Only time in windows counts: at noon 7.5 hours of it have passed, which is not twice what was promised.
    for clock, verdict in (("2026-07-08 03:15:00", "ok"), ("2026-07-08 12:00:00", "warning")):
        node.set_clock(clock)
        assert replica_at_night(node)["verdict"] == verdict
    toml = "/etc/hoster/hoster.toml"
    node.run(f"sed -i 's/^when-reachable.*//' {toml}")
    hoster(node, "schedule run all --replicate away", code=12)
    assert node.run("ls /var/run/replication").stdout.split() == ["ERROR_all_away"]


def replica_at_night(node: Node) -> Any:
    """How the replica of the target with windows stands."""
    targets = hoster_json(node, "status web")["vms"][0]["targets"]
    return next(target for target in targets if target["dataset"] == "tank/night/web")


@contextmanager
def systemd_installed(node: Node) -> Iterator[None]:
    """The schedule's units, and beside them one that tells which mount namespace the service is in."""
    try:
        hoster(node, "schedule install --systemd")
        tell = "ExecStartPre=/bin/sh -c 'readlink /proc/self/ns/mnt >/run/hoster-namespace'"
        node.run(f"mkdir -p {OVERRIDE}")
        node.write(f"{OVERRIDE}/lab.conf", f"[Service]\n{tell}\n")
        node.run("systemctl daemon-reload")
        yield
    finally:
        node.run(f"rm -rf {OVERRIDE}")
        hoster(node, "schedule remove")
        node.run("systemctl stop 'hoster-*.service'")


def test_systemd_takes_snapshots_and_replicates_by_the_schedule(fresh_lab: Lab) -> None:
    node, target, web = settle(fresh_lab)
    hoster(node, "schedule install --cron")
    node.set_clock("2026-07-07 09:48:40")
    with systemd_installed(node):
        shown = hoster_json(node, "schedule show")
        assert {job["installed"] for job in shown} == {"systemd"}
        for job in shown:
            assert as_systemd_has_it(node, job["schedule"], job["subject"]) == job["next"]
        assert "there is nothing to change" in hoster(node, "schedule install --systemd").stdout
        assert node.run("ls /etc/cron.d/hoster", check=False).returncode != 0
        checked = node.run(
            "cd /etc/systemd/system && systemd-analyze verify hoster-*.service hoster-*.timer", check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
        node.set_clock("2026-07-07 10:14:40")
        until(f"zfs list -H -t snapshot -o name | grep -q '{web}@frequent_2026-07'", node, within_s=120)
        node.set_clock("2026-07-07 10:17:58")
        newest = f"zfs list -H -t snapshot -o name -S createtxg {web} | grep frequent | head -n 1"
        until(f"ssh {target.address} zfs list $({newest})", node, within_s=120)
        until("hoster history --job all_backup -u | grep -q .", node, within_s=60)
        assert last_run(node, "all_backup")["exit_code"] == 0
        same = "[ $(cat /run/hoster-namespace) = $(readlink /proc/1/ns/mnt) ]"
        assert node.run(same, check=False).returncode == 0
        assert node.run("systemctl list-units --failed --no-legend 'hoster-*'").stdout == ""
        # While the node was off, the clock has passed the moment of the daily snapshots.
        node.run("sync")
        node.reboot()
        until(f"zfs list -H -t snapshot -o name | grep -q '{web}@daily_'", node, within_s=120)
    assert "hoster" not in node.run("systemctl list-timers --all --no-legend").stdout
    assert node.run("ls /etc/systemd/system | grep hoster", check=False).stdout == ""
    node.run("rm -f /var/lib/systemd/timers/stamp-hoster-*")


def as_systemd_has_it(node: Node, schedule: str, subject: str) -> list[float]:
    """The next three runs of a job, as systemd understands its timer."""
    found: list[float] = []
    timer = node.run(f"cat /etc/systemd/system/hoster-{schedule}-{subject}.timer").stdout
    for expression in re.findall(r"^OnCalendar=(.*)$", timer, re.MULTILINE):
        said = node.run(f"systemd-analyze calendar --iterations=3 '{expression}'").stdout
        clocks = re.findall(r"(?:Next elapse|Iteration #\d+): \w+ ([\d-]+ [\d:]+) UTC", said)
        found += [datetime.fromisoformat(clock).replace(tzinfo=UTC).timestamp() for clock in clocks]
    return sorted(found)[:3]
