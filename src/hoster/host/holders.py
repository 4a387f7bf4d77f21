"""Who keeps a filesystem or a volume of this machine in use: what must be known before its disks are moved.

Linux: the links in /proc (proc(5)), the table of mounts, and what the kernel itself uses (loop devices, and
devices on top of others, in /sys). Elsewhere nobody is found, and the attempt to unmount decides. Processes
of other users are seen by root only. Nothing is started for it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from msgspec import Struct

_LINKS = ("cwd", "root", "exe")


class Holder(Struct, frozen=True, order=True):
    """What uses ``path``: a process, or the kernel (``pid`` 0), with its name."""

    pid: int
    command: str
    path: str

    def __str__(self) -> str:
        who = f"{self.command} (process {self.pid})" if self.pid else self.command
        return f"{who} uses {self.path}"


def holders(folders: Collection[str], devices: Collection[str], root: Path = Path("/")) -> tuple[Holder, ...]:
    """Who uses something in ``folders``, or one of ``devices`` or their partitions; each holder once.

    ``devices`` are paths that may be links. Processes that end meanwhile are passed over. ``root`` is
    where /proc and /sys are looked for.
    """
    if not folders and not devices:
        return ()
    wanted = _Wanted(
        tuple(f"{folder.rstrip('/')}/" for folder in folders),
        {os.path.realpath(device): device for device in devices},
    )
    found: dict[tuple[int, str], Holder] = {}
    for pid, command, path in (*_processes(root, wanted), *_kernel(root, wanted)):
        found.setdefault((pid, command), Holder(pid, command, path))
    return tuple(sorted(found.values()))


def written_by_kernel(
    files: Collection[str], devices: Collection[str], root: Path = Path("/")
) -> tuple[Holder, ...]:
    """What lets the kernel itself write to one of these, behind the back of whoever looks at processes only:
    a mount of a device or of a partition of it, and a loop device on a file; none that is read-only."""
    wanted = _Wanted(
        tuple(f"{os.path.realpath(file)}/" for file in files),
        {os.path.realpath(device): device for device in devices},
    )
    return tuple(sorted({Holder(0, who, path) for who, path, writes in _in_use(root, wanted) if writes}))


class _Wanted(Struct, frozen=True):
    folders: tuple[str, ...]
    devices: dict[str, str]

    def match(self, path: str) -> str | None:
        """The path to show for something that is used; None where it is none of what is wanted."""
        if f"{path}/".startswith(self.folders):
            return path
        for device, shown in self.devices.items():
            if path == device or (path.startswith(f"{device}p") and path[len(device) + 1 :].isdigit()):
                return shown
        return None


def _processes(root: Path, wanted: _Wanted) -> Iterator[tuple[int, str, str]]:
    proc = root / "proc"
    for pid in _names(proc):
        if pid.isdigit():
            for path in _paths(proc / pid):
                shown = wanted.match(path)
                if shown is not None:
                    yield int(pid), _text(proc / pid / "comm") or "a process", shown
                    break


def _paths(process: Path) -> Iterator[str]:
    """Everything that a process has open, maps, runs, or stands in."""
    links = [process / name for name in _LINKS]
    links += [process / "fd" / name for name in _names(process / "fd")]
    for link in links:
        try:
            yield str(link.readlink())
        except OSError:
            continue  # it has ended, or is not ours to see
    for line in _text(process / "maps").splitlines():
        _, slash, path = line.partition(" /")
        if slash:
            yield f"/{path}"


def _kernel(root: Path, wanted: _Wanted) -> Iterator[tuple[int, str, str]]:
    for who, path, _ in _in_use(root, wanted):
        yield 0, who, path
    blocks = root / "sys/block"
    for name in _names(blocks):
        for above in _names(blocks / name / "holders"):
            shown = wanted.match(f"/dev/{name}")
            if shown is not None:
                yield 0, f"/dev/{above}", shown


def _in_use(root: Path, wanted: _Wanted) -> Iterator[tuple[str, str, bool]]:
    """Mounts and loop devices: what it is, what it uses, and whether it may write."""
    for line in _text(root / "proc/self/mounts").splitlines():
        source, place, _, options, *_ = line.split(" ")
        if source.startswith("/dev/") and (shown := wanted.match(os.path.realpath(source))) is not None:
            yield f"a mount at {place}", shown, "ro" not in options.split(",")
    blocks = root / "sys/block"
    for name in _names(blocks):
        if backing := _text(blocks / name / "loop/backing_file"):
            shown = wanted.match(backing)
            if shown is not None:
                yield f"/dev/{name}", shown, _text(blocks / name / "ro") != "1"


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
