"""The pump by itself, between pipes of our own: every byte, every ending, and a fair share."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoster.errors import OperationFailed
from hoster.host.pump import (
    TALK_LIMIT,
    ZERO_COPY,
    Cancellation,
    Ending,
    Flow,
    Listener,
    next_size,
    pump,
)

KIB = 1024
LONG_S = 20.0
SHORT_S = 0.1

both_ways = pytest.mark.parametrize(
    "zero_copy",
    [pytest.param(True, marks=pytest.mark.skipif(not ZERO_COPY, reason="no splice(2) here")), False],
    ids=["splice", "copy"],
)


class Pipe:
    """A pipe whose two ends are closed one by one, and in any case at the end of the test."""

    def __init__(self, stack: ExitStack) -> None:
        self.reading, self.writing = os.pipe()
        self._open = {self.reading, self.writing}
        for descriptor in (self.reading, self.writing):
            stack.callback(self.close, descriptor)

    def close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)


class Line:
    """producer -> [given] -> pump -> [taken] -> consumer, with a third pipe to talk on."""

    def __init__(self, stack: ExitStack) -> None:
        self.given, self.taken, self.talk = Pipe(stack), Pipe(stack), Pipe(stack)
        self.cancellation = Cancellation()
        self.cancelled = stack.enter_context(self.cancellation.watch())
        self.listener = Listener([self.talk.reading], self.cancelled)
        self.told: list[int] = []

    def pump(self, stall_s: float = LONG_S, *, zero_copy: bool = ZERO_COPY) -> Flow:
        return pump(
            self.given.reading,
            self.taken.writing,
            self.told.append,
            self.listener,
            stall_s,
            zero_copy=zero_copy,
        )

    def give(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self.given.writing, rest) :]
        self.given.close(self.given.writing)

    def take(self, at_a_time: int, into: bytearray) -> None:
        while piece := os.read(self.taken.reading, at_a_time):
            into += piece


@pytest.fixture
def line() -> Iterator[Line]:
    with ExitStack() as stack:
        yield Line(stack)


@both_ways
@settings(max_examples=40, deadline=None)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=3000), max_size=20),
    blow_up=st.sampled_from([1, 1, 50, 400]),
    at_a_time=st.sampled_from([1000, 64 * KIB, 1024 * KIB]),
)
def test_every_byte_arrives_in_order_and_is_counted(
    zero_copy: bool, pieces: list[bytes], blow_up: int, at_a_time: int
) -> None:
    pieces = [piece * blow_up for piece in pieces]
    arrived = bytearray()
    with ExitStack() as stack:
        line = Line(stack)
        ends = [
            threading.Thread(target=line.give, args=(pieces,)),
            threading.Thread(target=line.take, args=(at_a_time, arrived)),
        ]
        for thread in ends:
            thread.start()
        flow = line.pump(zero_copy=zero_copy)
        line.taken.close(line.taken.writing)
        for thread in ends:
            thread.join()
    assert arrived == b"".join(pieces)
    assert flow == Flow(Ending.COMPLETE, len(arrived))
    assert sum(line.told) == len(arrived)
    assert all(line.told)


@both_ways
def test_nothing_to_carry_is_complete(line: Line, zero_copy: bool) -> None:
    line.given.close(line.given.writing)
    assert line.pump(zero_copy=zero_copy) == Flow(Ending.COMPLETE, 0)


@both_ways
def test_a_consumer_that_has_gone_while_there_is_data_breaks_the_stream(line: Line, zero_copy: bool) -> None:
    os.write(line.given.writing, b"data")
    line.taken.close(line.taken.reading)
    assert line.pump(zero_copy=zero_copy) == Flow(Ending.BROKEN, 0)


@both_ways
def test_a_producer_at_its_end_is_complete_though_the_consumer_has_gone(line: Line, zero_copy: bool) -> None:
    line.given.close(line.given.writing)
    line.taken.close(line.taken.reading)
    assert line.pump(zero_copy=zero_copy).ending is Ending.COMPLETE


@both_ways
def test_a_producer_may_end_shortly_after_its_consumer(line: Line, zero_copy: bool) -> None:
    line.taken.close(line.taken.reading)
    later = threading.Timer(0.05, line.given.close, [line.given.writing])
    later.start()
    assert line.pump(zero_copy=zero_copy).ending is Ending.COMPLETE
    later.join()


@both_ways
def test_a_silent_producer_whose_consumer_has_gone_is_not_waited_for(line: Line, zero_copy: bool) -> None:
    line.taken.close(line.taken.reading)
    assert line.pump(SHORT_S, zero_copy=zero_copy).ending is Ending.BROKEN


@both_ways
def test_a_producer_that_gives_nothing_is_a_stall(line: Line, zero_copy: bool) -> None:
    os.write(line.given.writing, b"data")
    assert line.pump(SHORT_S, zero_copy=zero_copy) == Flow(Ending.SILENT, 4)


@both_ways
def test_a_consumer_that_takes_nothing_is_a_stall(line: Line, zero_copy: bool) -> None:
    giving = threading.Thread(target=_give_until_refused, args=(line.given.writing,))
    giving.start()
    flow = line.pump(SHORT_S, zero_copy=zero_copy)
    assert flow.ending is Ending.STUCK
    assert flow.sent_bytes == sum(line.told) > 0
    line.given.close(line.given.reading)
    giving.join()


def _give_until_refused(descriptor: int) -> None:
    try:
        while True:
            os.write(descriptor, bytes(64 * KIB))
    except BrokenPipeError:
        pass


@both_ways
def test_a_trickle_is_no_stall(line: Line, zero_copy: bool) -> None:
    def drip() -> None:
        for _ in range(10):
            time.sleep(0.1)
            os.write(line.given.writing, b"x")
        line.given.close(line.given.writing)

    dripping = threading.Thread(target=drip)
    dripping.start()
    assert line.pump(0.5, zero_copy=zero_copy) == Flow(Ending.COMPLETE, 10)
    dripping.join()


def test_the_time_that_the_meter_takes_is_no_stall(line: Line) -> None:
    line.give([b"data"])

    def meter(amount: int) -> None:
        time.sleep(4 * SHORT_S)

    flow = pump(line.given.reading, line.taken.writing, meter, line.listener, SHORT_S)
    assert flow == Flow(Ending.COMPLETE, 4)


def test_talk_beside_the_stream_is_heard_and_is_no_movement(line: Line) -> None:
    talking = threading.Thread(target=_talk, args=(line.talk.writing, 12))
    talking.start()
    assert line.pump(4 * SHORT_S).ending is Ending.SILENT
    assert line.listener.said()[0].startswith(b"still here\n")
    talking.join()


def _talk(descriptor: int, times: int) -> None:
    for _ in range(times):
        os.write(descriptor, b"still here\n")
        time.sleep(SHORT_S / 2)


def test_only_the_end_of_a_long_talk_is_kept(line: Line) -> None:
    words = [b"a" * 50_000, b"b" * 50_000]
    for word in words:
        os.write(line.talk.writing, word)
        line.listener.wait({}, 1.0)
    assert line.listener.said() == ((b"".join(words))[-TALK_LIMIT:],)


def test_listening_ends_with_what_is_listened_to_though_a_grandchild_keeps_the_line_open(line: Line) -> None:
    os.write(line.talk.writing, b"last words")
    assert line.listener.until(lambda: True, LONG_S)
    assert line.listener.said() == (b"last words",)


def test_listening_gives_up_after_its_time(line: Line) -> None:
    line.talk.close(line.talk.writing)
    assert not line.listener.until(lambda: False, SHORT_S)


def test_a_cancelled_stream_ends_at_once_from_another_thread(line: Line) -> None:
    timer = threading.Timer(SHORT_S, line.cancellation.cancel)
    timer.start()
    started = time.monotonic()
    with pytest.raises(OperationFailed, match="interrupted"):
        line.pump(LONG_S)
    assert time.monotonic() - started < LONG_S / 2
    timer.join()


def test_nothing_begins_after_it_was_cancelled() -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(OperationFailed, match="interrupted"), cancellation.watch():
        pass


@given(
    st.lists(st.integers(4 * KIB, 1024 * KIB), min_size=2, max_size=8),
    st.integers(2 * 1024 * KIB, 100 * 1024 * KIB),
)
def test_pumps_that_share_a_limit_come_to_equal_pieces_of_a_twentieth_of_it(
    sizes: list[int], limit: int
) -> None:
    """All wait in one queue, so each wait is the sum of what was asked for."""
    history: list[list[int]] = []
    for _ in range(3000):
        held_s = sum(sizes) / limit
        sizes = [next_size(size, held_s) for size in sizes]
        history.append(sizes)
    late = history[-1000:]
    shares = [sum(one) for one in zip(*late, strict=True)]
    assert max(shares) <= 1.25 * min(shares)
    assert max(sum(sizes) for sizes in late) <= limit / 20 + len(sizes) * 16 * KIB


@given(st.integers(4 * KIB, 1024 * KIB), st.floats(0, 10))
def test_pieces_stay_between_a_page_and_the_size_of_the_pipe(size: int, held_s: float) -> None:
    assert 4 * KIB <= next_size(size, held_s) <= 1024 * KIB
