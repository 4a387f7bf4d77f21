"""Holds what the reference says of the overview, of logs and of the kinds of runs against the code."""

from __future__ import annotations

import pytest
from msgspec import Struct
from msgspec.structs import fields

from hoster.model.plan import Outcome, VmReport
from hoster.operations.overview import Overview, TargetGlance, VmGlance, Wrong
from hoster.records.events import Event, Priority, What, journal_fields, of_the_end
from hoster.records.log_format import FORMAT_VARIABLE, LogFormat
from hoster.records.runs import EndedRun, Run, RunKind
from hoster.zfs.rooms import Room
from tests.unit.test_reference import CODE, first_words, rows, sections


def names(kind: type[Struct]) -> set[str]:
    return {field.name for field in fields(kind)}


def test_every_field_of_the_overview_is_explained() -> None:
    assert sorted(first_words("host")) == sorted(names(Overview))


@pytest.mark.parametrize("kind", [Room, VmGlance, TargetGlance, Wrong], ids=lambda kind: kind.__name__)
def test_what_lies_within_the_overview_is_named(kind: type[Struct]) -> None:
    assert names(kind) <= set(CODE.findall(sections()["host"]))


def test_every_kind_of_run_is_named() -> None:
    (row,) = [row for row in rows("history") if CODE.findall(row[0]) == ["kind"]]
    assert CODE.findall(row[2]) == [kind.value for kind in RunKind]


def test_every_field_and_every_word_of_an_event_is_named() -> None:
    said = set(CODE.findall(sections()["Logs"]))
    assert names(Event) | {what.value for what in What} <= said
    assert {priority.name.lower() for priority in Priority} <= said
    run = Run(RunKind.REPLICATION, "to_b", "b", "web")
    vm = VmReport("web", Outcome.FAILED, "cut")
    journal = {
        name for event in of_the_end(EndedRun(run, 1.0, 2.0, 3, "", (vm,))) for name in journal_fields(event)
    }
    assert journal <= said
    assert {name for name in said if name.startswith("HOSTER_")} == {
        n for n in journal if n.startswith("HOSTER_")
    }


def test_the_formats_of_logs_and_their_variable_are_named() -> None:
    (row,) = [row for row in rows("hoster") if "`--log-format`" in row[0]]
    assert {FORMAT_VARIABLE, *(form.value for form in LogFormat)} <= set(CODE.findall(row[2]))
