"""The log of a replication job: one text file per job name, bounded in size.

Losing it loses history only: what cannot be written is said and never stops a backup.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

LOG_DIR = Path("/var/log/hoster")

LIMIT = 1024 * 1024
"""Size in bytes at which a log becomes ``….log.1``, replacing the one before."""


def log_path(job: str, folder: Path = LOG_DIR) -> Path:
    """Where the log of that job is."""
    return folder / f"replication_{job}.log"


def append(path: Path, lines: Sequence[str], now: datetime) -> str:
    """Adds ``lines`` under the present time, in one write; returns why that failed, or nothing."""
    text = "".join(f"{now:%Y-%m-%d %H:%M:%S} {line}\n" for line in lines)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LIMIT:
            path.replace(path.with_suffix(".log.1"))
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"{path}: the log cannot be written: {error.strerror}"
    return ""
