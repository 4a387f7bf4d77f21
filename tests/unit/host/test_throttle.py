"""The speed limit, by a clock that only moves when everybody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoster.host.throttle import MIB, SpeedLimit

START = 100.0
BURST_S = 0.2


class Clock:
    """Time for ``sleepers`` threads: it jumps to the next to wake as soon as all of them sleep."""

    def __init__(self, sleepers: int = 1) -> None:
        self.now = START
        self._awake = sleepers
        self._wakes: list[float] = []
        self._changed = threading.Condition()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        with self._changed:
            wake = self.now + seconds
            self._wakes.append(wake)
            self._awake -= 1
            self._jump()
            self._changed.wait_for(lambda: self.now >= wake)

    def leave(self) -> None:
        with self._changed:
            self._awake -= 1
            self._jump()

    def _jump(self) -> None:
        if self._awake == 0 and self._wakes:
            self.now = min(self._wakes)
            self._awake = self._wakes.count(self.now)
            self._wakes = [wake for wake in self._wakes if wake > self.now]
            self._changed.notify_all()


def limited(rate: float, sleepers: int = 1) -> tuple[Clock, SpeedLimit]:
    clock = Clock(sleepers)
    return clock, SpeedLimit(rate, clock, clock.sleep)


def together(clock: Clock, streams: list[Callable[[], None]]) -> None:
    """Runs each of ``streams`` in a thread, to its end."""

    def run(stream: Callable[[], None]) -> None:
        stream()
        clock.leave()

    threads = [threading.Thread(target=run, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_stream_takes_as_long_as_its_size_at_the_limit() -> None:
    clock, limit = limited(10 * MIB)
    for _ in range(100):
        limit(MIB)
    assert clock.now - START == pytest.approx(10.0)


def test_the_first_bytes_wait_like_all_others() -> None:
    clock, limit = limited(MIB)
    limit(MIB)
    assert clock.now - START == pytest.approx(1.0)


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
    assert clock.now - before == pytest.approx(8.0 - BURST_S)


def test_a_short_hold_up_is_caught_up_with() -> None:
    clock, limit = limited(MIB)
    for _ in range(100):
        clock.now += 0.1
        limit(MIB // 5)
    assert clock.now - START == pytest.approx(20.0)


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
    assert sum(size for size, _ in chunks) <= rate * (clock.now - START + BURST_S + 0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(MIB, 90 * MIB))
def test_streams_that_ask_together_share_one_budget_equally(count: int, rate: int) -> None:
    clock, limit = limited(rate, count)
    size = rate // 100
    turns = [0] * count

    def stream(index: int) -> Callable[[], None]:
        def ask() -> None:
            while clock.now < START + 10:
                limit(size)
                turns[index] += 1

        return ask

    together(clock, [stream(index) for index in range(count)])
    assert max(turns) - min(turns) <= 2
    assert sum(turns) * size == pytest.approx(10 * rate, rel=0.02)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=6))
def test_nothing_that_threads_ask_for_is_forgotten(asks: list[int]) -> None:
    clock, limit = limited(MIB, len(asks))

    def stream(times: int) -> Callable[[], None]:
        def ask() -> None:
            for _ in range(times):
                limit(MIB // 16)

        return ask

    together(clock, [stream(times) for times in asks])
    assert clock.now - START == pytest.approx(sum(asks) / 16)
