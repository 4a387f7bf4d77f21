"""Where events go: real sockets in place of the machine's, and what happens when they take nothing."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from hoster.records.event_log import EventLog, event_log
from hoster.records.events import Event, Priority, What, began
from hoster.records.runs import Run, RunKind

BEGAN = began(Run(RunKind.REPLICATION, "to_b", "b"), 5.0)
SYSTEMD = {"INVOCATION_ID": "0123"}


class Daemons:
    """A syslog and a journal that listen in a folder."""

    def __init__(self, folder: Path) -> None:
        self.syslog, self.journal = folder / "log", folder / "journal"
        self._open: dict[Path, socket.socket] = {}

    def listen(self, path: Path) -> None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listening.bind(str(path))
        listening.setblocking(False)
        self._open[path] = listening

    def got(self, path: Path) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self._open[path].recv(65536))
            except BlockingIOError:
                return found

    def log(self, environment: Mapping[str, str], *, attended: bool = False) -> EventLog:
        return event_log(environment, attended=attended, journal=self.journal, syslogs=(self.syslog,))

    def close(self) -> None:
        for listening in self._open.values():
            listening.close()


@contextmanager
def _daemons(folder: Path) -> Iterator[Daemons]:
    found = Daemons(folder)
    yield found
    found.close()


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    with _daemons(tmp_path) as found:
        found.listen(found.syslog)
        found.listen(found.journal)
        yield found


def test_a_run_of_cron_is_in_syslog(daemons: Daemons) -> None:
    assert daemons.log({}).write(BEGAN) == ()
    (line,) = daemons.got(daemons.syslog)
    head = rb"<30>[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d hoster\[\d+\]: "
    assert re.fullmatch(head + rb"to_b: replication to b began", line)
    assert daemons.got(daemons.journal) == []


def test_what_failed_is_an_error_there(daemons: Daemons) -> None:
    daemons.log({}).write(Event(5.0, Priority.ERROR, What.VM, "web: failed"))
    assert daemons.got(daemons.syslog)[0].startswith(b"<27>")


@pytest.mark.parametrize("name", ["INVOCATION_ID", "JOURNAL_STREAM"])
def test_a_run_of_systemd_is_in_its_journal_with_fields(daemons: Daemons, name: str) -> None:
    assert daemons.log({name: "8:1234"}).write(BEGAN) == ()
    (entry,) = daemons.got(daemons.journal)
    lines = entry.decode().splitlines()
    assert {"MESSAGE=to_b: replication to b began", "PRIORITY=6", "HOSTER_TARGET=b"} <= set(lines)
    assert "SYSLOG_IDENTIFIER=hoster" in lines
    assert daemons.got(daemons.syslog) == []


def test_without_a_journal_what_systemd_runs_is_in_syslog(daemons: Daemons) -> None:
    daemons.journal.unlink()
    assert daemons.log(SYSTEMD).write(BEGAN) == ()
    assert len(daemons.got(daemons.syslog)) == 1


def test_what_a_person_runs_is_in_neither(daemons: Daemons) -> None:
    assert daemons.log(SYSTEMD, attended=True).write(BEGAN) == ()
    assert daemons.got(daemons.journal) + daemons.got(daemons.syslog) == []


def test_a_machine_without_a_log_is_no_problem(tmp_path: Path) -> None:
    with _daemons(tmp_path) as none:
        assert none.log({}).write(BEGAN) == ()


def test_json_goes_to_standard_error_whoever_runs_it(
    daemons: Daemons, capsys: pytest.CaptureFixture[str]
) -> None:
    for attended in (True, False):
        daemons.log({"HOSTER_LOG_FORMAT": "json"}, attended=attended).write(BEGAN)
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["run-began", "run-began"]
    assert len(daemons.got(daemons.syslog)) == 1


@pytest.mark.parametrize("wanted", ["", "text", "yaml"])
def test_otherwise_it_gets_no_events(
    daemons: Daemons, capsys: pytest.CaptureFixture[str], wanted: str
) -> None:
    daemons.log({"HOSTER_LOG_FORMAT": wanted}).write(BEGAN)
    assert capsys.readouterr().err == ""


def test_a_daemon_that_is_gone_is_said_once_and_stops_nothing(daemons: Daemons) -> None:
    log = daemons.log({})
    daemons.close()
    (problem,) = log.write(BEGAN)
    assert problem == f"{daemons.syslog}: events cannot be logged: Connection refused"
    assert log.write(BEGAN) == ()


def test_a_daemon_that_takes_nothing_is_given_up_after_a_moment(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hoster.host.syslog._TIMEOUT_S", 0.05)
    log = daemons.log({})
    problems: list[str] = []
    for _ in range(2000):  # more than any socket keeps for who does not read
        problems += log.write(BEGAN)
    assert problems == [f"{daemons.syslog}: events cannot be logged: timed out"]


def test_a_place_that_fails_does_not_keep_the_others_from_it(daemons: Daemons) -> None:
    def broken(_: Event) -> None:
        raise OSError(28, "No space left on device")

    got: list[Event] = []
    log = EventLog({"first": broken, "second": got.append})
    assert log.write(BEGAN) == ("first: events cannot be logged: No space left on device",)
    assert got == [BEGAN]


def test_a_text_without_end_is_cut_and_one_with_newlines_arrives_whole(daemons: Daemons) -> None:
    log = daemons.log({})
    log.write(Event(5.0, Priority.INFO, What.MESSAGE, "ä" * 100_000))
    (line,) = daemons.got(daemons.syslog)
    assert len(line) < 8100
    assert line.decode().endswith("ä")
