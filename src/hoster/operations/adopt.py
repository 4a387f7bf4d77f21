"""Makes a VM of an existing dataset: a vm_config.json in it, and hoster's marks on it."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from msgspec import Struct
from msgspec.structs import replace

from hoster.config.machine_file import MachineFile, new_machine_file, with_changes, write_machine_file
from hoster.errors import OperationFailed, Refused, UsageError
from hoster.model.machines import Disk, DiskLocation, DiskType
from hoster.model.names import vm_name
from hoster.model.storage import Dataset, DatasetKind, Marks, Role
from hoster.operations.context import Context
from hoster.operations.identity import first_marks, properties_of
from hoster.operations.inventory import (
    CONFIG_NAME,
    config_path,
    missing_from,
    read_config,
    refuse_missing,
)
from hoster.operations.power import hold_power
from hoster.zfs.store import missing


class Adopted(Struct, frozen=True):
    """What adopting a dataset did; ``new`` is False where it was a VM of this node before."""

    name: str
    dataset: str
    vm_id: str
    production: bool
    new: bool
    config_written: bool


def adopt(
    context: Context, name: str, *, production: bool | None = None, parent_was: str | None = None
) -> Adopted:
    """Makes the dataset of that name below an active dataset a VM of this node.

    ``production`` None keeps what is there, and is yes for a new one. A vm_config.json that names another
    node as parent is only taken over if ``parent_was`` names it too. Refused for replicas and branches; Busy
    where somebody else adopts it, or changes who may run it.
    """
    try:
        vm_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    with hold_power(context, name):
        return _adopt(context, name, production, parent_was)


def _adopt(context: Context, name: str, production: bool | None, parent_was: str | None) -> Adopted:
    dataset = _dataset(context, name)
    _refuse_other_roles(name, dataset)
    path = config_path(dataset)
    if path is None:
        raise Refused(
            f"{dataset.name} is not mounted, so its {CONFIG_NAME} can be neither read nor written",
            hint=f"zfs mount {dataset.name}",
        )
    before = read_config(dataset)
    after = _config(context, path.parent, before, production)
    if before is not None:
        _refuse_other_parent(context, name, before, parent_was)
    if before is None or after != before:
        write_machine_file(path, after)
    marks = _marks(context, dataset.marks, after.config.production)
    if marks != dataset.marks:
        context.zfs.set_properties(properties_of(marks), [dataset.name])
    return Adopted(
        name,
        dataset.name,
        marks.vm_id or "",
        after.config.production,
        new=dataset.marks.vm_id is None,
        config_written=before is None or after != before,
    )


def _dataset(context: Context, name: str) -> Dataset:
    wanted = [f"{parent}/{name}" for parent in context.datasets]
    seen = context.zfs.look_at([*context.datasets, *wanted])
    refuse_missing(missing_from(context, seen.datasets))
    found = [dataset for path in wanted if (dataset := seen.get(path)) is not None]
    if not found:
        error = missing(context.zfs.node, " or ".join(wanted))
        raise OperationFailed(error.message, hint=f"zfs create {wanted[0]}")
    if len(found) > 1:
        raise Refused(
            f"{name} is not unique: {', '.join(d.name for d in found)}",
            hint="rename one of them (zfs rename)",
        )
    if found[0].kind is not DatasetKind.FILESYSTEM:
        raise Refused(
            f"{found[0].name} is a volume; a VM is a filesystem, with its volumes below it",
            hint=f"zfs create {context.datasets[0]}/NAME, then zfs rename {found[0].name} …/NAME/disk0",
        )
    return found[0]


def _refuse_other_roles(name: str, dataset: Dataset) -> None:
    role = dataset.marks.role
    if role is not None and role is not Role.PRIMARY:
        raise Refused(
            f"{name} is marked {role.value} here; its parent is {dataset.marks.parent}",
            hint="hoster vm list",
        )


def _refuse_other_parent(context: Context, name: str, before: MachineFile, parent_was: str | None) -> None:
    parent = before.config.parent_host
    if parent not in {"", context.hostname, parent_was}:
        raise Refused(
            f"the {CONFIG_NAME} of {name} says that {parent} runs it",
            hint=f"if that node does not run it any more: hoster vm adopt {name} --parent-was {parent}",
        )


def _config(
    context: Context, folder: Path, before: MachineFile | None, production: bool | None
) -> MachineFile:
    if before is None:
        images = sorted(p.name for p in folder.glob("*.img") if p.is_file() and not p.is_symlink())
        disks = [Disk(DiskType.NVME.value, DiskLocation.INTERNAL.value, image) for image in images]
        wanted = True if production is None else production
        return new_machine_file(context.hostname, disks, production=wanted, uuid=str(uuid4()))
    config = before.config
    wanted = config.production if production is None else production
    if wanted == config.production and config.parent_host == context.hostname:
        return before
    return with_changes(before, production=wanted, parent_host=context.hostname)


def _marks(context: Context, before: Marks, production: bool) -> Marks:
    if before.vm_id is None:
        return first_marks(context.hostname, production=production)
    return replace(before, role=Role.PRIMARY, parent=context.hostname, production=production)
