"""The everyday surface on a real node: the overview, and what a run leaves in the machine's own log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.lab import Lab
from lab.node import Node
from tests.lab.world import DATASET, hoster, hoster_json, make_vm, prepare, write

pytestmark = pytest.mark.lab


class Log:
    """The node's journal from now on."""

    def __init__(self, node: Node) -> None:
        self._node = node
        shown = node.run("journalctl --sync; journalctl -q -n 1 -o cat --show-cursor").stdout
        self._cursor = shown.rpartition("-- cursor: ")[2].strip()

    def entries(self, field: str) -> list[dict[str, Any]]:
        """Those with that field."""
        after = f"--after-cursor='{self._cursor}'"
        listed = self._node.run(f"journalctl --sync; journalctl -o json -q {after} {field}").stdout
        return [json.loads(line) for line in listed.splitlines()]


def test_the_overview_shows_the_node_and_runs_nobody_watches_are_in_its_log(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    node, target = fresh_lab.node1, fresh_lab.node2
    make_vm(node, "web")
    make_vm(node, "db", production=False)
    log = Log(node)
    hoster(node, f"vm replicate web -e {target.address}")

    # By a shell without a terminal, as cron has it: syslog.
    said = log.entries("SYSLOG_IDENTIFIER=hoster")
    messages = [entry["MESSAGE"] for entry in said if entry["_TRANSPORT"] == "syslog"]
    job = f"vm_web_to_{target.address}"
    assert messages[0] == f"{job}: replication to {target.address} began"
    assert messages[1].startswith(f"{job}: web: done, ")
    assert messages[-1].startswith(f"{job}: replication ended with exit code 0 after ")

    # By systemd: its journal, with fields.
    write(node, "web")
    path = node.run("command -v hoster").stdout.strip()
    unit = f"[Service]\nType=oneshot\nExecStart={path} snapshot new web --stype hourly\n"
    node.write("/run/systemd/system/hoster-once.service", unit)
    node.run("systemctl daemon-reload && systemctl start hoster-once")
    (taken,) = log.entries("HOSTER_EVENT=vm")
    assert taken["_TRANSPORT"] == "journal"
    assert (taken["HOSTER_VM"], taken["HOSTER_OUTCOME"], taken["PRIORITY"]) == ("web", "done", "6")
    assert taken["HOSTER_JOB"] == "snapshot_web_hourly"

    # With JSON asked for: standard error, one object a line, failures included.
    failed = hoster(node, f"--log-format json vm replicate nobody -e {target.address}", code=3)
    lines = [json.loads(line) for line in failed.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["run-began", "vm", "run-ended"]
    assert (lines[1]["vm"], lines[1]["outcome"], lines[2]["exit_code"]) == ("nobody", "failed", 3)

    with node.audit() as seen:
        shown = hoster(node, "").stdout
    assert seen.count("ssh") == 0
    assert seen.count("zfs") <= 3
    for text in ("node1", "OpenZFS", DATASET, "web", "db", target.address, "hoster history --job"):
        assert text in shown
    document = hoster_json(node, "host")
    assert (document["hostname"], document["all_vms"], document["live_vms"]) == ("node1", 2, 0)
    assert document["openzfs"]
    assert document["memory_bytes"] > document["memory_available_bytes"] > 0
    (far,) = document["replication"]
    assert (far["node"], far["vms"], far["verdict"]) == (target.address, 1, "ok")
    assert [wrong["hint"] for wrong in document["wrong"]] == [
        f"hoster history --job vm_nobody_to_{target.address}"
    ]
    (row,) = hoster(node, "dataset list -u").stdout.splitlines()
    assert row.split()[:2] == ["1", DATASET]
    assert row.split()[-1] == "no"
