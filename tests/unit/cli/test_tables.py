"""What people have written is shown as it is: in tables, and in lines for pipes."""

from __future__ import annotations

import pytest

from hoster.cli.render import print_table


@pytest.mark.parametrize("words", ["[old] mail", "before [/etc] was changed", "host:on:wheels", "a [/] b"])
def test_a_table_shows_every_text_as_it_is(capsys: pytest.CaptureFixture[str], words: str) -> None:
    print_table("VMs", ("VM Name", "VM Description"), [("web", words)], unix=False)
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("words", ["two\nlines", "a\tb", "a\r\nb", "a b"])
def test_for_a_pipe_a_row_is_one_line_and_a_field_one_word(
    capsys: pytest.CaptureFixture[str], words: str
) -> None:
    print_table("VMs", ("VM Name", "VM Description"), [("web", words)], unix=True)
    (line,) = capsys.readouterr().out.splitlines()
    name, description = line.split()
    assert (name, set(description) & set(" \t\r\n")) == ("web", set())
