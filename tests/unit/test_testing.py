"""The shipped fakes and the notation keep their own promises; every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import hoster
from hoster.host.process import Runner
from hoster.host.reach import Host
from hoster.model.anchors import anchors_of
from hoster.testing import (
    NamedHost,
    Says,
    ScriptedRunner,
    Unscripted,
    dataset,
    guid_of,
    name_of,
    target_key,
    words,
)

MODULES = sorted(
    found.name
    for found in pkgutil.walk_packages(hoster.__path__, "hoster.")
    if found.name != "hoster.__main__"
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_every_module_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_same_word_is_the_same_version_and_another_order_on_another_dataset() -> None:
    one, other = dataset("tank/vm/web", "a b"), dataset("backup/web", "a b")
    assert [s.guid for s in one.snapshots] == [s.guid for s in other.snapshots]
    assert not {s.createtxg for s in one.snapshots} & {s.createtxg for s in other.snapshots}


def test_a_bookmark_beside_its_snapshot_has_its_guid_and_createtxg() -> None:
    web = dataset("tank/vm/web", "x a #a b@1@2")
    assert (web.bookmarks[0].guid, web.bookmarks[0].createtxg) == (guid_of("a"), web.snapshots[1].createtxg)
    assert [len(anchors_of(web, target_key(k))) for k in "123"] == [1, 1, 0]


def test_words_is_the_notation_without_signs() -> None:
    web = dataset("tank/vm/web", "h1+3* c2^ manual #x r3!@1")
    assert words(web.snapshots) == "h1 c2 manual r3"
    assert words(web.bookmarks[:1]) == "#x"
    assert words(web.bookmarks[1:]) == f"#{guid_of('r3') & 0xFFFF:04x}"


@pytest.mark.parametrize("word", ["*a", "a+", "a@", "1a", "~", "~x", "#", "a**b", "a b!c"])
def test_what_is_not_in_the_notation_is_an_error(word: str) -> None:
    with pytest.raises(ValueError, match="is not a word of the notation"):
        dataset("tank/vm/web", word)


def test_a_letter_that_is_no_type_makes_a_name_of_the_users() -> None:
    assert name_of("z1") == "z1"
    assert name_of("h1'") == name_of("h1") == "hourly_2024-01-01_00-01-00"


def test_a_script_answers_in_order_and_the_last_answer_for_ever() -> None:
    runner: Runner = ScriptedRunner()
    assert isinstance(runner, ScriptedRunner)
    runner.answer(("zfs",), Says("1"), Says("2", "no", 3))
    found = [runner.run(["zfs", "x"]) for _ in range(3)]
    assert [(c.stdout, c.stderr, c.returncode) for c in found] == [
        ("1", "", 0),
        ("2", "no", 3),
        ("2", "no", 3),
    ]
    assert runner.ran("zfs") == [("zfs", "x")] * 3


def test_a_script_can_decide_by_the_command_and_its_input() -> None:
    runner = ScriptedRunner()
    runner.answer(lambda argv: "get" in argv, lambda argv, stdin: Says(f"{argv[0]} {stdin}"))
    assert runner.run(["zfs", "get"], stdin="x").stdout == "zfs x"
    assert runner.inputs == ["x"]


def test_a_command_that_is_not_in_the_script_is_loud_and_says_what_was_before_it() -> None:
    runner = ScriptedRunner()
    runner.answer(("zfs",))
    runner.run(["zfs", "list"])
    with pytest.raises(Unscripted, match=r"no answer is scripted for: rm -rf /\nrun before it:\n  zfs list"):
        runner.run(["rm", "-rf", "/"])


def test_a_pipe_gives_what_the_producer_said_to_the_consumer_and_to_the_meter() -> None:
    runner, chunks = ScriptedRunner(), list[int]()
    runner.answer(("send",), Says("data", "hm", 1))
    runner.answer(("receive",), lambda argv, stdin: Says(stdin.upper()))
    piped = runner.pipe(["send"], ["receive"], chunks.append)
    assert (piped.sent_bytes, chunks, piped.consumer.stdout) == (4, [4], "DATA")
    assert (piped.producer.returncode, piped.producer.stderr) == (1, "hm")


def test_a_named_host_is_a_host() -> None:
    host: Host = NamedHost("backup1", "m")
    assert (host.name, host.machine) == ("backup1", "m")
    assert host.argv(["zfs"]) == ("on", "backup1", "zfs")
