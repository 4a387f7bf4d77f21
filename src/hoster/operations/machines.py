"""Shows the VMs of this node: what they are here, whether they run, what their configuration says."""

from __future__ import annotations

from msgspec import Struct

from hoster.host.usage import bhyve_machines, open_below
from hoster.model.storage import Role
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.inventory import Unusable, look_around


class ListedVm(Struct, frozen=True):
    """A VM with what only this node knows: whether its files are in use by a process."""

    vm: Vm
    running: bool

    @property
    def icons(self) -> str:
        """The original's icons: 🟢 running, 🔴 stopped, 💾 backup, 🔒 encrypted, 🔁 production."""
        backup = self.vm.role is not Role.PRIMARY
        state = "🟢" if self.running else "" if backup else "🔴"
        return (
            state
            + ("💾" if backup else "")
            + ("🔒" if self.vm.dataset.encrypted else "")
            + ("🔁" if self.vm.production else "")
        )

    @property
    def description(self) -> str:
        """The configuration's own words, or where a backup comes from."""
        if self.vm.role is Role.REPLICA:
            return f"💾 Backup from {self.vm.parent or 'an unknown node'}"
        if self.vm.role is Role.SUPERSEDED:
            return "superseded: another node has taken this VM over"
        return self.vm.problem or (self.vm.config.description if self.vm.config else "")


class Machines(Struct, frozen=True):
    """The VMs of this node, and what looks like one and cannot be used."""

    vms: tuple[ListedVm, ...]
    unusable: tuple[Unusable, ...]


def list_machines(context: Context, name: str | None = None) -> Machines:
    """All VMs of this node, or the one of that name (OperationFailed if there is none)."""
    stock = look_around(context)
    vms = stock.vms if name is None else (stock.named(name),)
    folders = {vm.dataset.mountpoint: vm for vm in vms if vm.dataset.mounted and vm.dataset.mountpoint}
    used = open_below([folder for folder in folders if folder])
    machines = bhyve_machines()
    listed = [ListedVm(vm, vm.dataset.mountpoint in used or vm.name in machines) for vm in vms]
    return Machines(tuple(listed), stock.unusable if name is None else ())
