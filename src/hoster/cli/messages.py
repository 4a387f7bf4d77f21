"""Messages in the original's form: a tag, the local time, a text. Errors with their hint.

Where JSON is asked for, those on standard error are objects, one a line, as the events of runs are.
"""

from __future__ import annotations

import os
from datetime import datetime

import click

from hoster.errors import HosterError
from hoster.records.log_format import LogFormat, log_format

CHANGED = " 🔶 CHANGED:"
INFO = " 🟢 INFO:   "
WARNING = " 🔴 WARNING:"
ERROR = " 🚫 ERROR:  "

_HINT_INDENT = " " * 13


def say(tag: str, text: str, *, hint: str = "", err: bool = False) -> None:
    """One message, on standard output unless ``err``; the hint stands on a line of its own."""
    if err and wants_json():
        _say_json(tag, text, hint)
        return
    click.echo(f"{tag} 🕔 {datetime.now():%Y-%m-%d %H:%M:%S}: 📄 {text}", err=err)
    if hint:
        click.echo(f"{_HINT_INDENT}➜ {hint}", err=err)


def wants_json() -> bool:
    """Whether standard error is to get JSON."""
    return log_format(os.environ) is LogFormat.JSON


def _say_json(tag: str, text: str, hint: str) -> None:
    from hoster.records.events import Event, Priority, What, json_line

    priorities = {ERROR: Priority.ERROR, WARNING: Priority.WARNING, CHANGED: Priority.NOTICE}
    priority = priorities.get(tag, Priority.INFO)
    event = Event(datetime.now().timestamp(), priority, What.MESSAGE, text, hint=hint)
    click.echo(json_line(event), err=True)


def show_error(error: HosterError) -> None:
    """An error on standard error, with the next command to type if there is one."""
    say(ERROR, error.message, hint=error.hint, err=True)
