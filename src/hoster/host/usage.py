"""Which files processes on this machine have open: what tells that somebody uses a VM's disks.

Linux: the links in /proc/*/fd (proc(5)); processes of other users are seen by root only. FreeBSD: bhyve's
VMs are listed by name in /dev/vmm (bhyve(8)). Nothing is started for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from msgspec import Struct

_WRITES = os.O_WRONLY | os.O_RDWR


class Opener(Struct, frozen=True):
    """A process that has the file or device ``path`` open, and whether for writing."""

    pid: int
    command: str
    path: Path
    writes: bool


def openers(paths: Iterable[Path], proc: Path = Path("/proc")) -> tuple[Opener, ...]:
    """The processes that have one of ``paths`` open, each once for each path; links are followed first."""
    wanted = {os.path.realpath(path): path for path in paths}
    if not wanted:
        return ()
    found: dict[tuple[int, str], Opener] = {}
    for link, target in _open_files(proc):
        if target in wanted:
            pid = int(link.split("/")[-3])
            writes = _is_for_writing(link)
            known = found.get((pid, target))
            if known is None or (writes and not known.writes):
                found[pid, target] = Opener(pid, _command(proc / str(pid)), wanted[target], writes)
    return tuple(found[key] for key in sorted(found))


def open_below(folders: Collection[str]) -> frozenset[str]:
    """Those of ``folders`` below which some process has a file open for which it holds a descriptor."""
    wanted = {folder.rstrip("/") + "/": folder for folder in folders}
    if not wanted:
        return frozenset()
    used: set[str] = set()
    for _, path in _open_files():
        used.update(folder for prefix, folder in wanted.items() if path.startswith(prefix))
    return frozenset(used)


def flush_volumes(datasets: Iterable[str], folder: Path = Path("/dev/zvol")) -> tuple[Path, ...]:
    """Hands to ZFS what processes have written to volumes below ``datasets`` and the kernel still holds back.

    Writes to the device of a volume stay in the kernel's buffer cache unless they go past it; a sync of the
    pool does not reach them, an fsync of the device by anybody does. Only volumes that some process has open
    for writing are flushed, and returned. One that cannot be is left as it is.
    """
    volumes = [
        path for dataset in datasets for path in (folder / dataset).rglob("*") if path.is_block_device()
    ]
    flushed: list[Path] = []
    for path in dict.fromkeys(user.path for user in openers(volumes) if user.writes):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            flushed.append(path)
    return tuple(flushed)


def bhyve_machines(folder: Path = Path("/dev/vmm")) -> frozenset[str]:
    """Names of the machines that FreeBSD's kernel has; empty elsewhere."""
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _open_files(proc: Path = Path("/proc")) -> Iterator[tuple[str, str]]:
    """Every open descriptor, as its link in /proc, and where that leads; those of this process left out."""
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
            link = f"{folder}/{descriptor}"
            try:
                target = os.readlink(link)
            except OSError:
                continue
            yield link, target


def _is_for_writing(link: str) -> bool:
    """By the flags in fdinfo (proc(5)); yes where they cannot be read."""
    process, _, descriptor = link.rpartition("/fd/")
    try:
        words = Path(f"{process}/fdinfo/{descriptor}").read_text().split()
        return bool(int(words[words.index("flags:") + 1], 8) & _WRITES)
    except (OSError, ValueError):
        return True


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "a process that has just ended"
