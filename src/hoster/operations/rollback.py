"""``snapshot rollback``: a VM goes back to one of its snapshots, and nothing is lost unless asked for.

Without ``destroy_newer`` what is newer becomes a branch. With it, exactly what the plan lists is destroyed,
each by its name and only if it still is what was seen, and then the datasets are rolled back, never by
``-r``: ZFS itself refuses if anything has appeared that is not in the plan.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct
from msgspec.structs import replace

from hoster.errors import OperationFailed, UsageError
from hoster.model.plan import Destroyed, Ground, Outcome, Refusal, Report, VmReport
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.going_back import Course, Power, go_back
from hoster.operations.opening import Reopening
from hoster.operations.swapping import branches_beside, new_stamp, roll_back_in_place, swap
from hoster.planning.refusals import Subject
from hoster.planning.rollback import Rollback, left_out, plan_rollback


class RollbackRequest(Struct, frozen=True):
    """Which VM goes back to which of its snapshots (short or full name), and how.

    ``without`` are disks to leave out. ``agreed`` are the names of what somebody has agreed to lose (None:
    whatever the plan says, which is only for ``destroy_newer``).
    """

    vm: str
    snapshot: str
    power: Power = Power()
    without: tuple[str, ...] = ()
    destroy_newer: bool = False
    agreed: frozenset[str] | None = None
    dry_run: bool = False


def roll_back(context: Context, request: RollbackRequest) -> Report:
    """Lets a VM go back to one of its snapshots, all of its datasets to their own of that name.

    OperationFailed where there is no such VM or snapshot; UsageError for a disk to leave out that it does
    not have, or that has the snapshot.
    """

    keys = Reopening(context, request.vm, request.power.ask_for_key)

    def decide(vm: Vm) -> Course | Refusal:
        return _decide(context, request, vm, keys)

    return go_back(context, request.vm, request.power, decide, dry_run=request.dry_run)


def _decide(context: Context, request: RollbackRequest, vm: Vm, keys: Reopening) -> Course | Refusal:
    dataset, at, version = request.snapshot.rpartition("@")
    if at and dataset != vm.dataset.name:
        return Refusal(
            vm.name,
            Ground.OF_ANOTHER_VM,
            f"{request.snapshot} is not a snapshot of {vm.name}, whose dataset is {vm.dataset.name}",
            f"hoster snapshot list {vm.name}",
        )
    subject = Subject(vm.name, vm.dataset, vm.role, vm.parent, vm.descendants)
    having = {d.name for d in vm.everything if any(s.name == version for s in d.snapshots)}
    if not having and vm.is_primary:
        raise OperationFailed(f"{vm.name} has no snapshot {version}", hint=f"hoster snapshot list {vm.name}")
    try:
        without = left_out(subject, request.without)
    except ValueError as error:
        raise UsageError(f"--without: {error}") from None
    if without & having:
        raise UsageError(f"--without: {sorted(without & having)[0]} has the snapshot {version}")
    plan = plan_rollback(subject, version, without=without, destroy_newer=request.destroy_newer)
    if isinstance(plan, Refusal):
        return plan
    if not (request.dry_run or request.destroy_newer or plan.is_there):
        keys.prepare(vm)
    return Course(
        _report(vm, plan, f"{vm.dataset.name}.branch-…" if not request.destroy_newer else ""),
        lambda: _carry_out(context, request, vm, plan, keys),
        vm.everything,
        is_there=plan.is_there,
    )


def _carry_out(
    context: Context, request: RollbackRequest, vm: Vm, plan: Rollback, keys: Reopening
) -> VmReport:
    root = vm.dataset.name
    stamp = new_stamp(context.now(), root, branches_beside(context.zfs, root))
    if not request.destroy_newer:
        return _report(vm, plan, swap(context.zfs, root, stamp, plan.wanted, keys))
    report = _report(vm, plan, "")
    unexpected = {gone.snapshot for gone in report.destroyed} - (request.agreed or frozenset())
    if request.agreed is not None and unexpected:
        raise OperationFailed(
            f"{sorted(unexpected)[0]} was not among what was shown and agreed to; nothing was changed",
            hint="run it again",
        )
    _refuse_what_appeared(context, root, plan, {gone.snapshot for gone in report.destroyed})
    # The bookmarks first: what still has an anchor is not destroyed, and none of these is one.
    context.zfs.destroy_bookmarks(plan.bookmarks)
    for answer in context.zfs.destroy([step.victim for step in plan.destroys]):
        if not answer.done:
            raise OperationFailed(
                f"{answer.name} was not destroyed: {answer.explained}; the VM is as it was, but for the newer"
                " snapshots that are gone"
            )
    roll_back_in_place(context.zfs, root, stamp, plan.wanted)
    return report


def _refuse_what_appeared(context: Context, root: str, plan: Rollback, expected: Collection[str]) -> None:
    """A snapshot that was taken since it was planned would be in the way, once the others are gone."""
    now = context.zfs.look_for([root]).datasets
    for dataset, version in plan.wanted:
        seen = now.get(dataset.name, dataset)
        newer = (v.full_name for v in seen.snapshots if v.createtxg > version.createtxg)
        appeared = next((name for name in newer if name not in expected), "")
        if appeared:
            raise OperationFailed(f"{appeared} was taken meanwhile; nothing was changed", hint="run it again")


def _report(vm: Vm, plan: Rollback, branch: str) -> VmReport:
    """What was done; ``branch`` is the dataset of what is newer, empty where that was destroyed."""
    full_name = f"{vm.dataset.name}@{plan.version}"
    notes = [str(outlook) for outlook in plan.outlooks]
    if not plan.is_one_moment:
        notes.insert(0, f"its snapshots called {plan.version} were not taken at one moment")
    if plan.left:
        stays = "goes along into the branch" if branch else "stays as it is"
        notes += [f"{name} {stays}: it has no snapshot {plan.version}" for name in plan.left]
    report = VmReport(vm.name, Outcome.DONE, f"VM has been rolled back to: {full_name}", notes=tuple(notes))
    if plan.is_there:
        return replace(report, reason=f"it is at {full_name} already, and nothing was written since")
    if branch:
        name = branch.rpartition("/")[2]
        reason = f"{report.reason}; what was newer is kept in {name}"
        remedy = f"hoster vm branches restore {name}    (brings it back)"
        return replace(report, reason=reason, remedy=remedy, branch=name)
    destroyed = [Destroyed("local", s.victim.full_name, s.reason) for s in plan.destroys]
    destroyed += [Destroyed("local", b.full_name, f"newer than {plan.version}") for b in plan.bookmarks]
    return replace(report, destroyed=tuple(destroyed))
