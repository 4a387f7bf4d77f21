"""Installing schedules into folders that stand for cron's and systemd's, with a program as systemctl."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hoster.config.settings import Settings
from hoster.errors import ConfigurationError, OperationFailed, Refused
from hoster.host.process import SystemRunner
from hoster.host.systemd import Systemd
from hoster.model.names import Endpoint, SnapshotType
from hoster.model.schedules import Schedule, Selection, Target, all_jobs
from hoster.operations.installing import Change, Kind, Places, install, installed, remove
from hoster.planning.installation import SIGN, Program

PROGRAM = Program("/usr/local/bin/hoster", "/etc/hoster/hoster.toml")
DAILY = Schedule("a", Selection(production=True), {SnapshotType.DAILY: 2})
SENDING = Schedule("a", Selection(production=True), {SnapshotType.DAILY: 2}, (Target("b", Endpoint("b")),))
UNITS = ["hoster-a-b.service", "hoster-a-b.timer", "hoster-a-daily.service", "hoster-a-daily.timer"]


class Machine:
    """Folders for cron and systemd, and a systemctl that notes what it is told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places = Places(folder / "cron.d/hoster", folder / "units")
        self.told = folder / "told"
        self.runs = folder / "run"
        self.systemctl = folder / "bin/systemctl"
        for made in (self.places.cron.parent, self.places.units, self.runs, self.systemctl.parent):
            made.mkdir()
        self.let_systemctl("exit 0")
        monkeypatch.setenv("PATH", f"{self.systemctl.parent}:{os.environ['PATH']}")

    def let_systemctl(self, do: str) -> None:
        self.systemctl.write_text(f'#!/bin/sh\necho "$*" >>{self.told}\n{do}\n')
        self.systemctl.chmod(0o755)

    @property
    def systemd(self) -> Systemd:
        return Systemd(SystemRunner(), self.runs)

    def install(self, kind: Kind, *schedules: Schedule, dry_run: bool = False) -> tuple[Change, ...]:
        settings = Settings(Path("/etc/hoster/hoster.toml"), ("tank/vm",), schedules=schedules)
        return install(settings, kind, PROGRAM, self.systemd, self.places, dry_run=dry_run)

    def remove(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        return remove(self.systemd, self.places, dry_run=dry_run)

    def commands(self) -> list[str]:
        """What systemctl was told since the last time."""
        found = self.told.read_text().splitlines() if self.told.exists() else []
        self.told.unlink(missing_ok=True)
        return found

    @property
    def units(self) -> list[str]:
        return sorted(path.name for path in self.places.units.iterdir())

    def state(self, *schedules: Schedule) -> list[str]:
        return [installed(self.places).of(job, PROGRAM) for job in all_jobs(schedules)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_crons_file_is_one_that_cron_takes(machine: Machine) -> None:
    (change,) = machine.install(Kind.CRON, SENDING)
    file = machine.places.cron
    assert (change.path, change.text) == (file, file.read_text())
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in file.parent.iterdir()] == ["hoster"]
    assert machine.commands() == []
    assert machine.state(SENDING) == ["cron", "cron"]


def test_a_mode_with_which_cron_would_not_take_it_is_put_right(machine: Machine) -> None:
    machine.install(Kind.CRON, DAILY)
    machine.places.cron.chmod(0o666)
    machine.install(Kind.CRON, SENDING)
    assert machine.places.cron.stat().st_mode & 0o777 == 0o644


def test_timers_are_written_and_then_started(machine: Machine) -> None:
    machine.install(Kind.SYSTEMD, SENDING)
    assert machine.units == UNITS
    assert machine.commands() == ["daemon-reload", "enable --now hoster-a-daily.timer hoster-a-b.timer"]
    assert machine.state(SENDING) == ["systemd", "systemd"]


@pytest.mark.parametrize("kind", list(Kind))
def test_the_same_again_changes_nothing(machine: Machine, kind: Kind) -> None:
    machine.install(kind, SENDING)
    machine.commands()
    assert machine.install(kind, SENDING) == ()
    assert "daemon-reload" not in machine.commands()


def test_what_has_changed_is_replaced_and_what_is_gone_is_removed(machine: Machine) -> None:
    machine.install(Kind.SYSTEMD, SENDING)
    machine.commands()
    every = Schedule("a", Selection(production=True), {}, (Target("b", Endpoint("b"), every_minutes=5),))
    assert machine.state(every) == ["out of date"]
    changes = machine.install(Kind.SYSTEMD, every)
    assert [(change.path.name, change.text is None) for change in changes] == [
        ("hoster-a-b.timer", False),
        ("hoster-a-daily.service", True),
        ("hoster-a-daily.timer", True),
    ]
    assert machine.units == UNITS[:2]
    assert machine.commands() == [
        "disable --now hoster-a-daily.timer",
        "daemon-reload",
        "enable --now hoster-a-b.timer",
        "restart hoster-a-b.timer",
    ]
    assert machine.state(every) == ["systemd"]


def test_one_kind_takes_the_place_of_the_other(machine: Machine) -> None:
    machine.install(Kind.CRON, DAILY)
    machine.install(Kind.SYSTEMD, DAILY)
    assert (machine.places.cron.exists(), machine.units) == (False, UNITS[2:])
    machine.install(Kind.CRON, DAILY)
    assert (machine.places.cron.exists(), machine.units) == (True, [])
    assert machine.state(DAILY) == ["cron"]


def test_both_kinds_at_once_are_out_of_date(machine: Machine) -> None:
    machine.install(Kind.CRON, DAILY)
    text = machine.places.cron.read_text()
    machine.install(Kind.SYSTEMD, DAILY)
    machine.places.cron.write_text(text)
    assert machine.state(DAILY) == ["out of date"]


def test_a_schedule_that_is_new_is_not_installed_yet(machine: Machine) -> None:
    machine.install(Kind.CRON, DAILY)
    assert machine.state(SENDING) == ["cron", "out of date"]
    assert machine.remove() != ()
    assert machine.state(SENDING) == ["none", "none"]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_job_that_is_in_no_schedule_any_more_is_noticed(machine: Machine, kind: Kind) -> None:
    machine.install(kind, SENDING)
    assert not installed(machine.places).has_more(all_jobs([SENDING]), PROGRAM)
    assert installed(machine.places).has_more(all_jobs([DAILY]), PROGRAM)
    machine.remove()
    assert not installed(machine.places).has_more((), PROGRAM)


def test_all_that_was_installed_is_removed_and_nothing_else(machine: Machine) -> None:
    machine.install(Kind.SYSTEMD, SENDING)
    (machine.places.units / "hoster-mine.timer").write_text("[Timer]\n")
    machine.commands()
    assert {change.path.name for change in machine.remove()} == set(UNITS)
    assert machine.units == ["hoster-mine.timer"]
    assert machine.commands()[0] == "disable --now hoster-a-b.timer hoster-a-daily.timer"
    assert machine.remove() == ()


@pytest.mark.parametrize(
    ("kind", "name"), [(Kind.CRON, "cron.d/hoster"), (Kind.SYSTEMD, "units/hoster-a-daily.timer")]
)
def test_a_file_that_hoster_did_not_write_is_in_the_way(machine: Machine, kind: Kind, name: str) -> None:
    path = machine.runs.parent / name
    path.write_text("mine\n")
    with pytest.raises(Refused, match="hoster did not write it"):
        machine.install(kind, DAILY)
    assert path.read_text() == "mine\n"
    assert machine.commands() == []
    other = Kind.SYSTEMD if kind is Kind.CRON else Kind.CRON
    machine.install(other, DAILY)
    machine.remove()
    assert path.read_text() == "mine\n"


def test_a_dry_run_shows_what_would_be_and_changes_nothing(machine: Machine) -> None:
    (change,) = machine.install(Kind.CRON, DAILY, dry_run=True)
    assert change.text is not None
    assert change.text.startswith(SIGN)
    assert not machine.places.cron.exists()
    machine.install(Kind.SYSTEMD, DAILY)
    machine.commands()
    assert len(machine.remove(dry_run=True)) == 2
    assert len(machine.units) == 2
    assert machine.commands() == []


def test_without_schedules_there_is_nothing_to_install(machine: Machine) -> None:
    with pytest.raises(ConfigurationError, match="there is no schedule in it"):
        machine.install(Kind.CRON)


def test_without_cron_or_systemd_it_fails(machine: Machine) -> None:
    machine.runs.rmdir()
    with pytest.raises(OperationFailed, match="systemd does not run on this system"):
        machine.install(Kind.SYSTEMD, DAILY)
    machine.places.cron.parent.rmdir()
    with pytest.raises(OperationFailed, match="in which cron would look"):
        machine.install(Kind.CRON, DAILY)
    assert machine.remove() == ()


def test_what_systemd_complains_of_is_passed_on(machine: Machine) -> None:
    machine.let_systemctl("echo 'Failed to reload daemon: no' >&2; exit 1")
    with pytest.raises(OperationFailed, match="systemctl daemon-reload: Failed to reload daemon: no"):
        machine.install(Kind.SYSTEMD, DAILY)
    machine.let_systemctl("exit 4")
    with pytest.raises(OperationFailed, match="systemctl enable: exit code 4"):
        machine.install(Kind.SYSTEMD, DAILY)
