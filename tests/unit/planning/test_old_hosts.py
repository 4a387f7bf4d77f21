"""The copy of an old host that came back, and what took its place: the way home, and what is gone on with."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hoster.model.plan import Ground, Refusal
from hoster.model.storage import Epoch, Marks, Role
from hoster.planning.replication import Clearance, judge
from hoster.testing import VM_ID
from tests.unit.planning.judging import SITE, TARGET, refused, replica, subject


@pytest.mark.parametrize("role", [Role.PRIMARY, Role.SUPERSEDED])
def test_an_old_host_that_came_back_is_failed_back_to(role: Role) -> None:
    here = subject("a b")
    here = replace(here, dataset=replace(here.dataset, marks=Marks(VM_ID, Role.PRIMARY, Epoch(2, "node2"))))
    old = replace(replica("a"), marks=Marks(VM_ID, role, Epoch(1, "node1")))
    refusal = refused(here, old)
    assert refusal.ground is Ground.NOT_A_REPLICA
    assert refusal.remedy.startswith("hoster vm failback web --endpoint backup1 ")


@pytest.mark.parametrize(
    ("history", "origins", "goes_on"),
    [
        ("a! ~1024", [f"{TARGET}@a"], True),
        ("a! ~1024", [f"{TARGET}@b", f"{TARGET}/d0@a"], False),
        ("a! ~1024", [], False),
        ("a! ~65537", [f"{TARGET}@a"], False),
        ("a! b! ~1024", [f"{TARGET}@a"], False),
    ],
)
def test_the_log_header_of_what_was_cloned_is_nothing_that_somebody_wrote(
    history: str, origins: list[str], goes_on: bool
) -> None:
    """A branch beside the replica began at its newest version: nothing has arrived since it was set aside."""
    verdict = judge(subject("a b c"), SITE, TARGET, [replica(history)], None, origins)
    assert isinstance(verdict, Clearance) is goes_on


def test_so_is_that_of_a_volume_below() -> None:
    there = [replica("a!"), replica("a! ~512", "d0")]
    assert isinstance(judge(subject("a", d0="a b"), SITE, TARGET, there), Refusal)
    assert isinstance(judge(subject("a", d0="a b"), SITE, TARGET, there, None, [f"{TARGET}@a"]), Clearance)
