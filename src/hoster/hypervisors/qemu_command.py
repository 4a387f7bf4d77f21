"""Builds QEMU's command line from a machine's configuration. Pure: looks at nothing, starts nothing.

Every word is one argument; names and paths that may hold a comma go in as JSON. No secret is ever in it: the
process list is for everybody. Written for QEMU 7.2 and later.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from hoster.errors import ConfigurationError
from hoster.hypervisors.protocol import Drive, Guest, GuestRef, console_path
from hoster.model.machines import DiskType, MachineConfig

BINARY = "qemu-system-x86_64"
FIRST_VNC_PORT = 5900

_MEMORY = re.compile(r"([1-9][0-9]{0,8})([kmgt]?)b?", re.IGNORECASE)
_KIB = {"k": 1, "": 1024, "m": 1024, "g": 1024**2, "t": 1024**3}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_PCI = re.compile(r"-?([0-9]{1,3})/([0-9]{1,2})/([0-7])")
_ADAPTORS = {"": "virtio-net-pci", "virtio-net": "virtio-net-pci", "e1000": "e1000"}
_RESOLUTIONS = {
    1: (640, 480),
    2: (800, 600),
    3: (1024, 768),
    4: (1280, 720),
    5: (1280, 1024),
    6: (1600, 900),
    7: (1600, 1200),
    8: (1920, 1080),
    9: (1920, 1200),
}
_PORTS_OF_AHCI = 6


class Placement(Struct, frozen=True):
    """What the command line needs to know beside the machine: what this node has for it.

    ``networks`` is the source of packets for each of its network cards (``tap,fd=7``, ``user``);
    ``variables`` is its own copy of the firmware's settings.
    """

    accelerated: bool
    networks: tuple[str, ...]
    firmware: Path | None = None
    variables: Path | None = None


def pid_file(ref: GuestRef) -> Path:
    return ref.run_dir / "pid"


def monitor_socket(ref: GuestRef) -> Path:
    return ref.run_dir / "qmp"


def serial_socket(ref: GuestRef) -> Path:
    return ref.run_dir / "serial"


def command(guest: Guest, placement: Placement) -> tuple[str, ...]:
    """The words that start it. ConfigurationError, naming file and key, for what QEMU cannot do."""
    config = guest.config
    words = [BINARY, "-name", guest.name, "-no-user-config", "-nodefaults", "-display", "none"]
    words += ["-pidfile", str(pid_file(guest.ref))]
    words += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    words += ["-machine", f"q35,accel={'kvm' if placement.accelerated else 'tcg'}"]
    words += ["-cpu", "host" if placement.accelerated else "max"]
    words += ["-m", f"size={memory_kib(guest) // 1024}M", "-smp", _processors(config)]
    words += ["-rtc", f"base={'localtime' if config.ignore_host_clock else 'utc'}", "-boot", "strict=on"]
    if config.uuid:
        words += ["-uuid", _uuid(guest)]
    words += _sockets(guest)
    words += _firmware(placement)
    words += _drives(guest)
    words += _networks(guest, placement.networks)
    words += _shares(guest)
    words += _screen(guest)
    words += _passed_through(guest)
    return (*words, *_custom(guest))


def notes(config: MachineConfig) -> Iterator[str]:
    """What of the configuration means something else here than the reader may think."""
    if config.passthru:
        yield "PCI passthrough is passed on to QEMU as configured, and has never been tried with this hoster"
    if len(config.vnc_password) > 8:
        yield "VNC looks at the first 8 characters of a password only"
    if foreign := [option for option in config.custom_options if not option.startswith("-")]:
        yield f"custom_options {', '.join(foreign)}: meant for bhyve, and left out"


def memory_kib(guest: Guest) -> int:
    """The machine's memory in KiB; a number alone is MiB, as for bhyve."""
    found = _MEMORY.fullmatch(guest.config.memory)
    size = int(found[1]) * _KIB[found[2].lower()] if found else 0
    if size < 1024:
        raise wrong(guest, "memory", guest.config.memory, "a size such as 512M or 2G")
    return size


def vnc_display(guest: Guest) -> int | None:
    """The number of its VNC display, or None where it is to have no screen."""
    port = guest.config.vnc_port
    if port == 0:
        return None
    if not FIRST_VNC_PORT <= port <= 65535:
        raise wrong(guest, "vnc_port", port, "5900 to 65535, or 0 for no screen")
    if not guest.config.vnc_password and not is_loopback(guest.vnc_address):
        raise wrong(
            guest, "vnc_password", "nothing", f"a password, since VNC is to listen on {guest.vnc_address}"
        )
    return port - FIRST_VNC_PORT


def is_loopback(address: str) -> bool:
    return address in {"localhost", "::1"} or address.startswith("127.")


def hardware_address(name: str, index: int) -> str:
    """What a card without a configured MAC gets: always the same one, in the original's range.

    QEMU would give the same to every machine.
    """
    digest = hashlib.sha256(f"{name}/{index}".encode()).hexdigest()
    return "58:9c:fc:" + ":".join(digest[at : at + 2] for at in (0, 2, 4))


def wrong(guest: Guest, key: str, found: object, expected: str) -> ConfigurationError:
    """The error for a value that cannot be."""
    return ConfigurationError(
        f"{guest.folder}/vm_config.json: {key}: found {found!r}, expected {expected}",
        hint=f"mend that line of it, then hoster vm start {guest.name}",
    )


def _processors(config: MachineConfig) -> str:
    sockets, cores, threads = (max(n, 1) for n in (config.cpu_sockets, config.cpu_cores, config.cpu_threads))
    return f"{sockets * cores * threads},sockets={sockets},cores={cores},threads={threads}"


def _uuid(guest: Guest) -> str:
    if not _UUID.fullmatch(guest.config.uuid):
        raise wrong(guest, "uuid", guest.config.uuid, "a UUID, or nothing")
    return guest.config.uuid


def _sockets(guest: Guest) -> list[str]:
    serial = {
        "path": serial_socket(guest.ref),
        "logfile": console_path(guest.log),
    }
    texts = [f"{key}={_escaped(path)}" for key, path in serial.items()]
    return [
        *("-chardev", f"socket,id=qmp,server=on,wait=off,path={_escaped(monitor_socket(guest.ref))}"),
        *("-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=serial0,server=on,wait=off,logappend=on,{','.join(texts)}"),
        *("-serial", "chardev:serial0"),
    ]


def _firmware(placement: Placement) -> list[str]:
    if placement.firmware is None or placement.variables is None:
        return []
    code = f"if=pflash,unit=0,format=raw,readonly=on,file={_escaped(placement.firmware)}"
    return ["-drive", code, "-drive", f"if=pflash,unit=1,format=raw,file={_escaped(placement.variables)}"]


def _drives(guest: Guest) -> list[str]:
    words: list[str] = []
    of_ahci = 0
    for index, drive in enumerate(guest.drives):
        node = f"disk{index}"
        words += ["-blockdev", _json(_block_node(node, drive))]
        common = {"drive": node, "bootindex": index}
        serial = f"{guest.name[:16]}-{index}"
        match drive.kind:
            case DiskType.NVME:
                words += _device("nvme", **common, serial=serial)
            case DiskType.VIRTIO_BLK:
                words += _device("virtio-blk-pci", **common, serial=serial)
            case DiskType.AHCI_HD | DiskType.AHCI_CD:
                controller, port = divmod(of_ahci, _PORTS_OF_AHCI)
                if port == 0:
                    words += _device("ahci", id=f"ahci{controller}")
                kind = "ide-cd" if drive.kind == DiskType.AHCI_CD else "ide-hd"
                words += _device(kind, **common, bus=f"ahci{controller}.{port}")
                of_ahci += 1
            case other:
                raise wrong(guest, f"disks[{index}].disk_type", other, " or ".join(DiskType))
    return words


def _block_node(name: str, drive: Drive) -> dict[str, object]:
    """A volume is opened past the buffer cache, so that what the guest has written ZFS has seen.

    A file needs no such thing, since a write to it is a write to ZFS; and past the cache OpenZFS 2.3 checks
    each block while the guest may still be changing it, and fails the write (zfs(4),
    ``zfs_vdev_direct_write_verify``).
    """
    is_cd = drive.kind == DiskType.AHCI_CD
    storage: dict[str, object] = {"filename": str(drive.path), "driver": "file"}
    if drive.is_volume:
        storage |= {"driver": "host_device", "aio": "native", "cache": {"direct": True}}
    node: dict[str, object] = {"node-name": name, "driver": _format(drive), "file": storage}
    return node | ({"read-only": True} if is_cd else {"discard": "unmap"})


def _format(drive: Drive) -> str:
    """By name, and never by what is in it: a guest writes what is in it."""
    return "qcow2" if drive.path.suffix == ".qcow2" and not drive.is_volume else "raw"


def _networks(guest: Guest, sources: Sequence[str]) -> list[str]:
    words: list[str] = []
    for index, (card, source) in enumerate(zip(guest.config.networks, sources, strict=True)):
        if card.adaptor_type not in _ADAPTORS:
            raise wrong(
                guest,
                f"networks[{index}].network_adaptor_type",
                card.adaptor_type,
                " or ".join(filter(None, _ADAPTORS)),
            )
        if card.mac and not _MAC.fullmatch(card.mac):
            raise wrong(
                guest, f"networks[{index}].network_mac", card.mac, "an address such as 58:9c:fc:01:02:03"
            )
        head, _, rest = source.partition(",")
        words += ["-netdev", ",".join(filter(None, (head, f"id=net{index}", rest)))]
        mac = card.mac or hardware_address(guest.name, index)
        # Without its ROM a card does not ask the network for something to boot.
        words += _device(_ADAPTORS[card.adaptor_type], netdev=f"net{index}", mac=mac, romfile="")
    return words


def _shares(guest: Guest) -> list[str]:
    words: list[str] = []
    for index, share in enumerate(guest.config.shares):
        if not share.name or not share.location.startswith("/"):
            raise wrong(guest, f"9p_shares[{index}]", share.location, "a name, and a path that begins with /")
        mode = ",readonly=on" if share.read_only else ""
        path = _escaped(Path(share.location))
        words += ["-fsdev", f"local,id=share{index},security_model=passthrough,path={path}{mode}"]
        words += _device("virtio-9p-pci", fsdev=f"share{index}", mount_tag=share.name)
    return words


def _screen(guest: Guest) -> list[str]:
    display = vnc_display(guest)
    if display is None:
        return []
    across, down = _RESOLUTIONS.get(guest.config.vnc_resolution, _RESOLUTIONS[2])
    address = f"[{guest.vnc_address}]" if ":" in guest.vnc_address else guest.vnc_address
    # Until a password is set through QMP, nobody gets in.
    secured = ",password=on" if guest.config.vnc_password else ""
    words = _device("VGA", edid=True, xres=across, yres=down)
    words += ["-vnc", f"{address}:{display}{secured}"]
    if not guest.config.disable_xhci:
        words += [*_device("qemu-xhci"), *_device("usb-tablet")]
    return words


def _passed_through(guest: Guest) -> list[str]:
    words: list[str] = []
    for index, text in enumerate(guest.config.passthru):
        found = _PCI.fullmatch(text)
        if found is None or int(found[1]) > 255 or int(found[2]) > 31:
            raise wrong(guest, f"passthru[{index}]", text, "BUS/SLOT/FUNCTION in decimal, such as 4/0/0")
        bus, slot, function = (int(number) for number in found.groups())
        words += _device("vfio-pci", host=f"{bus:02x}:{slot:02x}.{function}")
    return words


def _custom(guest: Guest) -> Iterator[str]:
    for index, option in enumerate(guest.config.custom_options):
        if option.startswith("-"):
            try:
                yield from shlex.split(option)
            except ValueError:
                raise wrong(guest, f"custom_options[{index}]", option, "quotes that are closed") from None


def _device(driver: str, **properties: object) -> list[str]:
    return ["-device", _json({"driver": driver, **properties})]


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _escaped(path: Path) -> str:
    """A path inside an option that is parted by commas."""
    return str(path).replace(",", ",,")
