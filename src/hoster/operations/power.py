"""Starts and stops a VM of this node, and says whether it runs.

One thing at a time is done to the power of a VM: :func:`hold_power`. The functions that end in ``_held`` are
for callers who hold it over more than that one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from hoster.errors import OperationFailed, Refused
from hoster.host.holders import Holder, written_by_kernel
from hoster.host.usage import Opener, bhyve_machines, openers
from hoster.host.volumes import await_devices
from hoster.hypervisors.registry import has_driver
from hoster.model.machines import DiskType
from hoster.model.storage import Role
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.guests import guest_of, image_paths, link_log, notes_on, reference, volumes_of
from hoster.operations.inventory import look_around
from hoster.operations.permission import UNATTENDED, Asking, refuse_if_taken_over
from hoster.operations.primacy import finish, is_whole

if TYPE_CHECKING:
    from hoster.hypervisors.protocol import Guest, Plan, Running

STOP_LIMIT_S = 120.0
"""How long a guest is waited for that was asked to power down."""

_DEVICES_LIMIT_S = 5.0


class Started(Struct, frozen=True):
    """A VM that runs now, and what is worth saying about how."""

    running: Running
    notes: tuple[str, ...]


def running_now(context: Context, vm: Vm) -> Running | None:
    """The VM's process if it runs here by hoster's doing; None if it does not.

    OperationFailed where it cannot be told, which is to be taken as running. A process that is not hoster's
    may still have its disks: :func:`users_of`. Where hoster has no driver it starts none, and nothing of its
    runs; what bhyve runs is seen in :func:`hoster.host.usage.bhyve_machines`.
    """
    if not has_driver(context.settings.hypervisor) and context.driver is None:
        return None
    return context.hypervisor.running(reference(context, vm.name))


def users_of(vm: Vm) -> tuple[Opener, ...]:
    """The processes that have a disk of the VM open, hoster's own hypervisor included."""
    return openers(image_paths(vm))


def refuse_writers(vm: Vm, running: Running | None = None) -> None:
    """Refused where another process than ``running``, its own, has a disk of the VM open for writing."""
    for user in users_of(vm):
        if user.writes and (running is None or user.pid != running.pid):
            raise _writer(vm.name, user)


def writers(vms: Iterable[Vm]) -> Mapping[str, Refused]:
    """Those of ``vms``, which do not run, that another process writes to, by their names: why they cannot be
    said to be stopped. All are looked for at once."""
    owners = {path: vm.name for vm in vms for path in image_paths(vm)}
    return {owners[user.path]: _writer(owners[user.path], user) for user in openers(owners) if user.writes}


def _writer(name: str, user: Opener) -> Refused:
    return Refused(
        f"{name}: process {user.pid} ({user.command}) has {user.path} open for writing",
        hint=f"end it first: ps {user.pid} shows what it is",
    )


def kernel_users_of(guest: Guest, root: Path = Path("/")) -> tuple[Holder, ...]:
    """What lets this node's kernel write to a disk of the machine: a mount of it, a loop device. ``root`` is
    where /proc and /sys are looked for."""
    disks = [str(drive.path) for drive in guest.drives if drive.kind != DiskType.AHCI_CD]
    return written_by_kernel(disks, disks, root)


def hold_power(context: Context, name: str) -> AbstractContextManager[float]:
    """For the block, nobody else starts or stops the VM of that name. Busy if somebody is at it."""
    return context.locks.hold(f"the power switch of {name}", holder=f"hoster, for {name}")


def start_vm(context: Context, vm: Vm) -> Running:
    """Starts the VM and returns when it runs.

    Refused for what is not this node's own VM, or runs already, or is in use by another process;
    ConfigurationError or OperationFailed with what keeps it from starting. Busy where somebody else is
    starting or stopping it.
    """
    with hold_power(context, vm.name):
        return start_held(context, vm).running


def stop_vm(context: Context, vm: Vm, *, force: bool, limit_s: float = STOP_LIMIT_S) -> None:
    """Stops the VM and returns when it is seen stopped; at once if it does not run.

    Without ``force`` its guest is asked to power down, and OperationFailed if it still runs after
    ``limit_s`` seconds; with it, its process is killed. Busy where somebody else is starting or stopping it.
    """
    with hold_power(context, vm.name):
        stop_held(context, vm.name, force=force, limit_s=limit_s)


def start_held(context: Context, vm: Vm, asking: Asking = UNATTENDED) -> Started:
    """:func:`start_vm` for who holds the power already, and what there is to say about it."""
    if _was_cut_short(context, vm):
        finish(context, vm.name)
        vm = look_around(context).named(vm.name)
    guest = _startable(context, vm)
    refuse_if_taken_over(context, vm, asking)
    plan = _plan(context, vm, guest)
    _expect_own_devices(guest)
    running = context.hypervisor.start(guest)
    unlinked = link_log(guest)
    return Started(running, (*plan.notes, unlinked) if unlinked else plan.notes)


def stop_held(context: Context, name: str, *, force: bool, limit_s: float = STOP_LIMIT_S) -> bool:
    """:func:`stop_vm` for who holds the power already, whatever runs by that name; whether anything did."""
    return context.hypervisor.stop(reference(context, name), force=force, limit_s=limit_s)


def start_plan(context: Context, vm: Vm) -> Plan:
    """How the VM would be started; changes nothing, asks no other node, else fails as :func:`start_vm`."""
    return _plan(context, vm, _startable(context, vm))


def _plan(context: Context, vm: Vm, guest: Guest) -> Plan:
    plan = context.hypervisor.plan(guest)
    return replace(plan, notes=(*plan.notes, *notes_on(vm, guest)))


def _expect_own_devices(guest: Guest) -> None:
    """OperationFailed if a disk's name leads to another volume: one that was renamed, say, or set aside."""
    wrong = await_devices(volumes_of(guest), limit_s=_DEVICES_LIMIT_S)
    if wrong:
        raise OperationFailed(
            f"{guest.ref.name}: /dev/zvol/{wrong[0]} is not the device of {wrong[0]}",
            hint="udevadm trigger --subsystem-match=block",
        )


def _startable(context: Context, vm: Vm) -> Guest:
    """The VM as a machine that may be started here and now."""
    if not vm.is_primary:
        raise Refused(f"{vm.name}: {_standing(vm)}, and is not started here", hint=_elsewhere(vm))
    if any(dataset.marks.swap is not None for dataset in vm.everything):
        raise Refused(
            f"{vm.name} is on its way back to an older version, and that was not finished",
            hint="the next command that is no dry run finishes that first",
        )
    running = running_now(context, vm)
    if running is not None:
        raise Refused(
            f"{vm.name} runs already, since {running.since.astimezone():%Y-%m-%d %H:%M:%S}, as process"
            f" {running.pid}",
            hint=f"hoster vm stop {vm.name}",
        )
    if vm.name in bhyve_machines():
        raise Refused(
            f"{vm.name} is known to bhyve", hint=f"bhyvectl --vm={vm.name} --destroy, if it is not running"
        )
    guest = guest_of(context, vm)
    refuse_writers(vm)
    for holder in kernel_users_of(guest):
        mounted = holder.command.removeprefix("a mount at ")
        ends = f"losetup --detach {mounted}" if mounted == holder.command else f"umount {mounted}"
        raise Refused(f"{vm.name}: {holder}", hint=ends)
    return guest


def _was_cut_short(context: Context, vm: Vm) -> bool:
    """The VM was taken over by this node, and that was not finished."""
    epoch = vm.dataset.marks.epoch
    promoted = epoch is not None and epoch.node == context.hostname and epoch.number > 1
    return vm.is_primary and promoted and not is_whole(context, vm)


def _standing(vm: Vm) -> str:
    if vm.role is Role.SUPERSEDED:
        return "another node has taken it over"
    return f"it is a {vm.role.value} of {vm.parent or 'an unknown node'}'s VM"


def _elsewhere(vm: Vm) -> str:
    there = f"on {vm.parent}: hoster vm start {vm.name}; " if vm.parent else ""
    return f"{there}if that node is dead, here: hoster change parent --vm {vm.name}"
