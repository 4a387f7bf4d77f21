"""An answer that tells of what is missing is whole only if zfs itself has ended it."""

from __future__ import annotations

import pytest

from hoster.errors import DatasetMissing, HosterError, Unreachable, ZfsError
from hoster.testing import NamedHost, Says, ScriptedRunner, dataset, listing
from hoster.zfs.store import ZfsStore
from tests.zfsmodel.cluster import LINK_LOST

WEB = dataset("tank/vm/web", "a b c")
GONE = "cannot open 'tank/vm/x': dataset does not exist\n"


@pytest.fixture
def runner() -> ScriptedRunner:
    return ScriptedRunner()


@pytest.fixture
def remote(runner: ScriptedRunner) -> ZfsStore:
    return ZfsStore(NamedHost("backup1"), runner)


@pytest.mark.parametrize(
    ("said", "code", "kind"),
    [
        pytest.param(f"{GONE}{LINK_LOST}\n", 255, Unreachable, id="the connection, in words"),
        pytest.param(GONE, 255, ZfsError, id="the connection, without a word"),
        pytest.param(GONE, -9, ZfsError, id="a signal"),
    ],
)
def test_a_listing_that_was_ended_in_the_middle_is_an_error_though_some_are_missing(
    runner: ScriptedRunner, remote: ZfsStore, said: str, code: int, kind: type[HosterError]
) -> None:
    whole = listing(WEB)
    runner.answer(("on",), Says(whole[: whole.index(WEB.snapshots[1].full_name)], said, code))
    with pytest.raises(kind) as caught:
        remote.look_for(["tank/vm/web", "tank/vm/x"])
    assert not isinstance(caught.value, DatasetMissing)


def test_the_holds_of_a_snapshot_that_has_gone_are_none_and_those_of_the_others_are_told(
    runner: ScriptedRunner, remote: ZfsStore
) -> None:
    rest = "a/b@c\tmine\tMon\n"
    broken = "cannot open 'a': pool I/O is currently suspended\n"
    runner.answer(("on",), Says(rest, GONE, 1), Says(rest, GONE, -9), Says(rest, broken, 1))
    assert remote.holds(["a/b@c", "tank/vm/x@a"]) == {("a/b@c", "mine")}
    for _ in range(2):
        with pytest.raises(ZfsError, match="backup1: listing holds"):
            remote.holds(["a/b@c", "tank/vm/x@a"])
