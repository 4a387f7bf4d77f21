"""What every way of going back has in common: one VM at a time, stopped and used by nobody, and started
again if asked for.

What is decided is decided by planners (:mod:`hoster.planning.rollback`) and carried out by swaps
(:mod:`hoster.operations.swapping`): this module knows neither. All that can be known beforehand is looked at
before anything is done, the VM not stopped for a plan that is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from hoster.errors import Busy, HosterError, OperationFailed, Refused
from hoster.host.holders import Holder
from hoster.host.usage import bhyve_machines
from hoster.host.volumes import await_devices, device_numbers
from hoster.model.plan import Ground, Outcome, Refusal, Report, VmReport
from hoster.model.storage import Dataset, DatasetKind
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.history import hold_history, users_of
from hoster.operations.inventory import Inventory, look_around
from hoster.operations.opening import AskForKey, nobody
from hoster.operations.taking import SNAPSHOTS_LOCK, SNAPSHOTS_WAIT_S

if TYPE_CHECKING:
    from hoster.hypervisors.protocol import Running


class Power(Struct, frozen=True):
    """What may be done to a VM that runs: stopped first, and started afterwards in any case.

    ``stop_limit_s`` is how long its guest is waited for before its process is ended. ``ask_for_key`` asks for
    the passphrase of an encrypted VM, which has to be opened again.
    """

    force_stop: bool = False
    force_start: bool = False
    stop_limit_s: float = 120.0
    ask_for_key: AskForKey = nobody


class Course(Struct, frozen=True):
    """What is to be done to one VM. ``report`` says it as if it were done; ``act`` does it and gives the true
    one. ``is_there``: nothing is to be done. ``datasets`` are those that nobody may use meanwhile, the VM's
    own first."""

    report: VmReport
    act: Callable[[], VmReport]
    datasets: tuple[Dataset, ...]
    is_there: bool = False


Decide = Callable[[Vm], Course | Refusal]


def go_back(context: Context, name: str, power: Power, decide: Decide, *, dry_run: bool) -> Report:
    """Lets one VM go back as ``decide`` says, which is asked again once a running VM has stopped.

    A VM that runs is refused unless it may be stopped, and so is one that anything else uses. Busy while it
    is replicated, started or stopped, or goes back already.
    """
    with contextlib.ExitStack() as stack:
        if not dry_run:
            from hoster.operations.power import hold_power

            stack.enter_context(hold_history(context, name, f"hoster, {name} is going back"))
            stack.enter_context(hold_power(context, name))
        stock = _look(context, name, dry_run=dry_run)
        report = _go_back(context, stock.named(name), power, decide, dry_run=dry_run)
        mended = stock.mended.get(name)
        return Report((replace(report, notes=(mended, *report.notes)) if mended else report,), dry_run)


def _go_back(context: Context, vm: Vm, power: Power, decide: Decide, *, dry_run: bool) -> VmReport:
    from hoster.operations.power import running_now

    course = decide(vm)
    if isinstance(course, Refusal):
        return _refused(course)
    running = running_now(context, vm)
    if running is not None and not power.force_stop:
        return _refused(_runs(vm, running))
    users = _others(vm, course, running)
    if users:
        return _refused(_in_use(vm, users))
    if dry_run:
        unchanged = course.is_there and running is None
        return _unchanged(course.report) if unchanged else _planned(course.report, running)
    if running is not None:
        return _stopped_first(context, vm, power, decide)
    report = _unchanged(course.report) if course.is_there else _act(context, course)
    return _started(context, report, ran=False) if power.force_start else report


def _stopped_first(context: Context, vm: Vm, power: Power, decide: Decide) -> VmReport:
    """The same for a VM that runs. Once stopped it is started whatever happens, if that was asked for."""
    note = _stop(context, vm, power.stop_limit_s)
    try:
        vm = _look(context, vm.name, dry_run=False).named(vm.name)
        course = decide(vm)
        if isinstance(course, Refusal):
            report = _refused(course)
        elif users := _others(vm, course, None):
            report = _refused(_in_use(vm, users))
        elif course.is_there:
            report = replace(course.report, outcome=Outcome.DONE)
        else:
            report = _act(context, course)
    except Refused as error:
        report = VmReport(vm.name, Outcome.REFUSED, error.message, error.hint, ground=Ground.IN_USE)
    except Busy as error:
        report = VmReport(vm.name, Outcome.BUSY, error.message, error.hint)
    except HosterError as error:
        report = VmReport(vm.name, Outcome.FAILED, error.message, error.hint)
    report = replace(report, notes=(note, *report.notes))
    return _started(context, report, ran=True) if power.force_start else report


def _act(context: Context, course: Course) -> VmReport:
    """No snapshot is taken while datasets change their names. Whoever starts the VM next finds its volumes'
    devices, and never those of what is set aside."""
    holder = f"hoster, {course.report.vm} is going back"
    devices = device_numbers(_volumes(course.datasets))
    with context.locks.hold(SNAPSHOTS_LOCK, holder=holder, wait_s=SNAPSHOTS_WAIT_S):
        report = course.act()
    if not devices:
        return report
    now = context.zfs.look_for([course.datasets[0].name]).datasets
    # What has taken the place of another dataset has another device.
    left = {d.name for d in course.datasets if d.name in now and now[d.name].guid != d.guid}
    former = {name: number for name, number in devices.items() if name in left}
    missing = await_devices(_volumes(now.values()), former)
    if not missing:
        return report
    return replace(report, notes=(*report.notes, f"not there yet: the device of {', '.join(missing)}"))


def _volumes(datasets: Iterable[Dataset]) -> list[str]:
    return [dataset.name for dataset in datasets if dataset.kind is DatasetKind.VOLUME]


def _stop(context: Context, vm: Vm, limit_s: float) -> str:
    """Asks the guest to power down, and ends its process where it does not; what was done, in words. One that
    cannot be asked runs on."""
    from hoster.hypervisors.protocol import StillRuns
    from hoster.operations.power import running_now, stop_held

    words = "it was stopped"
    try:
        stop_held(context, vm.name, force=False, limit_s=limit_s)
    except StillRuns:
        stop_held(context, vm.name, force=True)
        words = "its process was ended, since it did not power down when asked"
    if running_now(context, vm) is not None:
        raise OperationFailed(f"{vm.name} still runs after it was stopped; nothing was changed")
    return words


def _started(context: Context, report: VmReport, *, ran: bool) -> VmReport:
    """One that ran did so by right a moment ago: that a node cannot be asked now does not keep it down."""
    from hoster.operations.permission import Asking
    from hoster.operations.power import start_held

    try:
        vm = _look(context, report.vm, dry_run=False).named(report.vm)
        start_held(context, vm, Asking(isolated=ran))
    except HosterError as error:
        reason = f"{report.reason}; it could not be started: {error.message}"
        outcome = Outcome.FAILED
        return replace(report, outcome=outcome, reason=reason, remedy=error.hint or report.remedy)
    return replace(report, notes=(*report.notes, "it was started"))


def _look(context: Context, name: str, *, dry_run: bool) -> Inventory:
    return look_around(context, sync=True, mend=not dry_run, held=name)


def _others(vm: Vm, course: Course, running: Running | None) -> tuple[Holder, ...]:
    """Who uses the VM, its own process left out."""
    found = users_of(course.datasets)
    if vm.name in bhyve_machines():
        found = (*found, Holder(0, "bhyve", vm.name))
    return tuple(holder for holder in found if running is None or holder.pid != running.pid)


def _runs(vm: Vm, running: Running) -> Refusal:
    since = f"{running.since.astimezone():%Y-%m-%d %H:%M:%S}"
    return Refusal(
        vm.name,
        Ground.RUNNING,
        f"it runs, since {since}, as process {running.pid}",
        f"hoster vm stop {vm.name}, or add --force-stop",
    )


def _in_use(vm: Vm, users: tuple[Holder, ...]) -> Refusal:
    pids = " ".join(str(user.pid) for user in users if user.pid)
    return Refusal(
        vm.name,
        Ground.IN_USE,
        "; ".join(str(user) for user in users),
        f"end it first: ps {pids}" if pids else "end that first",
    )


def _refused(refusal: Refusal) -> VmReport:
    return VmReport(refusal.vm, Outcome.REFUSED, refusal.evidence, refusal.remedy, ground=refusal.ground)


def _unchanged(report: VmReport) -> VmReport:
    return VmReport(report.vm, Outcome.UNCHANGED, report.reason)


def _planned(report: VmReport, running: Running | None) -> VmReport:
    notes = report.notes if running is None else ("it would be stopped first", *report.notes)
    return replace(report, outcome=Outcome.PLANNED, notes=notes)
