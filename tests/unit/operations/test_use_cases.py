"""Use cases on a scripted node: what counts as a VM, what a dry run shows, what is refused."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.config.settings import ReplicationSettings, Settings
from hoster.errors import ExitCode, OperationFailed, Refused
from hoster.host.locks import Locks
from hoster.host.reach import LocalHost
from hoster.model.names import SnapshotType
from hoster.model.plan import Outcome
from hoster.model.storage import Dataset, Marks, Role
from hoster.operations.context import Context
from hoster.operations.identity import first_marks, properties_of
from hoster.operations.inventory import Inventory, look_around
from hoster.operations.snapshots import (
    SnapshotRequest,
    destroy_snapshot,
    list_snapshots,
    snapshot_all,
    snapshot_one,
)
from hoster.testing import Says, ScriptedRunner, dataset, listing
from hoster.zfs.store import ZfsStore

HOURLY = SnapshotType.HOURLY
NEW = "hourly_2024-06-01_12-00-00"


class Node:
    """This node, as its commands would show it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runner = ScriptedRunner()
        settings = Settings(Path("/nowhere"), ("tank/vm", "ssd/vm"), replication=ReplicationSettings())
        zfs = ZfsStore(LocalHost(), self.runner)
        now = datetime(2024, 6, 1, 12)
        self.context = Context(settings, "node1", self.runner, zfs, Locks(folder / "locks"), lambda: now)

    def holds(self, *datasets: Dataset) -> None:
        roots = (dataset("tank/vm"), dataset("ssd/vm"))
        self.runner.answer(("zfs", "get"), Says(listing(*roots, *datasets)))
        self.runner.answer(("zpool", "sync"))
        self.runner.answer(("zfs", "snapshot"))

    def mounted(self, one: Dataset, config: str | None) -> Dataset:
        """``one``, mounted in a folder with that vm_config.json."""
        place = self.folder / one.name.replace("/", "-")
        place.mkdir()
        if config is not None:
            (place / "vm_config.json").write_text(config)
        return replace(one, mounted=True, mountpoint=str(place))

    def destroying(self, *words: str) -> None:
        answers = iter(words)

        def answer(command: tuple[str, ...], stdin: str) -> Says:
            return Says(json.dumps({"return": {name: next(answers) for name in command[5::2]}}))

        self.runner.answer(("zfs", "program"), answer)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def roles(stock: Inventory) -> dict[str, str]:
    return {vm.name: f"{vm.role}{' production' if vm.production else ''}" for vm in stock.vms}


def test_marks_decide_what_a_vm_is_here_and_the_file_only_where_there_are_none(node: Node) -> None:
    unmarked = {"production": True, "parent_host": "node1"}
    node.holds(
        dataset("tank/vm/marked", role=Role.PRIMARY),
        dataset("tank/vm/replica", role=Role.REPLICA),
        dataset("tank/vm/old", role=Role.SUPERSEDED),
        dataset("tank/vm/web.branch-2024", role=Role.BRANCH),
        node.mounted(dataset("tank/vm/ours"), json.dumps(unmarked)),
        node.mounted(dataset("tank/vm/theirs"), json.dumps({**unmarked, "parent_host": "node2"})),
        node.mounted(dataset("tank/vm/renamed", role=Role.PRIMARY), json.dumps({"parent_host": "node9"})),
        node.mounted(dataset("tank/vm/folder"), None),
        dataset("tank/vm/unmounted"),
        dataset("ssd/vm/db", role=Role.PRIMARY),
    )
    assert roles(look_around(node.context)) == {
        "marked": "primary production",
        "old": "superseded production",
        "ours": "primary production",
        "renamed": "primary",
        "replica": "replica production",
        "theirs": "replica production",
        "db": "primary production",
    }


def test_what_is_below_a_vm_belongs_to_it_and_names_that_begin_alike_do_not(node: Node) -> None:
    node.holds(
        dataset("tank/vm/web", role=Role.PRIMARY),
        dataset("tank/vm/web/d0"),
        dataset("tank/vm/web2", role=Role.PRIMARY),
    )
    stock = look_around(node.context)
    assert [d.name for d in stock.named("web").everything] == ["tank/vm/web", "tank/vm/web/d0"]
    assert [vm.name for vm in stock.vms] == ["web", "web2"]


def test_a_broken_file_is_said_aloud_and_never_drops_a_vm_in_silence(node: Node) -> None:
    node.holds(
        node.mounted(dataset("tank/vm/broken"), "{"),
        node.mounted(dataset("tank/vm/marked", role=Role.PRIMARY), "{"),
    )
    stock = look_around(node.context)
    assert [u.name for u in stock.unusable] == ["broken"]
    assert "vm_config.json" in stock.unusable[0].problem
    assert "vm_config.json" in stock.named("marked").problem
    with pytest.raises(OperationFailed, match="broken: "):
        stock.named("broken")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encrypted": True, "key_loaded": False}, "zfs load-key tank/vm/web"),
        ({"mounted": False}, "zfs mount tank/vm/web"),
        ({"mounted": True, "mountpoint": "/nowhere/at/all"}, "has no vm_config.json"),
    ],
)
def test_a_primary_without_its_file_says_why(node: Node, change: dict[str, object], said: str) -> None:
    node.holds(replace(dataset("tank/vm/web", role=Role.PRIMARY), **change))
    assert said in look_around(node.context).named("web").problem


def test_a_name_that_is_not_unique_or_not_there_is_an_error(node: Node) -> None:
    node.holds(dataset("tank/vm/web", role=Role.PRIMARY), dataset("ssd/vm/web", role=Role.PRIMARY))
    stock = look_around(node.context)
    with pytest.raises(OperationFailed, match="web is not unique: tank/vm/web, ssd/vm/web"):
        stock.named("web")
    with pytest.raises(OperationFailed, match="no VM of that name") as caught:
        stock.named("we")
    assert caught.value.hint == "hoster vm list"


def test_a_dry_run_shows_what_would_be_and_runs_nothing_that_changes(node: Node) -> None:
    node.holds(
        dataset("tank/vm/web", "h1 h2* h3 ~5", Role.PRIMARY), dataset("tank/vm/db", "h1", Role.PRIMARY)
    )
    report = snapshot_all(node.context, SnapshotRequest(HOURLY, 1, dry_run=True))
    db, web = report.vms
    assert report.dry_run
    assert (db.outcome, web.outcome) == (Outcome.UNCHANGED, Outcome.PLANNED)
    assert web.taken == (f"tank/vm/web@{NEW}",)
    assert [gone.snapshot[-5:] for gone in web.destroyed] == ["01-00", "03-00"]
    assert web.notes[-1].endswith("it is held")
    assert {command[:2] for command in node.runner.commands} == {("zfs", "get"), ("zpool", "sync")}


def test_what_could_not_be_destroyed_is_a_note_and_no_failure(node: Node) -> None:
    node.holds(dataset("tank/vm/web", "h1 h2", Role.PRIMARY))
    node.destroying("error 16", "done")
    report = snapshot_one(node.context, "web", SnapshotRequest(HOURLY, 1, "before it"))
    vm = report.vms[0]
    assert vm.outcome is Outcome.DONE
    assert [gone.snapshot[-5:] for gone in vm.destroyed] == ["02-00"]
    assert "held, being sent, or otherwise busy" in vm.notes[-1]
    assert node.runner.ran("zfs", "snapshot") == [
        ("zfs", "snapshot", "-o", "hoster:sdescription=before it", f"tank/vm/web@{NEW}")
    ]


def test_a_pool_in_which_nothing_can_be_destroyed_hides_no_snapshot_and_keeps_no_other_from_it(
    node: Node,
) -> None:
    broken = Says("", "cannot run channel program: out of memory\n", 1)
    node.runner.answer(lambda argv: argv[:2] == ("zfs", "program") and "tank" in argv, broken)
    node.destroying("done")
    node.holds(
        dataset("tank/vm/web", "h1 ~5", Role.PRIMARY),
        dataset("tank/vm/new", "~5", Role.PRIMARY),
        dataset("ssd/vm/db", "h1 ~5", Role.PRIMARY),
    )
    db, new, web = snapshot_all(node.context, SnapshotRequest(HOURLY, 1)).vms
    assert (db.outcome, len(db.destroyed)) == (Outcome.DONE, 1)
    assert (new.outcome, new.taken) == (Outcome.DONE, (f"tank/vm/new@{NEW}",))
    assert (web.outcome, web.taken, web.destroyed) == (Outcome.FAILED, (f"tank/vm/web@{NEW}",), ())
    assert "older ones could not be destroyed: local: destroying snapshots: cannot run" in web.reason


def test_what_could_not_be_taken_prunes_nothing(node: Node) -> None:
    full = Says("", "cannot create snapshots: out of space\n", 1)
    node.runner.answer(("zfs", "snapshot"), full)
    node.holds(dataset("tank/vm/web", "h1 h2", Role.PRIMARY))
    report = snapshot_one(node.context, "web", SnapshotRequest(HOURLY, 1))
    assert report.vms[0].outcome is Outcome.FAILED
    assert report.vms[0].destroyed == ()
    assert node.runner.ran("zfs", "program") == []


def test_all_takes_primaries_only_and_production_only_where_asked(node: Node) -> None:
    idle = replace(
        dataset("tank/vm/idle", "~1", Role.PRIMARY), marks=Marks("x", Role.PRIMARY, production=False)
    )
    node.holds(
        dataset("tank/vm/web", "~1", Role.PRIMARY), dataset("tank/vm/copy", "a ~1", Role.REPLICA), idle
    )
    everything = snapshot_all(node.context, SnapshotRequest(HOURLY, None))
    production = snapshot_all(node.context, SnapshotRequest(HOURLY, None), production_only=True)
    assert [vm.vm for vm in everything.vms] == ["idle", "web"]
    assert [vm.vm for vm in production.vms] == ["web"]


def test_always_takes_of_a_vm_in_which_nothing_was_written(node: Node) -> None:
    node.holds(dataset("tank/vm/web", "h1", Role.PRIMARY))
    report = snapshot_all(node.context, SnapshotRequest(HOURLY, None), always=True)
    assert report.vms[0].outcome is Outcome.DONE


@pytest.mark.parametrize("role", [Role.REPLICA, Role.SUPERSEDED])
def test_a_replica_is_snapshotted_by_its_source(node: Node, role: Role) -> None:
    node.holds(dataset("tank/vm/web", "h1", role))
    with pytest.raises(Refused, match=f"web is marked {role} on this node") as caught:
        snapshot_one(node.context, "web", SnapshotRequest(HOURLY, None))
    assert caught.value.exit_code is ExitCode.REFUSED
    assert caught.value.hint == "on node1: hoster snapshot new web"


@pytest.mark.parametrize(
    ("history", "role", "said"),
    [
        ("a* b", Role.PRIMARY, "is held"),
        ("a^ b", Role.PRIMARY, "is a clone of it"),
        ("a@1 b", Role.PRIMARY, "is what a target's next increment starts from"),
        ("z a", Role.REPLICA, "is the newest version of this replica"),
    ],
)
def test_a_snapshot_that_is_needed_is_not_destroyed(node: Node, history: str, role: Role, said: str) -> None:
    node.holds(dataset("tank/vm/web", history, role))
    with pytest.raises(Refused, match=said) as caught:
        destroy_snapshot(node.context, "web", "a")
    assert caught.value.hint
    assert node.runner.ran("zfs", "program") == []


@pytest.mark.parametrize("name", ["a", "tank/vm/web@a"])
def test_a_snapshot_is_destroyed_by_its_short_or_full_name(node: Node, name: str) -> None:
    node.holds(dataset("tank/vm/web", "a b", Role.PRIMARY), dataset("tank/vm/web/d0", "a"))
    node.destroying("done", "done")
    report = destroy_snapshot(node.context, "web", name)
    assert [gone.snapshot for gone in report.vms[0].destroyed] == ["tank/vm/web@a", "tank/vm/web/d0@a"]


@pytest.mark.parametrize(
    ("name", "kind"), [("x", OperationFailed), ("tank/vm/db@a", Refused), ("", OperationFailed)]
)
def test_a_snapshot_of_another_vm_or_of_none_is_not_destroyed(
    node: Node, name: str, kind: type[Exception]
) -> None:
    node.holds(dataset("tank/vm/web", "a b", Role.PRIMARY), dataset("tank/vm/db", "a", Role.PRIMARY))
    with pytest.raises(kind):
        destroy_snapshot(node.context, "web", name)


def test_a_destruction_that_zfs_refuses_is_a_failure(node: Node) -> None:
    node.holds(dataset("tank/vm/web", "a b", Role.PRIMARY))
    node.destroying("changed")
    with pytest.raises(OperationFailed, match="something else has taken its name"):
        destroy_snapshot(node.context, "web", "a")


def test_a_dry_run_of_a_destruction_destroys_nothing(node: Node) -> None:
    node.holds(dataset("tank/vm/web", "a b", Role.PRIMARY))
    report = destroy_snapshot(node.context, "web", "a", dry_run=True)
    assert report.vms[0].outcome is Outcome.PLANNED
    assert node.runner.ran("zfs", "program") == []


def test_a_listing_says_what_a_target_needs(node: Node) -> None:
    node.holds(dataset("tank/vm/web", "a b@1 c", Role.PRIMARY))
    assert [(item.snapshot.name, item.needed) for item in list_snapshots(look_around(node.context))] == [
        ("a", False),
        ("b", True),
        ("c", False),
    ]


def test_first_marks_are_new_each_time_and_become_properties() -> None:
    one, other = first_marks("node1", production=False), first_marks("node1", production=False)
    assert one.vm_id != other.vm_id
    assert properties_of(one) == {
        "hoster:id": one.vm_id,
        "hoster:role": "primary",
        "hoster:epoch": "1@node1",
        "hoster:parent": "node1",
        "hoster:production": "no",
    }
    assert properties_of(Marks()) == {}
