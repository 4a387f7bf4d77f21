"""The check of what an administrator has written: everything wrong is said, with its file and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.config.settings import Settings
from hoster.model.names import Endpoint, SnapshotType
from hoster.model.schedules import Schedule, Selection, Target
from hoster.operations.config_check import Checked, Problem, check_node, check_settings
from tests.unit.operations.nodes import Nodes

NETWORK = {
    "network_name": "internal",
    "network_gateway": "10.0.101.254",
    "network_subnet": "10.0.101.0/24",
    "network_range_start": "10.0.101.10",
    "network_range_end": "10.0.101.200",
}


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def check(nodes: Nodes, *schedules: Schedule) -> Checked:
    context = nodes.contexts["a"]
    settings = replace(context.settings, read_from=nodes.folder / "hoster.toml", schedules=schedules)
    return check_node(replace(context, settings=settings))


def test_where_nothing_is_wrong_the_files_are_named(nodes: Nodes) -> None:
    networks = nodes.folder / "network_config.json"
    networks.write_text(json.dumps([NETWORK]))
    schedule = Schedule("s", Selection(vms=("web",)), {SnapshotType.DAILY: 1})
    assert check(nodes, schedule) == Checked(
        (str(nodes.folder / "hoster.toml"), str(networks), str(nodes.folder / "a/web/vm_config.json")), ()
    )


def test_everything_that_is_wrong_is_said_at_once(nodes: Nodes) -> None:
    folder = nodes.folder
    (folder / "network_config.json").write_text("[]")
    (folder / "a/web/vm_config.json").write_text('{"memory": 1}')
    (folder / "a/odd").mkdir()
    (folder / "a/odd/vm_config.json").write_text("{")
    nodes.cluster.nodes["a"].create("tank/vm/odd", {})
    target = Target("t", Endpoint("b"), key=str(folder / "key"))
    found = check(nodes, Schedule("s", Selection(vms=("odd", "gone")), {}, (target,)))
    said = [problem.problem.removeprefix(f"{folder}/") for problem in found.problems]
    assert [words.split(": ")[:2] for words in said] == [
        ["network_config.json", "found an empty list, expected at least one network"],
        ["a/web/vm_config.json", "memory"],
        ["tank/vm/odd", f"{folder}/a/odd/vm_config.json:1:2"],
        ["hoster.toml", "schedules.s.vms"],
        ["hoster.toml", "schedules.s.targets.t.key"],
    ]
    (folder / "key").touch()
    assert len(check(nodes, Schedule("s", Selection(vms=("web",)), {}, (target,))).problems) == 3


def test_datasets_that_cannot_be_looked_at_are_a_problem(nodes: Nodes) -> None:
    context = nodes.contexts["a"]
    settings = replace(context.settings, datasets=("tank/none",))
    (problem,) = check_node(replace(context, settings=settings)).problems
    assert problem.problem.startswith("/nowhere: datasets: ")
    assert "tank/none" in problem.problem


def test_a_vm_that_two_schedules_share_is_worth_knowing(nodes: Nodes) -> None:
    counts = {SnapshotType.DAILY: 1}
    first, second = Schedule("a", Selection(vms=("web",)), counts), Schedule("b", Selection(True), counts)
    assert check(nodes, first, second).notes == ("b_daily leaves web to the schedule a",)


def test_settings_are_read_or_their_first_error_is_said(tmp_path: Path) -> None:
    path = tmp_path / "hoster.toml"
    path.write_text('datasets = ["tank/vm"]\nhostnam = "x"\n')
    found = check_settings(path)
    assert isinstance(found, Problem)
    assert found.problem.startswith(f"{path}: hostnam: found an unknown key")
    assert found.hint == "did you mean hostname?"
    path.write_text('datasets = ["tank/vm"]\n')
    assert check_settings(path) == Settings(path, ("tank/vm",))
