"""What this machine says of itself: its system, how long it runs, its memory and processors. Looks only."""

from __future__ import annotations

import os
import time
from pathlib import Path

from msgspec import Struct

PROC = Path("/proc")


class MachineFacts(Struct, frozen=True):
    """This machine. Sizes in bytes; None where it does not tell. ``cache_bytes`` is what ZFS caches (the
    ARC)."""

    system: str
    uptime_s: float | None
    cpus: int | None
    memory_bytes: int | None
    cache_bytes: int | None


def machine_facts(proc: Path = PROC) -> MachineFacts:
    """What is known of this machine; never fails."""
    return MachineFacts(_system(), _uptime_s(), os.cpu_count(), _memory_bytes(), _cache_bytes(proc))


def _system() -> str:
    """The distribution and the kernel, such as ``Debian GNU/Linux 12 (bookworm), Linux 6.1.0-18-amd64``."""
    import platform

    kernel = os.uname()
    own = f"{kernel.sysname} {kernel.release}"
    try:
        named = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        named = ""
    return f"{named}, {own}" if named and not named.startswith(kernel.sysname) else own


def _uptime_s() -> float | None:
    # Linux's clock counts the time in which the machine slept as well; FreeBSD's has another name.
    clock = getattr(time, "CLOCK_BOOTTIME", None) or getattr(time, "CLOCK_UPTIME", None)
    return None if clock is None else time.clock_gettime(clock)


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _cache_bytes(proc: Path) -> int | None:
    try:
        lines = (proc / "spl/kstat/zfs/arcstats").read_text().splitlines()
    except OSError:
        return None
    sizes = [words[2] for line in lines if (words := line.split()) and words[0] == "size"]
    return int(sizes[0]) if sizes else None
