"""What was promised for a VM: its own promise, else the strictest of its tags, else the one for all."""

from __future__ import annotations

import pytest

from hoster.model.promises import Promises

PROMISES = Promises(60, by_vm={"web": 5}, by_tag={"db": 15, "slow": 600})


@pytest.mark.parametrize(
    ("vm", "tags", "minutes"),
    [
        ("web", (), 5),
        ("web", ("db",), 5),
        ("db1", ("db",), 15),
        ("db1", ("slow", "db"), 15),
        ("files", ("slow", "unknown"), 600),
        ("files", ("unknown",), 60),
        ("files", (), 60),
    ],
)
def test_the_promise_that_is_nearest_to_the_vm_counts(vm: str, tags: tuple[str, ...], minutes: int) -> None:
    assert PROMISES.rpo_s(vm, tags) == minutes * 60


def test_without_any_setting_a_day_is_promised() -> None:
    assert Promises().rpo_s("web") == 86_400
