"""Starts or stops all VMs of this node; one that fails keeps no other from its turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from hoster.errors import Busy, HosterError, Refused
from hoster.model.plan import Outcome, Report, VmReport
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.inventory import look_around
from hoster.operations.permission import UNATTENDED, Asking
from hoster.operations.power import STOP_LIMIT_S, hold_power, running_now, start_held, stop_held, writers

_AT_ONCE = 8
"""Guests that are waited for at a time."""


def start_all(
    context: Context,
    *,
    production_only: bool = False,
    pause_s: float = 0.0,
    asking: Asking = UNATTENDED,
) -> Report:
    """Starts this node's own VMs, one after the other, with a pause of so many seconds after each.

    What looks like a VM and cannot be used is reported as failed, and so is a dataset that is missing.
    """
    stock = look_around(context)
    reports = [broken.report for broken in stock.broken]
    for vm in stock.vms:
        if not vm.is_primary or (production_only and not vm.production):
            continue
        if any(report.outcome is Outcome.DONE for report in reports[-1:]):
            time.sleep(pause_s)
        reports.append(_reported(vm.name, partial(_start, context, vm, asking)))
    return Report(tuple(reports))


def stop_all(context: Context, *, force: bool = False, limit_s: float = STOP_LIMIT_S) -> Report:
    """Stops every VM that runs on this node, whatever its role, several at a time; what looks like one and
    cannot be used, too, and is reported only where it ran. Which VMs are in a dataset that is missing is
    not known, so that dataset is reported as failed. What another process than hoster's own writes to is
    reported as refused."""
    from concurrent.futures import ThreadPoolExecutor

    stock = look_around(context)
    usable = dict.fromkeys(vm.name for vm in stock.vms)  # a name that two have is one machine
    names = tuple(dict.fromkeys((*usable, *(broken.name for broken in stock.unusable if not broken.busy))))
    with ThreadPoolExecutor(_AT_ONCE, "stop") as pool:
        steps = (partial(_stop, context, name, force=force, limit_s=limit_s) for name in names)
        reports = tuple(pool.map(_reported, names, steps))
    told = [r for r in reports if r.vm in usable or r.outcome is not Outcome.UNCHANGED]
    idle = {report.vm for report in told if report.outcome is Outcome.UNCHANGED}
    written = writers(vm for vm in stock.vms if vm.name in idle)
    checked = (_refused(r.vm, written[r.vm]) if r.vm in written else r for r in told)
    return Report((*(missing.report for missing in stock.missing), *checked))


def _start(context: Context, vm: Vm, asking: Asking) -> VmReport:
    with hold_power(context, vm.name):
        if (running := running_now(context, vm)) is not None:
            return VmReport(vm.name, Outcome.UNCHANGED, f"it runs already, as process {running.pid}")
        # Looked at again: what it is may have changed since the look at all of them.
        started = start_held(context, look_around(context).named(vm.name), asking)
    return VmReport(vm.name, Outcome.DONE, f"started, as process {started.running.pid}", notes=started.notes)


def _stop(context: Context, name: str, *, force: bool, limit_s: float) -> VmReport:
    with hold_power(context, name):
        if stop_held(context, name, force=force, limit_s=limit_s):
            return VmReport(name, Outcome.DONE, "stopped")
    return VmReport(name, Outcome.UNCHANGED, "it does not run")


def _reported(name: str, step: Callable[[], VmReport]) -> VmReport:
    try:
        return step()
    except Refused as refused:
        return _refused(name, refused)
    except Busy as busy:
        return VmReport(name, Outcome.BUSY, busy.message, busy.hint)
    except HosterError as error:
        return VmReport(name, Outcome.FAILED, error.message, error.hint)


def _refused(name: str, refused: Refused) -> VmReport:
    return VmReport(name, Outcome.REFUSED, refused.message, refused.hint)
