"""ZFS of one node behind a scripted runner: what is run, and what is made of the answers."""

from __future__ import annotations

import json

import pytest

from hoster.errors import (
    DatasetBusy,
    DatasetMissing,
    NoSpace,
    NotPermitted,
    TargetModified,
    Unreachable,
    ZfsError,
)
from hoster.host.reach import LocalHost, remote_shell_line
from hoster.model.plan import Anchor, Send
from hoster.model.storage import Role
from hoster.testing import NamedHost, Says, ScriptedRunner, dataset, listing, target_key
from hoster.zfs.programs import DESTROY, digits
from hoster.zfs.store import SnapshotMark, ZfsStore, missing, pool_of, transfer
from hoster.zfs.streams import HEAD_BYTES

WEB = dataset("tank/vm/web", "a b c", Role.PRIMARY)
A, B, C = WEB.snapshots
GONE = "cannot open 'tank/vm/x': dataset does not exist\n"


@pytest.fixture
def runner() -> ScriptedRunner:
    return ScriptedRunner()


@pytest.fixture
def local(runner: ScriptedRunner) -> ZfsStore:
    return ZfsStore(LocalHost(), runner)


@pytest.fixture
def remote(runner: ScriptedRunner) -> ZfsStore:
    return ZfsStore(NamedHost("backup1"), runner)


def answers(**words: str) -> Says:
    return Says(json.dumps({"return": {name.replace("__", "@"): word for name, word in words.items()}}))


def test_a_look_returns_what_is_listed(runner: ScriptedRunner, local: ZfsStore) -> None:
    runner.answer(("zfs", "get"), Says(listing(WEB)))
    assert local.look(["tank/vm"]).get("tank/vm/web") == WEB
    assert local.node == "local"


def test_a_look_at_what_does_not_exist_is_an_error(runner: ScriptedRunner, remote: ZfsStore) -> None:
    runner.answer(("on", "backup1", "zfs", "get"), Says(listing(WEB), GONE, 1))
    with pytest.raises(DatasetMissing, match="backup1: listing: cannot open 'tank/vm/x'"):
        remote.look(["tank/vm", "tank/vm/x"])


def test_a_look_for_what_may_be_missing_returns_the_rest(runner: ScriptedRunner, remote: ZfsStore) -> None:
    runner.answer(("on", "backup1", "zfs", "get"), Says(listing(WEB), GONE, 1))
    assert list(remote.look_for(["tank/vm/web", "tank/vm/x"]).datasets) == ["tank/vm/web"]
    assert list(remote.look_at(["tank/vm/web", "tank/vm/x"]).datasets) == ["tank/vm/web"]
    assert list(remote.look_beside(["tank/vm", "tank/x"]).datasets) == ["tank/vm/web"]


@pytest.mark.parametrize("said", [Says(), Says("Welcome!\n")])
def test_an_empty_listing_is_an_error_and_never_nothing(
    runner: ScriptedRunner, local: ZfsStore, said: Says
) -> None:
    runner.answer(("zfs", "get"), said)
    with pytest.raises(ZfsError, match="zfs printed nothing, which cannot be true"):
        local.look(["tank/vm"])
    with pytest.raises(ZfsError, match="zfs printed nothing, which cannot be true"):
        local.look_for(["tank/vm"])


@pytest.mark.parametrize(
    "said", ["", "cannot open 'tank': pool I/O is currently suspended", GONE + "cannot x"]
)
def test_a_listing_that_failed_for_any_other_reason_is_an_error(
    runner: ScriptedRunner, local: ZfsStore, said: str
) -> None:
    runner.answer(("zfs", "get"), Says("", said, 1))
    with pytest.raises(ZfsError):
        local.look_for(["tank/vm"])


def test_what_a_listing_that_failed_has_printed_need_not_be_whole(
    runner: ScriptedRunner, local: ZfsStore
) -> None:
    runner.answer(("zfs", "get"), Says("tank/vm\ttype\n", "cannot open 'tank': I/O error", 1))
    with pytest.raises(ZfsError, match="I/O error"):
        local.look_for(["tank/vm"])
    with pytest.raises(ZfsError, match="I/O error"):
        local.look(["tank/vm"])


def test_a_listing_that_is_none_is_an_error_though_some_are_missing(
    runner: ScriptedRunner, local: ZfsStore
) -> None:
    runner.answer(("zfs", "get"), Says("tank/vm\ttype\n", GONE, 1))
    with pytest.raises(ZfsError, match="incomplete line"):
        local.look_for(["tank/vm", "tank/vm/x"])


def test_names_that_outgrow_one_command_are_looked_for_in_several(
    runner: ScriptedRunner, remote: ZfsStore
) -> None:
    wanted = [f"tank/vm/my vm {number:05}" for number in range(10_000)]

    def answer(argv: tuple[str, ...], _: str) -> Says:
        assert len(remote_shell_line(argv)) < 128 * 1024, "Linux takes no longer argument"
        return Says(listing(*(dataset(name) for name in argv[-10_000:] if name.startswith("tank/"))))

    runner.answer(("on",), answer)
    assert list(remote.look_for(wanted).datasets) == wanted
    assert 1 < len(runner.commands) < 10
    assert remote.look_for([]).datasets == {}


def test_a_lost_connection_is_not_an_empty_node(runner: ScriptedRunner, remote: ZfsStore) -> None:
    runner.answer(("on",), Says("", "mux_client_request_session: read from master failed", 255))
    with pytest.raises(Unreachable):
        remote.look_for(["tank/vm"])


def test_programs_are_one_for_each_pool_and_read_from_standard_input(
    runner: ScriptedRunner, local: ZfsStore
) -> None:
    other = dataset("ssd/vm/db", "a").snapshots[0]
    runner.answer(("zfs", "program", "-j", "tank"), answers(tank="done"))
    runner.answer(("zfs", "program", "-j", "ssd"), answers(ssd="error 16"))
    found = local.destroy([A, other, B])
    assert [(a.name, a.done) for a in found] == [("tank", True), ("ssd", False)]
    assert [command[5:] for command in runner.commands] == [
        (A.full_name, digits(A.guid), B.full_name, digits(B.guid)),
        (other.full_name, digits(other.guid)),
    ]
    assert set(runner.inputs) == {DESTROY}


def test_no_work_is_no_command(runner: ScriptedRunner, local: ZfsStore) -> None:
    assert local.destroy([]) == local.anchor([]) == local.mark([]) == ()
    local.destroy_bookmarks([])
    assert runner.commands == []


def test_many_items_are_cut_into_programs_of_a_hundred(runner: ScriptedRunner, local: ZfsStore) -> None:
    many = dataset("tank/vm/web", " ".join(f"s{i}" for i in range(250))).snapshots
    runner.answer(("zfs", "program"), answers(x="done"))
    local.destroy(many)
    assert [(len(command) - 5) // 2 for command in runner.commands] == [100, 100, 50]


def test_an_anchor_with_an_unknown_guid_takes_the_one_it_finds(
    runner: ScriptedRunner, local: ZfsStore
) -> None:
    key = target_key("1")
    runner.answer(("zfs", "program"), Says(json.dumps({"return": {"tank/vm/web@new": "done 00ff 7"}})))
    seen = Anchor("tank/vm/web", "a", A.guid, key, "")
    found = local.anchor([seen, Anchor("tank/vm/web", "new", None, key, "")])
    assert runner.commands[0][5:] == (A.full_name, digits(A.guid), str(key), "tank/vm/web@new", "-", str(key))
    assert found[0].version == (255, 7)


def test_marks_are_set_on_the_guid_that_was_seen(runner: ScriptedRunner, local: ZfsStore) -> None:
    runner.answer(("zfs", "program"), answers(x="changed"))
    found = local.mark([SnapshotMark(A, "hoster:from", "x/1")])
    assert runner.commands[0][5:] == (A.full_name, digits(A.guid), "hoster:from", "x/1")
    assert not found[0].done


def test_a_bookmark_that_has_gone_already_is_no_error(runner: ScriptedRunner, local: ZfsStore) -> None:
    web = dataset("tank/vm/web", "#x #y")
    runner.answer(("zfs", "destroy"), Says("", "bookmark 'tank/vm/web#x' does not exist.\n", 1), Says())
    local.destroy_bookmarks(web.bookmarks)
    assert [command[2] for command in runner.commands] == ["tank/vm/web#x", "tank/vm/web#y"]


def test_snapshots_that_are_taken_together_are_one_command(runner: ScriptedRunner, local: ZfsStore) -> None:
    """Of two, the second might fail after the first one has taken half of them."""
    runner.answer(("zfs", "snapshot"))
    names = [f"tank/vm/{'w' * 150}{i}@x" for i in range(1000)]
    local.take_snapshots(names, {"hoster:sdescription": "x"})
    assert runner.commands == [("zfs", "snapshot", "-o", "hoster:sdescription=x", *names)]


def test_single_acts_say_what_they_were_when_they_fail(runner: ScriptedRunner, local: ZfsStore) -> None:
    runner.answer(("zfs", "set"), Says("", "cannot set property: out of space", 1))
    runner.answer(("zfs", "create"), Says("", "permission denied", 1))
    runner.answer(("zpool", "sync"))
    local.sync(["tank"])
    with pytest.raises(NoSpace, match="local: setting properties of a/b: cannot set property"):
        local.set_properties({"readonly": "on"}, ["a/b"])
    with pytest.raises(ZfsError, match="local: creating a/b"):
        local.create_unmounted("a/b")


@pytest.mark.parametrize(
    ("output", "version"),
    [("zfs-2.3.9-1\nzfs-kmod-2.3.9-1\n", "2.3.9-1"), ("zfs-2.1.11-1", "2.1.11-1"), ("", "unknown")],
)
def test_the_release_is_the_first_line(
    runner: ScriptedRunner, local: ZfsStore, output: str, version: str
) -> None:
    runner.answer(("zfs", "version"), Says(output))
    assert local.version() == version


def stream(base: bool) -> Send:
    return Send(A if base else None, C, base, "backup/web", "")


def run_transfer(runner: ScriptedRunner, step: Send) -> tuple[int, list[int]]:
    chunks: list[int] = []
    source, target = ZfsStore(LocalHost(), runner), ZfsStore(NamedHost("backup1"), runner)
    piped = transfer(runner, source, target, step, {"hoster:role": "replica"}, chunks.append)
    return piped.sent_bytes, chunks


def test_a_transfer_joins_send_here_and_receive_there(runner: ScriptedRunner) -> None:
    runner.answer(("zfs", "send"), Says("stream"))
    runner.answer(("on", "backup1", "zfs", "receive"))
    assert run_transfer(runner, stream(base=True)) == (6, [6])
    assert runner.commands[1][2:] == (
        *("zfs", "receive", "-s", "-u", "-o", "readonly=on", "-o", "canmount=noauto"),
        *("-x", "mountpoint", "backup/web"),
    )


def test_only_a_first_stream_brings_marks(runner: ScriptedRunner) -> None:
    runner.answer(("zfs", "send"))
    runner.answer(("on",))
    run_transfer(runner, stream(base=False))
    assert "hoster:role=replica" in runner.commands[1]


@pytest.mark.parametrize(
    ("send", "receive", "kind", "said"),
    [
        (
            Says(),
            Says("", "has been modified", 1),
            TargetModified,
            "backup1: sending tank/vm/web@c: has been",
        ),
        (Says("", "dataset does not exist", 1), Says(), DatasetMissing, "local: sending tank/vm/web@c"),
        (Says("", "", -13), Says("", "out of space", 1), NoSpace, "backup1: sending"),
        (Says("", "cannot send: I/O error", 1), Says("", "", 1), ZfsError, "local: sending .* I/O error"),
        (Says("", "", 1), Says(), ZfsError, "local: sending tank/vm/web@c: exit status 1"),
        (Says(), Says("", "", -9), ZfsError, "backup1: sending tank/vm/web@c: exit status -9"),
    ],
)
def test_a_pipe_in_which_either_end_failed_has_failed_and_the_end_that_spoke_is_heard(
    runner: ScriptedRunner, send: Says, receive: Says, kind: type[ZfsError], said: str
) -> None:
    runner.answer(("zfs", "send"), send)
    runner.answer(("on",), receive)
    with pytest.raises(kind, match=said):
        run_transfer(runner, stream(base=True))


LOCAL = "tank/vm/web\tcompression\tzstd\ntank/vm/web\torg:note\t{}\ntank/vm/web/d0\tvolsize\t8\n"


@pytest.mark.parametrize(
    "value", ["", "x", "a\tb", "a\nb", "a\n\nb", "a\n", "tank\tx\ty", "\n", "a\u2028b", "a\x0bb\x0cc"]
)
def test_local_properties_come_through_whatever_they_hold(
    runner: ScriptedRunner, local: ZfsStore, value: str
) -> None:
    runner.answer(("zfs", "get"), Says(LOCAL.format(value)))
    assert local.local_properties(["tank/vm/web", "tank/vm/web/d0", "tank/vm/web/d1"]) == {
        "tank/vm/web": {"compression": "zstd", "org:note": value},
        "tank/vm/web/d0": {"volsize": "8"},
        "tank/vm/web/d1": {},
    }


def test_what_a_login_says_before_local_properties_is_passed_over(
    runner: ScriptedRunner, remote: ZfsStore
) -> None:
    runner.answer(("on",), Says("Welcome!\n\n" + LOCAL.format("x")))
    assert remote.local_properties(["tank/vm/web"])["tank/vm/web"]["compression"] == "zstd"


def test_delegations_are_copied_one_by_one(runner: ScriptedRunner, local: ZfsStore) -> None:
    heading = "---- Permissions on tank/vm/web ".ljust(70, "-")
    shown = f"{heading}\nLocal permissions:\n\tuser anna mount\n\teveryone diff\n"
    runner.answer(("zfs", "allow", "tank/vm/web"), Says(shown))
    runner.answer(("zfs", "allow"))
    local.copy_delegations("tank/vm/web", "tank/new")
    assert [" ".join(command[2:]) for command in runner.commands[1:]] == [
        "-l -u anna mount tank/new",
        "-l -e diff tank/new",
    ]


def test_the_beginning_of_a_stream_is_had_from_its_sender(runner: ScriptedRunner, local: ZfsStore) -> None:
    runner.answer(("zfs", "send"), Says("\xff" * (HEAD_BYTES + 9)))
    assert local.stream_head(stream(base=True)) == b"\xff" * HEAD_BYTES
    assert runner.commands == [("zfs", "send", "-L", "-c", "-I", A.full_name, C.full_name)]


def test_that_there_is_nothing_to_give_up_is_no_error(runner: ScriptedRunner, remote: ZfsStore) -> None:
    nothing = "'tank/vm/web' does not have any resumable receive state to abort\n"
    runner.answer(("on",), Says(), Says("", nothing, 1), Says("", "cannot open 'x': permission denied\n", 1))
    remote.give_up_partial("tank/vm/web")
    remote.give_up_partial("tank/vm/web")
    with pytest.raises(NotPermitted, match="backup1: giving up what has arrived of tank/vm/web"):
        remote.give_up_partial("tank/vm/web")


def test_holds_and_releases_are_cut_into_command_lines_that_fit(
    runner: ScriptedRunner, local: ZfsStore
) -> None:
    runner.answer(("zfs",))
    names = [f"tank/vm/{'w' * 150}{i}@x" for i in range(1000)]
    local.hold("hoster-1", names)
    local.release("hoster-1", names)
    for verb in ("hold", "release"):
        commands = runner.ran("zfs", verb, "hoster-1")
        assert [name for command in commands for name in command[3:]] == names
        assert len(commands) == 2


def test_a_snapshot_to_release_that_has_gone_is_no_error(runner: ScriptedRunner, local: ZfsStore) -> None:
    runner.answer(("zfs", "release"), Says("", GONE, 1), Says("", "permission denied", 1))
    local.release("hoster-1", ["tank/vm/x@a"])
    with pytest.raises(NotPermitted, match="local: releasing snapshots"):
        local.release("hoster-1", ["tank/vm/x@a"])


def test_holds_are_listed_by_snapshot_and_tag(runner: ScriptedRunner, local: ZfsStore) -> None:
    runner.answer(("zfs", "holds"), Says("a/b@c\tmine\tMon Jan  1 12:00 2024\na/b@c\tyours\tMon\n\nx\n"))
    assert local.holds(["a/b@c"]) == {("a/b@c", "mine"), ("a/b@c", "yours")}
    assert local.holds([]) == frozenset()
    assert len(runner.commands) == 1


def test_every_single_act_on_a_dataset_is_one_command(runner: ScriptedRunner, local: ZfsStore) -> None:
    runner.answer(("zfs",))
    local.clone("a/b@c", "a/d", {"x:y": "1"})
    local.promote("a/d")
    local.rename("a/b", "a/e")
    local.inherit("hoster:swap", ["a/e"])
    local.destroy_dataset("a/e")
    local.rollback("a/e@c")
    local.bookmark("a/e@c", "a/e#d")
    verbs = ["clone", "promote", "rename", "inherit", "destroy", "rollback", "bookmark"]
    assert [command[1] for command in runner.commands] == verbs


@pytest.mark.parametrize(
    ("verb", "nothing_to_do"),
    [
        ("mount", "cannot mount 'a/b': filesystem already mounted\n"),
        ("unmount", "cannot unmount 'a/b': not currently mounted\n"),
    ],
)
def test_mounting_and_unmounting_twice_is_no_error_and_a_mount_in_use_is(
    runner: ScriptedRunner, local: ZfsStore, verb: str, nothing_to_do: str
) -> None:
    busy = f"cannot {verb} '/a/b': pool or dataset is busy\n"
    runner.answer(("zfs", verb, "a/b"), Says(), Says("", nothing_to_do, 1), Says("", busy, 1))
    act = local.mount if verb == "mount" else local.unmount
    act("a/b")
    act("a/b")
    with pytest.raises(DatasetBusy, match=f"local: {verb}ing a/b: "):
        act("a/b")


@pytest.mark.parametrize("name", ["tank", "tank/vm", "tank@a", "tank#b", "tank/vm@a/b", "tank/vm#b@c"])
def test_the_pool_of_anything_is_its_first_part(name: str) -> None:
    assert pool_of(name) == "tank"


def test_what_a_look_did_not_find_has_an_error_of_its_own() -> None:
    assert missing("backup1", "a/b").message == "backup1: a/b does not exist"


def test_a_node_says_which_machine_it_is(remote: ZfsStore) -> None:
    assert (remote.node, remote.machine) == ("backup1", "another machine")
