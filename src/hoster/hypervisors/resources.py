"""What of this node a machine needs and may not get: memory, a port. Looks only."""

from __future__ import annotations

import socket
from pathlib import Path

PROC = Path("/proc")


def memory_available_kib(proc: Path = PROC) -> int | None:
    """What could be had now, in KiB, without swapping; None where the system does not tell.

    The kernel does not count what ZFS keeps in its cache (the ARC), which ZFS gives up when memory is
    wanted, down to its minimum; so that is added.
    """
    available = _number(proc / "meminfo", "MemAvailable:", 1)
    if available is None:
        return None
    cache = proc / "spl/kstat/zfs/arcstats"
    size, least = _number(cache, "size", 2), _number(cache, "c_min", 2)
    return available + max((size or 0) - (least or 0), 0) // 1024


def port_problem(address: str, port: int) -> str:
    """Why nothing could listen there now, in the system's words; empty where something could."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _number(path: Path, key: str, field: int) -> int | None:
    """The number in that field of the line that begins with ``key``."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if words and words[0] == key:
            return int(words[field])
    return None
