"""The log of a job is bounded, and what keeps it from being written never raises."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from hoster.records import job_log

NOW = datetime(2026, 7, 7, 10, 50, 10)


def test_lines_are_added_under_the_time(tmp_path: Path) -> None:
    path = job_log.log_path("to_hoster01", tmp_path / "hoster")
    assert job_log.append(path, ["web: done", "db: unchanged"], NOW) == ""
    assert job_log.append(path, ["web: unchanged"], NOW) == ""
    assert path.read_text().splitlines() == [
        "2026-07-07 10:50:10 web: done",
        "2026-07-07 10:50:10 db: unchanged",
        "2026-07-07 10:50:10 web: unchanged",
    ]


def test_a_log_that_has_grown_makes_room_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_log, "LIMIT", 20)
    path = job_log.log_path("job", tmp_path)
    for line in ("first", "second"):
        job_log.append(path, [line], NOW)
    assert path.read_text().endswith("second\n")
    assert (tmp_path / "replication_job.log.1").read_text().endswith("first\n")


def test_a_place_that_cannot_be_written_is_told_and_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    problem = job_log.append(tmp_path / "file" / "x.log", ["web: done"], NOW)
    assert "the log cannot be written" in problem
