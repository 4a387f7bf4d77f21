"""Which files processes on this machine have open: what tells that a VM's disks are in use.

Linux: the links in /proc/*/fd (proc(5)); processes of other users are seen by root only. FreeBSD: bhyve's
VMs are listed by name in /dev/vmm (bhyve(8)). Nothing is started for it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path


def open_below(folders: Collection[str]) -> frozenset[str]:
    """Those of ``folders`` below which some process has a file open for which it holds a descriptor."""
    wanted = {folder.rstrip("/") + "/": folder for folder in folders}
    if not wanted:
        return frozenset()
    used: set[str] = set()
    for path in _open_paths():
        used.update(folder for prefix, folder in wanted.items() if path.startswith(prefix))
    return frozenset(used)


def bhyve_machines(folder: Path = Path("/dev/vmm")) -> frozenset[str]:
    """Names of the machines that FreeBSD's kernel has; empty elsewhere."""
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _open_paths(proc: Path = Path("/proc")) -> Iterator[str]:
    own = str(os.getpid())
    try:
        processes = [name for name in os.listdir(proc) if name.isdigit() and name != own]
    except OSError:
        return
    for process in processes:
        folder = f"{proc}/{process}/fd"
        try:
            descriptors = os.listdir(folder)
        except OSError:
            continue  # it has ended, or is not ours to see
        for descriptor in descriptors:
            try:
                yield os.readlink(f"{folder}/{descriptor}")
            except OSError:
                continue
