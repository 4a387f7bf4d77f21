"""Markers: one file for each job whose last run failed, for whoever watches a folder.

``ERROR_<job>`` is there from the failure until the job's next success, and says when and why. It is a sign
and never a lock: nothing in hoster reads it to decide anything. What cannot be written is said and stops
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from hoster.records.whole import write_whole

_PREFIX = "ERROR_"
_FOLDER_MODE = 0o750
_FILE_MODE = 0o640
_MOST_BYTES = 4096
"""So much of a marker is read back."""


class Marker(Struct, frozen=True):
    """A marker that is there: the job, when it was written (Unix seconds), and what it says."""

    job: str
    written_at: float
    text: str


def raise_marker(folder: Path, job: str, reasons: Sequence[str], now: datetime) -> str:
    """Writes the marker of ``job``, in place of an older one; why that failed, or nothing."""
    head = f"{now:%Y-%m-%d %H:%M:%S} {job} failed"
    text = "".join(f"{line}\n" for line in (head, *reasons))
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        write_whole(marker_path(folder, job), text, mode=_FILE_MODE)
    except OSError as error:
        return f"{marker_path(folder, job)}: the marker cannot be written: {error.strerror}"
    return ""


def clear_marker(folder: Path, job: str) -> str:
    """Removes the marker of ``job`` if there is one; why that failed, or nothing."""
    try:
        marker_path(folder, job).unlink(missing_ok=True)
    except NotADirectoryError:
        return ""
    except OSError as error:
        return f"{marker_path(folder, job)}: the marker cannot be removed: {error.strerror}"
    return ""


def markers(folder: Path) -> tuple[Marker, ...]:
    """The markers in ``folder``, by job; one that goes meanwhile, or cannot be read, is left out.

    OSError where there is a folder and it cannot be read.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.name.startswith(_PREFIX))
    except FileNotFoundError:
        return ()
    return tuple(marker for path in found if (marker := _read(path)) is not None)


def marker_path(folder: Path, job: str) -> Path:
    """Where the marker of that job is."""
    return folder / f"{_PREFIX}{job}"


def _read(path: Path) -> Marker | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as opened:
            text = opened.read(_MOST_BYTES).decode(errors="replace")
        return Marker(path.name.removeprefix(_PREFIX), path.stat().st_mtime, text)
    except OSError:
        return None
