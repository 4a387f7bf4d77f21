"""The speed limit, by a clock that only moves when it is told to."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoster.host.throttle import MIB, SpeedLimit


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def limited(rate: float) -> tuple[Clock, SpeedLimit]:
    clock = Clock()
    return clock, SpeedLimit(rate, clock, clock.sleep)


def test_a_stream_takes_as_long_as_its_size_at_the_limit() -> None:
    clock, limit = limited(10 * MIB)
    for _ in range(100):
        limit(MIB)
    assert clock.now - 100.0 == pytest.approx(10.0, abs=0.26)


def test_a_slow_stream_never_waits() -> None:
    clock, limit = limited(MIB)
    for _ in range(10):
        clock.now += 2
        before = clock.now
        limit(MIB // 8)
        assert clock.now == before


def test_a_long_pause_does_not_save_up_speed() -> None:
    clock, limit = limited(MIB)
    clock.now += 1000
    before = clock.now
    for _ in range(8):
        limit(MIB)
    assert clock.now - before == pytest.approx(8.0, abs=0.26)


@given(
    st.lists(st.tuples(st.integers(1, 4 * MIB), st.floats(0, 0.5)), min_size=1, max_size=50),
    st.integers(MIB, 50 * MIB),
)
def test_on_average_never_more_than_the_limit_goes_through(
    chunks: list[tuple[int, float]], rate: int
) -> None:
    clock, limit = limited(rate)
    for size, pause in chunks:
        clock.now += pause
        limit(size)
    assert sum(size for size, _ in chunks) <= rate * (clock.now - 100.0 + 0.26)
