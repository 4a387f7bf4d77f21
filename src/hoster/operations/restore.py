"""Brings a VM back from a node that has a copy of it: pulled as a replica, which then takes over here.

Nothing on the other node is changed, and nothing here is overwritten. What was cut goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import NAMESPACE_OID, uuid4, uuid5

from msgspec import Struct
from msgspec.structs import replace

from hoster.errors import OperationFailed, Refused, UsageError
from hoster.host.ssh import SshOptions
from hoster.host.throttle import SpeedLimit
from hoster.model.names import vm_name
from hoster.model.plan import Outcome, Report, Send, VmReport
from hoster.model.storage import Dataset, Epoch, Marks, Mode, Role, Site, Snapshot
from hoster.operations.context import Context
from hoster.operations.history import hold_history
from hoster.operations.identity import origin_of, properties_of
from hoster.operations.inventory import missing_from, refuse_missing
from hoster.operations.opening import AskForKey
from hoster.operations.request import Observer
from hoster.operations.takeover import TakeoverRequest, take_over
from hoster.planning.succession import complete_versions
from hoster.planning.transfers import Leg, common_base, continues_partial, plan_sends
from hoster.zfs.store import SnapshotMark, ZfsStore, transfer


class RestoreRequest(Struct, frozen=True):
    """What to bring back.

    ``dataset`` is its name on the other node (None: below one of this node's active datasets, by the same
    name); ``snapshot`` the version to end at (None: the newest that is whole); ``called`` another name for it
    here, which makes it a VM of its own. ``speed_limit`` is in bytes per second.
    """

    vm: str
    source: SshOptions
    dataset: str | None = None
    snapshot: str | None = None
    called: str | None = None
    speed_limit: float | None = None
    dry_run: bool = False

    @property
    def name(self) -> str:
        return self.called or self.vm


def restore(context: Context, request: RestoreRequest, observer: Observer, ask_for_key: AskForKey) -> Report:
    """Brings the VM here. It takes over as :mod:`hoster.operations.takeover` has it, unless something speaks
    against that, such as a node that may run it: then it stays a replica.

    Refused where something of that name is here already; OperationFailed where the other node has no such VM
    or version. Busy while somebody else is at work on it, such as another restoration.
    """
    try:
        vm_name(request.name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    lock = hold_history(context, request.name, f"hoster vm restore {request.vm}")
    with lock, context.reach(request.source) as connection:
        there = connection()
        copy = _copy_there(context, there, request)
        versions = _versions(copy, request.snapshot, there.node)
        root = copy[0]
        if root.marks.vm_id is None and request.called is None:
            mark = f"hoster:id={uuid4()} hoster:role=replica {root.name}"
            raise Refused(
                f"{root.name} on {there.node} has no hoster:id, by which it could be told who may run it",
                hint=f"ssh {there.node} zfs set {mark}    (if no node runs it); or --as NEWNAME",
            )
        here = f"{context.datasets[0]}/{request.name}"
        marks = _marks(context, request, root, versions[0][1], there)
        begun = _begun(context, request, here, marks)
        if begun is not None:
            steps = _steps(versions, root.name, here, begun)
            left_out = "" if request.snapshot is None else _left_out(copy, versions, there.node)
            notes = [f"{there.node} has it up to {versions[0][1].name}"]
            if request.dry_run:
                notes += [left_out] if left_out else []
                sent = tuple(f"{s.through.full_name} into {s.target}" for s, _ in steps)
                return Report((VmReport(request.name, Outcome.PLANNED, sent=sent, notes=tuple(notes)),), True)
            received = _receive(context, there, request, marks, steps, observer)
            _verify(context, versions, root.name, here, marks)
    if begun is None:
        return _finish_earlier(context, request, here, ask_for_key)
    notes += _become_own(context, request.name, ask_for_key, left_out)
    return _report(request.name, steps, received, notes)


def _finish_earlier(context: Context, request: RestoreRequest, here: str, ask_for_key: AskForKey) -> Report:
    """What is here is the VM itself, and primary: finishes the takeover of an earlier call, if that was cut
    short. Refused where nothing is left to do."""
    again = TakeoverRequest(request.name, dry_run=request.dry_run)
    report = take_over(context, again, ask_for_key, lambda _evidence: False)
    if report.vms[0].outcome is Outcome.UNCHANGED:
        raise _exists(request, here)
    return report


def _verify(
    context: Context, versions: Sequence[tuple[Dataset, Snapshot]], root: str, here: str, marks: Marks
) -> None:
    """What has arrived is what is listed here, by GUID; OperationFailed where anything is missing. It is
    marked as whole then."""
    seen = context.zfs.look_for([here])
    arrived = []
    for dataset, version in versions:
        got = seen.get(here + dataset.name.removeprefix(root))
        if got is None or got.snapshot_with(version.guid) is None:
            raise OperationFailed(
                f"{version.full_name} (guid {version.guid:016x}) is not here after it was sent",
                hint="run it again",
            )
        arrived.append(got.snapshot_with(version.guid))
    sent_by = origin_of(marks.vm_id, marks.epoch)
    context.zfs.mark([SnapshotMark(s, "hoster:from", sent_by) for s in arrived if s is not None])


def _become_own(context: Context, name: str, ask_for_key: AskForKey, left_out: str) -> Sequence[str]:
    """What became of the takeover: where something speaks against it, the copy stays a replica."""
    against = left_out
    became: list[str] = []
    if not against:
        try:
            taken = take_over(context, TakeoverRequest(name), ask_for_key, lambda _evidence: False).vms[0]
            against = taken.reason if taken.outcome is Outcome.REFUSED else ""
            became = [*taken.done, *taken.notes]
        except Refused as error:
            against = error.message
    if against:
        return [f"it stays a replica here: {against}", f"to run it here: hoster change parent --vm {name}"]
    return became


def _copy_there(context: Context, there: ZfsStore, request: RestoreRequest) -> tuple[Dataset, ...]:
    """The VM's datasets on the other node, its own first."""
    wanted = [request.dataset] if request.dataset else [f"{d}/{request.vm}" for d in context.datasets]
    seen = there.look_for(wanted)
    for name in wanted:
        root = seen.get(name)
        if root is not None:
            return (root, *seen.below(name))
    raise OperationFailed(
        f"{there.node} has no {' or '.join(wanted)}",
        hint="name its dataset there with --from-dataset DATASET",
    )


def _versions(copy: Sequence[Dataset], wanted: str | None, node: str) -> tuple[tuple[Dataset, Snapshot], ...]:
    if wanted is None:
        versions = complete_versions(copy)
        if not versions:
            raise OperationFailed(f"{node} has no version of {copy[0].name} that is whole")
        return versions
    short = wanted.rpartition("@")[2]
    found = [(d, s) for d in copy for s in d.snapshots if s.name == short]
    if not found or found[0][0] is not copy[0]:
        raise OperationFailed(
            f"{node} has no snapshot {copy[0].name}@{short}",
            hint=f"on {node}: hoster snapshot list {copy[0].name.rpartition('/')[2]}",
        )
    return tuple(found)


def _left_out(copy: Sequence[Dataset], versions: Sequence[tuple[Dataset, Snapshot]], node: str) -> str:
    """The VM's datasets that have no such version, in words: disks that were added later, or were not in a
    snapshot that somebody took."""
    left = [dataset.name for dataset in copy if all(dataset is not one for one, _ in versions)]
    short = versions[0][1].name
    return "; ".join(f"{name} on {node} has no snapshot {short}, and is left out" for name in left)


def _marks(
    context: Context, request: RestoreRequest, root: Dataset, version: Snapshot, there: ZfsStore
) -> Marks:
    """What the copy here is marked with from its first byte on: a replica, whatever becomes of it later."""
    site = Site(there.node, root.name, request.source.port)
    if request.called is None:
        others = tuple(s for s in root.marks.sites if s != site)
        return replace(root.marks, role=Role.REPLICA, demoted=False, swap=None, sites=(site, *others))
    # The same call again finds by it what it has begun; anybody else's is another.
    whole = f"{context.hostname}/{root.marks.vm_id or root.guid}/{request.called}/{version.guid}"
    identity = str(uuid5(NAMESPACE_OID, whole))
    return Marks(identity, Role.REPLICA, Epoch(1, there.node), there.node, production=False)


def _begun(context: Context, request: RestoreRequest, here: str, marks: Marks) -> dict[str, Dataset] | None:
    """What an earlier call has brought already; None where that is all of it, and the VM is primary here.

    Refused where anything else has its name, in whatever active dataset, since a name that two have is
    nobody's; where the VM itself is here under another name; and where an active dataset is missing, in which
    either may be.
    """
    beside = context.zfs.look_beside(context.datasets)
    refuse_missing(missing_from(context, beside.datasets))
    for dataset in beside.datasets.values():
        parent, _, name = dataset.name.rpartition("/")
        if dataset.name == here or parent not in context.datasets:
            continue
        if name == request.name:
            raise _exists(request, dataset.name)
        if dataset.marks.vm_id == marks.vm_id and dataset.marks.role is not Role.BRANCH:
            raise Refused(f"{dataset.name} is that VM, by its hoster:id", hint=_as_another(request))
    seen = context.zfs.look_for([here])
    root = seen.get(here)
    if root is None:
        return {}
    if root.marks.vm_id != marks.vm_id or root.marks.role not in {Role.REPLICA, Role.PRIMARY}:
        raise _exists(request, here)
    return dict(seen.datasets) if root.marks.role is Role.REPLICA else None


def _exists(request: RestoreRequest, here: str) -> Refused:
    return Refused(f"{here} exists already", hint=_as_another(request))


def _as_another(request: RestoreRequest) -> str:
    return f"hoster vm restore {request.vm} --from {request.source.endpoint} --as ANOTHER"


def _steps(
    versions: Sequence[tuple[Dataset, Snapshot]], root: str, here: str, begun: dict[str, Dataset]
) -> list[tuple[Send, Mode]]:
    steps: list[tuple[Send, Mode]] = []
    for dataset, through in versions:
        upto = tuple(s for s in dataset.snapshots if s.createtxg <= through.createtxg)
        source = replace(dataset, snapshots=upto, bookmarks=())
        target = here + dataset.name.removeprefix(root)
        mode = Mode.RAW if dataset.encrypted else Mode.PLAIN
        got = begun.get(target)
        base = None if got is None else common_base(source, got)
        partial = None
        if got is not None and got.partial is not None:
            goes_on = continues_partial(source, got, base, mode)
            if isinstance(goes_on, str):
                raise OperationFailed(
                    f"what has arrived of {target} cannot go on: {goes_on}",
                    hint=f"zfs receive -A {target}    (gives up what has arrived of that stream)",
                )
            partial = got.partial
        steps += [(step, mode) for step in plan_sends(Leg(source, base, target, mode, partial))]
    return steps


def _receive(
    context: Context,
    there: ZfsStore,
    request: RestoreRequest,
    marks: Marks,
    steps: Sequence[tuple[Send, Mode]],
    observer: Observer,
) -> int:
    """Pulls the streams; the bytes that came."""
    limit = SpeedLimit(request.speed_limit) if request.speed_limit else None
    received = 0
    observer.begin({request.name: sum(s.written for step, _ in steps for s in (step.through,))})

    def meter(amount: int) -> None:
        nonlocal received
        if limit is not None:
            limit(amount)
        received += amount
        observer.advance(request.name, amount)

    raw = {step.target for step, mode in steps if mode is Mode.RAW}
    for step, mode in steps:
        is_root = step.target == f"{context.datasets[0]}/{request.name}"
        own = replace(marks, mode=mode, key_digest=None, sites=marks.sites if is_root else ())
        properties = properties_of(own)
        if mode is Mode.PLAIN and step.target.rpartition("/")[0] in raw:
            properties["encryption"] = "off"
        transfer(context.runner, there, context.zfs, step, properties, meter)
    return received


def _report(name: str, steps: Sequence[tuple[Send, Mode]], received: int, notes: Sequence[str]) -> Report:
    sent = tuple(f"{step.target}@{step.through.name}" for step, _ in steps)
    done = VmReport(name, Outcome.DONE, sent=sent, sent_bytes=received, notes=tuple(notes))
    return Report((done,), False)
