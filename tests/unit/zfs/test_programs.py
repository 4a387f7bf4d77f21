"""Channel programs: how GUIDs travel, what the answers mean, how work is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoster.errors import ZfsError
from hoster.zfs.programs import ANCHOR, DESTROY, MARK, Answer, chunks, digits, parse_answers


@pytest.mark.parametrize(
    ("guid", "text"),
    [(0, "0" * 16), (255, "00000000000000ff"), (1 << 63, "8" + "0" * 15), ((1 << 64) - 1, "f" * 16)],
)
def test_a_guid_travels_as_sixteen_digits(guid: int, text: str) -> None:
    assert digits(guid) == text


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 62))
def test_what_was_anchored_comes_back_as_guid_and_createtxg(guid: int, createtxg: int) -> None:
    assert Answer("a@b", f"done {digits(guid)} {createtxg}").version == (guid, createtxg)


@pytest.mark.parametrize("word", ["done", "gone", "error 16", "done 1 2 3", "done xyz 3"])
def test_any_other_answer_has_no_version(word: str) -> None:
    with pytest.raises(ValueError):
        _ = Answer("a@b", word).version


@pytest.mark.parametrize(
    ("word", "done", "explained"),
    [
        ("done", True, "done"),
        ("done 00ff 5", True, "done 00ff 5"),
        ("gone", False, "it does not exist any more"),
        ("anchored", False, "a target needs it by now as the base of its next increment"),
        ("promoted", False, "somebody has promoted it, or told it of a promotion"),
        ("changed", False, "something else has taken its name"),
        ("error 16", False, "it is held, being sent, or otherwise busy"),
        ("error 17", False, "it has a clone"),
        ("error 28", False, "no space left"),
        ("error 1", False, "not permitted"),
        ("error 5", False, "error 5"),
        ("donezo", False, "donezo"),
        ("", False, ""),
    ],
)
def test_an_answer_says_whether_and_why_not(word: str, done: bool, explained: str) -> None:
    answer = Answer("a@b", word)
    assert (answer.done, answer.explained) == (done, explained)


@pytest.mark.parametrize(
    ("output", "answers"),
    [
        ('{"return": {"a@b": "done", "a@c": "error 16"}}', [("a@b", "done"), ("a@c", "error 16")]),
        ('Welcome!\n{"return": {"a@b": "gone"}}', [("a@b", "gone")]),
        ('{"return": {}}', []),
        ("{}", []),
    ],
)
def test_the_answers_are_read_past_the_noise_of_a_login(output: str, answers: list[tuple[str, str]]) -> None:
    assert [(a.name, a.word) for a in parse_answers(output)] == answers


@pytest.mark.parametrize("output", ["", "no json", '{"return": {"a@b"', "[]", '{"return": "done"}', "{"])
def test_what_is_no_answer_is_an_error_that_shows_it(output: str) -> None:
    with pytest.raises(ZfsError, match="printed something unexpected"):
        parse_answers(output)


@given(st.integers(0, 30), st.integers(1, 7))
def test_pieces_hold_everything_once_and_in_order(count: int, size: int) -> None:
    items = [(str(i),) for i in range(count)]
    pieces = list(chunks(items, size))
    assert [item for piece in pieces for item in piece] == items
    assert all(0 < len(piece) <= size for piece in pieces)


@pytest.mark.parametrize("program", [DESTROY, ANCHOR, MARK])
def test_every_program_compares_the_guid_before_it_acts(program: str) -> None:
    assert program.index("seen ~= guid") < program.index("zfs.sync.")
