"""Markers are there from a failure to the next success, say why, and never stop anything."""

from __future__ import annotations

import stat
from datetime import datetime
from pathlib import Path

import pytest

from hoster.records.markers import clear_marker, marker_path, markers, raise_marker
from hoster.records.whole import write_whole
from tests.unit.records.disks import fill, make_read_only, small_disk

NOW = datetime(2026, 7, 7, 10, 50, 10)


def test_a_marker_says_when_and_why_and_goes_with_the_next_success(tmp_path: Path) -> None:
    folder = tmp_path / "replication"
    assert raise_marker(folder, "to_hoster01", ["exit code 3", "web: failed: no space"], NOW) == ""
    assert (folder / "ERROR_to_hoster01").read_text().splitlines() == [
        "2026-07-07 10:50:10 to_hoster01 failed",
        "exit code 3",
        "web: failed: no space",
    ]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert clear_marker(folder, "to_hoster01") == ""
    assert list(folder.iterdir()) == []


def test_a_later_failure_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    raise_marker(tmp_path, "job", ["first"], NOW)
    raise_marker(tmp_path, "job", ["second"], NOW)
    (marker,) = markers(tmp_path)
    assert marker.job == "job"
    assert "second" in marker.text
    assert "first" not in marker.text


def test_the_marker_of_one_job_is_not_that_of_another(tmp_path: Path) -> None:
    raise_marker(tmp_path, "a", ["x"], NOW)
    raise_marker(tmp_path, "b", ["y"], NOW)
    clear_marker(tmp_path, "a")
    assert [marker.job for marker in markers(tmp_path)] == ["b"]


def test_what_else_lies_in_the_folder_is_no_marker(tmp_path: Path) -> None:
    (tmp_path / "to_hoster01").write_text("a lock of the original")
    (tmp_path / "ERROR_dir").mkdir()
    assert markers(tmp_path) == ()


def test_a_folder_that_is_not_there_holds_no_markers_and_is_not_made_to_clear_one(tmp_path: Path) -> None:
    assert markers(tmp_path / "nowhere") == ()
    assert clear_marker(tmp_path / "nowhere", "job") == ""
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_is_a_file_is_told_and_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "the marker cannot be written" in raise_marker(tmp_path / "file", "job", ["x"], NOW)
    assert clear_marker(tmp_path / "file", "job") == ""


def test_a_folder_in_the_place_of_the_marker_is_told_and_raises_nothing(tmp_path: Path) -> None:
    marker_path(tmp_path, "job").mkdir()
    assert "the marker cannot be written" in raise_marker(tmp_path, "job", ["x"], NOW)
    assert "the marker cannot be removed" in clear_marker(tmp_path, "job")
    assert [path.name for path in tmp_path.iterdir()] == ["ERROR_job"], "nothing is left beside it"


def test_a_disk_that_is_read_only_or_full_is_told_and_raises_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        raise_marker(disk, "job", ["first"], NOW)
        fill(disk)
        assert "No space left on device" in raise_marker(disk, "job", ["x" * 100_000], NOW)
        assert "first" in markers(disk)[0].text, "the old one is still whole"
        make_read_only(disk)
        assert "Read-only file system" in raise_marker(disk, "other", ["x"], NOW)
        assert "Read-only file system" in clear_marker(disk, "job")


def test_a_file_is_whole_at_every_moment_and_has_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.prom"
    write_whole(path, "old", mode=0o644)
    reader = path.open()
    write_whole(path, "new", mode=0o600)
    assert reader.read() == "old"
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    reader.close()


def test_a_file_that_cannot_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_whole(path, "old", mode=0o600)
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800", mode=0o600)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
