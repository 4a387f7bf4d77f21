"""Verdicts: what a promise means for a replica, and what else is bad news."""

from __future__ import annotations

import pytest

from hoster.model.schedules import Window
from hoster.planning.succession import Standing
from hoster.planning.verdicts import (
    FINE,
    Judgement,
    ReplicaFacts,
    Verdict,
    duration,
    judge_pool,
    judge_replica,
    worst,
)

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("facts", "verdict", "why"),
    [
        (ReplicaFacts(60, NOW), Verdict.OK, ""),
        (ReplicaFacts(60, NOW - 60), Verdict.OK, ""),
        (ReplicaFacts(60, NOW + 500), Verdict.OK, ""),
        (
            ReplicaFacts(60, NOW + 90_001),
            Verdict.WARNING,
            "the data there are of a time 1d 1h ahead: their age cannot be told",
        ),
        (ReplicaFacts(60, NOW - 61), Verdict.WARNING, "the data there are 1m 1s old, promised are 1m"),
        (ReplicaFacts(60, NOW - 121), Verdict.CRITICAL, "the data there are 2m 1s old, promised are 1m"),
        (
            ReplicaFacts(60, NOW - 9 * 86_400, windows=(Window(0, 1),)),
            Verdict.CRITICAL,
            "the data there are 9d old, promised are 1m of its windows",
        ),
        (
            ReplicaFacts(6 * 60, NOW - 9 * 86_400, windows=(Window(0, 1),)),
            Verdict.WARNING,
            "the data there are 9d old, promised are 6m of its windows",
        ),
        (ReplicaFacts(10 * 60, NOW - 9 * 86_400, windows=(Window(0, 1),)), Verdict.OK, ""),
        (ReplicaFacts(60, NOW, failures=1, failure="x"), Verdict.WARNING, "the last run failed: x"),
        (
            ReplicaFacts(60, NOW - 200, failures=3, failure="x"),
            Verdict.CRITICAL,
            "the data there are 3m 20s old, promised are 1m; the last run failed: x",
        ),
        (ReplicaFacts(60, None), Verdict.CRITICAL, "nothing has arrived yet"),
        (ReplicaFacts(60, None, had_some=True), Verdict.CRITICAL, "what was there is gone"),
        (
            ReplicaFacts(60, None, failures=1, failure="x"),
            Verdict.CRITICAL,
            "nothing has arrived yet; the last run failed: x",
        ),
        (
            ReplicaFacts(60, NOW, standing=Standing.SPLIT),
            Verdict.CRITICAL,
            "both copies were promoted: a split",
        ),
        (
            ReplicaFacts(60, NOW, standing=Standing.SUPERSEDED),
            Verdict.CRITICAL,
            "that node has taken the VM over",
        ),
    ],
)
def test_a_replica_is_judged_by_the_age_of_its_data(facts: ReplicaFacts, verdict: Verdict, why: str) -> None:
    assert judge_replica(facts, NOW) == Judgement(verdict, why)


@pytest.mark.parametrize(
    ("health", "capacity", "expected"),
    [
        ("ONLINE", 0.5, FINE),
        ("ONLINE", 0.85, Judgement(Verdict.WARNING, "it is 85% full")),
        ("ONLINE", 0.95, Judgement(Verdict.CRITICAL, "it is 95% full")),
        ("DEGRADED", 0.1, Judgement(Verdict.CRITICAL, "it is DEGRADED")),
    ],
)
def test_a_pool_is_judged_by_its_health_and_its_room(
    health: str, capacity: float, expected: Judgement
) -> None:
    assert judge_pool(health, capacity) == expected


@pytest.mark.parametrize(
    ("capacity", "days", "expected"),
    [
        (0.5, 14.0, FINE),
        (
            0.5,
            13.9,
            Judgement(Verdict.WARNING, "it is 50% full, and at its present rate will be full in 13d 21h"),
        ),
        (0.86, 20.0, Judgement(Verdict.WARNING, "it is 86% full")),
        (
            0.5,
            2.9,
            Judgement(Verdict.CRITICAL, "it is 50% full, and at its present rate will be full in 2d 21h"),
        ),
        (
            0.96,
            13.9,
            Judgement(Verdict.CRITICAL, "it is 96% full, and at its present rate will be full in 13d 21h"),
        ),
    ],
)
def test_a_pool_that_is_soon_full_is_told_before_it_is(
    capacity: float, days: float, expected: Judgement
) -> None:
    assert judge_pool("ONLINE", capacity, days * 86_400) == expected


def test_the_worst_counts_and_nothing_is_well() -> None:
    late, gone = Judgement(Verdict.WARNING, "late"), Judgement(Verdict.CRITICAL, "gone")
    assert worst([FINE, late, gone, late]) == gone
    assert worst([]) == FINE
    assert [str(verdict) for verdict in Verdict] == ["ok", "warning", "critical", "unknown"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (3601, "1h"), (3660, "1h 1m"), (200_000, "2d 7h")],
)
def test_durations_are_told_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
