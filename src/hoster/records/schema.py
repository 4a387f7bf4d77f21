"""The tables of the journal."""

from __future__ import annotations

VERSION = 1
"""What ``PRAGMA user_version`` says of a journal with these tables."""

TABLES = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    job TEXT NOT NULL,
    node TEXT NOT NULL,
    started REAL NOT NULL,
    ended REAL NOT NULL,
    exit_code INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;
CREATE INDEX runs_by_start ON runs (started);
CREATE TABLE vm_runs (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    vm TEXT NOT NULL,
    vm_id TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    ground TEXT NOT NULL,
    sent_bytes INTEGER NOT NULL,
    seconds REAL NOT NULL,
    newest_name TEXT,
    newest_guid TEXT,
    newest_at INTEGER
) STRICT;
CREATE INDEX vm_runs_by_run ON vm_runs (run);
CREATE TABLE replicas (
    vm TEXT NOT NULL,
    node TEXT NOT NULL,
    target TEXT NOT NULL,
    vm_id TEXT NOT NULL,
    job TEXT NOT NULL,
    run_at REAL NOT NULL,
    outcome TEXT NOT NULL,
    ground TEXT NOT NULL,
    sent_bytes INTEGER NOT NULL,
    seconds REAL NOT NULL,
    newest_name TEXT,
    newest_guid TEXT,
    newest_at INTEGER,
    equal_at REAL,
    success_at REAL,
    failure_at REAL,
    failure TEXT NOT NULL,
    failures INTEGER NOT NULL,
    PRIMARY KEY (vm, node, target)
) STRICT;
CREATE TABLE jobs (
    job TEXT NOT NULL,
    kind TEXT NOT NULL,
    node TEXT NOT NULL,
    run_at REAL NOT NULL,
    exit_code INTEGER NOT NULL,
    success_at REAL,
    failure_at REAL,
    failures INTEGER NOT NULL,
    PRIMARY KEY (job, kind)
) STRICT;
"""
"""GUIDs are text: SQLite's integers have 63 bits and a sign."""
