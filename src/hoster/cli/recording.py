"""Commands about one VM that are recorded: in the journal of runs, in the log, and among the jobs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hoster.cli.messages import WARNING, say
from hoster.cli.render import exit_code, finish
from hoster.model.plan import Report
from hoster.operations.context import Context
from hoster.operations.recording import Recorder, recorded
from hoster.records.runs import Run, RunKind


def run_about(kind: RunKind, name: str, node: str = "") -> Run:
    """A run about one VM, and the other node if there is one; its job is named after them."""
    to = f"_to_{node}" if node else ""
    return Run(kind, f"{kind.value}_{name}{to}", node, vm=name)


def finish_recorded(
    context: Context, run: Run, act: Callable[[Recorder], Report], *, dry_run: bool, as_json: bool
) -> None:
    """Records what ``act`` does as ``run``, shows its report, and leaves with its exit code."""
    with recorded(context, run, partial(say, WARNING, err=True), dry_run=dry_run) as recorder:
        report = act(recorder)
        recorder.report(report, exit_code(report))
    finish(report, as_json=as_json)
