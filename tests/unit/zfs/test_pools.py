"""Pools as ``zpool list`` and ``zpool status`` print them."""

from __future__ import annotations

from datetime import datetime

import pytest

from hoster.errors import DatasetMissing, ZfsError
from hoster.testing import NamedHost, Says, ScriptedRunner
from hoster.zfs.pools import Pool, parse_pools, pools, scrubs, verified_at

HOST = NamedHost("b")
# zpool list -Hp -o name,size,allocated,free,fragmentation,capacity,dedupratio,health
LISTED = (
    "fast\t10737418240\t1073741824\t9663676416\t3\t10\t1.00\tONLINE\n"
    "tank\t100\t40\t60\t-\t40\t1.50\tDEGRADED\n"
)
STATUS = """\
  pool: fast
 state: ONLINE
  scan: scrub repaired 0B in 00:00:01 with 0 errors on Sun Nov  8 00:24:02 2026
config:

\tNAME        STATE     READ WRITE CKSUM
\tfast        ONLINE       0     0     0

errors: No known data errors

  pool: tank
 state: ONLINE
config:

\tNAME        STATE     READ WRITE CKSUM
\ttank        ONLINE       0     0     0
"""


def test_pools_are_listed_with_one_command_each_once() -> None:
    runner = ScriptedRunner()
    runner.answer(("on", "b", "zpool", "list"), Says(LISTED))
    fast, tank = pools(HOST, runner, ["tank", "fast", "tank"])
    assert fast == Pool("fast", 10737418240, 1073741824, 9663676416, 0.03, 0.1, 1.0, "ONLINE")
    assert (tank.fragmentation, tank.dedup, tank.healthy, fast.healthy) == (None, 1.5, False, True)
    assert len(runner.commands) == 1
    assert runner.commands[0][-2:] == ("fast", "tank")


def test_without_a_pool_nothing_is_asked() -> None:
    assert pools(HOST, ScriptedRunner(), []) == ()
    assert scrubs(HOST, ScriptedRunner(), []) == {}


def test_a_pool_that_is_not_there_is_an_error() -> None:
    runner = ScriptedRunner()
    runner.answer(("on", "b", "zpool"), Says("", "cannot open 'x': no such pool\n", 1))
    with pytest.raises(DatasetMissing):
        pools(HOST, runner, ["x"])
    with pytest.raises(ZfsError):
        scrubs(HOST, runner, ["x"])


@pytest.mark.parametrize("line", ["tank", "tank\tx\t1\t1\t1\t1\t1\tONLINE", ""])
def test_what_is_no_list_of_pools_is_an_error(line: str) -> None:
    with pytest.raises(ZfsError, match="not understood"):
        parse_pools(f"{line}\n")


def test_the_last_scrub_is_told_in_the_words_of_zpool() -> None:
    runner = ScriptedRunner()
    runner.answer(("on", "b", "zpool", "status", "fast", "tank"), Says(STATUS))
    assert scrubs(HOST, runner, ["fast", "tank"]) == {
        "fast": "scrub repaired 0B in 00:00:01 with 0 errors on Sun Nov  8 00:24:02 2026",
        "tank": "never scrubbed",
    }


@pytest.mark.parametrize(
    ("scan", "at"),
    [
        ("scrub repaired 0B in 00:00:01 with 0 errors on Sun Nov  8 00:24:02 2026", (2026, 11, 8, 0, 24, 2)),
        (
            "scrub repaired 4K in 0 days 00:00:01 with 0 errors on Sun Nov 15 00:24:02 2026",
            (2026, 11, 15, 0, 24, 2),
        ),
    ],
)
def test_a_scrub_without_errors_has_verified_the_pool(scan: str, at: tuple[int, ...]) -> None:
    year, month, day, hour, minute, second = at
    assert verified_at(scan) == datetime(year, month, day, hour, minute, second).astimezone().timestamp()


@pytest.mark.parametrize(
    ("scan", "expected"),
    [
        ("never scrubbed", 0),
        ("scrub repaired 0B in 00:00:01 with 3 errors on Sun Nov  8 00:24:02 2026", 0),
        ("scrub in progress since Sun Nov  8 00:24:02 2026", None),
        ("resilvered 36K in 00:00:00 with 0 errors on Sun Nov  8 00:24:02 2026", None),
        ("scrub repaired 0B in 00:00:01 with 0 errors on a day", None),
    ],
)
def test_nothing_else_has(scan: str, expected: float | None) -> None:
    assert verified_at(scan) == expected
