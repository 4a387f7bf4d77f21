"""Makes a new VM: a dataset, a disk copied from an image file or empty, a configuration, marks.

The marks come last and the configuration just before them, so that what was cut off is no VM yet. Nothing
that was there before is touched, and nothing is taken away again: an error names what was made.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from uuid import uuid4

from msgspec import Struct

from hoster.cloudinit.passwords import new_secrets
from hoster.config.files import FileMissing
from hoster.config.machine_file import MachineFile, new_machine_file, with_changes, write_machine_file
from hoster.config.networks import find_networks_file, read_networks
from hoster.errors import (
    ConfigurationError,
    HosterError,
    Interrupted,
    OperationFailed,
    Refused,
    UsageError,
)
from hoster.hypervisors.protocol import Drive, Guest
from hoster.hypervisors.qcow2 import qcow2_head
from hoster.model.machines import Disk, DiskLocation, DiskType, MachineConfig, NetworkCard
from hoster.model.names import dataset_name, vm_name
from hoster.model.vms import Vm
from hoster.operations.addresses import hold_addresses
from hoster.operations.context import Context
from hoster.operations.guests import log_path, reference
from hoster.operations.identity import first_marks, properties_of
from hoster.operations.inventory import CONFIG_NAME, Inventory, look_around, refuse_missing
from hoster.planning.reset import MAC_NUMBERS, free_mac, free_vnc_port, network_named
from hoster.zfs.store import missing

_SIZE = re.compile(r"([1-9][0-9]{0,8})([kmgt])", re.IGNORECASE)
_BYTES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_LARGEST = 2**63 - 1
"""No file can have more bytes."""

_CHUNK = 1024 * 1024


class Order(Struct, frozen=True):
    """The VM that is wanted. Either ``image`` or ``disk_size``, in bytes; ``dataset`` empty: the first."""

    name: str
    cores: int = 2
    memory: str = "2G"
    dataset: str = ""
    image: Path | None = None
    disk_size: int = 0
    network: str = ""
    loader: str = "uefi"
    start_now: bool = False


class Deployed(Struct, frozen=True):
    """What was made, or in a dry run would be."""

    name: str
    dataset: str
    config: MachineConfig


def size_bytes(text: str) -> int:
    """``10G`` in bytes; ValueError with the reason.

    >>> size_bytes("512M")
    536870912
    """
    found = _SIZE.fullmatch(text)
    size = int(found[1]) * _BYTES[found[2].lower()] if found else 0
    if not 0 < size <= _LARGEST:
        raise ValueError(f"{text!r}: expected a size such as 512M or 10G")
    return size


def deploy(context: Context, order: Order, *, dry_run: bool = False) -> Deployed:
    """Makes the VM; it does not run yet. Where it is to be started, it is seen first whether that could be.

    UsageError for a name, a dataset or an image that cannot be, Refused for a name that is taken or may be,
    while an active dataset is missing; OperationFailed where something goes wrong on the way; what would keep
    it from starting, before anything is made.
    """
    dataset = _place(context, order)
    _refuse_unknown_network(context, order.network)
    stock = look_around(context, mend=not dry_run)
    refuse_missing(stock.missing)
    _refuse_taken(context, dataset, order.name)
    with _opened(order) as image:
        _refuse_another_disk(order, image)
        file = _machine_file(context, stock, order)
        if order.start_now:
            context.hypervisor.plan(_prospect(context, order.name, dataset, file.config))
        if not dry_run:
            context.zfs.create(dataset)
            try:
                file = _fill(context, dataset, order, image)
            except HosterError as error:
                raise OperationFailed(
                    f"{order.name} was not finished: {error.message}", hint=f"zfs destroy {dataset}"
                ) from error
            except KeyboardInterrupt as interrupt:
                raise Interrupted(
                    f"interrupted; {order.name} was not finished", hint=f"zfs destroy {dataset}"
                ) from interrupt
    return Deployed(order.name, dataset, file.config)


def deployed_vm(context: Context, name: str) -> Vm:
    """The VM of that name, looked at anew."""
    return look_around(context).named(name)


def _place(context: Context, order: Order) -> str:
    parent = order.dataset or context.datasets[0]
    if parent not in context.datasets:
        raise UsageError(f"{parent} is not one of the active datasets: {', '.join(context.datasets)}")
    try:
        size_bytes(order.memory)
        return dataset_name(f"{parent}/{vm_name(order.name)}")
    except ValueError as error:
        raise UsageError(str(error)) from None


def _refuse_unknown_network(context: Context, network: str) -> None:
    """Where it is written down which networks this node has; elsewhere it is seen when the VM is started."""
    if network:
        with contextlib.suppress(FileMissing):
            network_named(read_networks(find_networks_file(context.settings.read_from)), network)


def _refuse_taken(context: Context, dataset: str, name: str) -> None:
    """Anything of that name in an active dataset, be it no VM, would make two of it."""
    seen = context.zfs.look_at([*context.datasets, *(f"{parent}/{name}" for parent in context.datasets)])
    for parent in context.datasets:
        if (taken := seen.get(f"{parent}/{name}")) is not None:
            raise Refused(f"there is a dataset {taken.name} already", hint="choose another name")
    parent = dataset.rpartition("/")[0]
    if seen.get(parent) is None:
        raise missing(context.zfs.node, parent)


def _opened(order: Order) -> IO[bytes]:
    """The image to copy, or nothing to copy."""
    if order.image is None:
        return Path(os.devnull).open("rb")
    try:
        if not order.image.is_file():
            raise UsageError(f"{order.image}: there is no such file")
        return order.image.open("rb")
    except OSError as error:
        raise UsageError(f"{order.image}: {error.strerror}") from error


def _is_qcow2(order: Order) -> bool:
    return order.image is not None and order.image.suffix == ".qcow2"


def _image_name(order: Order) -> str:
    return "disk0.qcow2" if _is_qcow2(order) else "disk0.img"


def _refuse_another_disk(order: Order, image: IO[bytes]) -> None:
    """UsageError where the copy would be another disk than is meant: in part, too small, or no disk at all.

    A qcow2 image is copied as a file, which neither makes its disk larger nor brings what it leans on.
    """
    head = qcow2_head(image)
    path, called_so = order.image, _is_qcow2(order)
    if head is None:
        if called_so:
            raise UsageError(f"{path} is no qcow2 image, though it is called one")
        return
    if not called_so:
        raise UsageError(
            f"{path} is a qcow2 image, and its name does not end in .qcow2",
            hint=f"ln {path} {path}.qcow2, and take that",
        )
    if head.leans_on:
        raise UsageError(
            f"what is not in {path} is in {head.leans_on[0]!r}, which would not be copied",
            hint=f"qemu-img convert -O qcow2 {path} WHOLE.qcow2, and take that",
        )
    if head.size < order.disk_size:
        raise UsageError(
            f"{path} holds a disk of {head.size} bytes, and at least {order.disk_size} was asked for",
            hint=f"qemu-img resize {path} {order.disk_size}, or a copy of it",
        )


def _machine_file(context: Context, stock: Inventory, order: Order) -> MachineFile:
    others = [vm.config for vm in stock.vms if vm.config is not None]
    taken = {card.mac.lower() for other in others for card in other.networks}
    disk = Disk(DiskType.NVME, DiskLocation.INTERNAL, _image_name(order), "OS Disk")
    file = new_machine_file(context.hostname, [disk], production="test" not in order.name, uuid=str(uuid4()))
    mac = free_mac(taken, _numbers())
    return with_changes(
        file,
        cpu_cores=order.cores,
        memory=order.memory,
        loader=order.loader,
        vnc_port=free_vnc_port(others),
        vnc_password=new_secrets().vnc,
        networks=(NetworkCard("virtio-net", order.network, mac),) if order.network else (),
    )


def _prospect(context: Context, name: str, dataset: str, config: MachineConfig) -> Guest:
    """The machine as it will be, where its dataset would be mounted by default."""
    folder = Path("/", dataset)
    drives = tuple(Drive(disk.type, folder / disk.image) for disk in config.disks)
    address = context.settings.vnc_address
    return Guest(reference(context, name), folder, config, drives, log_path(name), address)


def _numbers() -> Iterator[int]:
    while True:
        yield secrets.randbelow(MAC_NUMBERS)


def _fill(context: Context, dataset: str, order: Order, image: IO[bytes]) -> MachineFile:
    """What the VM's configuration is. Ports and addresses are chosen when it is written: to copy an image
    takes its time, and another VM may have got those of before."""
    made = context.zfs.look_at([dataset]).get(dataset)
    if made is None or not made.mounted or made.mountpoint is None:
        raise ConfigurationError(f"{dataset} is not mounted")
    folder = Path(made.mountpoint)
    _copy(image, folder / _image_name(order), 0 if _is_qcow2(order) else order.disk_size)
    with hold_addresses(context, f"hoster vm deploy {order.name}"):
        stock = look_around(context)
        refuse_missing(stock.missing)
        file = _machine_file(context, stock, order)
        write_machine_file(folder / CONFIG_NAME, file)
    marks = first_marks(context.hostname, production=file.config.production)
    context.zfs.set_properties(properties_of(marks), [dataset])
    return file


def _copy(source: IO[bytes], path: Path, least: int) -> None:
    """Copies to a new file of at least so many bytes; what is zero takes no room. On disk when it returns."""
    try:
        with path.open("xb") as target:
            path.chmod(0o600)
            for chunk in _chunks(source):
                if chunk.count(0) == len(chunk):
                    target.seek(len(chunk), os.SEEK_CUR)
                else:
                    target.write(chunk)
            target.truncate(max(target.tell(), least))
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:  # which names no file where its room ends
        raise OperationFailed(f"{path}: {error.strerror}") from error


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    try:
        while chunk := source.read(_CHUNK):
            yield chunk
    except OSError as error:
        raise OperationFailed(f"{source.name}: {error.strerror}") from error
