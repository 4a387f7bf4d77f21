"""Makes this node's copy of a VM a replica: it gives way to the one that runs elsewhere, and loses nothing.

One command takes the right to run from the VM. What it wrote alone stays in it until the next replication
from the new primary sets it aside as a branch.
"""

from __future__ import annotations

from collections.abc import Sequence

from hoster.errors import DatasetBusy, Refused
from hoster.host.usage import bhyve_machines
from hoster.model.plan import Outcome, Report, VmReport
from hoster.model.storage import Dataset, DatasetKind, Marks, Mode, Role
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.history import hold_history
from hoster.operations.identity import properties_of
from hoster.operations.inventory import look_around
from hoster.operations.power import hold_power, running_now, users_of
from hoster.operations.takeover import another_vm
from hoster.operations.witnesses import ask
from hoster.planning.succession import Witness
from hoster.records.journal import Journal


def demote(context: Context, name: str, *, dry_run: bool = False, identity: str | None = None) -> Report:
    """Makes the VM's copy here a replica, or finishes what an earlier call has begun.

    ``identity`` is the VM that is meant, if another one has its name here. Refused then, and while it runs or
    its disks are in use; DatasetBusy where somebody stands in its folder.
    """
    holder = f"hoster, which makes {name} a replica"
    with hold_power(context, name), hold_history(context, name, holder):
        vm = look_around(context, held=name).named(name)
        if identity not in {None, vm.dataset.marks.vm_id}:
            refusal = another_vm(vm, identity)
            raise Refused(refusal.evidence, hint=refusal.remedy)
        if vm.dataset.marks.vm_id is None:
            raise Refused(
                f"{name} has no identity yet: it has never been replicated", hint=f"hoster vm adopt {name}"
            )
        if running_now(context, vm) is not None or name in bhyve_machines():
            raise Refused(f"{name} runs here", hint=f"hoster vm stop {name}")
        for user in users_of(vm):
            raise Refused(
                f"{name}: process {user.pid} ({user.command}) has {user.path} open",
                hint=f"end it first: ps {user.pid} shows what it is",
            )
        if vm.role is Role.REPLICA and _is_settled(vm):
            return _report(name, Outcome.UNCHANGED, ["it is a replica already"], dry_run)
        witnesses, _ = ask(context, vm.dataset.marks)
        notes = _where_it_runs(vm, witnesses)
        if dry_run:
            return _report(name, Outcome.PLANNED, notes, dry_run)
        _give_way(context, vm, _parent(vm, witnesses))
        left = _close(context, name)
        # Its targets are another node's from now on: here nothing of them is late any more.
        problem = Journal(context.settings.state_dir).forget_replicas(name)
        left += [problem] if problem else []
    return Report((VmReport(name, Outcome.DONE, done=("it is a replica now",), notes=(*notes, *left)),))


def _give_way(context: Context, vm: Vm, parent: str) -> None:
    """The right to run goes first, and each dataset gets what it needs: they differ in kind and mode."""
    for dataset in vm.everything:
        context.zfs.set_properties(_given_way(vm, dataset, parent), [dataset.name])


def _given_way(vm: Vm, dataset: Dataset, parent: str) -> dict[str, str]:
    mode = dataset.marks.mode or (Mode.RAW if dataset.encrypted else Mode.PLAIN)
    own = Marks(vm.dataset.marks.vm_id, Role.REPLICA, parent=parent, mode=mode, demoted=True)
    closed = {"canmount": "noauto"} if dataset.kind is DatasetKind.FILESYSTEM else {"volmode": "none"}
    return {**properties_of(own), "readonly": "on", **closed}


def _close(context: Context, name: str) -> list[str]:
    """Unmounts what is mounted, the innermost first, and forgets keys of its own."""
    vm = look_around(context).named(name)
    for dataset in reversed(vm.everything):
        if dataset.mounted:
            context.zfs.unmount(dataset.name)
    own = {dataset.name for dataset in vm.everything}
    encrypted = [dataset.name for dataset in vm.everything if dataset.encrypted]
    notes = []
    for key in reversed(context.zfs.keys(encrypted)):
        if key.loaded and key.name in own:
            try:
                context.zfs.unload_key(key.name)
            except DatasetBusy as error:
                notes.append(error.message)
    return notes


def _is_settled(vm: Vm) -> bool:
    return all(dataset.readonly and not dataset.mounted for dataset in vm.everything)


def _parent(vm: Vm, witnesses: Sequence[Witness]) -> str:
    """The node that runs it now, as far as anybody knows."""
    found = [w.datasets[0].marks for w in witnesses if w.datasets]
    running = [marks for marks in found if marks.role is Role.PRIMARY and marks.parent]
    newest = max(running, key=lambda marks: marks.epoch.number if marks.epoch else 0, default=None)
    return newest.parent or vm.parent if newest else vm.parent


def _where_it_runs(vm: Vm, witnesses: Sequence[Witness]) -> list[str]:
    for witness in witnesses:
        if witness.datasets and witness.datasets[0].marks.role is Role.PRIMARY:
            return [f"{witness.node} may run it, under epoch {witness.epoch}"]
    return [
        f"no other node is known that may run it now; here it would be: hoster change parent --vm {vm.name}"
    ]


def _report(name: str, outcome: Outcome, notes: Sequence[str], dry_run: bool) -> Report:
    return Report((VmReport(name, outcome, notes=tuple(notes)),), dry_run)
