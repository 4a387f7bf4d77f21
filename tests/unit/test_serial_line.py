"""The judgement over a guest that moves: it fails for everything that may not be."""

from __future__ import annotations

import pytest

from tests.lab.serial_line import Said, faults, route


def heard(notation: str) -> list[Said]:
    """``n1:1 n2:2``: a line a second, from the node before the colon."""
    words = [word.split(":") for word in notation.split()]
    return [Said(float(second), node, int(count)) for second, (node, count) in enumerate(words)]


@pytest.mark.parametrize("notation", ["n1:1 n1:2 n2:3 n2:4", "n1:7 n2:8"])
def test_a_guest_that_moved_and_lost_nothing_is_found_faultless(notation: str) -> None:
    assert faults(heard(notation), ["n1", "n2"]) == []


@pytest.mark.parametrize(
    ("notation", "fault"),
    [
        ("n1:1 n1:2 n2:2 n2:3", "after 2 on n1 came 2 on n2"),
        ("n1:1 n1:2 n2:1 n2:2", "after 2 on n1 came 1 on n2"),
        ("n1:1 n1:2 n2:4", "after 2 on n1 came 4 on n2"),
        ("n1:1 n1:3 n2:4", "after 1 on n1 came 3 on n1"),
        ("n1:1 n2:2 n1:3 n2:4", "it ran on n1, n2, n1, n2, and was moved along n1, n2"),
        ("n1:1 n1:2", "it ran on n1, and was moved along n1, n2"),
        ("", "it ran on , and was moved along n1, n2"),
    ],
    ids=["lost", "backwards", "invented", "missed", "twice-at-once", "never-there", "silent"],
)
def test_what_may_not_be_is_found(notation: str, fault: str) -> None:
    assert any(fault in found for found in faults(heard(notation), ["n1", "n2"]))


def test_a_double_start_shows_even_where_the_counts_would_fit() -> None:
    """The numbers go up one by one, as if by one guest; they come from two nodes by turns."""
    found = faults(heard("n1:1 n2:2 n1:3 n2:4 n1:5"), ["n1", "n2"])
    assert found == ["it ran on n1, n2, n1, n2, n1, and was moved along n1, n2"]


def test_lines_are_judged_by_the_clock_and_not_in_the_order_they_were_collected_in() -> None:
    late = [Said(3.0, "n2", 4), Said(1.0, "n1", 2), Said(2.0, "n2", 3), Said(0.0, "n1", 1)]
    assert route(late) == ("n1", "n2")
    assert faults(late, ["n1", "n2"]) == []
