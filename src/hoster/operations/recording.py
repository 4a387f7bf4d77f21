"""Records a run: shows what it does while it lasts, logs it, leaves its journal entry, marker and metrics.

None of that can stop a run or change how it ends: what cannot be written is warned of, and that is all.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from hoster.errors import ExitCode, HosterError, OperationFailed
from hoster.host.origin import own_origin
from hoster.model.plan import Outcome, Report, VmReport
from hoster.operations.context import Context
from hoster.operations.request import Observer
from hoster.planning.lag import seen_after
from hoster.records.events import Event, began, of_the_end
from hoster.records.job_states import JobState, Phase, jobs_in, remove_state, write_state
from hoster.records.journal import Journal
from hoster.records.markers import clear_marker, raise_marker
from hoster.records.runs import EndedRun, Run, RunKind

Warn = Callable[[str], None]

_EVERY_S = 1.0
_BY_SIGNAL = 128
"""Exit codes from here on are of runs that a signal has ended."""


class Recorder:
    """What a recorded run tells of itself."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.ended: tuple[Report, ExitCode] | None = None
        self.skipped = ""

    def report(self, report: Report, code: ExitCode) -> None:
        """What became of the VMs, and what the run exits with."""
        self.ended = (report, code)

    def skip(self, reason: str) -> None:
        """There is to be no run now, for that reason, and nothing is wrong with that."""
        self.skipped = reason

    def watching(self, observer: Observer) -> Observer:
        """Tells ``observer`` how the run goes, and whoever asks for the jobs of this node."""
        self._progress.observer = observer
        return self._progress


@contextmanager
def recorded(context: Context, run: Run, warn: Warn, *, dry_run: bool = False) -> Iterator[Recorder]:
    """Records what happens in the block as ``run``; a dry run leaves nothing behind.

    What ends the block is passed on as it came. Each thing that could not be written is told to ``warn``.
    """
    started, warn = time.time(), _harmless(warn)
    progress = Progress(jobs_folder(context), run, started, warn, silent=dry_run)
    recorder = Recorder(progress)
    code, reason, hint, report = int(ExitCode.DONE), "", "", Report(())
    try:
        progress.show()
        if not dry_run:
            _log(context, (began(run, started),), warn)
        yield recorder
    except HosterError as error:
        code, reason, hint = error.exit_code, error.message, error.hint
        raise
    except BrokenPipeError as error:
        code, reason = ExitCode.FAILED, "ended in the middle: nobody reads any more what it says"
        raise OperationFailed(reason) from error
    except SystemExit:
        code, reason = _BY_SIGNAL + signal.SIGTERM, "ended by a signal"
        raise
    except KeyboardInterrupt:
        code, reason = ExitCode.INTERRUPTED, "interrupted"
        raise
    except BaseException as error:
        code, reason = ExitCode.BUG, f"{type(error).__name__}: {error}"
        raise
    finally:
        if recorder.ended is not None and not reason:
            report, code = recorder.ended
        elif run.vm and reason:
            report = Report((_of_the_only_vm(run.vm, int(code), reason, hint),))
        reason = reason or recorder.skipped
        if not dry_run:
            ended = EndedRun(run, started, time.time(), int(code), reason, report.vms)
            _leave_behind(context, ended, report, warn)
        progress.end()


def _harmless(warn: Warn) -> Warn:
    """The same; where nobody is there to be warned any more, such as the reader of a pipe, that is all."""

    def told(problem: str) -> None:
        with suppress(OSError):
            warn(problem)

    return told


def jobs_folder(context: Context) -> Path:
    """Where the jobs of this node say what they are doing."""
    return jobs_in(context.settings.run_dir)


class Progress:
    """An observer that keeps the job's file up to date, at most once a second, and tells another one."""

    def __init__(self, folder: Path, run: Run, started: float, warn: Warn, *, silent: bool) -> None:
        self.observer: Observer | None = None
        self._folder = folder
        self._warn = warn
        self._silent = silent
        self._lock = threading.Lock()
        self._written = 0.0
        self._phases: dict[str, Phase] = {}
        origin = own_origin()
        self._state = JobState(run.job, run.kind.value, run.node, os.getpid(), origin, started, started)

    def begin(self, sizes: Mapping[str, int]) -> None:
        self._phases = {vm: Phase(vm, size) for vm, size in sizes.items()}
        self.show()
        self._tell(lambda observer: observer.begin(sizes))

    def advance(self, vm: str, amount: int) -> None:
        with self._lock:
            phase = self._phases.setdefault(vm, Phase(vm, 0))
            self._phases[vm] = replace(phase, sent_bytes=phase.sent_bytes + amount)
            if time.monotonic() - self._written >= _EVERY_S:
                self._write()
        self._tell(lambda observer: observer.advance(vm, amount))

    def finish(self, report: VmReport) -> None:
        with self._lock:
            phase = self._phases.get(report.vm, Phase(report.vm, 0))
            self._phases[report.vm] = replace(phase, outcome=report.outcome.value)
        self._tell(lambda observer: observer.finish(report))

    def show(self) -> None:
        """Writes the state as it is now."""
        with self._lock:
            self._write()

    def end(self) -> None:
        """The job runs no more."""
        remove_state(self._folder, self._state)

    def _tell(self, what: Callable[[Observer], None]) -> None:
        """Where it cannot be shown (the terminal is gone, the disk of a log is full), it is shown no more."""
        if self.observer is not None:
            try:
                what(self.observer)
            except OSError:
                self.observer = None

    def _write(self) -> None:
        self._written = time.monotonic()
        if self._silent:
            return
        phases = tuple(self._phases.values())
        problem = write_state(self._folder, replace(self._state, written_at=time.time(), vms=phases))
        if problem:
            self._silent = True
            self._warn(problem)


def _of_the_only_vm(vm: str, code: int, reason: str, hint: str) -> VmReport:
    """What became of the VM that a run was about, where it ended as a whole."""
    outcomes = {int(ExitCode.REFUSED): Outcome.REFUSED, int(ExitCode.BUSY): Outcome.BUSY}
    return VmReport(vm, outcomes.get(code, Outcome.FAILED), reason, hint)


def _log(context: Context, events: Iterable[Event], warn: Warn) -> None:
    try:
        problems = [problem for event in events for problem in context.log.write(event)]
    except Exception as error:  # a log that is broken in a way that nobody thought of stops nothing either
        problems = [f"events cannot be logged: {type(error).__name__}: {error}"]
    for problem in problems:
        warn(problem)


def _leave_behind(context: Context, ended: EndedRun, report: Report, warn: Warn) -> None:
    _log(context, of_the_end(ended), warn)
    for leave in (_enter, _mark, _measure):
        try:
            problems = leave(context, ended, report)
        except Exception as error:  # whatever is wrong with the records, the run is as good as it was
            problems = (f"what this run did could not be recorded: {type(error).__name__}: {error}",)
        for problem in problems:
            warn(problem)


def _enter(context: Context, ended: EndedRun, report: Report) -> Sequence[str]:
    from hoster.operations.space import own_room

    room = (*report.pools, *own_room(context))
    return _if_any(Journal(context.settings.state_dir).write(replace(ended, pools=room)))


def _mark(context: Context, ended: EndedRun, _report: Report) -> Sequence[str]:
    folder, job = context.settings.marker_dir, ended.run.job
    if ended.run.kind is not RunKind.REPLICATION or ended.skipped:
        return ()
    if ended.exit_code == ExitCode.DONE:
        return _if_any(clear_marker(folder, job))
    if ended.exit_code == ExitCode.BUSY or ended.exit_code >= _BY_SIGNAL:
        # The job may well be at work, or somebody has ended it: neither says that it does not work.
        return ()
    failed = [vm for vm in ended.vms if vm.outcome in {Outcome.FAILED, Outcome.REFUSED}]
    reasons = [f"exit code {ended.exit_code}", *((ended.reason,) if ended.reason else ())]
    reasons += [f"{vm.vm}: {vm.outcome.value}: {vm.reason}" for vm in failed]
    return _if_any(raise_marker(folder, job, reasons, datetime.now()))


def _measure(context: Context, ended: EndedRun, report: Report) -> Sequence[str]:
    folder = context.settings.textfile_dir
    if folder is None or ended.exit_code == ExitCode.BUSY:
        return ()
    from hoster.operations.measuring import measure_after
    from hoster.records.metrics import RUN_FILE, write_metrics

    seen = None if report.seen is None else seen_after(report.seen, report, int(ended.ended))
    measured = measure_after(context, seen)
    return (*_if_any(write_metrics(folder, RUN_FILE, measured.of_runs)), *measured.problems)


def _if_any(problem: str) -> Sequence[str]:
    return (problem,) if problem else ()
