"""The devices of ZFS volumes on this machine, which follow a rename of their dataset a moment later.

Linux: /dev/zvol/NAME is a link that udev makes to a device of the kernel; until it has heard of a rename,
the link of the new name is missing, or leads to the volume that had the name before. The kernel says which
volume a device is (the ioctl BLKZNAME of OpenZFS). Of an encrypted volume whose key is not loaded it says
nothing: a rename at that moment goes past udev, and is not told again when the key is loaded. FreeBSD makes
the devices by itself, under their names.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

_NAME_BYTES = 256
_BLKZNAME = (2 << 30) | (_NAME_BYTES << 16) | (0x12 << 8) | 125
"""``_IOR(0x12, 125, char[256])``, as in OpenZFS's include/sys/fs/zfs.h."""

_POLL_S = 0.05
_ANNOUNCE_S = 1.0

FOLDER = Path("/dev/zvol")
_BLOCKS = Path("/sys/block")
_DEVICES = Path("/dev")


def device_numbers(volumes: Collection[str], folder: Path = FOLDER) -> dict[str, int]:
    """The numbers of the devices that these datasets have under their names; without one, it is left out."""
    found: dict[str, int] = {}
    for name in volumes:
        with contextlib.suppress(OSError):
            found[name] = (folder / name).stat().st_rdev
    return found


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
    return volume_said(said)


def volume_said(answer: bytes) -> str:
    """The name in an answer of BLKZNAME. What follows its end is left of longer names that the volume had."""
    return answer.partition(b"\0")[0].decode(errors="replace")


def announce(volumes: Collection[str], folder: Path = FOLDER, blocks: Path = _BLOCKS) -> None:
    """Lets the kernel say again which devices these volumes have, and those that their names lead to now, so
    that udev makes their links anew. Does nothing where that cannot be done."""
    led_to = {(folder / name).resolve().name for name in volumes}
    # First those that may have to let go of a name.
    for block in sorted(blocks.glob("zd*"), key=lambda block: block.name not in led_to):
        if block.name in led_to or name_of_device(_DEVICES / block.name) in volumes:
            for told in (block, *block.glob(f"{block.name}p*")):
                with contextlib.suppress(OSError):
                    (told / "uevent").write_text("change")


def await_devices(
    volumes: Collection[str],
    former: Mapping[str, int] | None = None,
    limit_s: float = 10.0,
    folder: Path = FOLDER,
    name_of: Callable[[Path], str | None] = name_of_device,
) -> tuple[str, ...]:
    """Waits until the device of each of these datasets is there under its name, and is that one's; those of
    which that is not so after ``limit_s`` seconds. Where the system does not say whose one is, it must exist.

    ``former`` are the numbers of devices that are others' by now: the kernel itself renames them a moment
    after the datasets, and calls them by their former names until then.
    """
    deadline = time.monotonic() + limit_s
    announced = 0.0
    missing = tuple(sorted(volumes))
    while True:
        missing = tuple(n for n in missing if not _is_there(folder / n, n, former or {}, name_of))
        if not missing or time.monotonic() >= deadline:
            return missing
        if time.monotonic() - announced >= _ANNOUNCE_S:
            announce(missing, folder)
            announced = time.monotonic()
        time.sleep(_POLL_S)


def _is_there(
    path: Path, name: str, former: Mapping[str, int], name_of: Callable[[Path], str | None]
) -> bool:
    try:
        number = path.stat().st_rdev
    except OSError:
        return False
    return number != former.get(name) and name_of(path) in {None, name}
