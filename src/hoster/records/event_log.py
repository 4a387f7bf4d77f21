"""Where events are logged: to standard error as JSON if that is asked for, and to the machine's own log where
nobody sits in front of it.

A log that cannot be written stops nothing: it is said once, and not tried again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from hoster.host import syslog
from hoster.records.events import Event, journal_fields, json_line
from hoster.records.log_format import LogFormat, log_format

Sink = Callable[[Event], None]
"""Logs one event; OSError where it could not."""


class EventLog:
    """The places that events go to, by what each is called."""

    def __init__(self, sinks: Mapping[str, Sink] | None = None) -> None:
        self._sinks = dict(sinks or {})

    def write(self, event: Event) -> tuple[str, ...]:
        """Logs an event everywhere; what could not be written, and why, once for each place."""
        problems = []
        for name, sink in tuple(self._sinks.items()):
            try:
                sink(event)
            except OSError as error:
                del self._sinks[name]
                problems.append(f"{name}: events cannot be logged: {error.strerror or error}")
        return tuple(problems)


def event_log(
    environment: Mapping[str, str],
    *,
    attended: bool | None = None,
    journal: Path = syslog.JOURNAL_SOCKET,
    syslogs: tuple[Path, ...] = syslog.SYSLOG_SOCKETS,
) -> EventLog:
    """The log of a process with this environment; ``attended`` says whether somebody is there to see what it
    prints (None: if it has a terminal)."""
    sinks: dict[str, Sink] = {}
    if log_format(environment) is LogFormat.JSON:
        sinks["standard error"] = _to_stderr
    if not (syslog.has_terminal() if attended is None else attended):
        own = next((path for path in syslogs if path.exists()), None)
        if syslog.is_of_systemd(environment) and journal.exists():
            sinks[str(journal)] = lambda event: syslog.send_to_journal(journal, journal_fields(event))
        elif own is not None:
            sinks[str(own)] = lambda event: syslog.send_to_syslog(own, event.priority, event.line)
    return EventLog(sinks)


def _to_stderr(event: Event) -> None:
    sys.stderr.write(f"{json_line(event)}\n")
    sys.stderr.flush()
