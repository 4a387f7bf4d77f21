"""Who may touch the history of a VM of this node, and what a crash has left of it half done.

A VM that goes back holds its history alone; replications share it. Whoever looks at this node's VMs finishes
first what was interrupted, so that nobody ever works on half of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from hoster.errors import HosterError, OperationFailed
from hoster.host.holders import Holder, holders
from hoster.model.storage import Dataset, DatasetKind, Role, View
from hoster.operations.context import Context
from hoster.operations.opening import Reopening, nobody
from hoster.operations.swapping import finish
from hoster.planning.swap import branch_name, coming_name, unfinished


def hold_history(
    context: Context, name: str, holder: str, *, shared: bool = False, wait_s: float = 0.0
) -> AbstractContextManager[float]:
    """For the block, the VM of that name does not go back, and unless ``shared`` it is not replicated
    either. Busy, naming who is at it, if that has not ended within ``wait_s`` seconds."""
    return context.locks.hold(f"the history of {name}", holder=holder, shared=shared, wait_s=wait_s)


def users_of(datasets: Collection[Dataset]) -> tuple[Holder, ...]:
    """What uses these datasets: the mounted filesystems, and the devices of the volumes."""
    folders = [d.mountpoint for d in datasets if d.mounted and d.mountpoint is not None]
    volumes = (Path("/dev/zvol") / d.name for d in datasets if d.kind is DatasetKind.VOLUME)
    return holders(folders, [str(device) for device in volumes if device.exists()])


def half_done(view: View) -> tuple[tuple[str, str], ...]:
    """The swaps on this node that were begun and not finished, as root and stamp. Those of replicas are left
    to the node that sends them, which may be at work on them right now."""
    begun = unfinished(tuple(view.datasets.values()))
    return tuple((root, stamp) for root, stamp in begun if not _is_of_a_replica(view, root, stamp))


def finish_half_done(context: Context, view: View, held: str = "") -> Mapping[str, str | HosterError]:
    """Finishes what is half done, or takes it back where nothing was done yet; what became of each, by the
    name of the VM's dataset: what was done, in words, or why it could not be.

    ``held`` is the VM whose history the caller holds already.
    """
    done: dict[str, str | HosterError] = {}
    for root, stamp in half_done(view):
        name = root.rpartition("/")[2]
        lock = hold_history(context, name, f"hoster, which finishes how {name} went back")
        try:
            with nullcontext() if name == held else lock:
                _refuse_if_used(view, root, stamp)
                finish(context.zfs, root, stamp, Reopening(context, name, nobody))
        except HosterError as error:
            done[root] = error
        else:
            done[root] = f"finished how {name} went back (as of {stamp}), which was interrupted"
    return done


def left_half_done(
    context: Context, left: Iterable[tuple[str, str]], held: str = ""
) -> Mapping[str, HosterError]:
    """Why what is half done is left so: Busy where somebody is at it, else the next command finishes it."""
    found: dict[str, HosterError] = {}
    for root, _ in left:
        name = root.rpartition("/")[2]
        lock = hold_history(context, name, "hoster, which looks whether anybody has it")
        try:
            with nullcontext() if name == held else lock:
                found[root] = OperationFailed("it is finished by the next command that is no dry run")
        except HosterError as error:
            found[root] = error
    return found


def _refuse_if_used(view: View, root: str, stamp: str) -> None:
    roots = (root, branch_name(root, stamp), coming_name(root, stamp))
    found = [dataset for name in roots if (dataset := view.get(name)) is not None]
    users = users_of([*found, *(below for one in found for below in view.below(one.name))])
    if users:
        raise OperationFailed(f"{users[0]}", hint=f"end it first: ps {users[0].pid}" if users[0].pid else "")


def _is_of_a_replica(view: View, root: str, stamp: str) -> bool:
    roots = (view.get(root), view.get(branch_name(root, stamp)))
    return any(dataset is not None and dataset.marks.role is Role.REPLICA for dataset in roots)
