"""The tables of the journal, and how a run is entered into them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hoster.errors import ExitCode
from hoster.model.plan import Common, VmReport
from hoster.records.runs import EndedRun, JobStanding, Remembered, RunKind, job_after, replica_after

if TYPE_CHECKING:
    import sqlite3

KEEP_DAYS = 400
"""Runs, jobs and replicas of which nothing was heard for longer are forgotten."""

KEEP_RUNS = 50_000
KEEP_VM_RUNS = 200_000
"""The most rows of each table; some 40 MB in all."""

KEEP_SAMPLES_DAYS = 15
"""How much room the pools had longer ago is forgotten."""

_FORMAT = 2
"""What ``PRAGMA user_version`` says of a journal with these tables. That of an older one is without the last
table only."""

_DAY_S = 86_400.0

# GUIDs are text: SQLite's integers have 63 bits and a sign.
_TABLES = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, job TEXT NOT NULL, node TEXT NOT NULL,
    started REAL NOT NULL, ended REAL NOT NULL, exit_code INTEGER NOT NULL, reason TEXT NOT NULL
);
CREATE INDEX runs_by_start ON runs (started);
CREATE TABLE vm_runs (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, vm TEXT NOT NULL, vm_id TEXT NOT NULL,
    target TEXT NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL, ground TEXT NOT NULL,
    sent_bytes INTEGER NOT NULL, seconds REAL NOT NULL,
    newest_name TEXT, newest_guid TEXT, newest_at INTEGER
);
CREATE INDEX vm_runs_by_run ON vm_runs (run);
CREATE TABLE replicas (
    vm TEXT NOT NULL, vm_id TEXT NOT NULL, node TEXT NOT NULL, target TEXT NOT NULL, job TEXT NOT NULL,
    run_at REAL NOT NULL, outcome TEXT NOT NULL, ground TEXT NOT NULL,
    sent_bytes INTEGER NOT NULL, seconds REAL NOT NULL,
    newest_name TEXT, newest_guid TEXT, newest_at INTEGER, equal_at REAL, success_at REAL,
    failure_at REAL, failure TEXT NOT NULL, failures INTEGER NOT NULL,
    PRIMARY KEY (vm, node, target)
);
CREATE TABLE jobs (
    job TEXT NOT NULL, kind TEXT NOT NULL, node TEXT NOT NULL, run_at REAL NOT NULL,
    exit_code INTEGER NOT NULL, success_at REAL, failure_at REAL, failures INTEGER NOT NULL,
    PRIMARY KEY (job, kind)
);
"""
_POOLS = """
CREATE TABLE pools (
    node TEXT NOT NULL, pool TEXT NOT NULL, at REAL NOT NULL, size INTEGER NOT NULL, free INTEGER NOT NULL,
    PRIMARY KEY (node, pool, at)
);
"""

REPLICAS = (
    "SELECT vm, vm_id, node, target, job, run_at, outcome, ground, sent_bytes, seconds,"
    " newest_name, newest_guid, newest_at, equal_at, success_at, failure_at, failure, failures FROM replicas"
)
"""What :func:`remembered` reads."""

JOBS = "SELECT job, kind, node, run_at, exit_code, success_at, failure_at, failures FROM jobs"
"""The fields of a :class:`JobStanding`."""


def format_of(connection: sqlite3.Connection) -> int:
    """Which tables the file has, 0 for none; OSError for those of a later release."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > _FORMAT:
        raise OSError(0, f"a later release of hoster has written it (format {found})")
    return found


def add(connection: sqlite3.Connection, ended: EndedRun) -> None:
    """Enters a run, and forgets what is too old or too much; the caller holds a transaction."""
    found = format_of(connection)
    if found != _FORMAT:
        for statement in (*(_TABLES.split(";") if found == 0 else ()), *_POOLS.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
    number = _insert_run(connection, ended)
    _insert_vms(connection, number, ended.vms)
    rows = [(one.node, one.pool, one.at, one.size, one.free) for one in ended.pools]
    connection.executemany("INSERT OR REPLACE INTO pools VALUES (?, ?, ?, ?, ?)", rows)
    if ended.exit_code != ExitCode.BUSY and not ended.skipped:
        if ended.run.kind.is_scheduled:
            _note_job(connection, ended)
        if ended.run.kind in {RunKind.REPLICATION, RunKind.FAILBACK}:
            _note_replicas(connection, ended)
    _forget(connection, ended.ended)


SAMPLES = "SELECT node, pool, at, size, free FROM pools"
"""The fields of a :class:`PoolSample`; in journals from :data:`WITH_POOLS` on."""

WITH_POOLS = 2


def forget(connection: sqlite3.Connection, vm: str, node: str, targets: Sequence[str]) -> tuple[str, ...]:
    """Forgets how a VM stands with targets of a node, and the replications to a node that is no VM's target
    any more: the jobs that are forgotten. The caller holds a transaction."""
    if format_of(connection) == 0:
        return ()
    rows = [(vm, node, target) for target in targets]
    connection.executemany("DELETE FROM replicas WHERE vm = ? AND node = ? AND target = ?", rows)
    if connection.execute("SELECT 1 FROM replicas WHERE node = ?", (node,)).fetchone() is not None:
        return ()
    of_node = "FROM jobs WHERE node = ? AND kind = ?"
    values = (node, RunKind.REPLICATION.value)
    jobs = tuple(job for (job,) in connection.execute(f"SELECT job {of_node} ORDER BY job", values))
    connection.execute(f"DELETE {of_node}", values)
    return jobs


def forget_replicas(connection: sqlite3.Connection, vm: str) -> tuple[str, ...]:
    """Forgets how a VM stands with all its targets, and no job. The caller holds a transaction."""
    if format_of(connection) != 0:
        connection.execute("DELETE FROM replicas WHERE vm = ?", (vm,))
    return ()


def remembered(row: Sequence[Any]) -> Remembered:
    """One row of :data:`REPLICAS`."""
    return Remembered(*[*row[:10], common(row[10:13]), *row[13:]])


def common(columns: Sequence[Any]) -> Common | None:
    """The version that three columns hold."""
    return None if columns[0] is None else Common(*columns)


def _columns(newest: Common | None) -> tuple[str | None, str | None, int | None]:
    return (None, None, None) if newest is None else (newest.name, newest.guid, newest.taken_at)


def _insert_run(connection: sqlite3.Connection, ended: EndedRun) -> int:
    run = ended.run
    cursor = connection.execute(
        "INSERT INTO runs (kind, job, node, started, ended, exit_code, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (run.kind.value, run.job, run.node, ended.started, ended.ended, int(ended.exit_code), ended.reason),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _insert_vms(connection: sqlite3.Connection, number: int, vms: Sequence[VmReport]) -> None:
    rows = [
        (
            *(number, vm.vm, vm.vm_id, vm.target, vm.outcome.value, vm.reason),
            *("" if vm.ground is None else vm.ground.value, vm.sent_bytes, vm.seconds),
            *_columns(vm.newest),
        )
        for vm in vms
    ]
    connection.executemany("INSERT INTO vm_runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def _note_job(connection: sqlite3.Connection, ended: EndedRun) -> None:
    key = (ended.run.job, ended.run.kind.value)
    row = connection.execute(f"{JOBS} WHERE job = ? AND kind = ?", key).fetchone()
    now = job_after(None if row is None else JobStanding(*row), ended)
    connection.execute(
        "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(now.job, now.kind, now.node, now.run_at, now.exit_code),
            *(now.success_at, now.failure_at, now.failures),
        ),
    )


def _note_replicas(connection: sqlite3.Connection, ended: EndedRun) -> None:
    node, job = ended.run.node, ended.run.job
    for vm in ended.vms:
        if "/" in vm.vm:
            continue  # no VM: an active dataset that is missing
        if not vm.target and ended.run.kind is not RunKind.REPLICATION:
            continue  # what a person tried once, and did not get as far as to know the replica
        for old in _standings(connection, vm, node, job):
            _put(connection, replica_after(old, ended, vm))
    if not ended.vms and ended.reason:
        rows = connection.execute(f"{REPLICAS} WHERE job = ? AND node = ?", (job, node)).fetchall()
        for row in rows:
            _put(connection, replica_after(remembered(row), ended, None))


def _standings(
    connection: sqlite3.Connection, vm: VmReport, node: str, job: str
) -> Iterator[Remembered | None]:
    """What is remembered of the replicas that a report is about: where it does not know which dataset that
    is, those of its job."""
    if vm.target:
        connection.execute("DELETE FROM replicas WHERE vm = ? AND node = ? AND target = ''", (vm.vm, node))
        query, values = f"{REPLICAS} WHERE vm = ? AND node = ? AND target = ?", (vm.vm, node, vm.target)
    else:
        query, values = f"{REPLICAS} WHERE vm = ? AND node = ? AND job = ?", (vm.vm, node, job)
    rows = connection.execute(query, values).fetchall()
    yield from (remembered(row) for row in rows) if rows else (None,)


def _put(connection: sqlite3.Connection, now: Remembered) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO replicas VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(now.vm, now.vm_id, now.node, now.target, now.job, now.run_at, now.outcome, now.ground),
            *(now.sent_bytes, now.seconds, *_columns(now.newest), now.equal_at),
            *(now.success_at, now.failure_at, now.failure, now.failures),
        ),
    )


def _forget(connection: sqlite3.Connection, now: float) -> None:
    oldest = (now - KEEP_DAYS * _DAY_S,)
    connection.execute("DELETE FROM runs WHERE started < ?", oldest)
    connection.execute("DELETE FROM runs WHERE number <= (SELECT max(number) FROM runs) - ?", (KEEP_RUNS,))
    connection.execute(
        "DELETE FROM runs WHERE number <= (SELECT run FROM vm_runs ORDER BY rowid DESC LIMIT 1 OFFSET ?)",
        (KEEP_VM_RUNS,),
    )
    connection.execute("DELETE FROM replicas WHERE run_at < ?", oldest)
    connection.execute("DELETE FROM jobs WHERE run_at < ?", oldest)
    # What is said to have been seen tomorrow was seen when the clock was wrong.
    known = (now - KEEP_SAMPLES_DAYS * _DAY_S, now + _DAY_S)
    connection.execute("DELETE FROM pools WHERE at NOT BETWEEN ? AND ?", known)
