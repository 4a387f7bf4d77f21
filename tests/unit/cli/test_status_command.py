"""``hoster status`` as a command, and as a plugin of Nagios: its line and its exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from hoster.cli.main import hoster
from hoster.model.plan import Common, Outcome, VmReport
from hoster.model.storage import Dataset, Role
from hoster.records.journal import Journal
from hoster.records.runs import EndedRun, Run, RunKind
from hoster.testing import VM_ID, dataset, listing

POOL = "tank\t{size}\t{allocated}\t60\t7\t{capacity}\t1.00\tONLINE\n"
STATUS = "  pool: tank\n state: ONLINE\n  scan: scrub repaired 0B\n"


class Place:
    """A node with a zfs and a zpool that print what they are told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "hoster.toml"
        self.settings.write_text(
            f'datasets = ["tank/vm"]\nhostname = "node1"\n'
            f'state-dir = "{folder}/state"\nrun-dir = "{folder}/run"\n'
        )
        (folder / "bin").mkdir()
        self._script("zfs", 'cat "$0.out"')
        self._script("zpool", 'cat "$0.$1"')
        self.holds()
        self.pool(40)
        (folder / "bin" / "zpool.status").write_text(STATUS)
        self.environment = {
            **os.environ,
            "HOSTER_CONFIG": str(self.settings),
            "PATH": f"{folder}/bin:/usr/bin:/bin",
        }

    def _script(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def holds(self, *datasets: Dataset) -> None:
        text = listing(dataset("tank/vm"), *datasets)
        (self.folder / "bin" / "zfs.out").write_text(text)

    def pool(self, capacity: int) -> None:
        text = POOL.format(size=100, allocated=capacity, capacity=capacity)
        (self.folder / "bin" / "zpool.list").write_text(text)

    def call(self, *words: str) -> Result:
        return CliRunner().invoke(hoster, ("status", *words), prog_name="hoster", env=self.environment)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


REPLICA = dataset("tank/vm/db", "d1", Role.REPLICA)
PRIMARY = replace(dataset("tank/vm/web", "d1 h2", Role.PRIMARY), mounted=True, mountpoint="/nowhere")


def test_all_is_well(place: Place) -> None:
    place.holds(REPLICA)
    result = place.call("--check")
    assert (result.exit_code, result.stdout) == (
        0,
        "HOSTER OK - 1 VM(s), 0 replica(s), all as promised | wrong=0\n",
    )


def test_a_warning_and_something_critical_have_their_codes_and_one_line(place: Place) -> None:
    place.holds(PRIMARY)
    result = place.call("--check")
    assert result.exit_code == 1
    assert result.stdout.startswith("HOSTER WARNING - web: ")
    place.pool(96)
    result = place.call("--check")
    assert result.exit_code == 2
    assert result.stdout.startswith("HOSTER CRITICAL - local pool tank: it is 96% full; web: ")
    assert result.stdout.endswith(" | wrong=2\n")
    assert result.stdout.count("\n") == 1


def test_what_cannot_be_found_out_is_unknown(place: Place) -> None:
    place._script("zfs", "echo 'internal error: pool | is\nsuspended' >&2; exit 1")
    result = place.call("--check")
    assert result.exit_code == 3
    assert result.stdout.startswith("HOSTER UNKNOWN - ")
    assert "pool / is suspended" in result.stdout
    place.settings.write_text("x")
    assert place.call("--check").exit_code == 3
    assert place.call("--check", "nobody").stdout.startswith("HOSTER UNKNOWN - ")


def test_the_age_of_the_oldest_data_is_told_to_whoever_draws_it(place: Place) -> None:
    place.holds(replace(PRIMARY, marks=replace(PRIMARY.marks, production=False)))
    known(place)
    result = place.call("--check")
    assert " oldest_data=" in result.stdout
    assert result.stdout.rstrip().endswith("s")


def known(place: Place) -> None:
    """A run has sent web to a node that cannot be reached any more."""
    report = VmReport(
        "web", Outcome.DONE, vm_id=VM_ID, target="tank/vm/web", newest=Common("daily_1", "1", 1000)
    )
    run = Run(RunKind.REPLICATION, "to_gone", "gone.invalid")
    assert Journal(place.folder / "state").write(EndedRun(run, 2000.0, 2001.0, 0, "", (report,))) == ""


def test_the_table_has_a_line_for_each_target_and_says_what_is_remembered(place: Place) -> None:
    place.holds(PRIMARY, REPLICA)
    known(place)
    result = place.call("-u")
    assert result.exit_code == 0
    web, db = sorted(result.stdout.splitlines(), reverse=True)
    assert web.split()[:4] == ["web", "primary", "gone.invalid", "daily_1_(remembered)"]
    assert db.split()[:3] == ["db", "replica", "-"]
    shown = place.call()
    assert "web on gone.invalid: it cannot be asked" in shown.stdout
    assert "scrub repaired 0B" in shown.stdout


def test_of_one_vm_the_snapshots_are_shown_by_type(place: Place) -> None:
    place.holds(PRIMARY, REPLICA)
    result = place.call("web")
    assert "web: 1 daily, oldest 2024-01-01" in result.stdout
    assert "web: tank/vm/web, epoch 1@node1, parent node1" in result.stdout
    assert "db" not in result.stdout


def test_as_json_everything_is_there(place: Place) -> None:
    place.holds(PRIMARY)
    known(place)
    found = json.loads(place.call("-j").stdout)
    (target,) = found["vms"][0]["targets"]
    assert (target["newest"]["guid"], target["data_at"], target["verdict"]) == ("1", 2000.0, "critical")
    assert found["verdict"] == "critical"
    assert found["pools"][0]["scrub"] == "scrub repaired 0B"
