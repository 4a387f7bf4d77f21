"""Real disks that are small, full or read-only: a tmpfs each, where the tests may mount one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size_kib: int) -> Iterator[Path]:
    """A disk of that size, mounted at ``folder``; the test is skipped where none can be had."""
    folder.mkdir()
    if os.geteuid() != 0 or _mount("-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)) != 0:
        pytest.skip("needs root, and to be allowed to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def make_read_only(disk: Path) -> None:
    """From now on nothing can be written there."""
    assert _mount("-o", "remount,ro", str(disk)) == 0


def fill(disk: Path) -> None:
    """Takes all the room that is left."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while filler.write(b"x" * 4096):
                pass
        except OSError:
            return


def _mount(*words: str) -> int:
    return subprocess.run(["mount", *words], check=False, capture_output=True).returncode
