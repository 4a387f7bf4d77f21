"""Which VMs get a snapshot of a type: those in which something was written since the last one of it."""

from __future__ import annotations

import pytest

from hoster.model.names import SnapshotType
from hoster.planning.snapshots import written_since
from hoster.testing import dataset

HOURLY = SnapshotType.HOURLY


@pytest.mark.parametrize(
    ("history", "written"),
    [
        ("", None),
        ("~8", None),
        ("d1 ~8", None),
        ("hourly_by-hand", None),  # no name of hoster's
        ("h1+8", 0),
        ("h1 ~8", 8),
        ("h1 d1+8", 8),
        ("h1 d1+0 manual+0", 0),
        ("h1 d1+8 h2 w1", 0),
        ("h1+1 d1+2 manual+4 r1+8 ~16", 30),
        ("h9+1 h1+2 d1+4", 4),  # the newest by createtxg, not by its name's date
    ],
)
def test_what_was_written_since_the_newest_of_a_type_lies_in_newer_snapshots_and_live_data(
    history: str, written: int | None
) -> None:
    assert written_since(dataset("tank/vm/web", history), HOURLY) == written


@pytest.mark.parametrize(
    ("history", "unchanged"), [("", False), ("h1", True), ("h1 ~1", False), ("h1 d1+1", False), ("d1", False)]
)
def test_a_snapshot_is_spared_only_where_it_would_repeat_the_newest_of_its_type(
    history: str, unchanged: bool
) -> None:
    assert (written_since(dataset("tank/vm/web", history), HOURLY) == 0) is unchanged
