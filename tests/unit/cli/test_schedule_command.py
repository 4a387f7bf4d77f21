"""The commands about schedules and the configuration, as far as they go without ZFS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCHEDULE = """
datasets = ["tank/vm"]
[schedules.a]
production = true
snapshots.daily = 2
targets.b = { endpoint = "b", windows = ["22:00-06:00"] }
"""


def hoster(settings: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs hoster with these settings, on a machine where there is no zfs."""
    program = settings.parent / "bin/hoster"
    program.parent.mkdir(exist_ok=True)
    package = Path(__file__).parents[3] / "src"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={package} exec {sys.executable} -m hoster "$@"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{program.parent}:/nowhere", "HOSTER_CONFIG": str(settings), "HOME": "/nowhere"}
    return subprocess.run(
        [program, *words], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "hoster.toml"
    folders = "".join(f'{name}-dir = "{tmp_path / name}"\n' for name in ("state", "run", "marker"))
    path.write_text(folders + SCHEDULE)
    return path


def test_what_would_be_installed_for_cron_is_shown(settings: Path) -> None:
    done = hoster(settings, "schedule", "install", "--cron", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "/etc/cron.d/hoster: would be written" in done.stdout
    assert f"HOSTER_CONFIG={settings}\n" in done.stdout
    command = f"{settings.parent}/bin/hoster schedule run a --replicate b"
    assert f"0 0,1,2,3,4,5,22,23 * * * root {command} >/dev/null\n" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("install",),
        ("run", "a"),
        ("run", "a", "--snapshots", "daily", "--replicate", "b"),
        ("run", "a", "--snapshots", "hourly"),
        ("run", "x", "--snapshots", "daily"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_a_usage_error_and_leaves_nothing_behind(
    settings: Path, words: tuple[str, ...]
) -> None:
    done = hoster(settings, "schedule", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert not (settings.parent / "state").exists()


def test_a_run_that_ends_early_is_in_the_journal_and_has_its_marker(settings: Path) -> None:
    done = hoster(settings, "schedule", "run", "a", "--replicate", "b")
    assert done.returncode == 3
    assert "zfs: command not found" in done.stderr
    assert os.listdir(settings.parent / "marker") == ["ERROR_a_b"]
    (run,) = json.loads(hoster(settings, "history", "--json").stdout)
    assert (run["job"], run["kind"], run["node"], run["exit_code"]) == ("a_b", "replication", "b", 3)


def test_wrong_settings_are_said_and_the_exit_code_is_2(settings: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "new.toml"
    wrong.write_text(SCHEDULE.replace("22:00", "22"))
    done = hoster(settings, "config", "check", str(wrong))
    assert done.returncode == 2
    assert f"{wrong}: schedules.a.targets.b.windows[0]: '22-06:00' is no window" in done.stdout
    document = json.loads(hoster(settings, "config", "check", "--json").stdout)
    assert document["files"] == [str(settings)]
    assert [problem["problem"] for problem in document["problems"]] == [
        f"{settings}: datasets: zfs: command not found"
    ]


def test_without_any_settings_it_is_the_same(tmp_path: Path) -> None:
    document = json.loads(hoster(tmp_path / "none.toml", "config", "check", "--json").stdout)
    assert document["files"] == []
    assert "there is no such file" in document["problems"][0]["problem"]
