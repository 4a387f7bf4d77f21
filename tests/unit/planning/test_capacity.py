"""When a pool will be full: by what its days left free."""

from __future__ import annotations

from hoster.model.space import PoolSample
from hoster.planning.capacity import DAY_S, full_at

NOW = 1_000 * DAY_S


def series(*frees: int, size: int = 0, ends: float = 0.0) -> list[PoolSample]:
    """One sample a day, the last one that many days ago."""
    first = NOW - (len(frees) - 1 + ends) * DAY_S
    return [PoolSample("local", "tank", first + day * DAY_S, size, free) for day, free in enumerate(frees)]


def days_left(samples: list[PoolSample]) -> float | None:
    filled = full_at(samples, NOW)
    return None if filled is None else round((filled - NOW) / DAY_S, 2)


def test_a_pool_that_loses_as_much_each_day_lasts_as_long_as_the_rest_does() -> None:
    assert days_left(series(100, 90, 80, 70, 60)) == 6
    assert days_left(series(100, 90, 80, 70, 60, ends=2)) == 4, "counted from when it was seen last"


def test_one_jump_is_no_rate_in_either_direction() -> None:
    assert days_left(series(100, 90, 80, 20, 10)) == 1
    assert days_left(series(40, 30, 20, 90, 80)) == 8
    assert days_left(series(100, 100, 100, 20, 20)) is None


def test_changes_that_come_again_are_a_rate() -> None:
    assert days_left(series(100, 100, 60, 60, 20)) == 1, "a large import every other day"
    assert days_left(series(90, 80, 110, 100, 90, 80, 110, 100)) is None, "what grows is pruned again"


def test_what_comes_and_goes_within_a_day_is_no_filling() -> None:
    samples = [
        PoolSample("local", "tank", NOW - hours * 3600, 0, 100 - hours % 24) for hours in range(1, 10 * 24)
    ]
    assert days_left(samples) is None


def test_too_few_days_and_what_is_not_filling_tell_nothing() -> None:
    assert days_left([]) is None
    assert days_left(series(100, 90, 80)) is None
    assert days_left(series(60, 70, 80, 90)) is None
    assert days_left(series(100, 100, 100, 100)) is None
    assert days_left(series(10_000_000, 9_999_999, 9_999_998, 9_999_997)) is None, "it lasts for ages"


def test_what_is_old_or_of_the_future_does_not_count() -> None:
    old = [PoolSample("local", "tank", NOW - 20 * DAY_S, 0, 10_000)]
    wrong = [PoolSample("local", "tank", NOW + DAY_S, 0, 5)]
    assert days_left([*wrong, *series(100, 90, 80, 70, 60), *old]) == 6


def test_days_on_which_nothing_was_seen_count_by_their_number() -> None:
    samples = series(100, 90, 80, 70, 60, 50, 40)
    assert days_left([samples[0], samples[1], samples[5], samples[6]]) == 4


def test_the_part_that_zfs_keeps_for_itself_is_not_room() -> None:
    assert days_left(series(100, 90, 80, 70, 60, size=32 * 20)) == 4
    assert days_left(series(50, 40, 30, 20, 10, size=32 * 20)) == 0, "full already"
    gib = 2**30
    large = series(*((228 - day) * gib for day in range(5)), size=2**50)
    assert days_left(large) == 224 - 128, "at most 128 GiB of a large pool"
