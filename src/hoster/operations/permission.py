"""Whether a VM may be started here: asks the nodes that have a copy of it whether one took it over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from hoster.errors import Refused
from hoster.model.storage import Role
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.witnesses import Silent, ask
from hoster.planning.succession import Standing, standing


class Asking(Struct, frozen=True):
    """How a VM is started whose copies cannot be asked: ``isolated`` does it anyway; ``confirm`` asks a
    person, and is None where nobody is there."""

    isolated: bool = False
    confirm: Callable[[str], bool] | None = None


UNATTENDED = Asking()
"""A start that nobody watches: at boot, by a schedule, by another command."""


def refuse_if_taken_over(context: Context, vm: Vm, asking: Asking) -> None:
    """Nothing where the VM may be started; one that has never been replicated is not asked about.

    Refused where another copy was promoted after this one, which is marked superseded then, or beside it; and
    where none of them can be reached, unless ``asking`` allows it.
    """
    witnesses, silent = ask(context, vm.dataset.marks)
    mine = vm.dataset.marks.epoch
    for witness in witnesses:
        match standing(mine, witness.epoch):
            case Standing.SUPERSEDED:
                parent = witness.datasets[0].marks.parent or witness.node
                mark_superseded(context, vm, parent)
                raise Refused(
                    f"{vm.name}: {parent} has taken it over (epoch {witness.epoch}, this copy's is {mine});"
                    " this copy is marked superseded now",
                    hint=f"hoster vm demote {vm.name}    (it becomes a replica; what it wrote alone is kept)",
                )
            case Standing.SPLIT:
                raise Refused(
                    f"{vm.name}: the copy on {witness.node} was promoted too (epoch {witness.epoch}, this"
                    f" one's is {mine})",
                    hint=f"hoster change parent --vm {vm.name}    (on the node whose copy is to go on)",
                )
            case Standing.CURRENT:
                pass
    if silent and not any(witness.datasets for witness in witnesses):
        _go_on_unasked(vm, silent, asking)


def mark_superseded(context: Context, vm: Vm, parent: str) -> None:
    """Marks this copy superseded by that of the node ``parent``: it is not started, snapshotted by schedule
    or replicated any more."""
    marks = {"hoster:role": Role.SUPERSEDED.value, **({"hoster:parent": parent} if parent else {})}
    context.zfs.set_properties(marks, [vm.dataset.name])


def _go_on_unasked(vm: Vm, silent: Sequence[Silent], asking: Asking) -> None:
    reasons = "; ".join(f"{one.node}: {one.reason}" for one in silent)
    evidence = (
        f"{vm.name}: none of the nodes with a copy of it can be asked whether it runs there ({reasons})"
    )
    if asking.isolated or (asking.confirm is not None and asking.confirm(evidence)):
        return
    raise Refused(
        evidence, hint=f"hoster vm start {vm.name} --isolated    (if no other node can be running it)"
    )
