"""The journal of runs: what ran, for how long, and what became of each VM, in one SQLite file.

History and nothing else: no decision of hoster's needs it, and losing it loses history. So whatever keeps
it from being written (a full disk, one that is read-only, a damaged file) is one sentence to warn with, and
never an exception. It is bounded: old runs go as new ones come.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoster.errors import OperationFailed
from hoster.model.space import PoolSample
from hoster.records import tables
from hoster.records.runs import EndedRun, JobStanding, PastRun, PastVm, Remembered

if TYPE_CHECKING:
    import sqlite3

JOURNAL_NAME = "journal.sqlite3"

_WAIT_S = 10.0
_RUNS = (
    "SELECT r.number, r.kind, r.job, r.node, r.started, r.ended, r.exit_code, r.reason,"
    " coalesce(sum(v.outcome = 'done'), 0), coalesce(sum(v.outcome = 'unchanged'), 0),"
    " coalesce(sum(v.outcome = 'refused'), 0), coalesce(sum(v.outcome = 'busy'), 0),"
    " coalesce(sum(v.outcome = 'failed'), 0), coalesce(sum(v.sent_bytes), 0)"
    " FROM runs r LEFT JOIN vm_runs v ON v.run = r.number"
    " WHERE (:job IS NULL OR r.job = :job) GROUP BY r.number ORDER BY r.number DESC LIMIT :limit"
)
_VM_RUNS = (
    "SELECT r.number, r.kind, r.job, r.started, v.vm, v.vm_id, r.node, v.target, v.outcome, v.reason,"
    " v.ground, v.sent_bytes, v.seconds, v.newest_name, v.newest_guid, v.newest_at"
    " FROM vm_runs v JOIN runs r ON r.number = v.run"
    " WHERE (:vm IS NULL OR v.vm = :vm) AND (:job IS NULL OR r.job = :job)"
    " ORDER BY r.number DESC, v.rowid LIMIT :limit"
)


class Journal:
    """The journal in ``folder``, which is made with the first run that is written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_NAME

    def write(self, ended: EndedRun) -> str:
        """Adds a run, and forgets what is too old or too much; why that failed, or nothing."""
        import sqlite3

        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            try:
                self._add(ended)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                aside = self._set_aside()
                self._add(ended)
                return f"{self.path}: the journal was damaged ({error}); it is {aside} now, and begins anew"
        except (sqlite3.Error, OSError) as error:
            return f"{self.path}: the journal of runs cannot be written: {_words(error)}"
        return ""

    def runs(self, *, job: str | None = None, limit: int = 50) -> tuple[PastRun, ...]:
        """The last runs, of one job or of all, newest first. OperationFailed where they cannot be read."""
        return tuple(PastRun(*row) for row in self._read(_RUNS, {"job": job, "limit": limit}))

    def vm_runs(
        self, vm: str | None = None, *, job: str | None = None, limit: int = 50
    ) -> tuple[PastVm, ...]:
        """What the last runs did to a VM, or to any, newest first. OperationFailed as above."""
        rows = self._read(_VM_RUNS, {"vm": vm, "job": job, "limit": limit})
        return tuple(PastVm(*[*row[:13], tables.common(row[13:])]) for row in rows)

    def replicas(self) -> tuple[Remembered, ...]:
        """How each VM stands with each target. OperationFailed as above."""
        rows = self._read(f"{tables.REPLICAS} ORDER BY vm, node, target", {})
        return tuple(tables.remembered(row) for row in rows)

    def jobs(self) -> tuple[JobStanding, ...]:
        """How each job stands. OperationFailed as above."""
        return tuple(JobStanding(*row) for row in self._read(f"{tables.JOBS} ORDER BY job, kind", {}))

    def samples(self) -> tuple[PoolSample, ...]:
        """How much room the pools had, the oldest first. OperationFailed as above."""
        rows = self._read(f"{tables.SAMPLES} ORDER BY at", {}, since=tables.WITH_POOLS)
        return tuple(PoolSample(*row) for row in rows)

    def sampled_at(self) -> Mapping[tuple[str, str], float]:
        """When the room in each pool, by node and name, was noted last. OperationFailed as above."""
        query = "SELECT node, pool, max(at) FROM pools GROUP BY node, pool"
        return {(node, pool): at for node, pool, at in self._read(query, {}, since=tables.WITH_POOLS)}

    def forget(self, vm: str, node: str, targets: Sequence[str]) -> tuple[tuple[str, ...], str]:
        """Forgets how a VM stands with these targets of a node, and the replications to it if it is no VM's
        target any more: the jobs that are forgotten, and why that failed, or nothing. What ran is kept."""
        return self._forget(lambda connection: tables.forget(connection, vm, node, targets))

    def forget_replicas(self, vm: str) -> str:
        """Forgets how a VM stands with all of its targets, which are another node's from now on; why that
        failed, or nothing. What ran is kept."""
        return self._forget(lambda connection: tables.forget_replicas(connection, vm))[1]

    def _forget(self, act: Callable[[sqlite3.Connection], tuple[str, ...]]) -> tuple[tuple[str, ...], str]:
        import sqlite3

        if not self.path.exists():
            return (), ""
        try:
            with contextlib.closing(_connection(f"{self.path.absolute().as_uri()}?mode=rw")) as connection:
                connection.execute("BEGIN IMMEDIATE")
                with connection:
                    return act(connection), ""
        except (sqlite3.Error, OSError) as error:
            return (), f"{self.path}: the journal of runs cannot be written: {_words(error)}"

    def _read(self, query: str, values: dict[str, Any], *, since: int = 1) -> list[Any]:
        """The rows of a query; none where the journal has none yet of the tables that there are ``since``
        that format."""
        import sqlite3

        if "limit" in values:  # no more than that is ever kept, and SQLite takes no number that is longer
            values = {**values, "limit": min(values["limit"], tables.KEEP_VM_RUNS)}
        if not self.path.exists():
            return []
        try:
            with contextlib.closing(_connection(f"{self.path.absolute().as_uri()}?mode=ro")) as connection:
                if tables.format_of(connection) < since:
                    return []
                return connection.execute(query, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise OperationFailed(
                f"{self.path}: the journal of runs cannot be read: {_words(error)}",
                hint="it is history and nothing else: it may be moved away, and begins anew",
            ) from error

    def _add(self, ended: EndedRun) -> None:
        with contextlib.closing(_connection(f"{self.path.absolute().as_uri()}?mode=rwc")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                tables.add(connection, ended)

    def _set_aside(self) -> str:
        aside = self.path.with_suffix(".damaged")
        self.path.replace(aside)
        with contextlib.suppress(FileNotFoundError):
            self.path.with_name(f"{JOURNAL_NAME}-journal").unlink()
        return aside.name


def _connection(uri: str) -> sqlite3.Connection:
    import sqlite3

    # A rollback journal, not WAL: the file can then be read where nothing can be written.
    connection = sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "no such" in str(error)


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
