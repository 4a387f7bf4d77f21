"""Names are cut into commands that fit, in their order; what belongs together stays together."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoster.zfs.batches import batches, in_commands

MOST_BYTES = 100 * 1024
QUOTES = 9

LENGTHS = st.lists(st.lists(st.integers(1, 40_000), max_size=4), max_size=8)


def size(names: list[str]) -> int:
    return sum(len(name) + QUOTES for name in names)


@given(LENGTHS)
def test_every_group_is_in_one_command_and_every_command_as_full_as_it_may_be(
    lengths: list[list[int]],
) -> None:
    groups = {str(number): ["w" * length for length in group] for number, group in enumerate(lengths)}
    commands = [dict(command) for command in in_commands(groups)]
    assert [item for command in commands for item in command.items()] == [*groups.items()]
    sizes = [[size([*names]) for names in command.values()] for command in commands]
    assert all(len(command) == 1 or sum(command) <= MOST_BYTES for command in sizes)
    assert all(sum(command) + following[0] > MOST_BYTES for command, following in pairwise(sizes))


@pytest.mark.parametrize(
    ("names", "commands"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(["b", "a", "b"], [["b", "a"]], id="one that is named twice"),
        pytest.param(
            ["a" * (MOST_BYTES - 2 * QUOTES - 1), "b"],
            [["a" * (MOST_BYTES - 2 * QUOTES - 1), "b"]],
            id="just not too much",
        ),
        pytest.param(
            ["a" * (MOST_BYTES - 2 * QUOTES), "b"],
            [["a" * (MOST_BYTES - 2 * QUOTES)], ["b"]],
            id="a byte too much",
        ),
    ],
)
def test_names_alone_are_groups_of_one(names: list[str], commands: list[list[str]]) -> None:
    assert [[*batch] for batch in batches(names)] == commands
