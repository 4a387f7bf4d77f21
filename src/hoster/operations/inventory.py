"""Finds the VMs in a view of this node.

A VM is the dataset ``<active dataset>/<name>``, exactly, that has hoster's marks or a vm_config.json in it.
Its local mark ``hoster:role`` says what it is here; where there is none (a VM made by the original tool),
``parent_host`` does.

An active dataset that does not exist, such as one in a pool that is not imported, costs only what lies in it:
the others are looked at, and it is said of that one that it is missing. Where it matters what is in *all* of
them, :func:`refuse_missing` stops.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

from hoster.config.machine_file import MachineFile, read_machine_file
from hoster.errors import (
    Busy,
    ConfigurationError,
    DatasetMissing,
    HosterError,
    OperationFailed,
    Refused,
)
from hoster.host.usage import flush_volumes
from hoster.model.machines import MachineConfig
from hoster.model.plan import Outcome, VmReport
from hoster.model.storage import Dataset, DatasetKind, Role, View
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.planning.swap import is_part_of_a_swap, unfinished
from hoster.zfs.store import pool_of

CONFIG_NAME = "vm_config.json"

_NO_SUCH_VM = "there is no VM of that name on this node"
_MISSING = "the dataset does not exist (is its pool imported?)"
_IMPORT = "zpool import"


class Unusable(Struct, frozen=True):
    """Looks like a VM and cannot be treated as one; said aloud, so that no VM drops out in silence.

    ``busy``: it is going back at this moment, and will be a VM again when that is done. An active dataset
    that is missing is said in the same way, under its own name.
    """

    name: str
    dataset: str
    problem: str
    busy: bool = False
    hint: str = ""

    @property
    def report(self) -> VmReport:
        """What a command for many VMs says of it."""
        return VmReport(self.name, Outcome.BUSY if self.busy else Outcome.FAILED, self.problem, self.hint)


class Inventory(Struct, frozen=True):
    """What is on this node: VMs in the order of the active datasets, then by name.

    ``mended`` says, by the name of the VM, what was done first about something that a crash had left.
    """

    vms: tuple[Vm, ...]
    unusable: tuple[Unusable, ...]
    mended: Mapping[str, str] = field(default_factory=dict)
    view: View | None = None
    """What it was taken from."""
    missing: tuple[Unusable, ...] = ()
    """The active datasets that do not exist: which VMs are in them is not known, and none of them is gone."""

    @property
    def broken(self) -> tuple[Unusable, ...]:
        """All that must not drop out in silence: datasets that are missing, and VMs that cannot be used."""
        return (*self.missing, *self.unusable)

    def named(self, name: str) -> Vm:
        """The VM of that name; OperationFailed where there is none, or more than one, Busy while it is going
        back."""
        found = [vm for vm in self.vms if vm.name == name]
        broken = [u for u in self.unusable if u.name == name]
        if len(found) + len(broken) > 1:
            where = [vm.dataset.name for vm in found] + [u.dataset for u in broken]
            raise OperationFailed(
                f"{name} is not unique: {', '.join(where)}",
                hint=f"rename one of them, for example: zfs rename {where[0]} {where[0]}-2",
            )
        if broken and broken[0].busy:
            raise Busy(f"{name}: {broken[0].problem}", hint="try again when it has ended")
        if broken:
            raise OperationFailed(f"{name}: {broken[0].problem}")
        if not found:
            absent = self.absent(name)
            raise OperationFailed(f"{name}: {absent.reason}", hint=absent.remedy or "hoster vm list")
        return found[0]

    def absent(self, name: str) -> VmReport:
        """What a command for several VMs says of one that is not here."""
        hint = _IMPORT if self.missing else ""
        return VmReport(name, Outcome.FAILED, f"{_NO_SUCH_VM}{self.unless_missing}", hint)

    @property
    def unless_missing(self) -> str:
        """What to add to "there is none": where there may be one all the same."""
        return unless_in(self.missing)


def take_stock(context: Context, view: View) -> Inventory:
    """The VMs of this node in ``view``, their configurations read from where they are mounted. An active
    dataset that is not in it is missing: a look that sees only a part is an error, and no view."""
    vms: list[Vm] = []
    unusable: list[Unusable] = []
    for dataset in _candidates(view, context.datasets):
        descendants = tuple(view.below(dataset.name))
        found = _vm(dataset, descendants, context.hostname)
        if isinstance(found, Vm):
            vms.append(found)
        elif found is not None:
            unusable.append(found)
    return Inventory(tuple(vms), tuple(unusable), view=view, missing=missing_from(context, view.datasets))


def missing_from(context: Context, seen: Container[str]) -> tuple[Unusable, ...]:
    """The active datasets that are not among those that were seen."""
    missing = (name for name in context.datasets if name not in seen)
    return tuple(Unusable(name, name, _MISSING, hint=_IMPORT) for name in missing)


def unless_in(missing: Sequence[Unusable]) -> str:
    """What to add to "there is none" while these datasets are missing."""
    names = " or ".join(one.dataset for one in missing)
    return f", unless in {names}, which does not exist (is its pool imported?)" if names else ""


def refuse_missing(missing: Sequence[Unusable]) -> None:
    """Refused where active datasets are missing: for who takes a name, an address or a port that no other VM
    may have, and for who gives up what another one may need."""
    if missing:
        name = missing[0].dataset
        raise Refused(
            f"{name} does not exist (is its pool imported?), so what the VMs in it have is not known",
            hint=f"{_IMPORT}; if it is gone for good, take {name} from datasets in hoster.toml",
        )


def look_here(context: Context) -> View:
    """Everything in those active datasets that exist; DatasetMissing where none does.

    Which those are is asked only where the look at all of them has failed for one that is missing. They are
    looked at as strictly then: what fails for any other reason is an error.
    """
    try:
        return context.zfs.look(context.datasets)
    except DatasetMissing:
        here = datasets_here(context)
        if len(here) in {0, len(context.datasets)}:
            raise
    return context.zfs.look(here)


def datasets_here(context: Context) -> tuple[str, ...]:
    """The active datasets that exist."""
    seen = context.zfs.look_at(context.datasets)
    return tuple(name for name in context.datasets if seen.get(name) is not None)


def look_around(context: Context, *, sync: bool = False, mend: bool = True, held: str = "") -> Inventory:
    """Looks at this node once and takes stock. With ``sync``, ``written`` counts up to this moment.

    A VM that was going back when a crash came is finished first, unless ``mend`` is off; where that cannot be
    done, it is none that can be used. ``held`` is the VM whose history the caller holds already.
    """
    if sync:
        flush_volumes(context.datasets)
        _sync(context)
    view = look_here(context)
    if not unfinished(tuple(view.datasets.values())):
        return take_stock(context, view)
    from hoster.operations.history import finish_half_done, half_done, left_half_done

    left = half_done(view)
    if not left:
        return take_stock(context, view)
    done: Mapping[str, str | HosterError]
    if mend:
        done = finish_half_done(context, view, held)
        view = look_here(context)
    else:
        done = left_half_done(context, left, held)
    broken = {root: error for root, error in done.items() if isinstance(error, HosterError)}
    stock = take_stock(context, view)
    unusable = (_half_done(root, error) for root, error in broken.items())
    return Inventory(
        tuple(vm for vm in stock.vms if vm.dataset.name not in broken),
        (*(u for u in stock.unusable if u.dataset not in broken), *unusable),
        {root.rpartition("/")[2]: words for root, words in done.items() if isinstance(words, str)},
        view,
        stock.missing,
    )


def _sync(context: Context) -> None:
    """Syncs the pools of the active datasets; those that are there, where one is missing."""
    try:
        context.zfs.sync(_pools(context.datasets))
    except DatasetMissing:
        here = datasets_here(context)
        if not here:
            raise
        context.zfs.sync(_pools(here))


def _pools(datasets: Sequence[str]) -> list[str]:
    return sorted({pool_of(dataset) for dataset in datasets})


def _half_done(root: str, error: HosterError) -> Unusable:
    busy = isinstance(error, Busy)
    problem = error.message if busy else f"it was going back when that was interrupted: {error.message}"
    return Unusable(root.rpartition("/")[2], root, problem, busy)


def names_with_tag(context: Context, tag: str) -> tuple[str, ...]:
    """The names of the VMs of this node that have that tag, and of the datasets that are missing, whose VMs
    may; OperationFailed where none has."""
    stock = look_around(context)
    found = [vm.name for vm in stock.vms if vm.is_primary and vm.config is not None and tag in vm.config.tags]
    if not found:
        raise OperationFailed(
            f"no VM of this node has the tag {tag!r}{stock.unless_missing}",
            hint=_IMPORT if stock.missing else "hoster vm info NAME shows tags",
        )
    return (*found, *(one.name for one in stock.missing))


def config_path(dataset: Dataset) -> Path | None:
    """Where the VM's configuration is, or None while its dataset is not mounted."""
    if not dataset.mounted or dataset.mountpoint is None:
        return None
    return Path(dataset.mountpoint) / CONFIG_NAME


def read_config(dataset: Dataset) -> MachineFile | None:
    """The VM's configuration, or None where there is none to read; ConfigurationError if it is malformed."""
    path = config_path(dataset)
    if path is None or (not path.is_symlink() and not path.exists()):
        return None
    return read_machine_file(path)


def _candidates(view: View, active: Sequence[str]) -> Iterator[Dataset]:
    for parent in active:
        for child in view.children(parent):
            if child.kind is not DatasetKind.FILESYSTEM or child.name in active:
                continue
            if not is_part_of_a_swap(child.name):
                yield child


def _vm(dataset: Dataset, descendants: tuple[Dataset, ...], hostname: str) -> Vm | Unusable | None:
    marks = dataset.marks
    name = dataset.name.rpartition("/")[2]
    if marks.role is Role.BRANCH:
        return None
    config: MachineConfig | None = None
    problem = ""
    try:
        file = read_config(dataset)
        config = None if file is None else file.config
    except ConfigurationError as error:
        problem = error.message
    if marks.vm_id is None and config is None:
        if marks.role is not None:
            problem = problem or f"it is marked hoster:role={marks.role.value} and has no hoster:id"
        return Unusable(name, dataset.name, problem) if problem else None
    role = marks.role or _role_by_parent(config, hostname)
    if config is None and not problem and role is Role.PRIMARY:
        problem = _why_unreadable(dataset)
    production = config.production if config is not None else bool(marks.production)
    parent = marks.parent or (config.parent_host if config is not None else "")
    return Vm(name, dataset, descendants, role, parent, production, config, problem)


def _role_by_parent(config: MachineConfig | None, hostname: str) -> Role:
    return Role.PRIMARY if config is not None and config.parent_host == hostname else Role.REPLICA


def _why_unreadable(dataset: Dataset) -> str:
    if not dataset.key_loaded:
        return f"{dataset.name} is encrypted and its key is not loaded (zfs load-key {dataset.name})"
    if not dataset.mounted:
        return f"{dataset.name} is not mounted (zfs mount {dataset.name})"
    return f"{dataset.name} has no {CONFIG_NAME}"
