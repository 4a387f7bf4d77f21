"""Bare ``hoster``, ``host``, ``dataset list``, logs, ``vm forget-target`` and all that is recorded, as
commands: on a node that has nothing they need, and with a zfs that says what it is told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hoster.cli.main import hoster as command_line
from hoster.records.journal import Journal
from tests.unit.cli.test_records_commands import Place

ROOM = "tank/vm\\t2048\\t4194304\\taes-256-gcm\\tunavailable\\tno"


def call(place: Place, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hoster", *words],
        env={**place.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def with_zfs(place: Place) -> Place:
    """A node whose zfs prints one dataset to any question."""
    folder = place.folder / "bin"
    folder.mkdir()
    (folder / "zfs").write_text(f'#!/bin/sh\nprintf "{ROOM}\\n"\n')
    (folder / "zfs").chmod(0o755)
    place.environment["PATH"] = f"{folder}:{os.environ['PATH']}"
    return place


def test_the_overview_never_fails_as_a_whole(place: Place) -> None:
    done = call(place)
    assert done.returncode == 0
    assert os.uname().nodename in done.stdout
    assert "zfs" in done.stdout.partition("WARNING")[2], "why nothing of it can be read"
    assert done.stderr == ""


def test_the_overview_as_json_has_what_there_is(place: Place) -> None:
    document = json.loads(call(place, "host", "-j").stdout)
    assert document["hostname"] == os.uname().nodename
    assert (document["vms"], document["all_vms"]) == ([], None)
    assert all(one["hint"] for one in document["wrong"])
    pretty = call(place, "host", "--json-pretty")
    assert json.loads(pretty.stdout)["cpus"] == os.cpu_count()
    assert "Pools" in call(place, "host").stdout


def test_without_a_configuration_it_says_what_to_do(place: Place) -> None:
    done = call(place, HOSTER_CONFIG=str(place.folder / "none"))
    assert done.returncode == 2
    assert "there is no such file" in done.stderr


def test_help_is_help_and_a_group_without_a_command_too(place: Place) -> None:
    assert call(place, "--help").stdout.startswith("Usage: hoster [OPTIONS] [COMMAND]")
    assert call(place, "dataset").stdout.startswith("Usage: hoster dataset ")


def test_datasets_are_listed_with_their_room(with_zfs: Place) -> None:
    listed = call(with_zfs, "dataset", "list", "-u")
    assert listed.stdout.split() == ["1", "tank/vm", "2K", "4M", "yes,_the_key_is_not_loaded"]
    (room,) = json.loads(call(with_zfs, "dataset", "list", "-j").stdout)
    assert (room["available"], room["encrypted"], room["key_loaded"]) == (4194304, True, False)


def test_datasets_that_cannot_be_listed_are_an_error(place: Place) -> None:
    assert call(place, "dataset", "list").returncode == 3


@pytest.mark.parametrize("how", ["option", "variable"])
def test_json_on_standard_error_is_one_object_a_line_whatever_is_said(place: Place, how: str) -> None:
    words = ("snapshot", "all", "--stype", "daily")
    done = (
        call(place, "--log-format", "json", *words)
        if how == "option"
        else (call(place, *words, HOSTER_LOG_FORMAT="json"))
    )
    assert done.returncode == 3
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines if line["event"] != "message"] == ["run-began", "run-ended"]
    assert lines[-1]["priority"] == "error"
    assert "command not found" in lines[-1]["message"]
    assert Journal(place.folder / "state").runs()[0].exit_code == 3


def test_a_format_that_there_is_not_is_a_usage_error(place: Place) -> None:
    assert call(place, "--log-format", "xml", "jobs").returncode == 2
    assert call(place, "jobs", HOSTER_LOG_FORMAT="xml").returncode == 2
    assert call(place, "jobs", HOSTER_LOG_FORMAT="").returncode == 0


@pytest.mark.parametrize("guid", ["", "12", "0123456789ABCDEF", "0123456789abcdeg"])
def test_a_targets_guid_has_16_digits(place: Place, guid: str) -> None:
    done = call(place, "vm", "forget-target", "web", "-e", "b", "--target-guid", guid)
    assert done.returncode == 2
    assert "--target-guid" in done.stderr


def test_every_command_that_is_recorded_fails_with_its_code_and_leaves_a_line(place: Place) -> None:
    commands = {
        "takeover": ("change", "parent", "--vm", "web"),
        "demotion": ("vm", "demote", "web"),
        "failback": ("vm", "failback", "web", "-e", "host.invalid"),
        "migration": ("vm", "migrate", "web", "-e", "host.invalid"),
        "restore": ("vm", "restore", "web", "--from", "host.invalid"),
        "rollback": ("snapshot", "rollback", "web", "daily_1"),
        "branch-restore": ("vm", "branches", "restore", "web.branch-20240131T000000Z"),
        "destruction": ("vm", "branches", "destroy", "web.branch-20240131T000000Z", "-y"),
        "reset": ("vm", "cireset", "web"),
        "forgetting": ("vm", "forget-target", "web", "-e", "host.invalid", "-y"),
    }
    codes = {kind: call(place, *words).returncode for kind, words in commands.items()}
    runs = Journal(place.folder / "state").vm_runs("web")
    assert [run.kind for run in reversed(runs)] == list(commands)
    assert {run.kind: run.exit_code for run in Journal(place.folder / "state").runs()} == codes
    assert all(run.outcome == "failed" and run.reason for run in runs)


def test_set_parent_is_the_same_takeover(place: Place) -> None:
    call(place, "set", "parent", "web")
    (run,) = Journal(place.folder / "state").runs()
    assert (run.kind, run.job) == ("takeover", "takeover_web")


def test_a_dry_run_of_them_leaves_none(place: Place) -> None:
    call(place, "vm", "demote", "web", "--dry-run")
    call(place, "snapshot", "rollback", "web", "daily_1", "-n")
    assert Journal(place.folder / "state").runs() == ()


def test_the_option_is_of_hoster_itself() -> None:
    assert "log_format" in {parameter.name for parameter in command_line.params}
