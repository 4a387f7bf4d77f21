"""Values of storage, plans and VMs: what follows from them."""

from __future__ import annotations

import pytest

from hoster.model.plan import (
    Anchor,
    DestroySnapshot,
    Outcome,
    Plan,
    Report,
    Send,
    TakeSnapshot,
    VmReport,
)
from hoster.model.storage import Epoch, Intent, Role
from hoster.model.vms import Vm
from hoster.testing import dataset, guid_of, target_key, view, words


def test_versions_have_the_names_that_zfs_gives_them() -> None:
    web = dataset("tank/vm/web", "manual #other")
    assert web.snapshots[0].full_name == "tank/vm/web@manual"
    assert web.bookmarks[0].full_name == "tank/vm/web#other"
    assert TakeSnapshot("tank/vm/web", "x", "").full_name == "tank/vm/web@x"
    assert Anchor("tank/vm/web", "x", None, target_key("1"), "").full_name == "tank/vm/web@x"


@pytest.mark.parametrize(("name", "pool"), [("tank", "tank"), ("tank/vm/web", "tank")])
def test_the_pool_is_the_first_part_of_the_name(name: str, pool: str) -> None:
    assert dataset(name).pool == pool


def test_the_newest_snapshot_is_the_last_one() -> None:
    newest = dataset("tank/vm/web", "a b").newest
    assert newest is not None
    assert newest.name == "b"
    assert dataset("tank/vm/web", "#a").newest is None


def test_a_snapshot_is_found_by_guid() -> None:
    web = dataset("tank/vm/web", "a b #c")
    assert web.snapshot_with(guid_of("b")) == web.snapshots[1]
    assert web.snapshot_with(guid_of("c")) is None


def test_names_that_begin_alike_are_not_children() -> None:
    seen = view(*(dataset(n) for n in ("t/vm", "t/vm/web", "t/vm/web2", "t/vm/web/d0", "t/vm2/x", "t/vm/A")))
    assert [d.name for d in seen.children("t/vm")] == ["t/vm/A", "t/vm/web", "t/vm/web2"]
    assert [d.name for d in seen.below("t/vm/web")] == ["t/vm/web/d0"]
    assert [d.name for d in seen.below("t/vm")] == ["t/vm/A", "t/vm/web", "t/vm/web/d0", "t/vm/web2"]
    assert seen.get("t/vm/web") is not None
    assert seen.get("t/vm/we") is None


def test_nothing_is_below_anything_in_an_empty_view() -> None:
    assert list(view().below("t/vm")) == list(view().children("t")) == []


def test_epochs_order_by_number() -> None:
    assert Epoch(2, "a") < Epoch(10, "a")
    assert str(Epoch(3, "node1")) == "3@node1"


def test_an_intent_is_written_with_the_guid_as_all_sixteen_digits_of_it() -> None:
    assert (
        str(Intent("20240101T120000Z", 0x9A, "-", "t/vm/web"))
        == "20240101T120000Z/000000000000009a/-/t/vm/web"
    )


def test_a_plan_lists_what_it_sends_and_what_it_destroys() -> None:
    web = dataset("tank/vm/web", "a b")
    send = Send(None, web.snapshots[1], False, "backup/web", "")
    destroy = DestroySnapshot(web.snapshots[0], "")
    plan = Plan("web", (TakeSnapshot("tank/vm/web", "x", ""), send, destroy))
    assert plan.sends == (send,)
    assert words(step.victim for step in plan.destroys) == "a"
    assert plan.destroys == (destroy,)


def test_a_report_gives_the_vms_with_an_outcome_in_order() -> None:
    vms = (VmReport("a", Outcome.DONE), VmReport("b", Outcome.FAILED), VmReport("c", Outcome.DONE))
    assert [vm.vm for vm in Report(vms).with_outcome(Outcome.DONE)] == ["a", "c"]
    assert Report(vms).with_outcome(Outcome.BUSY) == ()


@pytest.mark.parametrize("role", Role)
def test_a_vm_is_its_dataset_with_all_below_it(role: Role) -> None:
    web, disk = dataset("tank/vm/web", "a ~3"), dataset("tank/vm/web/d0", "a ~4")
    vm = Vm("web", web, (disk,), role, "node1", production=True)
    assert vm.everything == (web, disk)
    assert vm.written == 7
    assert vm.is_primary is (role is Role.PRIMARY)
