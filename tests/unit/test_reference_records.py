"""Holds what the reference says of records, metrics and status against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import fields

from hoster.cli.scheduler_jobs import ScheduledJob
from hoster.model.plan import Common
from hoster.operations.pool_status import PoolStatus
from hoster.operations.schedules import ShownJob
from hoster.operations.status import NodeStatus, OfType, TargetStatus, VmStatus
from hoster.planning.verdicts import FULL_CRITICAL, FULL_SOON_CRITICAL_S, FULL_SOON_WARNING_S, FULL_WARNING
from hoster.records import job_log, journal, markers, metrics, tables
from hoster.records.job_states import JobState, Phase
from hoster.records.runs import PastRun, PastVm
from tests.unit.test_reference import CODE, first_words, rows, sections


def names(*kinds: type[Struct]) -> list[str]:
    return sorted(field.name for kind in kinds for field in fields(kind))


def test_the_metrics_are_those_of_the_table_with_their_labels_and_meanings() -> None:
    listed = [(*CODE.findall(row[0]), tuple(CODE.findall(row[1])), row[2]) for row in rows("Metrics")]
    assert listed == [(metric.name, metric.labels, metric.meaning) for metric in metrics.METRICS]


@pytest.mark.parametrize(
    ("heading", "kinds"),
    [
        ("status", (VmStatus, TargetStatus)),
        ("history", (PastRun, PastVm)),
        ("jobs", (JobState,)),
        ("schedule show", (ShownJob,)),
        ("scheduler list", (ScheduledJob,)),
    ],
)
def test_every_field_of_what_is_printed_as_json_is_explained(
    heading: str, kinds: tuple[type[Struct], ...]
) -> None:
    assert sorted(first_words(heading)) == names(*kinds)


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("status", NodeStatus),
        ("status", PoolStatus),
        ("status", OfType),
        ("status", Common),
        ("jobs", Phase),
    ],
)
def test_what_lies_within_is_named(heading: str, kind: type[Struct]) -> None:
    assert set(names(kind)) <= set(CODE.findall(sections()[heading]))


def test_the_limits_that_are_named_are_those_of_the_code() -> None:
    text = sections()["Files and places"]
    assert f"{tables.KEEP_DAYS} days, {tables.KEEP_RUNS:,} runs and {tables.KEEP_VM_RUNS:,} lines" in text
    assert f"/{journal.JOURNAL_NAME}`" in text
    assert "At 1 MiB" in text
    assert job_log.LIMIT == 1024**2
    assert f"{FULL_WARNING:.0%}".replace("%", " %") + " full" in sections()["hoster status"]
    assert f"{FULL_CRITICAL:.0%}".replace("%", " %") in sections()["hoster status"]
    assert f"in less than {FULL_SOON_WARNING_S / 86_400:.0f} days" in sections()["hoster status"]
    assert f"in less than {FULL_SOON_CRITICAL_S / 86_400:.0f}:" in sections()["hoster status"]


def test_the_files_of_metrics_are_those_that_are_written() -> None:
    for name in (metrics.RUN_FILE, metrics.NODE_FILE):
        assert f"`{name}`" in sections()["hoster metrics"]
        assert f"`{name}`" in sections()["Files and places"]
    assert markers.marker_path(Path("x"), "JOB").name in sections()["Files and places"]


def test_the_codes_of_a_monitoring_plugin_are_named() -> None:
    text = sections()["hoster status"]
    assert re.search(r"0 OK, 1 WARNING, 2 CRITICAL and 3 UNKNOWN", text)
