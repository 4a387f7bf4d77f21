"""How a node is run by QEMU: its disks, and the command line. Nothing is started here."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.image import Image
from lab.network import control_tap, data_tap

__all__ = ["DISKS", "Hardware", "make_disks", "qemu_command"]

DISKS = ("a", "b", "c")
_DISK_BYTES = 2 * 2**30
_SECTOR = 512
_FIRST_SECTOR = 2048
_SOLARIS_ROOT = 0xBF


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a node's machine is made of. `memory_mib` is a limit: memory is taken as it is used.

    `emulator` begins the command line: QEMU's program, and where it finds its firmware.
    """

    memory_mib: int
    kvm: bool
    emulator: tuple[str, ...]

    @property
    def processor(self) -> tuple[str, ...]:
        if self.kvm:
            return ("-accel", "kvm", "-cpu", "host")
        # QEMU 7.2's emulation crashes guests at cmpxchg16b, sooner with several CPUs (hence -smp 1) but also
        # with one. Five levels of page tables would only make every miss dearer.
        return ("-accel", "tcg,tb-size=256", "-cpu", "max,-cx16,-la57")


def make_disks(image: Image, directory: Path) -> None:
    """Make a node's own disks: a copy-on-write layer over the image, and empty sparse ones for pools."""
    subprocess.run(
        [
            *("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"),
            *("-b", image.disk, directory / "root.qcow2"),
        ],
        check=True,
    )
    for letter in DISKS:
        with _disk(directory, letter).open("wb") as disk:
            disk.truncate(_DISK_BYTES)
            disk.write(_partition_table())


def qemu_command(image: Image, hardware: Hardware, number: int, directory: Path) -> list[str]:
    """The command line that runs node `number` with the disks in `directory`, in the foreground."""
    drives = [("root", f"file={directory}/root.qcow2,format=qcow2")]
    drives += [
        (f"disk-{letter}", f"file={_disk(directory, letter)},format=raw,discard=unmap") for letter in DISKS
    ]
    kernel_line = (
        "root=/dev/vda rw console=ttyS0 loglevel=4 net.ifnames=0 mitigations=off random.trust_cpu=on "
        f"audit=0 no_timer_check systemd.show_status=0 systemd.machine_id={number:032x} lab.node={number}"
    )
    command = [
        *(*hardware.emulator, "-name", f"lab-node{number}", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-smp", "1", "-m", str(hardware.memory_mib), *hardware.processor),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", kernel_line),
        *("-serial", f"file:{directory}/console", "-device", "virtio-rng-pci"),
    ]
    for serial, drive in drives:
        # What the node has flushed survives its power cut: the machine's page cache outlives QEMU.
        command += ["-drive", f"if=none,id={serial},cache=unsafe,{drive}"]
        command += ["-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
    cards = (("control", control_tap(number), 0x78), ("data", data_tap(number), 0x77))
    for name, tap, octet in cards:
        command += ["-netdev", f"tap,id={name},ifname={tap},script=no,downscript=no"]
        address = f"52:54:00:{octet:02x}:00:{number:02x}"
        command += ["-device", f"virtio-net-pci,netdev={name},mac={address},romfile="]
    return command


def _disk(directory: Path, letter: str) -> Path:
    return directory / f"disk-{letter}.raw"


def _partition_table() -> bytes:
    """A master boot record with one partition over all of the disk.

    Given a partition, zpool-create(8) neither writes a GPT nor waits for udev, which takes seconds.
    """
    count = _DISK_BYTES // _SECTOR - _FIRST_SECTOR
    no_geometry = b"\xfe\xff\xff"
    entry = struct.pack("<B3sB3sII", 0, no_geometry, _SOLARIS_ROOT, no_geometry, _FIRST_SECTOR, count)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"
