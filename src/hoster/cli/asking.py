"""Asks a person, where one is there: nothing ever waits for somebody who is not."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from hoster.cli.messages import WARNING, say


def ask_for_key(dataset: str) -> str | None:
    """Asks for a passphrase on the terminal; None where there is none."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    try:
        answer: str = click.prompt(f"Passphrase of {dataset}", hide_input=True, err=True)
    except click.Abort:  # that nobody answers is for the command to be told, and not a fault of its run
        raise KeyboardInterrupt from None
    return answer


def confirm(evidence: Sequence[str]) -> bool:
    """Shows what speaks against it and asks; no where nobody is there to answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    for line in evidence:
        say(WARNING, line, err=True)
    try:
        return click.confirm("Something may be lost. Go ahead?", err=True)
    except click.Abort:
        raise KeyboardInterrupt from None
