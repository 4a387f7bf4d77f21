"""What a copy of a VM must be once it is primary: writable, mounted, with its devices, its own parent.

Derived from what is there, so that it can be done at any time after the promotion: at once, or by whoever
comes after a crash, a start of the VM included.
"""

from __future__ import annotations

from hoster.config.machine_file import with_changes, write_machine_file
from hoster.errors import OperationFailed
from hoster.host.volumes import await_devices
from hoster.model.names import SnapshotType
from hoster.model.storage import Dataset, DatasetKind
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.inventory import CONFIG_NAME, config_path, look_around, read_config
from hoster.operations.taking import snapshot_steps, take


def is_whole(context: Context, vm: Vm) -> bool:
    """Whether nothing is left to do for this node's own VM."""
    mounted = all(d.mounted and not d.readonly for d in vm.everything if d.kind is DatasetKind.FILESYSTEM)
    return mounted and vm.config is not None and vm.config.parent_host == context.hostname


def finish(context: Context, name: str) -> list[str]:
    """What a primary must be and this copy is not yet: writable, mounted, its parent in its configuration."""
    vm = look_around(context).named(name)
    done = []
    if not any(s.description == _moment(vm.dataset) for s in vm.dataset.snapshots):
        steps = snapshot_steps(vm, SnapshotType.CUSTOM, context.now(), "the moment of the takeover")
        taken = take(context.zfs, {name: steps}, {"hoster:sdescription": _moment(vm.dataset)})
        if name in taken.failures:
            raise taken.failures[name]
        done.append(f"took {taken.steps[name][0].full_name}")
    _become_writable(context, vm)
    for dataset in vm.everything:
        if dataset.kind is DatasetKind.FILESYSTEM:
            context.zfs.mount(dataset.name)
    await_devices([d.name for d in vm.everything if d.kind is DatasetKind.VOLUME])
    _become_parent(context, name)
    return done


def _become_writable(context: Context, vm: Vm) -> None:
    """The VM's own dataset last, and there ``readonly``: once that is gone, all of it is done."""
    local = context.zfs.local_properties([dataset.name for dataset in vm.everything])
    for dataset in reversed(vm.everything):
        own = local[dataset.name]
        if own.get("canmount") == "noauto":
            context.zfs.set_properties({"canmount": "on"}, [dataset.name])
        for key in ("volmode", "hoster:demoted", "readonly"):
            if key in own:
                context.zfs.inherit(key, [dataset.name])


def _become_parent(context: Context, name: str) -> None:
    vm = look_around(context).named(name)
    path, file = config_path(vm.dataset), read_config(vm.dataset)
    if path is None or file is None:
        raise OperationFailed(
            f"{name} is this node's own VM now, but it has no {CONFIG_NAME} that can be read: {vm.problem}",
            hint=f"earlier states of it are in /{vm.dataset.name}/.zfs/snapshot/*/{CONFIG_NAME}",
        )
    if file.config.parent_host != context.hostname:
        write_machine_file(path, with_changes(file, parent_host=context.hostname))


def _moment(dataset: Dataset) -> str:
    return f"taken over, epoch {dataset.marks.epoch}"
