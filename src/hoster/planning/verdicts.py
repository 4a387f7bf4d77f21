"""How well things stand: whether a replica keeps what was promised, and what else a person has to know of.

Pure; times in Unix seconds. What is judged is the age of the data on the target: an idle VM whose both ends
were seen equal is not late, however old its newest version is.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from msgspec import Struct

from hoster.model.schedules import Windows
from hoster.planning.schedules import late_at
from hoster.planning.succession import Standing

FULL_WARNING = 0.85
FULL_CRITICAL = 0.95
"""How full a pool is when a person should know, and when it is about to stop everything."""

FULL_SOON_WARNING_S = 14 * 86_400.0
FULL_SOON_CRITICAL_S = 3 * 86_400.0
"""How long a pool will last at its present rate when a person should know, and when it is urgent."""


CLOCKS_APART_S = 86_400.0
"""By how much the clocks of nodes may differ before data seem to come from the future."""


class Verdict(IntEnum):
    """How bad something is; the numbers are what monitoring plugins exit with."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3

    def __str__(self) -> str:
        return self.name.lower()


class Judgement(Struct, frozen=True):
    """How bad, and why in words; no words where all is well."""

    verdict: Verdict
    why: str = ""


class ReplicaFacts(Struct, frozen=True):
    """What a replica is judged by.

    ``promise_s`` counts in the ``windows`` only, in which the target may be reached. ``data_at`` is from when
    its data are, or None where it has none that this node shares; ``had_some`` says that it once had.
    ``failures`` are the runs since the last success, the last one for ``failure``.
    """

    promise_s: float
    data_at: float | None
    had_some: bool = False
    standing: Standing = Standing.CURRENT
    failures: int = 0
    failure: str = ""
    windows: Windows = ()


FINE = Judgement(Verdict.OK)


def judge_replica(facts: ReplicaFacts, now: float) -> Judgement:
    """Whether a replica is as promised. Past the promise is a warning, past twice the promise critical."""
    if facts.standing is not Standing.CURRENT:
        split = facts.standing is Standing.SPLIT
        why = "both copies were promoted: a split" if split else "that node has taken the VM over"
        return Judgement(Verdict.CRITICAL, why)
    failed = f"; the last run failed: {facts.failure}" if facts.failures else ""
    if facts.data_at is None:
        missing = "what was there is gone" if facts.had_some else "nothing has arrived yet"
        return Judgement(Verdict.CRITICAL, f"{missing}{failed}")
    if facts.data_at > now + CLOCKS_APART_S:
        ahead = (
            f"the data there are of a time {duration(facts.data_at - now)} ahead: their age cannot be told"
        )
        return Judgement(Verdict.WARNING, f"{ahead}{failed}")
    if now > late_at(facts.data_at, facts.promise_s, facts.windows):
        far_too_late = now > late_at(facts.data_at, 2 * facts.promise_s, facts.windows)
        verdict = Verdict.CRITICAL if far_too_late else Verdict.WARNING
        promised = duration(facts.promise_s) + (" of its windows" if facts.windows else "")
        late = f"the data there are {duration(now - facts.data_at)} old, promised are {promised}"
        return Judgement(verdict, f"{late}{failed}")
    return Judgement(Verdict.WARNING, failed.removeprefix("; ")) if failed else FINE


def judge_pool(health: str, capacity: float, lasts_s: float | None = None) -> Judgement:
    """Whether a pool is whole and has room; ``capacity`` is how full it is, from 0 to 1, ``lasts_s`` in how
    many seconds it will be full at its present rate (None: that is not to be expected)."""
    if health != "ONLINE":
        return Judgement(Verdict.CRITICAL, f"it is {health}")
    soon = lasts_s is not None and lasts_s < FULL_SOON_WARNING_S
    if not soon and capacity < FULL_WARNING:
        return FINE
    urgent = capacity >= FULL_CRITICAL or (lasts_s is not None and lasts_s < FULL_SOON_CRITICAL_S)
    rest = f", and at its present rate will be full in {duration(lasts_s or 0)}" if soon else ""
    return Judgement(Verdict.CRITICAL if urgent else Verdict.WARNING, f"it is {capacity:.0%} full{rest}")


def worst(judgements: Iterable[Judgement]) -> Judgement:
    """The worst of them, the first of several; all is well where there are none."""
    return max(judgements, key=lambda judgement: judgement.verdict, default=FINE)


def duration(seconds: float) -> str:
    """A duration in the two largest units that it has.

    >>> duration(59), duration(3600), duration(93_784)
    ('59s', '1h', '1d 2h')
    """
    left, parts = int(max(seconds, 0)), []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0s"
