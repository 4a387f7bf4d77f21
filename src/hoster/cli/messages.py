"""Messages in the original's form: a tag, the local time, a text. Errors with their hint."""

from __future__ import annotations

from datetime import datetime

import click

from hoster.errors import HosterError

CHANGED = " 🔶 CHANGED:"
INFO = " 🟢 INFO:   "
WARNING = " 🔴 WARNING:"
ERROR = " 🚫 ERROR:  "

_HINT_INDENT = " " * 13


def say(tag: str, text: str, *, hint: str = "", err: bool = False) -> None:
    """One message, on standard output unless ``err``; the hint stands on a line of its own."""
    click.echo(f"{tag} 🕔 {datetime.now():%Y-%m-%d %H:%M:%S}: 📄 {text}", err=err)
    if hint:
        click.echo(f"{_HINT_INDENT}➜ {hint}", err=err)


def show_error(error: HosterError) -> None:
    """An error on standard error, with the next command to type if there is one."""
    say(ERROR, error.message, hint=error.hint, err=True)
