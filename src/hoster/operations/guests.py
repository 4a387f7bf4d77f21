"""Turns a VM into what a hypervisor can start: its configuration's disks become paths of this node.

Nothing outside of the VM is followed to a disk: what is called internal must lie in the VM, or it would be
missing from every snapshot and replica without a sign.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from hoster.errors import ConfigurationError, OperationFailed
from hoster.hypervisors.protocol import Drive, Guest, GuestRef, console_path
from hoster.hypervisors.qcow2 import qcow2_head
from hoster.model.machines import Disk, MachineConfig
from hoster.model.storage import DatasetKind
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.inventory import CONFIG_NAME

LOG_DIR = Path("/var/log/hoster/vm")
LOG_LINK = "vm.log"
"""In the VM's folder: leads to its log, which is outside so that it is not rolled back with the VM."""

_TAIL = 256 * 1024
"""So much of a log is looked at for its last lines, in bytes."""

_VOLUMES = Path("/dev/zvol")
_PARTITION = re.compile(r"zd\d+p\d+")
_PROTOCOL = re.compile(r"[^/]*:")
"""How the name of an image begins that is no path to QEMU: ``nbd://…``, ``json:{…}``."""


def reference(context: Context, name: str) -> GuestRef:
    """By what the hypervisor knows the VM of that name."""
    return GuestRef(name, Path(context.settings.run_dir) / "vm" / name)


def log_path(name: str, folder: Path = LOG_DIR) -> Path:
    """The log of the VM's process."""
    return folder / f"{name}.log"


def guest_of(context: Context, vm: Vm) -> Guest:
    """The VM as a hypervisor takes it.

    ConfigurationError where its configuration cannot be read, or names a disk that is missing, is no disk,
    or is said to be internal and is outside.
    """
    if vm.config is None or vm.dataset.mountpoint is None:
        raise ConfigurationError(f"{vm.name}: {vm.problem or f'{vm.dataset.name} is not mounted'}")
    _refuse_nul(vm.name, vm.config)
    folder = Path(vm.dataset.mountpoint)
    drives = tuple(
        Drive(disk.type, path, is_volume=path.is_block_device())
        for disk, path in zip(vm.config.disks, _paths(vm, vm.config, folder), strict=True)
    )
    return Guest(
        reference(context, vm.name),
        folder,
        vm.config,
        drives,
        log_path(vm.name),
        context.settings.vnc_address,
    )


def image_paths(vm: Vm) -> tuple[Path, ...]:
    """Where the VM's disks are, as far as that can be told, its volumes among them; nothing is checked."""
    volumes = [_VOLUMES / d.name for d in vm.descendants if d.kind is DatasetKind.VOLUME]
    if vm.config is None or vm.dataset.mountpoint is None:
        return tuple(volumes)
    folder = Path(vm.dataset.mountpoint)
    disks = [disk for disk in vm.config.disks if "\0" not in disk.image]  # no file is called so
    return tuple(dict.fromkeys([*(_place(vm, disk, folder) for disk in disks), *volumes]))


def volumes_of(guest: Guest) -> tuple[str, ...]:
    """The datasets of the volumes that are its disks; partitions of volumes are left out."""
    paths = (drive.path for drive in guest.drives if drive.path.is_relative_to(_VOLUMES))
    return tuple(
        str(path.relative_to(_VOLUMES)) for path in paths if not _PARTITION.fullmatch(path.resolve().name)
    )


def notes_on(vm: Vm, guest: Guest) -> Iterator[str]:
    """What a reader of the configuration may not see: disks that no snapshot of the VM has."""
    own = _VOLUMES / vm.dataset.name
    for drive in guest.drives:
        if not drive.path.is_relative_to(guest.folder) and not drive.path.is_relative_to(own):
            yield f"{drive.path} is outside of {vm.dataset.name}: no snapshot or replica of the VM has it"


def last_lines(name: str, count: int, *, console: bool = False, folder: Path = LOG_DIR) -> str:
    """The end of the VM's log, or of what its guest said on its serial line; OperationFailed without one."""
    path = log_path(name, folder)
    path = console_path(path) if console else path
    try:
        with path.open("rb") as log:
            log.seek(max(path.stat().st_size - _TAIL, 0))
            lines = log.read().decode(errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        raise OperationFailed(f"{name} has no log here: {path}", hint=f"hoster vm start {name}") from None
    return "".join(lines[-count:])


def link_log(guest: Guest) -> str:
    """Puts a link to the log into the VM's folder; returns why not, or nothing.

    A link that is there is replaced in one step, and never followed; anything else there is the user's.
    """
    link = guest.folder / LOG_LINK
    try:
        if link.is_symlink():
            if link.readlink() == guest.log:
                return ""
        elif link.exists():
            return f"{link} is something else than a link to {guest.log}, and is left alone"
        scratch = guest.folder / f".{LOG_LINK}.new"
        with contextlib.suppress(FileNotFoundError):
            scratch.unlink()
        scratch.symlink_to(guest.log)
        scratch.rename(link)
    except OSError as error:
        return f"{link}: cannot be made: {error.strerror}"
    return ""


def _refuse_nul(name: str, config: MachineConfig) -> None:
    """A NUL can be in no path and no word of a command."""
    texts = [disk.image for disk in config.disks] + [share.location for share in config.shares]
    for text in (*texts, *config.custom_options):
        if "\0" in text:
            raise ConfigurationError(f"{name}: {CONFIG_NAME}: found {text!r}, expected text without a NUL")


def _paths(vm: Vm, config: MachineConfig, folder: Path) -> Iterator[Path]:
    for index, disk in enumerate(config.disks):
        path = _place(vm, disk, folder)
        where = f"{folder / CONFIG_NAME}: disks[{index}].disk_image: {disk.image!r}"
        if disk.leaves_folder or (disk.is_internal and _leads_out(path, folder, vm)):
            raise ConfigurationError(
                f"{where} is an internal disk that is not in the VM's folder",
                hint='"disk_location": "external" if it is to stay where no snapshot of the VM has it',
            )
        if not disk.is_internal and not path.is_absolute():
            raise ConfigurationError(f"{where} is an external disk, and no path that begins with /")
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise ConfigurationError(f"{where}: {path}: {error.strerror}") from error
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise ConfigurationError(f"{where}: {path} is neither a file nor a volume")
        if disk.is_internal and path.suffix == ".qcow2":
            try:
                _refuse_leaning_out(where, path, folder)
            except OSError as error:
                raise ConfigurationError(f"{where}: {error.filename}: {error.strerror}") from error
        yield path


def _refuse_leaning_out(where: str, path: Path, folder: Path) -> None:
    """ConfigurationError for an image in the VM's folder of which a part is elsewhere (a backing file)."""
    inside = os.path.realpath(folder)
    found = [Path(os.path.realpath(path))]
    for image in found:
        with image.open("rb") as opened:
            head = qcow2_head(opened)
        for name in head.leans_on if head is not None else ():
            other = Path(os.path.realpath(image.parent / name))
            if _PROTOCOL.match(name) or not other.is_relative_to(inside):
                raise ConfigurationError(
                    f"{where} is an internal disk, and a part of it is in {name!r}, outside of the VM",
                    hint=f"qemu-img convert -O qcow2 {path} WHOLE.qcow2 makes a whole one",
                )
            found += [other] if other not in found else []


def _place(vm: Vm, disk: Disk, folder: Path) -> Path:
    """An internal disk is a file in the VM's folder or, by the same name, a volume below its dataset."""
    if not disk.is_internal:
        return Path(disk.image)
    volume = f"{vm.dataset.name}/{disk.image}"
    if any(d.name == volume and d.kind is DatasetKind.VOLUME for d in vm.descendants):
        return _VOLUMES / volume
    return folder / disk.image


def _leads_out(path: Path, folder: Path, vm: Vm) -> bool:
    """Whether a symbolic link on the way makes it another place than it seems."""
    if path.is_relative_to(_VOLUMES / vm.dataset.name):
        return False
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
