"""The one place that quotes: whatever goes in comes out of a login shell unchanged."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoster.host.reach import MACHINE_SCRIPT, LocalHost, local_machine, quoted, remote_shell_line

SHELLS = [
    [shell, "-c"] for shell in ("sh", "bash", "dash", "csh", "tcsh", "fish", "zsh") if shutil.which(shell)
]
WORDS = st.lists(
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20), max_size=5
)
ODD = [
    "",
    " ",
    "a b",
    "'",
    "''",
    '"',
    "\\",
    "\\'",
    "$HOME",
    "$(id)",
    "`id`",
    "!",
    "!!",
    "*",
    "~",
    "#",
    ";",
    "é",
]


def said_by(shell: list[str], words: list[str]) -> list[str]:
    """What the words are for the command that a login shell starts for that line."""
    line = remote_shell_line(["printf", r"%s\0", *words, "end"])
    done = subprocess.run([*shell, line], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-2]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_odd_words_come_through_every_login_shell(shell: list[str]) -> None:
    assert said_by(shell, ODD) == ODD


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_variable_comes_through_every_login_shell_and_stays_with_the_command(shell: list[str]) -> None:
    line = remote_shell_line(["env"], {"HOSTER_TRIED": "a b'c$HOME"})
    done = subprocess.run([*shell, line], capture_output=True, text=True, check=True)
    assert "HOSTER_TRIED=a b'c$HOME" in done.stdout.splitlines()


@settings(max_examples=60, deadline=None)
@given(WORDS)
def test_any_words_come_through_sh(words: list[str]) -> None:
    assert said_by(["sh", "-c"], words) == words


@given(st.text(max_size=30))
def test_a_quoted_text_is_one_word_of_single_quotes(text: str) -> None:
    assert quoted(text).replace("'\\''", "").count("'") == 2


def test_the_directories_of_system_commands_are_searched_last(tmp_path: Path) -> None:
    (tmp_path / "zpool-fake").write_text("#!/bin/sh\necho $PATH\n")
    (tmp_path / "zpool-fake").chmod(0o755)
    line = remote_shell_line(["zpool-fake"])
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, env={"PATH": path}, check=True
    )
    assert done.stdout.startswith(path + ":/sbin:/usr/sbin:/usr/local/sbin")


def test_the_command_takes_the_place_of_the_shells() -> None:
    line = remote_shell_line(["sh", "-c", "echo $PPID"])
    process = subprocess.run(
        ["/bin/sh", "-c", f"echo $$; {line}"], capture_output=True, text=True, check=True
    )
    shell, parent = process.stdout.split()
    assert shell != parent


def test_this_machine_runs_its_commands_as_they_are() -> None:
    host = LocalHost()
    assert host.argv(["zfs", "list"]) == ("zfs", "list")
    assert host.name == "local"


def test_both_ways_to_ask_for_the_machine_agree() -> None:
    done = subprocess.run(["/bin/sh", "-c", MACHINE_SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == LocalHost().machine == local_machine()
