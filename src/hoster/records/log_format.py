"""In which form a command says on standard error what it says there."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

FORMAT_VARIABLE = "HOSTER_LOG_FORMAT"


class LogFormat(StrEnum):
    """The forms that there are."""

    TEXT = "text"
    """Words for people."""

    JSON = "json"
    """One object a line: events of runs, and all messages."""


def log_format(environment: Mapping[str, str]) -> LogFormat:
    """The form that the environment asks for; text where it asks for none that there is."""
    wanted = environment.get(FORMAT_VARIABLE, "")
    return LogFormat(wanted) if wanted in set(LogFormat) else LogFormat.TEXT
