"""Each rule of the model of OpenZFS, in the words of zfs. The lab holds it against the real one."""

from __future__ import annotations

import json

import pytest

from hoster.zfs.argv import look
from hoster.zfs.parse import parse_view
from hoster.zfs.programs import ANCHOR, DESTROY, MARK, digits
from hoster.zfs.streams import key_digest
from tests.zfsmodel.command import UnknownCommand, command, received, sent
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.state import KernelPanicked
from tests.zfsmodel.streams import Cut, head_of, text_of


def zfs(node: ModelNode, line: str, stdin: str = "") -> str:
    """Runs a command; what it says if it fails, else what it prints."""
    words = line.split() if line.startswith("write") else ["zfs", *line.split()]
    code, out, err = command(node, words, stdin)
    assert bool(code) == bool(err)
    return err if code else out


def pipe(node: ModelNode, send: str, receive: str, cut: Cut | None = None) -> str:
    stream = sent(node, ["zfs", "send", *send.split()])
    code, _, err = received(node, ["zfs", "receive", *receive.split()], stream, cut)
    return err if code else ""


def names(node: ModelNode, dataset: str) -> list[str]:
    return [snapshot.name for snapshot in node.datasets[dataset].snapshots]


@pytest.fixture
def node() -> ModelNode:
    """tank/a with s1, s2, s3, each after a write; tank/b for what is received."""
    node = ModelNode("one")
    for line in ("create tank/a", "create tank/b"):
        assert zfs(node, line) == ""
    for name in ("s1", "s2", "s3"):
        zfs(node, "write tank/a 300000")
        zfs(node, f"snapshot tank/a@{name}")
    return node


def test_snapshots_of_one_command_are_all_or_nothing_at_one_moment(node: ModelNode) -> None:
    assert "dataset does not exist" in zfs(node, "snapshot tank/a@x tank/none@x")
    assert "already exists" in zfs(node, "snapshot tank/b@s1 tank/a@s1")
    zfs(node, "snapshot tank/b@s9")
    every = "tank/a@s1': dataset already exists\ncannot create snapshot 'tank/b@s9': dataset already exists\n"
    assert f"{every}no snapshots were created" in zfs(node, "snapshot tank/a@s1 tank/b@s9")
    zfs(node, "destroy tank/b@s9")
    assert "x" not in names(node, "tank/a")
    assert names(node, "tank/b") == []
    zfs(node, "snapshot tank/a@x tank/b@x")
    both = [node.datasets[name].snapshots[-1].createtxg for name in ("tank/a", "tank/b")]
    assert both[0] == both[1]


def test_what_a_destroyed_snapshot_had_written_counts_for_the_next(node: ModelNode) -> None:
    zfs(node, "destroy tank/a@s3")
    assert node.datasets["tank/a"].written == 300000
    assert "held" in (zfs(node, "hold k tank/a@s1"), zfs(node, "destroy tank/a@s1"))[1]


def test_holds_are_taken_one_by_one(node: ModelNode) -> None:
    assert "does not exist" in zfs(node, "hold k tank/a@none tank/a@s1")
    assert zfs(node, "holds -Hp tank/a@s1").split("\t")[:2] == ["tank/a@s1", "k"]
    assert "no such tag" in zfs(node, "release other tank/a@s1")


def test_a_clone_has_none_of_its_origins_properties_and_keeps_it(node: ModelNode) -> None:
    zfs(node, "set hoster:id=1 tank/a")
    zfs(node, "clone -o hoster:role=branch tank/a@s2 tank/c")
    assert node.datasets["tank/c"].properties == {"hoster:role": "branch"}
    assert "dependent clones" in zfs(node, "destroy tank/a@s2")


def test_promotion_moves_snapshots_holds_and_bookmarks_up_to_the_origin(node: ModelNode) -> None:
    zfs(node, "hold k tank/a@s1")
    for name in ("s1", "s3"):
        zfs(node, f"bookmark tank/a@{name} tank/a#{name}")
    zfs(node, "clone tank/a@s2 tank/c")
    assert zfs(node, "promote tank/c") == ""
    assert (names(node, "tank/c"), names(node, "tank/a")) == (["s1", "s2"], ["s3"])
    assert (list(node.datasets["tank/c"].bookmarks), list(node.datasets["tank/a"].bookmarks)) == (
        ["s1"],
        ["s3"],
    )
    assert node.datasets["tank/c"].snapshots[0].holds
    assert zfs(node, "get -Hp -o value origin tank/a") == "tank/c@s2\n"
    assert "not a cloned" in zfs(node, "promote tank/c")


def test_promotion_over_a_name_that_the_clone_has_is_refused_and_over_a_bookmarks_is_fatal(
    node: ModelNode,
) -> None:
    zfs(node, "clone tank/a@s2 tank/c")
    zfs(node, "snapshot tank/c@s1")
    assert "conflicting snapshot 's1' from parent 'tank/a@s2'" in zfs(node, "promote tank/c")
    zfs(node, "bookmark tank/a@s1 tank/a#m")
    zfs(node, "bookmark tank/c@s1 tank/c#m")
    zfs(node, "destroy tank/c@s1")
    with pytest.raises(KernelPanicked):
        zfs(node, "promote tank/c")


def test_a_rename_takes_all_below_along_and_fails_where_a_mount_is_in_use(node: ModelNode) -> None:
    zfs(node, "create tank/a/k")
    node.datasets["tank/a/k"].busy = True
    assert zfs(node, "rename tank/a tank/z") == "cannot unmount '/tank/a/k': pool or dataset is busy\n"
    node.datasets["tank/a/k"].busy = False
    zfs(node, "rename tank/a tank/z")
    assert {"tank/z", "tank/z/k"} <= node.datasets.keys()


def test_a_rollback_needs_everything_newer_gone_bookmarks_too(node: ModelNode) -> None:
    zfs(node, "bookmark tank/a@s3 tank/a#s3")
    assert "tank/a@s3" in zfs(node, "rollback tank/a@s2")
    zfs(node, "destroy tank/a@s3")
    assert "tank/a#s3" in zfs(node, "rollback tank/a@s2")
    zfs(node, "destroy tank/a#s3")
    assert zfs(node, "rollback tank/a@s2") == ""
    assert node.datasets["tank/a"].content == node.datasets["tank/a"].snapshots[-1].content


def test_an_increment_of_several_needs_a_snapshot_and_starts_from_the_newest(node: ModelNode) -> None:
    zfs(node, "bookmark tank/a@s1 tank/a#s1")
    assert pipe(node, "tank/a@s1", "-u -o hoster:id=1 tank/b/r") == ""
    with pytest.raises(Exception, match="multiple snapshots cannot be sent from a bookmark"):
        sent(node, ["zfs", "send", "-I", "tank/a#s1", "tank/a@s3"])
    assert "most recent snapshot" in pipe(node, "-i @s2 tank/a@s3", "-u tank/b/r")
    assert pipe(node, "-i tank/a#s1 tank/a@s2", "-u tank/b/r") == ""
    assert pipe(node, "-I tank/a@s1 tank/a@s3", "-u tank/b/r") == ""
    assert pipe(node, "-I tank/a@s1 tank/a@s3", "-u tank/b/r") == "", "what is there is passed over"
    assert [one.guid for one in node.datasets["tank/b/r"].snapshots] == [
        one.guid for one in node.datasets["tank/a"].snapshots
    ]
    assert "must specify -F" in pipe(node, "tank/a@s1", "-u tank/b/r")


def test_what_was_written_on_the_target_stops_an_increment_and_an_empty_snapshot_does_not(
    node: ModelNode,
) -> None:
    pipe(node, "tank/a@s1", "-u tank/b/r")
    zfs(node, "snapshot tank/b/r@extra")
    assert pipe(node, "-i @s1 tank/a@s2", "-u tank/b/r") == ""
    zfs(node, "mount tank/b/r")
    zfs(node, "write tank/b/r 10")
    assert "has been modified" in pipe(node, "-i @s2 tank/a@s3", "-u tank/b/r")
    zfs(node, "snapshot tank/b/r@mine")
    assert "has been modified" in pipe(node, "-i @s2 tank/a@s3", "-u tank/b/r")
    assert pipe(node, "-i @s2 tank/a@s3", "-u -F tank/b/r") == ""
    assert names(node, "tank/b/r") == ["s1", "extra", "s2", "s3"], "-F has destroyed what stood in its way"


def test_a_name_that_another_version_has_stops_the_stream_there(node: ModelNode) -> None:
    pipe(node, "tank/a@s1", "-u tank/b/r")
    zfs(node, "snapshot tank/b/r@s3")
    said = pipe(node, "-I @s1 tank/a@s3", "-u tank/b/r")
    assert said == "cannot restore to tank/b/r@s3: destination already exists\n"
    assert names(node, "tank/b/r") == ["s1", "s3", "s2"]


def test_a_cut_stream_leaves_whole_versions_and_with_s_a_token_that_resumes(node: ModelNode) -> None:
    assert "incomplete" in pipe(node, "tank/a@s1", "-u -o hoster:id=1 tank/b/r", Cut(0, 0.5))
    assert "tank/b/r" not in node.datasets
    pipe(node, "tank/a@s1", "-u -s -o hoster:id=1 tank/b/r", Cut(0, 0.5))
    there = node.datasets["tank/b/r"]
    assert (there.inconsistent, there.properties) == (True, {"hoster:id": "1"})
    assert there.partial is not None
    token = text_of(there.partial)
    assert f"toguid = {there.partial.to_guid:#x}" in zfs(node, f"send -nvt {token}")
    assert pipe(node, f"-t {token}", "-u -s tank/b/r") == ""
    assert "incomplete" in pipe(node, "-I @s1 tank/a@s3", "-u -s -o hoster:id=2 tank/b/r", Cut(1, 0.5))
    assert (names(node, "tank/b/r"), there.properties) == (["s1", "s2"], {"hoster:id": "2"})
    assert "partially-complete" in pipe(node, "-i @s2 tank/a@s3", "-u tank/b/r")
    assert "tank/b/r/%recv" in zfs(node, "destroy tank/b/r@s2")
    assert zfs(node, "receive -A tank/b/r") == ""
    assert "any resumable receive state" in zfs(node, "receive -A tank/b/r")
    assert "corrupt" in zfs(node, "send -nvt foo")


def test_a_cut_increment_takes_back_the_values_that_it_brought(node: ModelNode) -> None:
    pipe(node, "tank/a@s1", "-u tank/b/r")
    pipe(node, "-i @s1 tank/a@s2", "-u -o hoster:id=1 tank/b/r", Cut(0, 0.5))
    assert node.datasets["tank/b/r"].properties == {}


def test_raw_and_plain_do_not_mix(node: ModelNode) -> None:
    zfs(node, "create -o encryption=on -o keyformat=raw tank/e")
    for name in ("s1", "s2"):
        zfs(node, "write tank/e 9")
        zfs(node, f"snapshot tank/e@{name}")
    pipe(node, "-w tank/e@s1", "-u tank/b/raw")
    pipe(node, "tank/e@s1", "-u tank/b/plain")
    pipe(node, "tank/e@s1", "-u tank/e/again")
    assert node.datasets["tank/b/raw"].key_root is node.datasets["tank/b/raw"]
    assert not node.datasets["tank/b/plain"].encrypted
    assert "unencrypted dataset" in pipe(node, "-w -i @s1 tank/e@s2", "-u tank/b/plain")
    assert "inherited key" in pipe(node, "-i @s1 tank/e@s2", "-u tank/b/raw")
    assert "IV set guid" in pipe(node, "-w -i @s1 tank/e@s2", "-u tank/e/again")
    zfs(node, "snapshot tank/b/raw@empty")
    assert "has been modified" in pipe(node, "-w -i @s1 tank/e@s2", "-u tank/b/raw")
    zfs(node, "destroy tank/b/raw@empty")
    assert pipe(node, "-w -i @s1 tank/e@s2", "-u tank/b/raw") == ""
    assert "outside of its encryption root" in zfs(node, "rename tank/e/again tank/again")
    for line in ("unmount tank/e", "unload-key tank/e"):
        assert zfs(node, line) == ""
    with pytest.raises(Exception, match="key must be loaded"):
        sent(node, ["zfs", "send", "tank/e@s1"])


def test_a_raw_increment_brings_the_key_along_once_it_is_whole(node: ModelNode) -> None:
    zfs(node, "create -o encryption=on -o keyformat=raw tank/e")
    for name in ("s1", "s2"):
        zfs(node, "write tank/e 300000")
        zfs(node, f"snapshot tank/e@{name}")
    pipe(node, "-w tank/e@s1", "-u tank/b/raw")
    here, there = node.datasets["tank/e"], node.datasets["tank/b/raw"]

    def digest(name: str) -> str | None:
        return key_digest(head_of(sent(node, ["zfs", "send", "-w", name])))

    before = digest("tank/e@s1")
    assert before is not None
    assert before == digest("tank/b/raw@s1")
    zfs(node, "change-key tank/e")
    assert digest("tank/e@s1") != before
    assert key_digest(head_of(sent(node, ["zfs", "send", "tank/e@s1"]))) is None
    pipe(node, "-w -i @s1 tank/e@s2", "-u -s tank/b/raw", Cut(0, 0.5))
    assert there.wrapping != here.wrapping
    assert digest("tank/b/raw@s1") == before
    assert there.partial is not None
    assert pipe(node, f"-t {text_of(there.partial)}", "-u -s tank/b/raw") == ""
    assert there.wrapping == here.wrapping
    assert digest("tank/b/raw@s1") == digest("tank/e@s1"), "older versions open with the new key as well"


def test_below_a_raw_replica_plain_streams_need_to_stay_plain(node: ModelNode) -> None:
    zfs(node, "create -o encryption=on -o keyformat=raw tank/e")
    zfs(node, "snapshot tank/e@s1")
    pipe(node, "-w tank/e@s1", "-u tank/b/raw")
    assert "inherited key must be loaded" in pipe(node, "-L -c tank/a@s1", "-u tank/b/raw/k")
    assert pipe(node, "-L -c tank/a@s1", "-u -o encryption=off tank/b/raw/k") == ""
    plain = node.datasets["tank/b/raw/k"]
    assert (plain.encrypted, plain.properties) == (False, {})


def test_what_is_closed_cannot_be_written_to_nor_get_another_key(node: ModelNode) -> None:
    zfs(node, "create -o encryption=on -o keyformat=raw tank/e")
    zfs(node, "create -V 1M tank/e/v")
    with pytest.raises(UnknownCommand):
        zfs(node, "change-key tank/e/v")
    zfs(node, "unmount tank/e")
    assert zfs(node, "unload-key tank/e") == ""
    assert "cannot write" in zfs(node, "write tank/e/v 10")
    assert "Key must be loaded" in zfs(node, "change-key tank/e")
    assert "not encrypted" in zfs(node, "change-key tank/a")


def test_only_a_loaded_key_of_an_encryption_root_can_be_unloaded(node: ModelNode) -> None:
    zfs(node, "create -o encryption=on -o keyformat=raw tank/e")
    zfs(node, "create tank/e/k")
    assert "is busy" in zfs(node, "unload-key tank/e")
    assert "for encryption root of 'tank/e/k' (tank/e)" in zfs(node, "unload-key tank/e/k")
    assert "'tank/a' is not encrypted" in zfs(node, "unload-key tank/a")
    for line in ("unmount tank/e/k", "unmount tank/e", "unload-key tank/e"):
        assert zfs(node, line) == ""
    assert "already unloaded for 'tank/e'" in zfs(node, "unload-key tank/e")


def test_a_full_target_takes_nothing_and_with_s_keeps_a_part(node: ModelNode) -> None:
    zfs(node, "set quota=100000 tank/b")
    assert "space quota exceeded" in pipe(node, "tank/a@s1", "-u tank/b/r")
    assert "tank/b/r" not in node.datasets
    pipe(node, "tank/a@s1", "-u -s tank/b/r")
    assert node.datasets["tank/b/r"].partial is not None
    node.full.add("tank")
    assert "out of space" in zfs(node, "snapshot tank/a@x")


def test_hosters_own_look_reads_what_the_model_prints(node: ModelNode) -> None:
    zfs(node, "set hoster:role=replica readonly=on tank/a")
    zfs(node, "create tank/a/k")
    zfs(node, "bookmark tank/a@s1 tank/a#m")
    code, out, err = command(node, [*look(["tank/a", "tank/none"])])
    assert (code, err) == (1, "cannot open 'tank/none': dataset does not exist")
    view = parse_view("one", out)
    assert [s.guid for s in view.datasets["tank/a"].snapshots] == [
        s.guid for s in node.datasets["tank/a"].snapshots
    ]
    assert view.datasets["tank/a/k"].marks.role is None, "inherited is not local"
    assert view.datasets["tank/a/k"].readonly
    assert len(view.datasets["tank/a"].bookmarks) == 1


def test_programs_answer_as_the_lua_does(node: ModelNode) -> None:
    first = node.datasets["tank/a"].snapshots[0]
    guid = digits(first.guid)

    def ask(lua: str, words: str) -> dict[str, str]:
        answer: dict[str, str] = json.loads(zfs(node, f"program -j tank - {words}", lua))["return"]
        return answer

    assert ask(ANCHOR, "tank/a@s1 - ff") == {"tank/a@s1": f"done {guid} {first.createtxg}"}
    assert ask(DESTROY, f"tank/a@s1 {guid} tank/a@x {guid}") == {"tank/a@s1": "anchored", "tank/a@x": "gone"}
    assert ask(MARK, f"tank/a@s1 {guid} hoster:from me") == {"tank/a@s1": "done"}
    zfs(node, f"destroy tank/a#hoster-ff-{guid}")
    zfs(node, "hold k tank/a@s1")
    assert ask(DESTROY, f"tank/a@s1 {guid} tank/a@s2 {guid}") == {
        "tank/a@s1": "error 16",
        "tank/a@s2": "changed",
    }


def test_a_command_that_the_model_does_not_know_is_a_fault_of_the_test(node: ModelNode) -> None:
    with pytest.raises(UnknownCommand):
        command(node, ["zfs", "diff", "tank/a"])


def test_a_snapshot_taken_before_the_cut_lets_a_stream_go_on_and_one_taken_since_does_not(
    node: ModelNode,
) -> None:
    for when in ("before", "since"):
        zfs(node, f"create tank/s-{when}")
        node.write(f"tank/s-{when}", 300_000)
        zfs(node, f"snapshot tank/s-{when}@s1")
        node.write(f"tank/s-{when}", 300_000)
        zfs(node, f"snapshot tank/s-{when}@s2")
        target = f"tank/r-{when}"
        assert pipe(node, f"tank/s-{when}@s1", f"-u -s {target}") == ""
        if when == "before":
            zfs(node, f"snapshot {target}@foreign")
        assert pipe(node, f"-i @s1 tank/s-{when}@s2", f"-u -s {target}", Cut(0, 0.5)) != ""
        if when == "since":
            zfs(node, f"snapshot {target}@foreign")
        partial = node.datasets[target].partial
        assert partial is not None
        said = pipe(node, f"-t {text_of(partial)}", f"-u -s {target}")
        assert ("kernel modules must be upgraded" in said) == (when == "since")
