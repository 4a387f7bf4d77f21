"""Runs hoster on another node, which must have it: what only that node can judge, it decides itself."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from hoster.errors import ExitCode, OperationFailed, Refused
from hoster.operations.context import Context
from hoster.zfs.store import ZfsStore

_NOT_FOUND = 127
_TIMEOUT_S = 600.0


class _FarVm(Struct, frozen=True):
    outcome: str = ""
    reason: str = ""
    remedy: str = ""
    done: tuple[str, ...] = ()


class _FarReport(Struct, frozen=True):
    vms: tuple[_FarVm, ...] = ()


def run_there(
    context: Context, there: ZfsStore, words: Sequence[str], *, limit_s: float = _TIMEOUT_S
) -> tuple[str, ...]:
    """Runs ``hoster`` with these words on another node; what it did, if it prints a report.

    Refused where it refused there; OperationFailed where it failed, or where that node has no hoster.
    """
    done = context.runner.run(there.host.argv(("hoster", *words)), timeout_s=limit_s)
    report = _report(done.stdout)
    vm = report.vms[0] if report.vms else _FarVm()
    if done.returncode == ExitCode.DONE:
        return vm.done
    if done.returncode == _NOT_FOUND:
        raise OperationFailed(
            f"{there.node} has no hoster",
            hint=f"install it there, then: ssh {there.node} hoster init --dataset …",
        )
    said = vm.reason or _last_words(done.stderr)
    command = f"hoster {' '.join(words)}"
    if done.returncode == ExitCode.REFUSED:
        raise Refused(f"{there.node} refused `{command}`: {said}", hint=vm.remedy)
    raise OperationFailed(f"{there.node}: `{command}` ended with {done.returncode}: {said}", hint=vm.remedy)


def _report(printed: str) -> _FarReport:
    try:
        return msgspec.json.decode(printed, type=_FarReport)
    except msgspec.MsgspecError:
        return _FarReport()


def _last_words(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    return " ".join(line.strip() for line in lines[-2:]) or "it said nothing"
