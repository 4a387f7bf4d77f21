"""The alerts and the dashboard ask for metrics that there are, and what an alert says to do can be done."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hoster.records.metrics import METRICS
from lab.image import cache_directory
from lab.unpacked import MONITORING, kept_programs

DOCS = Path(__file__).parents[3] / "docs"
RUNBOOK = DOCS / "runbook.md"
REFERENCE = DOCS / "reference.md"
CONTRIB = Path(__file__).parents[3] / "contrib"
RULES = CONTRIB / "prometheus" / "hoster.rules.yml"
CASES = CONTRIB / "prometheus" / "hoster.rules.test.yml"
DASHBOARD: dict[str, Any] = json.loads((CONTRIB / "grafana" / "hoster.json").read_text())
KNOWN = {metric.name: set(metric.labels) for metric in METRICS}
METRIC = re.compile(r"\b(hoster(?:_[a-z]+)+|zpool_info)\b(?:\{([^}]*)\})?")
PROMETHEUS_OWN = {"instance", "job"}


def expressions() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard, with the title of its panel."""
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            for target in panel["targets"]:
                yield panel["title"], target["expr"]


def alerts() -> dict[str, str]:
    """The text of each rule by the name of its alert."""
    parts = re.split(r"^ +- alert: (\w+)$", RULES.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def asked_for(text: str) -> list[tuple[str, set[str]]]:
    """The metrics in a query, each with the labels that it is narrowed by."""
    return [(name, set(re.findall(r"(\w+) *(?:=~?|!=|!~)", labels))) for name, labels in METRIC.findall(text)]


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_every_panel_asks_for_metrics_that_there_are(title: str, expression: str) -> None:
    found = asked_for(expression)
    assert found, f"{title} asks for no metric"
    for name, labels in found:
        assert labels <= KNOWN[name] | PROMETHEUS_OWN, f"{title}: {name}"


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_every_panel_is_narrowed_to_the_nodes_that_are_chosen(title: str, expression: str) -> None:
    assert 'instance=~"$instance"' in expression, title
    if "vm" in KNOWN[asked_for(expression)[0][0]] and "count(" not in expression:
        assert 'vm=~"$vm"' in expression, title


def test_every_variable_of_the_dashboard_is_defined_and_asks_for_what_there_is() -> None:
    defined = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)", json.dumps(DASHBOARD)))
    assert used == set(defined)
    for name in ("instance", "vm"):
        assert defined[name]["multi"]
        assert defined[name]["includeAll"]
        ((metric, _),) = asked_for(defined[name]["definition"])
        assert metric in KNOWN


def test_the_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_every_alert_asks_for_metrics_that_there_are_and_names_their_labels() -> None:
    for alert, text in alerts().items():
        query = text.partition("labels:")[0]
        found = asked_for(query)
        assert found, alert
        labels = set().union(*(KNOWN[name] for name, _ in found)) | PROMETHEUS_OWN
        for name, narrowed in found:
            assert narrowed <= KNOWN[name], f"{alert}: {name}"
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels, alert
        assert "summary:" in text
        assert "description:" in text
        assert re.search(r"severity: (warning|critical)\n", text), alert


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = re.findall(r"alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:( \[\])?\n", CASES.read_text())
    assert len(cases) == CASES.read_text().count("alertname:")
    for alert in alerts():
        assert {bool(silent) for name, silent in cases if name == alert} == {True, False}, alert
    assert {name for name, _ in cases} == set(alerts())


@pytest.mark.parametrize(
    "words",
    [
        ("promtool", "check", "config", "prometheus.yml"),
        ("promtool", "check", "rules", RULES.name),
        ("promtool", "test", "rules", CASES.name),
        ("amtool", "check-config", "alertmanager.yml"),
    ],
    ids=" ".join,
)
def test_the_tools_of_prometheus_agree(words: tuple[str, ...]) -> None:
    kept = kept_programs(cache_directory(), MONITORING)
    program = shutil.which(words[0], path=kept) or shutil.which(words[0])
    if program is None:
        pytest.skip(f"{words[0]} is not here; tests/lab/test_alerts.py fetches it")
    done = subprocess.run(
        [program, *words[1:]], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_section_in_the_runbook_that_it_names_and_no_other_has_one() -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    assert headings == list(alerts())
    for alert, text in alerts().items():
        assert f"runbook: docs/runbook.md#{alert.lower()}\n" in text


def test_whatever_the_runbook_says_to_type_exists() -> None:
    commands = set(re.findall(r"^### (hoster.*)$", REFERENCE.read_text(), flags=re.MULTILINE))
    typed = re.findall(r"`(hoster [^`]*)`", RUNBOOK.read_text())
    assert typed
    for line in typed:
        assert any(f"{line} ".startswith(f"{command} ") for command in commands - {"hoster"}), line
