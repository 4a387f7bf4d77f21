"""What a VM's configuration says: the typed content of its vm_config.json.

Pure values. Nothing here reads a file or judges whether the VM could start; texts that hoster does not
know (a new kind of disk, another loader) are kept as they are. The defaults are what Hoster assumes of a
key that is absent, so ``MachineConfig()`` is the content of an empty object, not a VM worth starting.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class DiskType(StrEnum):
    """The disk types that Hoster knows; :attr:`Disk.type` may hold any other text."""

    NVME = "nvme"
    VIRTIO_BLK = "virtio-blk"
    AHCI_HD = "ahci-hd"
    AHCI_CD = "ahci-cd"


class DiskLocation(StrEnum):
    """Where the image of a disk is to be looked for."""

    INTERNAL = "internal"
    EXTERNAL = "external"


class FailoverStrategy(StrEnum):
    """What makes the replica of a dead node's VM startable here."""

    CIRESET = "cireset"
    CHANGE_PARENT = "change_parent"


def failover_strategy(text: str) -> FailoverStrategy:
    """The strategy called ``text``; any other text means what Hoster takes it for, a change of parent."""
    return FailoverStrategy.CIRESET if text == FailoverStrategy.CIRESET else FailoverStrategy.CHANGE_PARENT


class Disk(Struct, frozen=True):
    """One disk or CD of a VM: ``image`` is a name in the VM's folder, or a path if it is external."""

    type: str = ""
    location: str = ""
    image: str = ""
    comment: str = ""
    input_size: int = 0

    @property
    def is_internal(self) -> bool:
        """Whether the image is in the VM's folder. Every other location means a path, as in Hoster."""
        return self.location == DiskLocation.INTERNAL

    @property
    def leaves_folder(self) -> bool:
        """Whether an internal image is, by its text alone, not in the VM's folder (``../x``, ``/x``, empty).

        What is in the VM's dataset is what snapshots and replication cover; an internal disk that is not
        would be missing from every backup.
        """
        steps = self.image.split("/")
        return self.is_internal and (steps[0] == "" or ".." in steps)


class NetworkCard(Struct, frozen=True):
    """One network card of a VM; ``bridge`` is the name of the network that it is plugged into."""

    adaptor_type: str = ""
    bridge: str = ""
    mac: str = ""
    ip_address: str = ""
    comment: str = ""


class SshKey(Struct, frozen=True):
    """A public key for the VM's users."""

    owner: str = ""
    value: str = ""
    comment: str = ""


class SharedFolder(Struct, frozen=True):
    """A folder of the host that the VM sees over 9p."""

    name: str = ""
    location: str = ""
    read_only: bool = False


class MachineConfig(Struct, frozen=True):
    """The configuration of one VM. Its name is not in here: that is the name of its folder.

    ``parent_host`` is the node on which the VM may run, compared exactly; ``memory`` is a text such as
    ``2G`` that goes to the hypervisor as it is.
    """

    production: bool = False
    ignore_host_clock: bool = False
    include_host_ssh_keys: bool = False
    disable_xhci: bool = False
    cpu_sockets: int = 0
    cpu_cores: int = 0
    cpu_threads: int = 0
    vnc_resolution: int = 0
    vnc_port: int = 0
    vnc_password: str = ""
    memory: str = ""
    loader: str = ""
    os_type: str = ""
    os_comment: str = ""
    owner: str = ""
    parent_host: str = ""
    failover_strategy: FailoverStrategy = FailoverStrategy.CHANGE_PARENT
    vga: str = ""
    uuid: str = ""
    description: str = ""
    dns_search_domain: str = ""
    networks: tuple[NetworkCard, ...] = ()
    disks: tuple[Disk, ...] = ()
    ssh_keys: tuple[SshKey, ...] = ()
    tags: tuple[str, ...] = ()
    passthru: tuple[str, ...] = ()
    shares: tuple[SharedFolder, ...] = ()
    custom_options: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """All but the password, which must not get into a log by way of an error."""
        shown = (f"{key}={getattr(self, key)!r}" for key in self.__struct_fields__ if key != "vnc_password")
        return f"MachineConfig({', '.join(shown)})"
