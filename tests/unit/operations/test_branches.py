"""Branches: listed, given up by name, expired; and nothing else is ever destroyed by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from msgspec.structs import replace

from hoster.config.settings import BranchSettings, ReplicationSettings, Settings
from hoster.errors import OperationFailed, Refused
from hoster.host.locks import Locks
from hoster.host.reach import LocalHost
from hoster.model.plan import Outcome
from hoster.model.storage import Dataset, Role
from hoster.operations.branches import destroy_branch, expire_branches, list_branches
from hoster.operations.context import Context
from hoster.testing import Says, ScriptedRunner, dataset, listing
from hoster.zfs.store import ZfsStore

OLD, YOUNG = "20200101T120000Z", "29990101T120000Z"
MONTH = timedelta(days=30)


def branch(vm: str = "web", stamp: str = OLD, history: str = "b c", parent: str = "tank/vm") -> Dataset:
    one = dataset(f"{parent}/{vm}.branch-{stamp}", history, Role.BRANCH)
    return replace(one, used=512, origin=f"{parent}/{vm}@a")


class Node:
    """A node with these datasets, on which every destruction succeeds."""

    locks: ClassVar[Locks]

    def __init__(self, *datasets: Dataset) -> None:
        self.runner = ScriptedRunner()
        roots = (dataset("tank/vm"), dataset("ssd/vm"))
        self.runner.answer(lambda argv: argv[:4] == ("zfs", "get", "-Hp", "-r"), self._listed)
        self.runner.answer(("zfs", "program"), self._destroyed)
        self.runner.answer(("zfs", "destroy"))
        settings = Settings(Path("/nowhere"), ("tank/vm", "ssd/vm"), replication=ReplicationSettings())
        zfs = ZfsStore(LocalHost(), self.runner)
        self.context = Context(settings, "node1", self.runner, zfs, self.locks)
        self.datasets = (*roots, *datasets)

    def _listed(self, argv: tuple[str, ...], stdin: str) -> Says:
        wanted = argv[argv.index("-o") + 3 :]
        found = [d for d in self.datasets if any(f"{d.name}/".startswith(f"{name}/") for name in wanted)]
        missing = [name for name in wanted if name not in {d.name for d in found}]
        complaints = "".join(f"cannot open '{name}': dataset does not exist\n" for name in missing)
        return Says(listing(*found), complaints, int(bool(missing)))

    def _destroyed(self, argv: tuple[str, ...], stdin: str) -> Says:
        names = argv[5::2]
        said = ",".join(f'"{name}": "done"' for name in names)
        return Says('{"return": {' + said + "}}")

    @property
    def destroyed(self) -> list[str]:
        """What the commands that were run destroy, in their order."""
        found: list[str] = []
        for command in self.runner.commands:
            if command[:2] == ("zfs", "program"):
                found += command[5::2]
            if command[:2] == ("zfs", "destroy"):
                found += command[2:]
        return found


@pytest.fixture(autouse=True)
def locks(tmp_path: Path) -> None:
    Node.locks = Locks(tmp_path / "locks")


def test_branches_are_listed_oldest_first_with_what_they_pin_and_where_they_parted() -> None:
    node = Node(branch(stamp=YOUNG), branch(), branch("db", parent="ssd/vm"), dataset("tank/vm/web", "a"))
    found = list_branches(node.context)
    assert [(b.name, b.vm) for b in found] == [
        (f"db.branch-{OLD}", "db"),
        (f"web.branch-{OLD}", "web"),
        (f"web.branch-{YOUNG}", "web"),
    ]
    assert found[1].branched_at == datetime(2020, 1, 1, 12, tzinfo=UTC)
    assert (found[1].pinned_bytes, found[1].snapshots) == (512, ("b", "c"))
    assert (found[1].dataset, found[1].parted_from) == (f"tank/vm/web.branch-{OLD}", "tank/vm/web@a")
    assert [b.vm for b in list_branches(node.context, "db")] == ["db"]
    assert list_branches(node.context, "nowhere") == ()


def test_a_branch_is_destroyed_by_the_names_of_all_that_is_in_it() -> None:
    root, disk = branch(history="b c #x"), dataset(f"tank/vm/web.branch-{OLD}/d0", "b")
    node = Node(root, disk, branch(stamp=YOUNG), dataset("tank/vm/web", "a"))
    report = destroy_branch(node.context, f"web.branch-{OLD}", dry_run=False)
    versions = [f"{root.name}@b", f"{root.name}@c", f"{disk.name}@b"]
    assert node.destroyed == [f"{root.name}#x", *versions, disk.name, root.name]
    assert report.vms[0].outcome is Outcome.DONE
    assert [gone.snapshot for gone in report.vms[0].destroyed] == [*versions, disk.name, root.name]


def test_a_dry_run_lists_what_would_die_and_destroys_nothing() -> None:
    node = Node(branch())
    report = destroy_branch(node.context, f"web.branch-{OLD}", dry_run=True)
    assert report.dry_run
    assert report.vms[0].outcome is Outcome.PLANNED
    assert len(report.vms[0].destroyed) == 3
    assert node.destroyed == []


@pytest.mark.parametrize(
    ("history", "why", "hint"),
    [
        ("b* c", "b cannot be destroyed: it is held", f"zfs holds tank/vm/web.branch-{OLD}@b"),
        ("b c^", "c cannot be destroyed: .*-clone-of-c is a clone of it", "hoster vm branches"),
    ],
)
def test_a_branch_that_something_needs_is_refused_as_a_whole(history: str, why: str, hint: str) -> None:
    node = Node(branch(history=history))
    with pytest.raises(Refused, match=why) as refused:
        destroy_branch(node.context, f"web.branch-{OLD}", dry_run=False)
    assert refused.value.hint == hint
    assert node.destroyed == []


@pytest.mark.parametrize("name", ["web", f"web.branch-{YOUNG}", f"web.branch-{OLD}/d0", "nowhere"])
def test_what_is_no_branch_is_not_destroyed(name: str) -> None:
    node = Node(branch(), dataset(f"tank/vm/web.branch-{OLD}/d0", "b"), dataset("tank/vm/web", "a"))
    with pytest.raises(OperationFailed, match=f"there is no branch {name} on this node"):
        destroy_branch(node.context, name, dry_run=False)
    assert node.destroyed == []


@pytest.mark.parametrize("role", [None, Role.PRIMARY, Role.REPLICA])
def test_a_dataset_that_is_only_called_like_a_branch_is_neither_destroyed_nor_expired(
    role: Role | None,
) -> None:
    """Somebody's own copy, or what a swap that was interrupted has not marked yet."""
    node = Node(dataset(f"tank/vm/web.branch-{OLD}", "b c", role))
    expire_branches(node.context, older_than=MONTH, dry_run=False)
    with pytest.raises(OperationFailed):
        destroy_branch(node.context, f"web.branch-{OLD}", dry_run=False)
    assert node.destroyed == []


@pytest.mark.parametrize("stamp", ["20241301T000000Z", "20240230T000000Z", "20240101T250000Z"])
def test_a_name_with_a_moment_that_never_was_is_no_branch(stamp: str) -> None:
    node = Node(branch(stamp=stamp), branch())
    assert [b.name for b in list_branches(node.context)] == [f"web.branch-{OLD}"]


def test_a_snapshot_that_changed_meanwhile_stops_the_end_of_its_branch() -> None:
    node = Node(branch())
    changed = Says('{"return": {"tank/vm/web.branch-' + OLD + '@b": "changed"}}')
    node.runner = ScriptedRunner()
    node.runner.answer(("zfs", "get"), node._listed)
    node.runner.answer(("zfs", "program"), changed)
    context = replace(node.context, zfs=ZfsStore(LocalHost(), node.runner))
    with pytest.raises(OperationFailed, match="@b was not destroyed"):
        destroy_branch(context, f"web.branch-{OLD}", dry_run=False)
    assert node.runner.ran("zfs", "destroy") == []


def test_only_old_branches_expire_and_one_that_cannot_go_keeps_no_other() -> None:
    node = Node(branch("a", history="b*"), branch("db", parent="ssd/vm"), branch(stamp=YOUNG))
    report = expire_branches(node.context, older_than=MONTH, dry_run=False)
    assert [(vm.vm, vm.outcome) for vm in report.vms] == [
        (f"a.branch-{OLD}", Outcome.REFUSED),
        (f"db.branch-{OLD}", Outcome.DONE),
    ]
    assert all(name.startswith("ssd/vm/db.branch-") for name in node.destroyed)
    assert node.destroyed


@pytest.mark.parametrize("days", [10**6, 10**12])
def test_a_branch_that_is_to_expire_after_all_of_time_never_does(days: int) -> None:
    node = Node(branch())
    settings = replace(node.context.settings, branches=BranchSettings(days))
    report = expire_branches(replace(node.context, settings=settings), dry_run=False)
    assert report.vms == ()
    assert node.destroyed == []


def test_an_expiry_that_fails_is_reported_and_the_next_one_is_tried() -> None:
    node = Node(branch("a"), branch("b"))
    node.runner = ScriptedRunner()
    node.runner.answer(("zfs", "get"), node._listed)
    node.runner.answer(("zfs", "program"), node._destroyed)
    node.runner.answer(("zfs", "destroy"), Says("", "cannot destroy: dataset is busy\n", 1), Says())
    context = replace(node.context, zfs=ZfsStore(LocalHost(), node.runner))
    report = expire_branches(context, older_than=MONTH, dry_run=False)
    assert [vm.outcome for vm in report.vms] == [Outcome.FAILED, Outcome.DONE]


def test_a_dry_run_of_an_expiry_destroys_nothing() -> None:
    node = Node(branch())
    report = expire_branches(node.context, older_than=MONTH, dry_run=True)
    assert report.dry_run
    assert [vm.outcome for vm in report.vms] == [Outcome.PLANNED]
    assert node.destroyed == []
