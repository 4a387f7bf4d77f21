"""How far a replica lags: what both ends have whole, whether they are equal, what was written since."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hoster.model.plan import Common, Destroyed, Outcome, Report, VmReport
from hoster.planning.lag import Pair, behind_bytes, is_equal, is_there, newest_common, seen_after
from hoster.testing import dataset, guid_of, view, words

A, B, C = "daily_2024-01-01_00-01-00", "daily_2024-01-01_00-02-00", "daily_2024-01-01_00-03-00"


def pair(here: str, there: str | None, below: str = "") -> Pair:
    source = dataset(f"tank/web{below}", here)
    return source, None if there is None else dataset(f"backup/web{below}", there)


@pytest.mark.parametrize(
    ("pairs", "newest"),
    [
        ([pair("d1 d2", None)], ""),
        ([pair("d1 d2", "")], ""),
        ([pair("d1 d2", "d1")], "d1"),
        ([pair("d1 d2", "d1 d2 d3")], "d2"),
        ([pair("d1 d2", "d1' d2'")], ""),
        ([pair("#d2 d3", "d1 d2")], "d2"),
        ([pair("d1 d2 d3", "d1 d2 d3"), pair("d1 d2 d3", "d1 d2", "/disk")], "d2"),
        ([pair("d1 d2 d3", "d1 d2 d3"), pair("d1 d2 d3", "d1 d2 d3", "/disk")], "d3"),
        ([pair("d1 d2", "d1 d2"), pair("d2", None, "/new")], "d1"),
        ([pair("d1 d2", "d1 d2"), pair("", None, "/new")], "d2"),
        ([pair("#d2 d3", "d1 d2"), pair("d3", None, "/disk")], "d2"),
        ([pair("d1", "d1"), pair("d1", None, "/disk")], ""),
    ],
)
def test_the_newest_common_version_is_whole_and_known_by_guid(pairs: list[Pair], newest: str) -> None:
    found = newest_common(pairs)
    assert words([found] if found else []) == newest


@pytest.mark.parametrize(
    ("pairs", "there"),
    [
        ([pair("d1", None)], False),
        ([pair("d1", "")], False),
        ([pair("d1", "d1'")], False),
        ([pair("d1", "d1 d2")], True),
        ([pair("d2", "d1")], True),  # here it is gone; what it was of is what is called so
        ([pair("d1", "d1"), pair("d1", None, "/disk")], False),
        ([pair("d1", "d1"), pair("d1", "d2", "/disk")], False),
        ([pair("d1", "d1"), pair("d1", "d1'", "/disk")], False),
        ([pair("d1", "d1"), pair("d1", "d1", "/disk")], True),
        ([pair("d1", "d1"), pair("d2", None, "/new")], True),
    ],
)
def test_a_version_is_there_if_all_that_it_was_of_is(pairs: list[Pair], there: bool) -> None:
    assert is_there(pairs, guid_of("d1")) is there


@pytest.mark.parametrize(
    ("pairs", "equal"),
    [
        ([pair("d1", "d1")], True),
        ([pair("d1", "d1 d2")], True),
        ([pair("d1 ~8", "d1")], False),
        ([pair("d1 d2", "d1")], False),
        ([pair("d1", "d1'")], False),
        ([pair("", "")], False),
        ([pair("d1", None)], False),
        ([pair("d1", "d1"), pair("d1 ~1", "d1", "/disk")], False),
        ([pair("d1", "d1"), pair("d1", None, "/disk")], False),
        ([pair("d1", "d1"), pair("d1", "d1", "/disk")], True),
    ],
)
def test_both_are_equal_if_nothing_was_written_since_what_is_there(pairs: list[Pair], equal: bool) -> None:
    assert is_equal(pairs) is equal


def test_behind_is_what_was_written_since_in_snapshots_and_since_the_last_of_them() -> None:
    web = dataset("tank/web", "d1+100 d2+10 d3+7 ~3")
    assert behind_bytes([web], guid_of("d1")) == 20
    assert behind_bytes([web], guid_of("d3")) == 3
    assert behind_bytes([dataset("tank/web", "#d1 d2+10 ~3")], guid_of("d1")) == 13


def test_what_was_written_to_other_datasets_of_the_vm_counts_by_the_order_of_the_pool() -> None:
    web = dataset("tank/web", "d1+100 d2+10")
    since = web.snapshots[0].createtxg
    disk = dataset("tank/web/disk", "d1+1000 d2+5 ~2")
    old, new = disk.snapshots
    disk = replace(disk, snapshots=(replace(old, createtxg=since), replace(new, createtxg=since + 1)))
    assert behind_bytes([web, disk], guid_of("d1")) == 17


def test_a_version_that_is_unknown_here_tells_nothing() -> None:
    assert behind_bytes([dataset("tank/web", "d1")], guid_of("d2")) is None


def test_after_a_run_what_was_taken_is_there_and_what_was_destroyed_is_not() -> None:
    seen = view(dataset("tank/web", "d1 d2 ~8"), dataset("tank/db", "d1"))
    gone = (Destroyed("local", f"tank/web@{A}", "x"), Destroyed("b", f"tank/web@{B}", "x"))
    report = VmReport(
        "web", Outcome.DONE, taken=(f"tank/web@{C}",), destroyed=gone, newest=Common(C, str(guid_of("d3")), 9)
    )
    after = seen_after(seen, Report((report,)), 1000)
    web = after.datasets["tank/web"]
    assert words(web.snapshots) == "d2 d3"
    newest = web.newest
    assert newest is not None
    assert (newest.guid, newest.creation, newest.written, web.written) == (guid_of("d3"), 1000, 8, 0)
    assert behind_bytes([web], guid_of("d3")) == 0
    assert after.datasets["tank/db"] == seen.datasets["tank/db"]


def test_what_a_report_does_not_tell_is_not_made_up() -> None:
    seen = view(dataset("tank/web", ""))
    report = VmReport(
        "web",
        Outcome.DONE,
        taken=(f"tank/web@{A}", f"tank/other@{A}"),
        destroyed=(Destroyed("local", f"tank/gone@{A}", "x"),),
    )
    after = seen_after(seen, Report((report, VmReport("db", Outcome.FAILED))), 1000)
    assert list(after.datasets) == ["tank/web"]
    assert after.datasets["tank/web"].snapshots[0].guid == 0
