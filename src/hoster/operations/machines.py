"""Shows the VMs of this node: what they are here, whether they run, what their configuration says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from hoster.errors import ConfigurationError, OperationFailed
from hoster.host.usage import Opener, bhyve_machines, openers
from hoster.model.storage import Role
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.guests import image_paths, reference
from hoster.operations.inventory import Inventory, Unusable, look_around

if TYPE_CHECKING:
    from hoster.hypervisors.protocol import Hypervisor, Running


class State(StrEnum):
    """Whether a VM runs, as far as this node can tell."""

    RUNNING = "running"
    STOPPED = "stopped"
    IN_USE = "in-use"
    """Another process than hoster's hypervisor has one of its disks open."""

    UNKNOWN = "unknown"
    """Its process is there, and does not say what it is."""


class ListedVm(Struct, frozen=True):
    """A VM with what only this node knows. ``trouble`` is why it cannot be told whether it runs."""

    vm: Vm
    running: Running | None = None
    users: tuple[Opener, ...] = ()
    known_to_bhyve: bool = False
    trouble: str = ""

    @property
    def state(self) -> State:
        if self.running is not None:
            return State.RUNNING
        if self.trouble:
            return State.UNKNOWN
        return State.IN_USE if self.users or self.known_to_bhyve else State.STOPPED

    @property
    def icons(self) -> str:
        """The original's icons (🟢 running, 🔴 stopped, 💾 backup, 🔒 encrypted, 🔁 production), and 🟡."""
        backup = self.vm.role is not Role.PRIMARY
        return (
            _icon(self.state, backup=backup)
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
    """The VMs of this node, what looks like one and cannot be used, and the datasets that are missing."""

    vms: tuple[ListedVm, ...]
    unusable: tuple[Unusable, ...]


def list_machines(context: Context, name: str | None = None) -> Machines:
    """All VMs of this node, or the one of that name (OperationFailed if there is none)."""
    stock = look_around(context)
    if name is not None:
        stock = Inventory((stock.named(name),), ())
    return machines_in(context, stock)


def machines_in(context: Context, stock: Inventory) -> Machines:
    """The VMs of ``stock``, with what only this node knows of them right now."""
    vms = stock.vms
    hypervisor = _hypervisor(context)
    images = [image_paths(vm) for vm in vms]
    users = openers(path for paths in images for path in paths)
    listed = [_listed(context, hypervisor, vm, _among(users, of)) for vm, of in zip(vms, images, strict=True)]
    return Machines(tuple(listed), stock.broken)


def _listed(context: Context, hypervisor: Hypervisor | None, vm: Vm, users: tuple[Opener, ...]) -> ListedVm:
    running, trouble = None, ""
    try:
        if hypervisor is not None:
            running = hypervisor.running(reference(context, vm.name))
    except OperationFailed as error:
        trouble = error.message
    others = tuple(user for user in users if running is None or user.pid != running.pid)
    return ListedVm(vm, running, others, vm.name in bhyve_machines(), trouble)


def _hypervisor(context: Context) -> Hypervisor | None:
    """None on a system that hoster has no driver for, where VMs are listed all the same."""
    try:
        return context.hypervisor
    except ConfigurationError:
        if context.settings.hypervisor is not None:
            raise
        return None


def _among(users: Iterable[Opener], paths: Sequence[Path]) -> tuple[Opener, ...]:
    return tuple(user for user in users if user.path in paths)


def _icon(state: State, *, backup: bool) -> str:
    match state:
        case State.RUNNING:
            return "🟢"
        case State.STOPPED:
            return "" if backup else "🔴"
        case State.IN_USE | State.UNKNOWN:
            return "🟡"
