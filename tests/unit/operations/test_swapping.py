"""A swap carried out on a model of ZFS, and killed at every command: it is finished, or never was."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from hoster.errors import OperationFailed, Refused
from hoster.host.process import Completed
from hoster.host.reach import LocalHost
from hoster.operations.swapping import finish, finish_left, new_stamp, restore, roll_back_in_place, swap
from hoster.testing import Answer, NamedHost, Says, ScriptedRunner, dataset, listing
from hoster.zfs.store import ZfsStore
from tests.zfsmodel.cluster import Accident, Fault, Killed, ModelCluster
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.state import Kind

ROOT = "tank/vm/web"
STAMP = "20240101T120000Z"
BRANCH = f"{ROOT}.branch-{STAMP}"
LATER = "20240202T120000Z"
LAST = "20240303T120000Z"
KILLS = (Accident.KILLED_BEFORE, Accident.KILLED_AFTER)

State = dict[str, tuple[list[str], dict[str, str], list[str], str]]
"""Of each dataset: its snapshots, its local properties, who may what with it, and what it is a clone of."""


class Delegating(ModelCluster):
    """The model with ``zfs allow`` and ``zfs get all``; ``allowed`` is by the GUIDs of datasets."""

    allowed: dict[int, list[str]]

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        said: Callable[[Sequence[str]], str]
        match tuple(argv):
            case ("zfs", "allow", *words):
                said, given = self._allow, words
            case ("zfs", "get", "-Hp", "-s", "local", "-o", "name,property,value", "all", *names):
                said, given = self._local, names
            case _:
                return super().run(argv, stdin=stdin, timeout_s=timeout_s)
        self.commands.append(tuple(argv))
        self._before()
        printed = said(given)
        self._after()
        return Completed(tuple(argv), 0, printed, "")

    def _allow(self, words: Sequence[str]) -> str:
        *permissions, name = words
        lines = self.allowed.setdefault(self.nodes["local"].dataset(name).guid, [])
        if permissions:
            assert permissions[:2] == ["-l", "-u"]
            lines[:] = sorted({*lines, " ".join(permissions[2:])})
            return ""
        heading = f"---- Permissions on {name} ".ljust(70, "-")
        return "\n".join([heading, "Local permissions:", *(f"\tuser {line}" for line in lines)]) + "\n"

    def _local(self, names: Sequence[str]) -> str:
        found = [(name, self.nodes["local"].dataset(name).properties) for name in names]
        return "".join(f"{name}\t{key}\t{value}\n" for name, of in found for key, value in of.items())


class World:
    """A VM with a volume and a filesystem below it, two versions of each, and data newer than both."""

    def __init__(self) -> None:
        node = ModelNode("node1")
        node.create("tank/vm", {})
        node.create(ROOT, {"compression": "zstd", "hoster:id": "5b", "hoster:role": "replica"})
        node.create(f"{ROOT}/d0", {"volsize": "8192", "refreservation": "4096"}, Kind.VOLUME)
        node.create(f"{ROOT}/d1", {"canmount": "off", "quota": "1073741824"})
        for label in ("a", "b"):
            node.snapshot([f"{name}@{label}" for name in self.names], {"hoster:from": "5b/1"})
            node.write(ROOT, 10)
            node.write(f"{ROOT}/d0", 10)
        node.bookmark(f"{ROOT}@a", f"{ROOT}#kept")
        self.node = node
        self.cluster = Delegating({"local": node})
        self.cluster.allowed = {node.dataset(ROOT).guid: ["anna mount,send"]}
        self.zfs = ZfsStore(LocalHost(), self.cluster)

    names = (ROOT, f"{ROOT}/d0", f"{ROOT}/d1")

    def state(self) -> State:
        """What there is, in values to compare."""
        return {
            name: (
                [one.name for one in found.snapshots] + [f"#{mark}" for mark in found.bookmarks],
                dict(found.properties),
                self.cluster.allowed.get(found.guid, []),
                "" if found.origin is None else f"{self.node.owner(found.origin).name}@{found.origin.name}",
            )
            for name, found in sorted(self.node.datasets.items())
        }

    def data(self) -> list[tuple[str, list[str], dict[str, str], str]]:
        """The state without delegations."""
        return [(name, found[0], found[1], found[3]) for name, found in self.state().items()]

    def swap(self) -> str:
        """Goes back to version a."""
        view = self.zfs.look([ROOT])
        wanted = [(view.datasets[name], view.datasets[name].snapshots[0]) for name in self.names]
        return swap(self.zfs, ROOT, STAMP, wanted)

    def restore(self, branch: str = STAMP, stamp: str = LATER) -> str:
        """Lets a branch be the VM again."""
        view = self.zfs.look([ROOT])
        return restore(self.zfs, ROOT, stamp, branch, [view.datasets[name] for name in view.names], [])

    def roll_back_in_place(self) -> None:
        """Gives up what was written since version b."""
        view = self.zfs.look([ROOT])
        wanted = [(view.datasets[name], view.datasets[name].snapshots[-1]) for name in self.names]
        roll_back_in_place(self.zfs, ROOT, STAMP, wanted)

    def contents(self) -> dict[str, tuple[str, bool]]:
        """What is in the VM's datasets, and whether they are mounted."""
        found = {name: self.node.datasets[name] for name in self.names if name in self.node.datasets}
        return {name: (one.content.digest, one.mounted) for name, one in found.items()}

    def recover(self) -> list[str]:
        """What the next run does first."""
        seen = tuple(self.zfs.look(["tank/vm"]).datasets.values())
        return [str(words) for words in finish_left(self.zfs, seen, {ROOT}).values()]


def test_a_swap_sets_aside_what_is_newer_and_puts_everything_else_in_place() -> None:
    world = World()
    before = world.state()
    assert world.swap() == BRANCH
    after = world.state()
    assert after[ROOT] == (["a", "#kept"], before[ROOT][1], ["anna mount,send"], "")
    assert after[f"{ROOT}/d0"] == (["a"], before[f"{ROOT}/d0"][1], [], "")
    assert after[f"{ROOT}/d1"] == (["a"], before[f"{ROOT}/d1"][1], [], "")
    assert after[f"{BRANCH}/d0"][0] == ["b"]
    assert after[f"{BRANCH}/d0"][1]["refreservation"] == "none"
    assert after[f"{BRANCH}/d1"][3] == f"{ROOT}/d1@a"
    assert after[BRANCH][1] == {
        **before[ROOT][1],
        "hoster:role": "branch",
        "hoster:branch-of": "web",
        "hoster:branched-at": STAMP,
        "canmount": "noauto",
        "hoster:canmount": "-",
    }
    assert after[BRANCH][2] == ["anna mount,send"]
    assert set(after) - set(before) == {BRANCH, f"{BRANCH}/d0", f"{BRANCH}/d1"}


def test_to_and_fro_everything_is_as_it_was() -> None:
    world = World()
    before, contents = world.state(), world.contents()
    world.swap()
    there, went_back = world.state(), world.contents()
    assert went_back != contents
    assert world.restore() == f"{ROOT}.branch-{LATER}"
    assert world.contents() == contents
    assert {name: found for name, found in world.state().items() if name in before} == before
    assert world.restore(LATER, LAST) == f"{ROOT}.branch-{LAST}"
    assert world.contents() == went_back
    named = {name.replace(LAST, STAMP): found for name, found in world.state().items()}
    assert {name: found[0] for name, found in named.items()} == {name: f[0] for name, f in there.items()}


def test_in_place_what_was_written_is_given_up_and_nothing_else() -> None:
    world = World()
    before, contents = world.state(), world.contents()
    world.roll_back_in_place()
    assert world.state() == before
    assert world.contents() != contents
    assert all(world.node.datasets[name].written == 0 for name in world.names)


def test_what_is_in_use_is_mounted_again_and_nothing_was_done() -> None:
    world = World()
    before, contents = world.state(), world.contents()
    assert contents[ROOT][1]
    world.node.datasets[ROOT].busy = True
    with pytest.raises(Refused, match="pool or dataset is busy; nothing was changed"):
        world.swap()
    assert (world.state(), world.contents()) == (before, contents)
    world.node.datasets[ROOT].busy = False
    world.swap()
    before, contents = world.state(), world.contents()
    world.node.datasets[ROOT].busy = True
    with pytest.raises(Refused):
        world.restore()
    assert (world.state(), world.contents()) == (before, contents)


def went_back() -> World:
    world = World()
    world.swap()
    return world


@pytest.mark.parametrize("accident", KILLS)
@pytest.mark.parametrize(
    ("begin", "act"),
    [(World, World.swap), (World, World.roll_back_in_place), (went_back, World.restore)],
    ids=["swap", "in-place", "restore"],
)
def test_whatever_was_killed_is_finished_with_the_old_or_the_new_data_in_place_and_mounted(
    accident: Accident, begin: Callable[[], World], act: Callable[[World], object]
) -> None:
    calm = begin()
    before = calm.data(), calm.contents()
    act(calm)
    after = calm.data(), calm.contents()
    for at in itertools.count():
        world = begin()
        world.cluster.begin(Fault(accident, at))
        try:
            act(world)
        except Killed:
            world.cluster.begin()
        else:
            assert at > 9
            return
        world.recover()
        assert (world.data(), world.contents()) in (before, after), f"killed at {world.cluster.commands[-9:]}"


def test_an_anchor_that_would_leave_the_vm_is_replaced_before_anything_else() -> None:
    world = World()
    key = "00000000000000aa"
    newest = world.node.dataset(ROOT).snapshots[-1]
    world.node.bookmark(f"{ROOT}@b", f"{ROOT}#hoster-{key}-{newest.guid:016x}")
    world.swap()
    guid = world.node.dataset(ROOT).snapshots[0].guid
    assert f"hoster-{key}-{guid:016x}" in world.node.dataset(ROOT).bookmarks
    assert f"hoster-{key}-{newest.guid:016x}" in world.node.dataset(BRANCH).bookmarks


def test_bookmarks_of_one_name_do_not_meet() -> None:
    """The model stops where a kernel would."""
    world = World()
    world.swap()
    world.node.bookmark(f"{ROOT}@a", f"{ROOT}#x")
    world.node.bookmark(f"{BRANCH}@b", f"{BRANCH}#x")
    world.restore()
    assert set(world.node.dataset(ROOT).bookmarks) == {"kept", "x", "x.2"}


def killed(at: int, accident: Accident) -> World | None:
    """A world in which the swap was killed at that command; None where it had none of that number."""
    world = World()
    world.cluster.begin(Fault(accident, at))
    try:
        world.swap()
    except Killed:
        world.cluster.begin()
        return world
    return None


@pytest.mark.parametrize("accident", KILLS)
def test_a_swap_that_was_killed_at_any_command_is_finished_by_the_next_run_or_was_never_begun(
    accident: Accident,
) -> None:
    calm = World()
    before = calm.data()
    calm.swap()
    for at in itertools.count():
        world = killed(at, accident)
        if world is None:
            assert at > 20
            return
        world.recover()
        assert world.data() in (before, calm.data()), f"killed at {world.cluster.commands[at]}"
        assert world.recover() == []


@pytest.mark.parametrize("accident", KILLS)
def test_delegations_are_there_wherever_a_swap_was_killed(accident: Accident) -> None:
    for at in itertools.count():
        world = killed(at, accident)
        if world is None:
            return
        world.recover()
        _, _, allowed, _ = world.state()[ROOT]
        assert allowed == ["anna mount,send"], f"killed at {world.cluster.commands[at]}"


def test_recovery_may_be_killed_again_and_again() -> None:
    calm = World()
    before = calm.data()
    calm.swap()
    for at in itertools.count():
        world = killed(at, Accident.KILLED_AFTER)
        if world is None:
            return
        for again in range(9, 2, -1):
            world.cluster.begin(Fault(Accident.KILLED_AFTER, again))
            with contextlib.suppress(Killed):
                world.recover()
        world.cluster.begin()
        world.recover()
        assert world.data() in (before, calm.data()), f"killed at {at}"


def test_what_is_finished_is_said_with_the_moment_it_was_begun() -> None:
    world = World()
    world.cluster.begin(Fault(Accident.KILLED_BEFORE, 8))
    with pytest.raises(Killed):
        world.swap()
    world.cluster.begin()
    assert world.recover() == [
        f"finished setting aside the newer part of {ROOT} (as of {STAMP}), which was interrupted"
    ]


def test_a_version_that_vanished_meanwhile_is_an_error_of_the_node_and_changes_nothing() -> None:
    runner = ScriptedRunner()
    web = dataset(ROOT, "a")
    runner.answer(("on", "backup1", "zfs", "get", "-Hp", "-s"), Says())
    intent = f"{ROOT}\thoster:swap\t{STAMP}/{1:016x}/-/{ROOT}\tlocal"
    lines = listing(web).replace(f"{ROOT}\thoster:swap\t-\t-", intent)
    runner.answer(("on", "backup1", "zfs", "get"), Says(lines))
    with pytest.raises(OperationFailed, match=f"backup1: {ROOT} has no version 0000000000000001 to go back"):
        finish(ZfsStore(NamedHost("backup1"), runner), ROOT, STAMP)


RESERVE = ("zfs", "set", "refreservation=4096", f"{ROOT}/d0")
GIVE_UP = ("zfs", "set", "refreservation=none", f"{BRANCH}/d0")
NO_ROOM = Says("", "cannot set property for 'tank/vm/web/d0': out of space\n", 255)


def crowded(world: World, *second: Answer) -> ScriptedRunner:
    """Lets the first reservation of a world find no room, and the second what is given."""
    runner = ScriptedRunner()
    runner.answer(RESERVE, NO_ROOM, *second)
    runner.answer(lambda argv: True, lambda argv, stdin: _said(world.cluster.run(argv, stdin=stdin)))
    world.zfs = ZfsStore(LocalHost(), runner)
    return runner


def test_reservations_are_given_up_first_where_there_is_no_room_for_both() -> None:
    world = World()
    runner = crowded(world, Says())
    world.swap()
    about = [command for command in runner.commands if command in (RESERVE, GIVE_UP)]
    assert about == [RESERVE, GIVE_UP, RESERVE]


def test_a_reservation_that_was_given_up_first_is_made_again_after_a_crash() -> None:
    def kill(argv: tuple[str, ...], stdin: str) -> Says:
        raise Killed

    world = World()
    crowded(world, kill)
    with pytest.raises(Killed):
        world.swap()
    world.zfs = ZfsStore(LocalHost(), world.cluster)
    world.recover()
    assert world.state()[f"{ROOT}/d0"][1]["refreservation"] == "4096"


def _said(completed: Completed) -> Says:
    return Says(completed.stdout, completed.stderr, completed.returncode)


def test_a_stamp_is_utc_to_the_second() -> None:
    assert new_stamp(datetime(2024, 1, 1, 12, tzinfo=UTC), ROOT, ()) == STAMP


def test_a_stamp_that_a_branch_has_already_gives_way_to_the_next_second() -> None:
    taken = (BRANCH, f"{ROOT}.branch-20240101T120001Z", "tank/vm/db.branch-20240101T120002Z")
    assert new_stamp(datetime(2024, 1, 1, 12, tzinfo=UTC), ROOT, taken) == "20240101T120002Z"
