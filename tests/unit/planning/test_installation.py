"""The files for cron and systemd: what is in them, and that no word in them is taken for something else."""

from __future__ import annotations

import shlex

import pytest

from hoster.model.names import Endpoint, SnapshotType
from hoster.model.schedules import Schedule, ScheduledJob, Selection, Target, window
from hoster.planning.installation import SIGN, Program, cron_file, cron_lines, unit_files

SCHEDULE = Schedule("night-1", Selection(production=True))
DAILY = ScheduledJob(SCHEDULE, SnapshotType.DAILY)
SEND = ScheduledJob(SCHEDULE, Target("usb", Endpoint("local"), "usb/vm", every_minutes=1440))
PROGRAM = Program("/usr/local/bin/hoster", "/etc/hoster/hoster.toml")
ODD = Program("/opt/100% $sure/hoster", '/etc/100% \\odd"/hoster.toml', named=True)


def lines(text: str) -> list[str]:
    """The lines that say something."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_crons_file_has_a_line_for_each_job_and_says_who_wrote_it() -> None:
    text = cron_file([DAILY, SEND], PROGRAM)
    assert text.startswith(SIGN)
    assert text.endswith("\n")
    assert lines(text) == [
        "SHELL=/bin/sh",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "10 0 * * * root /usr/local/bin/hoster schedule run night-1 --snapshots daily >/dev/null",
        "38 0 * * * root /usr/local/bin/hoster schedule run night-1 --replicate usb >/dev/null",
    ]


def test_a_percent_sign_and_blanks_are_words_to_cron() -> None:
    assert 'HOSTER_CONFIG=/etc/100% \\odd"/hoster.toml' in lines(cron_file([DAILY], ODD))
    (line,) = cron_lines(DAILY, ODD)
    command = line.split(" root ", 1)[1].removesuffix(" >/dev/null")
    assert "%" not in command.replace(r"\%", "")
    assert shlex.split(command.replace(r"\%", "%")) == list(ODD.command(DAILY))


def test_a_job_has_a_service_and_a_timer() -> None:
    files = unit_files(DAILY, PROGRAM)
    assert list(files) == ["hoster-night-1-daily.service", "hoster-night-1-daily.timer"]
    service, timer = files.values()
    assert all(text.startswith(SIGN) for text in files.values())
    assert "ExecStart=/usr/local/bin/hoster schedule run night-1 --snapshots daily" in lines(service)
    assert "Environment=" not in service
    assert [line for line in lines(timer) if line.startswith(("OnCalendar", "Persistent"))] == [
        "OnCalendar=*-*-* 00:10:00",
        "Persistent=true",
    ]


def test_a_timer_has_all_of_a_jobs_times() -> None:
    target = Target(
        "b", Endpoint("b"), every_minutes=60, windows=(window("Sat 08:30-Sat 10:00"), window("22:00-23:00"))
    )
    timer = unit_files(ScheduledJob(SCHEDULE, target), PROGRAM)["hoster-night-1-b.timer"]
    assert [line for line in lines(timer) if line.startswith("OnCalendar")] == [
        "OnCalendar=*-*-* 22:00:00",
        "OnCalendar=Sat *-*-* 08,09:30:00",
    ]


@pytest.mark.parametrize(
    "setting",
    [
        *("ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts", "ReadWritePaths"),
        *("ProtectClock", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups"),
        *("ProtectKernelTunables", "ProtectProc", "RootDirectory", "DynamicUser", "MountFlags"),
    ],
)
def test_a_service_has_no_mounts_and_no_devices_of_its_own(setting: str) -> None:
    for text in unit_files(SEND, PROGRAM).values():
        assert not [line for line in lines(text) if line.startswith(f"{setting}=")]


def test_odd_words_are_quoted_for_systemd() -> None:
    service = unit_files(DAILY, ODD)["hoster-night-1-daily.service"]
    assert 'ExecStart="/opt/100%% $sure/hoster" schedule run night-1 --snapshots daily' in lines(service)
    assert 'Environment="HOSTER_CONFIG=/etc/100%% \\\\odd\\"/hoster.toml"' in lines(service)
