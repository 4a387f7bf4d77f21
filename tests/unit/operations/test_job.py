"""A VM on its way: what its job holds from the decision on, and how it comes to an end."""

from __future__ import annotations

from msgspec.structs import replace

from hoster.errors import OperationFailed
from hoster.model.plan import Ground, Refusal
from hoster.model.storage import Dataset, Mode, Role
from hoster.model.vms import Vm
from hoster.operations.job import Job, hold_tag, job_of
from hoster.planning.transfers import unsent
from hoster.testing import VM_ID, target_key
from tests.unit.planning.judging import SITE, TARGET, cleared, encrypted, partly, replica, subject


def job(*there: Dataset, here: str = "a b+8 c+3", sealed: bool = False) -> Job:
    found = subject(here, d0="a b+5")
    found = encrypted(found, "d0") if sealed else found
    vm = Vm("web", found.dataset, found.descendants, Role.PRIMARY, "node1", production=True)
    return job_of(vm, SITE, cleared(found, *there), ("tank/vm/web@a",))


def test_a_job_holds_a_passage_for_each_dataset_and_what_was_seen_of_it() -> None:
    made = job(replica("a!"))
    assert [passage.target for passage in made.passages] == [TARGET, f"{TARGET}/d0"]
    assert (made.vm_id, made.left_holds, made.complete) == (VM_ID, ("tank/vm/web@a",), True)
    assert made.passages[0].replica == replica("a!")
    assert made.passages[1].replica is None


def test_a_job_says_what_is_kept_though_it_is_gone_here() -> None:
    assert job(replica("a!"), replica("x", "old")).notes == [
        f"{TARGET}/old on backup1 is kept: it is gone here"
    ]


def test_the_size_of_a_job_is_what_its_versions_are_and_what_was_written_between_them() -> None:
    made = job(replica("a!"), replica("a!", "d0"))
    for passage in made.passages:
        passage.chain = unsent(passage.source, passage.base)
    assert made.estimated_bytes == 8 + 3 + 5 + 3 * 624


def test_a_leg_follows_what_is_known_of_its_source_by_now() -> None:
    made = job(partly(replica("a!", mode=Mode.RAW), "a", "b", raw=True), sealed=True)
    passage = made.passages[0]
    passage.source = replace(passage.source, snapshots=passage.source.snapshots[:2])
    assert passage.leg.source.newest == passage.source.snapshots[1]
    assert (passage.leg.base, passage.leg.mode) == (passage.base, Mode.RAW)
    assert passage.leg.partial is not None


def test_the_first_failure_of_a_job_is_the_one_that_is_reported() -> None:
    made = job()
    made.fail(OperationFailed("first"))
    made.fail(OperationFailed("second"))
    assert made.failure is not None
    assert made.failure.message == "first"
    assert not made.complete


def test_a_job_that_was_refused_is_not_complete() -> None:
    made = job()
    made.refusal = Refusal("web", Ground.KEY_CHANGED, "seen", "typed")
    assert not made.complete
    assert made.failure is None


def test_holds_are_told_apart_by_their_target() -> None:
    assert hold_tag(SITE) == f"hoster-{target_key('1')}"
    assert hold_tag(SITE) != hold_tag(replace(SITE, parent_guid=2))
