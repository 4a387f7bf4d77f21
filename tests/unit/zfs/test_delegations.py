"""What ``zfs allow`` shows, as the commands that allow the same elsewhere."""

from __future__ import annotations

import pytest

from hoster.zfs.delegations import delegations

NAME = "tank/vm/web"


def heading(name: str) -> str:
    """The line before what one dataset allows: filled with dashes up to the 70th column."""
    return f"---- Permissions on {name} ".ljust(70, "-")


def shown(*sections: str, name: str = NAME) -> str:
    return "\n".join([heading(name), *sections]) + "\n"


def allowed(text: str, name: str = NAME) -> list[str]:
    return [" ".join(words) for words in delegations(name, text)]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("Permission sets:\n\t@backup hold,send,snapshot", "-s @backup hold,send,snapshot"),
        ("Create time permissions:\n\tcreate,destroy", "-c create,destroy"),
        ("Create time permissions:\n\t@backup", "-c @backup"),
        ("Local permissions:\n\tuser anna mount", "-l -u anna mount"),
        ("Descendent permissions:\n\tgroup staff send", "-d -g staff send"),
        ("Local+Descendent permissions:\n\teveryone hold", "-e hold"),
        ("Local+Descendent permissions:\n\tuser anna @backup,mount", "-u anna @backup,mount"),
        ("Local permissions:\n\teveryone diff", "-l -e diff"),
    ],
)
def test_every_section_has_its_flag(section: str, words: str) -> None:
    assert allowed(shown(section)) == [words]


def test_all_sections_are_given_in_order() -> None:
    text = shown(
        "Permission sets:\n\t@a send\n\t@b hold",
        "Create time permissions:\n\tdestroy",
        "Local permissions:\n\tuser anna mount\n\tgroup staff diff",
        "Local+Descendent permissions:\n\tuser anna send\n\teveryone hold",
    )
    assert allowed(text) == [
        *("-s @a send", "-s @b hold", "-c destroy"),
        *("-l -u anna mount", "-l -g staff diff", "-u anna send", "-e hold"),
    ]


def test_what_is_allowed_above_or_on_another_dataset_is_passed_over() -> None:
    mine = "Local permissions:\n\tuser anna mount"
    text = "".join(
        shown("Local+Descendent permissions:\n\tuser bert destroy", name=name)
        for name in ("tank/vm/web2", "tank/vm", "tank", "tank/vm/web/d0")
    )
    assert allowed(shown(mine) + text) == allowed(text + shown(mine)) == ["-l -u anna mount"]


@pytest.mark.parametrize("text", ["", "\n", shown(), "Local permissions:\n\tuser anna mount\n"])
def test_nothing_allowed_is_nothing_to_do(text: str) -> None:
    assert allowed(text) == []


def test_the_flag_of_a_section_does_not_reach_into_the_next() -> None:
    text = shown("Local permissions:\n\tuser anna mount", "Local+Descendent permissions:\n\tuser bert send")
    assert allowed(text) == ["-l -u anna mount", "-u bert send"]


@pytest.mark.parametrize("line", ["\tuser anna", "\tmount", "\tsomebody anna mount", "no tab: mount", "\t"])
def test_a_line_that_nobody_knows_is_passed_over(line: str) -> None:
    assert allowed(shown(f"Local permissions:\n{line}\n\tuser anna mount")) == ["-l -u anna mount"]


@pytest.mark.parametrize("length", [48, 49, 50, 60, 120])
def test_a_name_that_leaves_no_room_for_dashes_has_its_delegations_too(length: int) -> None:
    name = "tank/vm/".ljust(length, "w")
    assert allowed(shown("Local permissions:\n\tuser anna mount", name=name), name) == ["-l -u anna mount"]
