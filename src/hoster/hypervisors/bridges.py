"""Plugs machines into this node's networks: a network NAME is the bridge ``vm-NAME``. Linux only.

A tap device lives as long as somebody has it open. It is opened here and handed to the machine's process, so
that it goes with that process, however that ends, and nothing has to be tidied up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from hoster.errors import OperationFailed
from hoster.host.process import Runner

PREFIX = "vm-"

INTERFACES = Path("/sys/class/net")
_TUN = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


def networks(folder: Path = INTERFACES) -> frozenset[str]:
    """The names of the networks of this node."""
    if not folder.is_dir():
        return frozenset()
    found = (path.name for path in folder.glob(f"{PREFIX}*") if (path / "bridge").is_dir())
    return frozenset(name.removeprefix(PREFIX) for name in found)


@contextlib.contextmanager
def tap(network: str, runner: Runner) -> Iterator[int]:
    """A new tap device on that network, as an open descriptor. OperationFailed if it cannot be had."""
    if not _TUN.exists():
        runner.run(["modprobe", "tun"], timeout_s=30)  # whether that helped, the next step tells
    try:
        descriptor = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise OperationFailed(f"{_TUN}: {error.strerror}", hint="modprobe tun") from error
    try:
        try:
            wanted = struct.pack("16sH22x", b"", _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
            name = fcntl.ioctl(descriptor, _TUNSETIFF, wanted)[:16].rstrip(b"\0").decode()
        except OSError as error:
            raise OperationFailed(
                f"no tap device can be made: {error.strerror}", hint="run hoster as root"
            ) from error
        done = runner.run(["ip", "link", "set", "dev", name, "master", PREFIX + network, "up"], timeout_s=30)
        if done.returncode != 0:
            raise OperationFailed(f"{name} cannot be put on {PREFIX}{network}: {done.stderr.strip()}")
        yield descriptor
    finally:
        os.close(descriptor)
