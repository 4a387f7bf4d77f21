"""The campaign in small, so that it stays alive; ``make faults`` is the real one."""

from __future__ import annotations

import pytest

from tests.campaign.planted import DEFECTS, hunt
from tests.campaign.run import run

SEEDS = range(1, 61)


@pytest.mark.parametrize("first", SEEDS[::10])
def test_whatever_happens_nothing_is_lost_and_every_target_gets_everything(first: int) -> None:
    assert [found.line for seed in range(first, first + 10) if (found := run(seed)).failure] == []


def test_a_seed_stands_for_one_run() -> None:
    once, again = run(7), run(7)
    assert once.trace == again.trace
    assert once.tally == again.tally


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("receive is forced", 1),
        ("a failed stream is no failure", 3),
        ("a changed key is carried over unasked", 3),
        ("plain data go below a raw replica unasked", 11),
    ],
)
def test_a_planted_defect_is_found(name: str, first: int) -> None:
    defect = next(one for one in DEFECTS if one.name == name)
    assert hunt(defect, first, 5) is not None
