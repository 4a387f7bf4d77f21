"""What is logged of a run: its beginning, what became of each VM, its end; each on one line."""

from __future__ import annotations

import json

import pytest

from hoster.model.plan import Outcome, VmReport
from hoster.records.events import Priority, What, began, journal_fields, json_line, of_the_end, one_line
from hoster.records.runs import EndedRun, Run, RunKind

RUN = Run(RunKind.REPLICATION, "to_b", "b")
TAKEOVER = Run(RunKind.TAKEOVER, "takeover_web", vm="web")
DONE = VmReport("web", Outcome.DONE, sent_bytes=2048, seconds=1.5)
IDLE = VmReport("idle", Outcome.UNCHANGED, "nothing was written")
REFUSED = VmReport("db", Outcome.REFUSED, "somebody\nwrote there", "hoster vm diff db")


@pytest.mark.parametrize(
    ("run", "line"),
    [
        (RUN, "to_b: replication to b began"),
        (TAKEOVER, "takeover_web: takeover of web began"),
        (Run(RunKind.RESTORE, "restore_web", "b", "web"), "restore_web: restore of web from b began"),
        (Run(RunKind.SNAPSHOT, "snapshot_all_daily"), "snapshot_all_daily: snapshot began"),
    ],
)
def test_the_beginning_says_what_of_whom_and_where(run: Run, line: str) -> None:
    event = began(run, 5.0)
    assert (event.line, event.time, event.event) == (line, 5.0, What.RUN_BEGAN)


def test_each_vm_is_an_event_but_those_in_which_there_was_nothing_to_do() -> None:
    events = list(of_the_end(EndedRun(RUN, 10.0, 12.5, 10, "", (DONE, IDLE, REFUSED))))
    assert [event.line for event in events] == [
        "to_b: web: done, 2048 bytes sent",
        "to_b: db: refused: somebody wrote there",
        "to_b: replication ended with exit code 10 after 2.5 s: 1 done, 1 unchanged, 1 refused",
    ]
    assert [event.priority for event in events] == [Priority.INFO, Priority.ERROR, Priority.ERROR]
    assert events[1].hint == "hoster vm diff db"


@pytest.mark.parametrize(
    ("code", "outcome", "priority"),
    [
        (0, "skipped", Priority.INFO),
        (3, "failed", Priority.ERROR),
        (10, "refused", Priority.ERROR),
        (11, "busy", Priority.WARNING),
        (12, "unreachable", Priority.ERROR),
        (130, "interrupted", Priority.ERROR),
        (143, "interrupted", Priority.ERROR),
    ],
)
def test_the_end_has_the_word_of_its_exit_code(code: int, outcome: str, priority: Priority) -> None:
    (event,) = of_the_end(EndedRun(RUN, 10.0, 11.0, code, "why"))
    assert (event.outcome, event.priority, event.exit_code) == (outcome, priority, code)
    assert event.line.endswith("after 1.0 s: why")


def test_a_run_that_found_nothing_says_so() -> None:
    (event,) = of_the_end(EndedRun(RUN, 10.0, 11.0, 0))
    assert event.line.endswith(": there was no VM to work on")


def test_the_journal_gets_fields_and_none_that_is_empty() -> None:
    vm, end = of_the_end(EndedRun(RUN, 10.0, 12.5, 10, "", (REFUSED,)))
    assert journal_fields(vm) == {
        "MESSAGE": "to_b: db: refused: somebody wrote there",
        "PRIORITY": "3",
        "HOSTER_EVENT": "vm",
        "HOSTER_JOB": "to_b",
        "HOSTER_KIND": "replication",
        "HOSTER_TARGET": "b",
        "HOSTER_VM": "db",
        "HOSTER_OUTCOME": "refused",
        "HOSTER_REASON": "somebody wrote there",
        "HOSTER_SENT_BYTES": "0",
    }
    assert journal_fields(end)["HOSTER_EXIT_CODE"] == "10"
    assert "HOSTER_VM" not in journal_fields(end)


def test_json_is_one_line_with_what_is_known() -> None:
    _, end = of_the_end(EndedRun(RUN, 10.0, 12.5, 0, "", (DONE,)))
    line = json_line(end)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": 12.5,
        "priority": "info",
        "event": "run-ended",
        "message": "replication ended with exit code 0 after 2.5 s: 1 done",
        "job": "to_b",
        "kind": "replication",
        "node": "b",
        "outcome": "done",
        "exit_code": 0,
        "seconds": 2.5,
        "sent_bytes": 2048,
    }


def test_whatever_a_reason_holds_a_line_is_a_line() -> None:
    assert one_line(" a\n\n b\tc\r\nd ") == "a b c d"
