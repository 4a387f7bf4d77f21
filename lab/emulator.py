"""Which QEMU runs the nodes: a newer one than Debian 12's where that is what there is.

QEMU 7.2 takes nearly twice the time of QEMU 10 for what nodes do most, starting programs. The newer one comes
from the backports of the machine's own mirror and is unpacked beside the images, not installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from lab.errors import LabError
from lab.machine import tool_environment
from lab.mirror import codename, machine_mirror
from lab.steps import Steps
from lab.unpacked import move_into_place, unpack

__all__ = ["emulator"]

_PROGRAM = "qemu-system-x86_64"
_NEW_ENOUGH = 9
_PACKAGES = ("qemu-system-x86", "qemu-system-common", "qemu-system-data")
_TRY_AGAIN_AFTER_S = 24 * 3600
_FIRMWARE = ("/usr/share/seabios", "/usr/share/qemu")


def emulator(cache: Path) -> tuple[str, ...]:
    """The beginning of QEMU's command line; `cache` exists, and keeps what is fetched.

    Where no newer one is to be had, the system's own: slower, and as good.
    """
    installed = _version((_PROGRAM,))
    if installed is None or installed >= _NEW_ENOUGH:
        return (_PROGRAM,)
    kept = cache / f"qemu-{codename()}"
    works = kept / "works"
    if kept.exists() and not works.exists() and time.time() - kept.stat().st_mtime > _TRY_AGAIN_AFTER_S:
        shutil.rmtree(kept, ignore_errors=True)
    if not kept.exists():
        _fetch(kept)
    return _command(kept) if works.exists() else (_PROGRAM,)


def _command(root: Path) -> tuple[str, ...]:
    folders = (root / "usr/share/qemu", *_FIRMWARE)
    return (str(root / "usr/bin" / _PROGRAM), *(word for folder in folders for word in ("-L", str(folder))))


def _fetch(kept: Path) -> None:
    """Makes `kept`, with a file `works` in it if the program in it runs on this machine."""
    with tempfile.TemporaryDirectory(dir=kept.parent, suffix=".building") as work:
        root = Path(work) / "root"
        root.mkdir()
        steps = Steps(Path(work) / "log")
        steps.say("fetching a newer QEMU: this machine's own is slow")
        try:
            unpack(machine_mirror(), f"{codename()}-backports", _PACKAGES, root, steps)
        except LabError as error:
            steps.say(f"no newer QEMU to be had, going on with the machine's own: {error}")
        if (_version(_command(root)) or 0) >= _NEW_ENOUGH:
            (root / "works").touch()
        move_into_place(root, kept)


def _version(command: tuple[str, ...]) -> int | None:
    """The major version of that QEMU, or None if it does not run."""
    try:
        done = subprocess.run(
            [command[0], "--version"], capture_output=True, text=True, check=False, env=tool_environment()
        )
    except OSError:
        return None
    found = re.search(r"version (\d+)\.", done.stdout)
    return int(found[1]) if found and done.returncode == 0 else None
