"""Writes a node's initrd: the static first process and the kernel modules that the root disk needs.

The archive is written here, in the format that the kernel's documentation calls newc (initramfs buffer
format), so that the machine needs neither cpio nor an initramfs generator.
"""

from __future__ import annotations

import lzma
import stat
import subprocess
from pathlib import Path

__all__ = ["write_initrd"]

# virtio_net is not for the root disk: loaded here, the cards are there before the first service starts.
_NEEDED = ("virtio_pci", "virtio_blk", "ext4", "virtio_net")
_CONSOLE = (5, 1)


def write_initrd(root: Path, kernel: str, init: Path, target: Path) -> None:
    """Write the initrd for `kernel`, whose modules are in `root`, with `init` as its first process."""
    archive = bytearray()
    _add(archive, "dev", stat.S_IFDIR | 0o755)
    _add(archive, "dev/console", stat.S_IFCHR | 0o600, device=_CONSOLE)
    _add(archive, "init", stat.S_IFREG | 0o755, init.read_bytes())
    names = []
    for module in _modules(root, kernel):
        name = module.name.removesuffix(".xz")
        content = module.read_bytes()
        if name != module.name:
            content = lzma.decompress(content)
        _add(archive, name, stat.S_IFREG | 0o644, content)
        names.append(f"/{name}\n")
    _add(archive, "modules", stat.S_IFREG | 0o644, "".join(names).encode())
    _add(archive, "TRAILER!!!", 0)
    target.write_bytes(archive)


def _modules(root: Path, kernel: str) -> list[Path]:
    """Files of the modules to load, each after those that it needs; built-in ones have no file."""
    files: list[Path] = []
    for name in _NEEDED:
        listing = subprocess.run(
            ["chroot", root, "modprobe", "--set-version", kernel, "--show-depends", name],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for line in listing.splitlines():
            match line.split():
                case ["insmod", path, *_] if root / path[1:] not in files:
                    files.append(root / path[1:])
                case _:
                    pass
    return files


def _add(
    archive: bytearray,
    name: str,
    mode: int,
    content: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> None:
    inode = len(archive)
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
    archive += b"070701" + "".join(f"{value:08x}" for value in fields).encode()
    archive += name.encode() + b"\0"
    archive += bytes(-len(archive) % 4)
    archive += content
    archive += bytes(-len(archive) % 4)
