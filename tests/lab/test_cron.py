"""The page's cron files, run by a real cron on a node whose clock is set to just before their minutes."""

from __future__ import annotations

import time

import pytest

from lab.lab import Lab
from lab.node import Node
from tests.lab.world import guids, make_vm, names, prepare, write

pytestmark = pytest.mark.lab

# As printed in the documentation of Hoster, paths included.
SNAPSHOTS = """\
# $FreeBSD$
#
SHELL=/bin/sh
PATH=/etc:/bin:/sbin:/usr/bin:/usr/sbin

#== AUTOMATIC SNAPSHOTS ==#
33 * *  * *      root  /opt/hoster-core/hoster snapshot all  --stype  hourly   --keep 3
5  4 *  * *      root  /opt/hoster-core/hoster snapshot all  --stype  daily    --keep 5
5  5 *  * 3      root  /opt/hoster-core/hoster snapshot all  --stype  weekly   --keep 3
5  3 15 * *      root  /opt/hoster-core/hoster snapshot all  --stype  monthly  --keep 6

"""

REPLICATION = """\
# $FreeBSD$
#
SHELL=/bin/sh
PATH=/etc:/bin:/sbin:/usr/bin:/usr/sbin

#== AUTOMATIC REPLICATION ==#
# Sleep is required to run the replication just a few seconds later after the scheduled time,
# in order to avoid conflicts with the other snapshot or replication jobs
# snapshot or replication will fail to execute if there is an active replication job taking place
50 * *  * *      root  sleep 10 && /opt/hoster-core/hoster vm replicate-all --endpoint endpointIpAddress

"""


def run_cron_at(node: Node, utc: str, happened: str, *, within_s: float) -> None:
    """Lets cron meet a minute: the clock is set just before it, then `happened` must come true."""
    node.run("systemctl stop cron")
    node.set_clock(utc)
    node.run("systemctl start cron")
    deadline = time.monotonic() + within_s
    while node.run(happened, check=False).returncode != 0:
        assert time.monotonic() < deadline, node.run("journalctl -u cron -n 20", check=False).stdout
        time.sleep(0.5)


def test_the_pages_snapshot_file_takes_each_type_at_its_time(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    node = fresh_lab.node1
    web = make_vm(node, "web")
    node.write("/etc/cron.d/hoster_snapshots", SNAPSHOTS)
    for stype, utc in (
        ("hourly", "2026-07-07 10:32:57"),
        ("daily", "2026-07-08 04:04:57"),
        ("weekly", "2026-07-08 05:04:57"),  # a Wednesday
        ("monthly", "2026-07-15 03:04:57"),
    ):
        write(node, "web")
        run_cron_at(
            node, utc, f"zfs list -H -t snapshot -o name | grep -q '{web}@{stype}_2026-07'", within_s=30
        )
    assert [name.partition("_")[0] for name in names(node, web)] == ["hourly", "daily", "weekly", "monthly"]
    logged = node.run("journalctl --sync; journalctl -q -t hoster -o cat _TRANSPORT=syslog").stdout
    for stype in ("hourly", "daily", "weekly"):  # the last run may not be through yet
        assert f"snapshot_all_{stype}: web: done" in logged


def test_the_pages_replication_file_brings_the_target_up_to_date(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    node, target = fresh_lab.node1, fresh_lab.node2
    web = make_vm(node, "web")
    node.write("/etc/cron.d/hoster_replication", REPLICATION.replace("endpointIpAddress", target.address))
    run_cron_at(node, "2026-07-07 10:49:57", f"ssh {target.address} zfs list {web}", within_s=60)
    deadline = time.monotonic() + 30
    while not guids(target, web) or guids(target, web)[-1] != guids(node, web)[-1]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
