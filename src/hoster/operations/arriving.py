"""What is still being received into the copy of a VM that is to take over."""

from __future__ import annotations

from collections.abc import Sequence

from hoster.errors import Busy
from hoster.model.storage import Role
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.planning.succession import Witness


def end_arrivals(context: Context, vm: Vm, witnesses: Sequence[Witness], *, dry_run: bool) -> list[str]:
    """Ends receives into the VM that wait for a source which does not answer; what was done, in words.

    A host that dies while it sends leaves one behind: the system here hears nothing of that for hours, and
    the dataset is busy as long as it waits. What has arrived is kept. Busy where the source answers: it may
    well be sending.
    """
    found = context.zfs.receives_into([dataset.name for dataset in vm.everything])
    if not found:
        return []
    source = next((w for w in witnesses if w.datasets and w.datasets[0].marks.role is Role.PRIMARY), None)
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
