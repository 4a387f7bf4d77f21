"""The devices of ZFS volumes on this machine, which follow a rename of their dataset a moment later.

Linux: /dev/zvol/NAME is a link that udev makes to a device of the kernel; until it has heard of a rename,
the link of the new name is missing, or leads to the volume that had the name before. The kernel says which
volume a device is (the ioctl BLKZNAME of OpenZFS). FreeBSD makes the devices by itself, under their names.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

_NAME_BYTES = 256
_BLKZNAME = (2 << 30) | (_NAME_BYTES << 16) | (0x12 << 8) | 125
"""``_IOR(0x12, 125, char[256])``, as in OpenZFS's include/sys/fs/zfs.h."""

_POLL_S = 0.05

FOLDER = Path("/dev/zvol")


def with_devices(volumes: Collection[str], folder: Path = FOLDER) -> frozenset[str]:
    """Those of these datasets that have a device."""
    return frozenset(name for name in volumes if (folder / name).exists())


def name_of_device(path: Path) -> str | None:
    """The dataset whose volume a device is; None where there is no device, or the system does not say."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        said: bytes = fcntl.ioctl(descriptor, _BLKZNAME, bytes(_NAME_BYTES))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return said.rstrip(b"\0").decode(errors="replace")


def await_devices(
    volumes: Collection[str],
    limit_s: float = 10.0,
    folder: Path = FOLDER,
    name_of: Callable[[Path], str | None] = name_of_device,
) -> tuple[str, ...]:
    """Waits until the device of each of these datasets is there under its name, and is that one's; those of
    which that is not so after ``limit_s`` seconds. Where the system does not say whose one is, it must exist.
    """
    deadline = time.monotonic() + limit_s
    missing = tuple(sorted(volumes))
    while True:
        missing = tuple(name for name in missing if not _is_there(folder / name, name, name_of))
        if not missing or time.monotonic() >= deadline:
            return missing
        time.sleep(_POLL_S)


def _is_there(path: Path, name: str, name_of: Callable[[Path], str | None]) -> bool:
    return path.exists() and name_of(path) in {None, name}
