"""Asks the other nodes that have a copy of a VM what they know of it: who may run it, how far they are."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from hoster.errors import HosterError
from hoster.host.ssh import SshOptions
from hoster.model.names import endpoint
from hoster.model.storage import Dataset, Marks, Role, Site, View
from hoster.operations.context import Context
from hoster.planning.succession import Witness
from hoster.zfs.programs import Telling
from hoster.zfs.store import ZfsStore

_AT_ONCE = 8


class Silent(Struct, frozen=True):
    """A node that could not be asked, and why."""

    node: str
    reason: str


def ask(context: Context, marks: Marks) -> tuple[list[Witness], list[Silent]]:
    """What the nodes that ``marks`` name as sites have of the VM, and those that could not be asked; all at
    once.

    A site that turns out to be this very machine is left out; what is another VM by its identity is no copy.
    """
    if not marks.sites:
        return [], []
    with ThreadPoolExecutor(_AT_ONCE, "ask") as pool:
        answers = list(pool.map(lambda site: _answer(context, site, marks.vm_id), marks.sites))
    witnesses = [answer for answer in answers if isinstance(answer, Witness)]
    return witnesses, [answer for answer in answers if isinstance(answer, Silent)]


def ssh_options(context: Context, site: Site) -> SshOptions:
    """How to reach a site. ValueError where its endpoint is none."""
    key = Path(site.key) if site.key else None
    return SshOptions(endpoint(site.endpoint), site.port, key, context.settings.replication.connect_timeout_s)


def tell(context: Context, replicas: Mapping[Site, Dataset], values: Mapping[str, str]) -> dict[Site, str]:
    """Sets properties on the replicas of a VM elsewhere, if they still are as they were seen; those that
    could not be told, and why."""
    problems: dict[Site, str] = {}
    for site, replica in replicas.items():
        try:
            with context.reach(ssh_options(context, site)) as connection:
                (answer,) = connection().tell([Telling(replica, values)])
        except HosterError as error:
            problems[site] = error.message
        else:
            if not answer.done:
                problems[site] = answer.explained
    return problems


def _answer(context: Context, site: Site, vm_id: str | None) -> Witness | Silent | None:
    try:
        with context.reach(ssh_options(context, site)) as connection:
            there: ZfsStore = connection()
            if there.machine == context.zfs.machine:
                return None
            seen = there.look_for([site.dataset])
            root = seen.get(site.dataset)
            if vm_id is not None and (root is None or root.marks.vm_id != vm_id):
                root, seen = _under_another_name(there, site.dataset, vm_id)
    except HosterError as error:
        return Silent(site.endpoint, error.message)
    except ValueError as error:
        return Silent(site.endpoint, str(error))
    if root is None or vm_id is None or root.marks.vm_id != vm_id:
        return Witness(site.endpoint, (), site)
    return Witness(site.endpoint, (root, *seen.below(root.name)), replace(site, dataset=root.name))


def _under_another_name(there: ZfsStore, dataset: str, vm_id: str) -> tuple[Dataset | None, View]:
    """The copy beside where it is known to be: whoever took the VM over may have renamed it."""
    beside = there.look_beside([dataset.rpartition("/")[0]])
    copies = [
        d for d in beside.datasets.values() if d.marks.vm_id == vm_id and d.marks.role is not Role.BRANCH
    ]
    found = max(copies, key=lambda d: d.marks.epoch.number if d.marks.epoch else 0, default=None)
    return (None, beside) if found is None else (found, there.look_for([found.name]))
