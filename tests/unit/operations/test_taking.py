"""Taking many snapshots at once: one vanished dataset does not take down the rest."""

from __future__ import annotations

from datetime import datetime

import pytest

from hoster.errors import ZfsError
from hoster.host.reach import LocalHost
from hoster.model.names import SnapshotType
from hoster.model.plan import TakeSnapshot
from hoster.model.storage import Role
from hoster.model.vms import Vm
from hoster.operations.taking import Taken, snapshot_steps, take
from hoster.testing import Says, ScriptedRunner, dataset, listing
from hoster.zfs.store import ZfsStore

NOW = datetime(2024, 1, 1, 0, 1)
MISSING = Says("", "cannot open 'tank/vm/web': dataset does not exist\n", 2)


def step(name: str) -> tuple[TakeSnapshot, ...]:
    return (TakeSnapshot(name, "custom_2024-01-01_00-01-00", "asked for"),)


def taken(runner: ScriptedRunner, *names: str) -> Taken:
    steps = {name.rpartition("/")[2]: step(name) for name in names}
    return take(ZfsStore(LocalHost(), runner), steps, {"hoster:sdescription": "x"})


def snapshotted(runner: ScriptedRunner) -> list[list[str]]:
    return [[w.partition("@")[0] for w in command if "@" in w] for command in runner.ran("zfs", "snapshot")]


def test_all_of_a_pool_are_taken_by_one_command() -> None:
    runner = ScriptedRunner()
    runner.answer(("zfs", "snapshot"))
    found = taken(runner, "tank/vm/web", "ssd/vm/mail", "tank/vm/db")
    assert snapshotted(runner) == [["tank/vm/web", "tank/vm/db"], ["ssd/vm/mail"]]
    assert list(found.steps) == ["web", "db", "mail"]
    assert found.failures == {}


def test_nothing_to_take_is_no_command() -> None:
    assert taken(ScriptedRunner()).steps == {}


def test_a_dataset_that_vanished_is_dropped_and_the_rest_is_taken() -> None:
    runner = ScriptedRunner()
    runner.answer(("zfs", "snapshot"), MISSING, Says())
    runner.answer(("zfs", "get"), Says(listing(dataset("tank/vm/db")), MISSING.stderr, 1))
    found = taken(runner, "tank/vm/web", "tank/vm/db")
    assert snapshotted(runner) == [["tank/vm/web", "tank/vm/db"], ["tank/vm/db"]]
    assert list(found.steps) == ["db"]
    assert "tank/vm/web vanished" in found.failures["web"].message


def test_where_all_have_vanished_nothing_more_is_tried() -> None:
    runner = ScriptedRunner()
    runner.answer(("zfs", "snapshot"), MISSING)
    runner.answer(("zfs", "get"), Says("", MISSING.stderr, 1))
    found = taken(runner, "tank/vm/web")
    assert snapshotted(runner) == [["tank/vm/web"]]
    assert list(found.failures) == ["web"]


def test_where_none_has_vanished_each_is_tried_by_itself() -> None:
    runner = ScriptedRunner()
    quota = Says("", "cannot create snapshots: out of space\n", 1)
    runner.answer(("zfs", "snapshot"), quota, quota, Says())
    runner.answer(("zfs", "get"), Says(listing(dataset("tank/vm/web"), dataset("tank/vm/db"))))
    found = taken(runner, "tank/vm/web", "tank/vm/db")
    assert snapshotted(runner) == [["tank/vm/web", "tank/vm/db"], ["tank/vm/web"], ["tank/vm/db"]]
    assert list(found.steps) == ["db"]
    assert "out of space" in found.failures["web"].message


def test_a_look_that_fails_is_an_error_and_not_everything_vanished() -> None:
    runner = ScriptedRunner()
    runner.answer(("zfs", "snapshot"), MISSING)
    runner.answer(("zfs", "get"), Says("", "cannot open 'tank': pool I/O is currently suspended\n", 1))
    with pytest.raises(ZfsError, match="suspended"):
        taken(runner, "tank/vm/web")


def test_a_name_that_was_taken_in_the_same_second_gives_way_to_the_next() -> None:
    runner = ScriptedRunner()
    exists = Says("", "cannot create snapshot 'x': dataset already exists\n", 1)
    runner.answer(("zfs", "snapshot"), exists, exists, Says())
    found = taken(runner, "tank/vm/web")
    assert found.steps["web"][0].name == "custom_2024-01-01_00-01-00_3"


def test_what_outgrows_one_command_is_cut_between_vms() -> None:
    runner = ScriptedRunner()
    runner.answer(("zfs", "snapshot"))
    steps = {
        f"customer-{n:04}": [*step(f"tank/vm/customer-{n:04}"), *step(f"tank/vm/customer-{n:04}/data")]
        for n in range(1000)
    }
    assert list(take(ZfsStore(LocalHost(), runner), steps).steps) == list(steps)
    vms = [{name.split("/")[2] for name in names} for names in snapshotted(runner)]
    assert 1 < len(vms) < 5
    assert sum(map(len, vms)) == len(set().union(*vms)) == 1000


def test_what_the_second_command_cannot_take_leaves_nothing_behind_that_nobody_reports() -> None:
    runner = ScriptedRunner()
    made = {f"tank/vm/customer-1999@{step('')[0].name}"}

    def answer(argv: tuple[str, ...], _: str) -> Says:
        if made & set(argv):
            return Says(
                "", "cannot create snapshot 'x': dataset already exists\nno snapshots were created\n", 1
            )
        made.update(argv[2:])
        return Says()

    runner.answer(("zfs", "snapshot"), answer)
    before = set(made)
    steps = {f"customer-{n:04}": step(f"tank/vm/customer-{n:04}") for n in range(2000)}
    found = take(ZfsStore(LocalHost(), runner), steps)
    assert len(snapshotted(runner)) == 3, "the second one again, under the next name"
    assert (found.steps.keys(), found.failures) == (steps.keys(), {})
    assert {one.full_name for of_vm in found.steps.values() for one in of_vm} == made - before


def test_all_datasets_of_a_vm_get_the_same_name_which_none_has_yet() -> None:
    web, disk = dataset("tank/vm/web", "h1"), dataset("tank/vm/web/d0", "c1")
    vm = Vm("web", web, (disk,), Role.PRIMARY, "node1", production=True)
    steps = snapshot_steps(vm, SnapshotType.CUSTOM, NOW, "asked for", [dataset("backup/web", "c2")])
    assert [s.full_name for s in steps] == [
        "tank/vm/web@custom_2024-01-01_00-01-00_2",
        "tank/vm/web/d0@custom_2024-01-01_00-01-00_2",
    ]
