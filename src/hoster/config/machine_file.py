"""A VM's vm_config.json: read without trust, changed as a value, written so that a crash cannot hurt it.

The file is shared with Hoster and with people: keys that are not known here are kept, nested ones too, and
the layout is Hoster's, so that a rewrite shows only what was changed. Nothing that the file says is followed
here; a path in it is a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from msgspec import Struct

from hoster.config.files import MAX_BYTES, DiskCalls, FileMissing, read_small_file, replace_file
from hoster.config.json_text import JsonObject, Place, decoded_object, encoded_object
from hoster.config.machine_keys import MACHINE, canonical, plain, typed
from hoster.errors import ConfigurationError
from hoster.model.machines import Disk, FailoverStrategy, MachineConfig, NetworkCard, SharedFolder, SshKey

MACHINE_FILE_NAME = "vm_config.json"

_MODE_IF_NEW = 0o600  # the VNC password is in it
_LEGACY_PRODUCTION = ("production", "prod")


class MachineFile(Struct, frozen=True):
    """The content of a vm_config.json: what it means, and the whole document as it will be written.

    ``document`` holds the unknown keys too and is never changed in place. ``mode`` is what the file's
    permission bits were, or None if it was not read from disk.
    """

    config: MachineConfig
    document: JsonObject
    mode: int | None = None


class MachineChanges(TypedDict, total=False):
    """What can be changed: the fields of MachineConfig, by name."""

    production: bool
    ignore_host_clock: bool
    include_host_ssh_keys: bool
    disable_xhci: bool
    cpu_sockets: int
    cpu_cores: int
    cpu_threads: int
    vnc_resolution: int
    vnc_port: int
    vnc_password: str
    memory: str
    loader: str
    os_type: str
    os_comment: str
    owner: str
    parent_host: str
    failover_strategy: FailoverStrategy
    vga: str
    uuid: str
    description: str
    dns_search_domain: str
    networks: tuple[NetworkCard, ...]
    disks: tuple[Disk, ...]
    ssh_keys: tuple[SshKey, ...]
    tags: tuple[str, ...]
    passthru: tuple[str, ...]
    shares: tuple[SharedFolder, ...]
    custom_options: tuple[str, ...]


def read_machine_file(path: Path) -> MachineFile:
    """What the file ``path`` says.

    FileMissing if it is not there; ConfigurationError with the line or the path of keys if it is not a
    regular file of at most 1 MiB that holds one well-formed object.
    """
    try:
        file = read_small_file(path)
    except FileMissing as error:
        hint = f"if its dataset is mounted, hoster vm adopt {path.parent.name} makes one"
        raise FileMissing(error.message, hint=hint) from None
    try:
        return _machine_file(decoded_object(file.data, str(path)), str(path), file.mode)
    except ConfigurationError as error:
        hint = error.hint or f"earlier states of it are in {path.parent}/.zfs/snapshot/*/{path.name}"
        raise ConfigurationError(error.message, hint=hint) from error


def parse_machine_file(data: bytes, where: str) -> MachineFile:
    """What ``data`` says; ``where`` is the name that error messages give it."""
    return _machine_file(decoded_object(data, where), where, None)


def with_changes(machine_file: MachineFile, **changes: Unpack[MachineChanges]) -> MachineFile:
    """The same file with some fields changed; every other key stays as it is.

    Disks, network cards and the like keep the unknown keys that they had: an entry is recognised as one
    that was there by being equal to it or, if the list kept its length, by its place.

    >>> vm = parse_machine_file(b'{"memory": "2G", "colour": "red"}', "vm_config.json")
    >>> with_changes(vm, memory="4G").document["colour"]
    'red'
    """
    known = {key.field: key for key in MACHINE.keys}
    document = dict(machine_file.document)
    for field, value in changes.items():
        key = known[field]
        document[key.name] = plain(key, value, document.get(key.name))
    return _machine_file(document, MACHINE_FILE_NAME, machine_file.mode)


def new_machine_file(
    hostname: str, disks: Sequence[Disk], *, production: bool, uuid: str = ""
) -> MachineFile:
    """The file for a VM that had none, with what Hoster gives a new VM; ``hostname`` becomes its parent."""
    empty = MachineFile(MachineConfig(), {})
    return with_changes(
        empty,
        production=production,
        include_host_ssh_keys=True,
        cpu_sockets=1,
        cpu_cores=2,
        memory="2G",
        loader="uefi",
        os_type="custom",
        os_comment="Custom OS",
        owner="system",
        parent_host=hostname,
        uuid=uuid,
        description="-",
        networks=(),
        disks=tuple(disks),
        ssh_keys=(),
        tags=(),
    )


def machine_file_bytes(machine_file: MachineFile) -> bytes:
    """The file's content, to the byte."""
    return encoded_object(machine_file.document)


def write_machine_file(path: Path, machine_file: MachineFile, *, calls: DiskCalls | None = None) -> None:
    """Replaces ``path``, or makes it with mode 0600; killed at any moment, it leaves the old or the new one.

    Owner and mode of an existing file stay. ConfigurationError if that is not a regular file, or the new
    content is more than is ever read back; Busy while another process writes it; OperationFailed if the
    disk refuses.
    """
    data = machine_file_bytes(machine_file)
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{path}: would have {len(data)} bytes, expected {MAX_BYTES} at the most")
    replace_file(path, data, mode_if_new=_MODE_IF_NEW, calls=calls)


def _machine_file(document: JsonObject, where: str, mode: int | None) -> MachineFile:
    place = Place(where)
    kept = canonical(MACHINE, _without_live_status(document, place), place)
    config: MachineConfig = typed(MACHINE, kept)
    return MachineFile(config, kept, mode)


def _without_live_status(document: JsonObject, place: Place) -> JsonObject:
    """``production`` in place of its predecessor, which counts only where there is no ``production``."""
    if "live_status" not in document:
        return document
    status = document["live_status"]
    kept = {name: value for name, value in document.items() if name != "live_status"}
    if any(name.lower() == "production" for name in kept):
        return kept
    if not isinstance(status, str | None):
        raise place.key("live_status").unexpected(status, "a text such as production or testing")
    return {"production": status in _LEGACY_PRODUCTION} | kept
