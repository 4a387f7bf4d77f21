"""What its source was at with the copy of a VM that is to take over: a stream, a part that it set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hoster.errors import Busy, HosterError
from hoster.model.storage import Dataset, Role
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.swapping import finish_left
from hoster.operations.witnesses import ask
from hoster.planning.succession import Witness
from hoster.planning.swap import branch_name, coming_name, unfinished


def end_arrivals(context: Context, vm: Vm, witnesses: Sequence[Witness], *, dry_run: bool) -> list[str]:
    """Ends receives into the VM that wait for a source which does not answer; what was done, in words.

    A host that dies while it sends leaves one behind: the system here hears nothing of that for hours, and
    the dataset is busy as long as it waits. What has arrived is kept. Busy where the source answers: it may
    well be sending.
    """
    found = context.zfs.receives_into([dataset.name for dataset in vm.everything])
    if not found:
        return []
    source = _source(witnesses)
    if source is not None:
        raise Busy(
            f"{found[0].target} is being received by process {found[0].pid}, and {source.node} answers",
            hint=f"try again when that has ended; on {source.node}: hoster jobs",
        )
    if not dry_run:
        context.zfs.end_receives(found)
    ended = "would be ended" if dry_run else "was ended"
    return [
        f"the receiving of {receive.target} (process {receive.pid}) {ended}: its source does not answer"
        for receive in found
    ]


def finish_parting(context: Context, name: str, seen: Mapping[str, Dataset], *, dry_run: bool) -> list[str]:
    """Finishes what the source of the VM has begun to set aside here, if it does not answer: half done, the
    VM may not even have its name; what was done, in words. ``seen`` is what is on this node.

    Busy where the source answers: it is at it, or will finish it; OperationFailed where it cannot be done.
    """
    done = []
    for root, stamp in unfinished(tuple(seen.values())):
        if root.rpartition("/")[2] != name:
            continue
        names = (root, branch_name(root, stamp), coming_name(root, stamp))
        copy = next(seen[one] for one in names if one in seen)
        if copy.marks.role is not Role.REPLICA:
            continue  # this node's own was looked after before, and is left where something uses it
        source = _source(ask(context, copy.marks)[0])
        if source is not None:
            raise Busy(
                f"{source.node} sets the newer part of {root} aside, and answers",
                hint=f"try again when that has ended; if nothing is at it, on {source.node}:"
                f" hoster vm replicate {name} --endpoint {context.hostname}",
            )
        if dry_run:
            done.append(f"what was begun to be set aside of {root} would be finished first")
            continue
        said = finish_left(context.zfs, tuple(seen.values()), {root})[root]
        if isinstance(said, HosterError):
            raise said
        done.append(said)
    return done


def _source(witnesses: Sequence[Witness]) -> Witness | None:
    return next((w for w in witnesses if w.datasets and w.datasets[0].marks.role is Role.PRIMARY), None)
