"""A wrapping key that was changed is noticed in the stream, before it would lock anybody out.

This is the one ground for a refusal that no look can show: ``key-changed``.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hoster.errors import OperationFailed
from hoster.host.reach import LocalHost
from hoster.model.plan import Ground, Refusal
from hoster.model.storage import Dataset, Mode, Role
from hoster.model.vms import Vm
from hoster.operations.job import Job, Passage
from hoster.operations.keys import check_key
from hoster.planning.refusals import LOCAL, TargetSite
from hoster.planning.replication import Part
from hoster.planning.transfers import plan_sends
from hoster.testing import NamedHost, Says, ScriptedRunner, dataset, target_key
from hoster.zfs.store import ZfsStore
from hoster.zfs.streams import key_digest
from tests.unit.zfs.test_streams import KEY, head

OLD = head(KEY)
NEW = head(KEY | {"DSL_CRYPTO_MAC": b"bytes of another"})
SITE = TargetSite("backup1", "tank/vm", target_key("1").guid)


def digest_of(stream: bytes) -> str:
    found = key_digest(stream)
    assert found is not None
    return found


def replica(known: str | None, history: str = "h1!") -> Dataset:
    one = dataset("tank/vm/web", history, Role.REPLICA)
    return replace(one, marks=replace(one.marks, mode=Mode.RAW, key_digest=known))


def checked(
    runner: ScriptedRunner, stream: bytes, there: Dataset | None, site: TargetSite = SITE
) -> str | Refusal:
    """What is said of a VM whose next stream begins with ``stream``."""
    runner.answer(("zfs", "send"), Says(stream.decode("latin-1")))
    runner.answer(("on", "backup1", "zfs", "set"))
    web = replace(dataset("tank/vm/web", "h1 h2", Role.PRIMARY), encrypted=True)
    base = None if there is None or there.newest is None else web.snapshots[0]
    part = Part(web, "tank/vm/web", there, base, Mode.RAW)
    passage = Passage(part, web, there, sends=plan_sends(part.leg))
    job = Job(Vm("web", web, (), Role.PRIMARY, "node1", production=True), site, False, (passage,))
    here, backup = ZfsStore(LocalHost(), runner), ZfsStore(NamedHost("backup1"), runner)
    return check_key(here, backup, job, passage)


@pytest.mark.parametrize("there", [None, replica(digest_of(OLD)), replica(digest_of(OLD), "")])
def test_a_key_that_is_the_same_or_the_first_goes_along(there: Dataset | None) -> None:
    runner = ScriptedRunner()
    assert checked(runner, OLD, there) == digest_of(OLD)
    assert runner.ran("on") == []


def test_a_replica_that_does_not_say_its_key_yet_is_told_before_anything_is_sent() -> None:
    runner = ScriptedRunner()
    assert checked(runner, OLD, replica(None)) == digest_of(OLD)
    assert runner.ran("on") == [
        ("on", "backup1", "zfs", "set", f"hoster:key={digest_of(OLD)}", "tank/vm/web")
    ]


@pytest.mark.parametrize(("site", "ssh"), [(SITE, "ssh backup1 "), (replace(SITE, node=LOCAL), "")])
def test_a_key_that_was_changed_is_refused_until_somebody_says_that_it_is_kept(
    site: TargetSite, ssh: str
) -> None:
    runner = ScriptedRunner()
    refusal = checked(runner, NEW, replica(digest_of(OLD)), site)
    assert isinstance(refusal, Refusal)
    assert (refusal.vm, refusal.ground) == ("web", Ground.KEY_CHANGED)
    assert refusal.evidence == (
        "the wrapping key of tank/vm/web was changed since hourly_2024-01-01_00-01-00 was sent: with the next"
        f" increment all versions on {site.node}, older ones too, would open with the new key only"
    )
    accept = f"{ssh}zfs set hoster:key={digest_of(NEW)} tank/vm/web"
    assert refusal.remedy == f"{accept}    (if the new key is kept safe)"
    assert runner.ran("on") == []


def test_the_remedy_for_a_changed_key_lets_the_next_run_go_on() -> None:
    assert checked(ScriptedRunner(), NEW, replica(digest_of(NEW))) == digest_of(NEW)


def test_a_changed_key_is_refused_though_only_a_part_of_the_first_stream_has_arrived() -> None:
    refusal = checked(ScriptedRunner(), NEW, replica(digest_of(OLD), ""))
    assert isinstance(refusal, Refusal)
    assert refusal.evidence.startswith("the wrapping key of tank/vm/web was changed: with the next")


@pytest.mark.parametrize("stream", [b"", bytes(1000), OLD[:400]])
def test_a_raw_stream_that_shows_no_key_is_an_error_and_is_not_sent(stream: bytes) -> None:
    with pytest.raises(OperationFailed, match="the raw stream of tank/vm/web shows no key"):
        checked(ScriptedRunner(), stream, replica(digest_of(OLD)))
