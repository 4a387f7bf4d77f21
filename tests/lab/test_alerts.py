"""What is shipped for Prometheus, with the real node_exporter, Prometheus and Alertmanager.

Prometheus and Alertmanager run beside the nodes, in the control network. Their files are those of contrib/
but for what `hurried` and `addressed` change: a minute of waiting becomes a second, nodes have addresses.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.identity import control_address
from lab.image import cache_directory
from lab.lab import Lab
from lab.node import Node
from lab.unpacked import MONITORING, as_installed, programs
from tests.lab.world import hoster, make_vm, prepare

pytestmark = pytest.mark.lab

CONTRIB = Path(__file__).parents[2] / "contrib/prometheus"
TEXTFILES = "/var/lib/prometheus/node-exporter"
NODE_EXPORTER, EXPORTER = (f"{control_address(1)}:9100", f"{control_address(2)}:9101")
NEVER, ALWAYS = "vector(1) > 1", "vector(1)"


def hurried(text: str) -> str:
    """The alerts, each waiting a minute in place of an hour before it fires, and a second for a minute."""
    return re.sub(
        r"^( +for: \d+)([hm])$", lambda found: found[1] + {"h": "m", "m": "s"}[found[2]], text, flags=re.M
    )


def addressed(text: str) -> str:
    """Prometheus' configuration and its second job: node1 by node_exporter, node2 by hoster itself."""
    text = re.sub(r"^  # (- job_name|  )", r"  \1", text, flags=re.M)
    for shipped, here in (
        ('["node1:9100", "node2:9100"]', f'["{NODE_EXPORTER}"]'),
        ('["node1:9101", "node2:9101"]', f'["{EXPORTER}"]'),
        ("scrape_interval: 1m", "scrape_interval: 10s"),
        ("scrape_timeout: 30s", "scrape_timeout: 10s"),
    ):
        assert text.count(shipped) == 1, shipped
        text = text.replace(shipped, here)
    # A scrape may take as long as its interval; one that fails would let alerts begin to wait anew.
    return f"global: {{scrape_interval: 5s, evaluation_interval: 1s}}\n{text}"


class Watch:
    """A Prometheus and an Alertmanager that watch a lab, asked by their own tools."""

    def __init__(self, lab: Lab, tools: Path) -> None:
        self._lab = lab
        self._tools = tools

    def firing(self, *matchers: str, inhibited: bool = False) -> list[dict[str, Any]]:
        """What Alertmanager has: alerts that it tells of or, the other way, those that it keeps to itself."""
        which = ["--inhibited"] if inhibited else []
        said = self._lab.run_beside(
            *(str(self._tools / "amtool"), "--alertmanager.url=http://127.0.0.1:9093"),
            *("alert", "query", "--output=json", *which, *matchers),
        )
        states = {"suppressed"} if inhibited else {"active"}
        return [alert for alert in json.loads(said) if alert["status"]["state"] in states]

    def known(self, query: str) -> list[dict[str, str]]:
        """The labels of what Prometheus answers to a query."""
        said = self._lab.run_beside(
            *(str(self._tools / "promtool"), "query", "instant", "--format=json"),
            *("http://127.0.0.1:9090", query),
        )
        return [series["metric"] for series in json.loads(said)]


@pytest.fixture
def watched(lab: Lab, tmp_path: Path) -> Iterator[tuple[Lab, Watch]]:
    """The lab with a VM, configured for several places to replicate it to, under watch; all scrapes work."""
    tools = programs(cache_directory(), MONITORING)
    lab.reset(tank=1, usb=1)
    prepare(lab)
    with ExitStack() as running:
        _start_exporters(lab, tools / "prometheus-node-exporter", running)
        make_vm(lab.node1, "web1")
        lab.node1.write("/etc/hoster/hoster.toml", settings(datetime.now(UTC).hour))
        lab.node1.run("touch -d '7 minutes ago' /etc/hoster/hoster.toml")
        hoster(lab.node1, f"metrics --textfile-dir {TEXTFILES}")
        _start_prometheus(lab, tools, tmp_path, running)
        watch = Watch(lab, tools)
        soon(lambda: {NODE_EXPORTER, EXPORTER} <= {up["instance"] for up in watch.known("up == 1")})
        yield lab, watch


def settings(hour: int) -> str:
    """node1's configuration. It promises a minute. One target's window is half a day away, one may be off for
    a day, and to one nobody ever replicates."""
    far, end = (hour + 12) % 24, (hour + 13) % 24
    return f"""
    datasets = ["tank/vm"]
    textfile-dir = "{TEXTFILES}"

    [promises]
    rpo = 1

    [schedules.offsite]
    vms = ["web1"]

    [schedules.offsite.targets.vault]
    endpoint = "local"
    dataset = "usb/vm"
    windows = ["{far:02}:00-{end:02}:00"]

    [schedules.offsite.targets.sleeper]
    endpoint = "node2"
    dataset = "tank/sleeper"
    when-reachable = true
    rpo = 1440

    [schedules.offsite.targets.forgotten]
    endpoint = "node2"
    dataset = "tank/forgotten"
    every = 5
    rpo = 5
    """


def _start_exporters(lab: Lab, node_exporter: Path, running: ExitStack) -> None:
    """node_exporter as Debian has it on node1, and hoster's own on node2."""
    lab.node1.put(node_exporter, "/usr/local/bin/prometheus-node-exporter", mode="755")
    lab.node1.run(f"mkdir -p {TEXTFILES}")
    units = (
        (lab.node1, "/usr/local/bin/prometheus-node-exporter"),
        (lab.node2, f"/usr/local/bin/hoster node_exporter start --listen {EXPORTER}"),
    )
    for node, command in units:
        node.run(f"systemd-run --quiet --unit=exporter {command}")
        running.callback(node.run, "systemctl stop exporter", check=False)
    running.callback(lab.node1.run, f"rm -rf {TEXTFILES} /usr/local/bin/prometheus-node-exporter")


def _start_prometheus(lab: Lab, tools: Path, folder: Path, running: ExitStack) -> None:
    shutil.copytree(CONTRIB, folder / "etc")
    for name, changed in (("hoster.rules.yml", hurried), ("prometheus.yml", addressed)):
        path = folder / "etc" / name
        path.write_text(changed(path.read_text()))
    commands = {
        "alertmanager": [
            *("prometheus-alertmanager", f"--config.file={folder}/etc/alertmanager.yml"),
            *(f"--storage.path={folder}/alertmanager", "--web.listen-address=127.0.0.1:9093"),
            "--cluster.listen-address=",
        ],
        "prometheus": [
            *("prometheus", f"--config.file={folder}/etc/prometheus.yml"),
            *(f"--storage.tsdb.path={folder}/prometheus", "--web.listen-address=127.0.0.1:9090"),
        ],
    }
    for name, (program, *words) in commands.items():
        running.enter_context(
            lab.beside(name, [*as_installed(tools / program), *words], folder / f"{name}.log")
        )


def soon(happened: Callable[[], object], *, within_s: float = 60.0) -> None:
    """Waits until something is true; it may not be possible to ask yet."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if happened():
                return
        except LabError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, happened()
        time.sleep(0.5)


def marked(node: Node) -> list[str]:
    """The error markers of a node."""
    return node.run("ls /var/run/replication 2>/dev/null", check=False).stdout.split()


def due_at(node: Node) -> float:
    """When the replica of web1 on node2 becomes late; or when that was told, should it be later."""
    told = node.run(f"grep -E '^hoster_measured|due.*=\"tank/vm/web1\"' {TEXTFILES}/hoster.prom").stdout
    return max(float(line.split()[-1]) for line in told.splitlines())


def test_alerts_fire_for_what_fails_or_never_runs_and_not_for_what_is_off_as_planned(
    watched: tuple[Lab, Watch],
) -> None:
    lab, watch = watched
    node = lab.node1
    assert watch.known(f'hoster_vms_unusable{{instance="{EXPORTER}"}}')
    hoster(node, "vm replicate-all --endpoint local --target-dataset usb/vm --create-parent")
    hoster(node, "vm replicate-all --endpoint node2 --target-dataset tank/sleeper --create-parent")

    # The target is off. One job says so; those for which that is no error do not.
    lab.link.cut("node2")
    hoster(node, "vm replicate-all --endpoint node2 --script-name to_node2", code=12)
    for target in ("vault", "sleeper"):
        hoster(node, f"schedule run offsite --replicate {target}")
    assert marked(node) == ["ERROR_to_node2"]
    soon(lambda: watch.firing("alertname=HosterJobFailed", "name=to_node2"))
    (alert,) = watch.firing("alertname=HosterJobFailed")
    assert alert["annotations"]["runbook"] == "docs/runbook.md#hosterjobfailed"
    # Alertmanager keeps to itself that the marker is there: it is because the job has failed.
    soon(lambda: watch.firing("alertname=HosterErrorMarker", inhibited=True))

    lab.restore_links()
    hoster(node, "vm replicate-all --endpoint node2 --script-name to_node2")
    assert marked(node) == []
    soon(lambda: not watch.firing("alertname=~HosterJobFailed|HosterErrorMarker"))

    # From here on that job never runs. Once what was promised is over, and the seconds that the alert waits,
    # it fires. The data in the vault are older and no less was promised; but its window is still to come.
    # What was forgotten has fired all the time: nothing ever ran for it, and its promise was over by then.
    this = ("alertname=HosterReplicaLate", "dataset=tank/vm/web1")
    soon(lambda: watch.firing(*this), within_s=120)
    (late,) = watch.firing(*this)
    assert late["labels"]["instance"] == NODE_EXPORTER
    fired_after_s = datetime.fromisoformat(late["startsAt"]).timestamp() - due_at(node)
    assert 5 <= fired_after_s < 35, "what the alert waits; and scrapes, on a busy machine"
    assert panels_without_answer(watch) == {"Refused, and on what ground", "Held by branches"}
    assert {one["name"] for one in watch.known(_ever("HosterJobFailed|HosterErrorMarker"))} == {"to_node2"}
    assert {one["dataset"] for one in watch.known(_ever("HosterReplica.*"))} == {
        *("tank/vm/web1", "tank/forgotten/web1")
    }


def panels_without_answer(watch: Watch) -> set[str]:
    """The panels of the dashboard for which Prometheus has nothing, both nodes and the VM being chosen."""
    panels = json.loads((CONTRIB.parent / "grafana/hoster.json").read_text())["panels"]
    queries = {p["title"]: [t["expr"] for t in p["targets"]] for p in panels if p["type"] != "row"}
    chosen = {"$instance": f"{NODE_EXPORTER}|{EXPORTER}", "$vm": "web1|db1"}
    found = set()
    for title, expressions in queries.items():
        for expression in expressions:
            for variable, values in chosen.items():
                expression = expression.replace(variable, values)
            if not watch.known(expression):
                found.add(title)
    return found


def _ever(alerts: str) -> str:
    """Asks for all alerts of these names that have fired at any time."""
    return f'last_over_time(ALERTS{{alertstate="firing", alertname=~"{alerts}"}}[1h])'


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of what is shipped for Prometheus and Alertmanager."""
    return shutil.copytree(CONTRIB, tmp_path / "prometheus")


def judged(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What promtool or amtool says of the files in a folder."""
    tools = programs(cache_directory(), MONITORING)
    return subprocess.run(
        [tools / words[0], *words[1:]], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_tools_of_prometheus_find_nothing_wrong(files: Path) -> None:
    (files / "second.yml").write_text(addressed((files / "prometheus.yml").read_text()))
    (files / "hurried.yml").write_text(hurried((files / "hoster.rules.yml").read_text()))
    for words in (
        "promtool check config prometheus.yml",
        "promtool check config second.yml",
        "promtool check rules hoster.rules.yml",
        "promtool check rules hurried.yml",
        "promtool test rules hoster.rules.test.yml",
        "amtool check-config alertmanager.yml",
    ):
        done = judged(files, *words.split())
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("instead", [NEVER, ALWAYS], ids=["never", "always"])
def test_the_cases_of_promtool_notice_every_alert_that_fires_wrongly(files: Path, instead: str) -> None:
    rules = files / "hoster.rules.yml"
    text, count = re.subn(r"expr:.*?\n(?= {8}\w)", f"expr: {instead}\n", rules.read_text(), flags=re.S)
    rules.write_text(text)
    assert judged(files, "promtool", "check", "rules", rules.name).returncode == 0
    done = judged(files, "promtool", "test", "rules", "hoster.rules.test.yml")
    assert done.returncode != 0
    noticed = set(re.findall(r"alertname: ?(\w+)", done.stdout + done.stderr))
    assert noticed == set(re.findall(r"alert: (\w+)", text))
    assert len(noticed) == count
