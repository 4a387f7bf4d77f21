"""What is logged of a run, one event at a time: that it began, what became of each VM, that it ended.

Pure values and their text. An event says what the journal of runs says, and nothing that is secret can be in
it: passwords and keys are in no report.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, StrEnum

from msgspec import Struct

from hoster.errors import ExitCode
from hoster.model.plan import Outcome, VmReport
from hoster.records.runs import EndedRun, Run, RunKind


class What(StrEnum):
    """What happened."""

    RUN_BEGAN = "run-began"
    VM = "vm"
    RUN_ENDED = "run-ended"
    MESSAGE = "message"
    """Something that a person is told on standard error."""


class Priority(IntEnum):
    """How much it matters, by the numbers of syslog(3)."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


class Event(Struct, frozen=True, omit_defaults=True):
    """One thing that happened, at ``time`` (Unix seconds). ``job``, ``kind`` and ``node`` are of its run;
    ``seconds`` and ``sent_bytes`` of the VM, or of the run as a whole."""

    time: float
    priority: Priority
    event: What
    message: str
    job: str = ""
    kind: str = ""
    node: str = ""
    vm: str = ""
    outcome: str = ""
    reason: str = ""
    hint: str = ""
    exit_code: int | None = None
    seconds: float | None = None
    sent_bytes: int | None = None

    @property
    def line(self) -> str:
        """For people: the message with the job before it, on one line."""
        return one_line(f"{self.job}: {self.message}" if self.job else self.message)


_PRIORITIES = {
    Outcome.FAILED: Priority.ERROR,
    Outcome.REFUSED: Priority.ERROR,
    Outcome.BUSY: Priority.WARNING,
}


def began(run: Run, at: float) -> Event:
    """A run begins."""
    of = f" of {run.vm}" if run.vm else ""
    way = "from" if run.kind is RunKind.RESTORE else "to"
    other = f" {way} {run.node}" if run.node else ""
    message = f"{run.kind.value}{of}{other} began"
    kind = run.kind.value
    return Event(at, Priority.INFO, What.RUN_BEGAN, message, run.job, kind, node=run.node, vm=run.vm)


def of_the_end(ended: EndedRun) -> Iterator[Event]:
    """What became of each VM, those left out in which there was nothing to do, and then of the run."""
    for vm in ended.vms:
        if vm.outcome is not Outcome.UNCHANGED:
            yield _of_vm(ended, vm)
    yield _ended(ended)


def journal_fields(event: Event) -> dict[str, str]:
    """The event as fields of systemd's journal."""
    fields = {
        "MESSAGE": event.line,
        "PRIORITY": str(event.priority.value),
        "HOSTER_EVENT": event.event.value,
        "HOSTER_JOB": event.job,
        "HOSTER_KIND": event.kind,
        "HOSTER_TARGET": event.node,
        "HOSTER_VM": event.vm,
        "HOSTER_OUTCOME": event.outcome,
        "HOSTER_REASON": one_line(event.reason),
        "HOSTER_EXIT_CODE": "" if event.exit_code is None else str(event.exit_code),
        "HOSTER_SENT_BYTES": "" if event.sent_bytes is None else str(event.sent_bytes),
    }
    return {name: value for name, value in fields.items() if value}


def json_line(event: Event) -> str:
    """The event as one line of JSON, less what is empty; the priority by its name."""
    import msgspec

    document = msgspec.to_builtins(event)
    document["priority"] = event.priority.name.lower()
    return msgspec.json.encode(document).decode()


def one_line(text: str) -> str:
    """The same words with single blanks between them."""
    return " ".join(text.split())


def _of_vm(ended: EndedRun, vm: VmReport) -> Event:
    run = ended.run
    sent = f", {vm.sent_bytes} bytes sent" if vm.sent_bytes else ""
    reason = f": {vm.reason}" if vm.reason else ""
    return Event(
        ended.ended,
        _PRIORITIES.get(vm.outcome, Priority.INFO),
        What.VM,
        f"{vm.vm}: {vm.outcome.value}{sent}{reason}",
        run.job,
        run.kind.value,
        node=run.node,
        vm=vm.vm,
        outcome=vm.outcome.value,
        reason=vm.reason,
        hint=vm.remedy,
        seconds=vm.seconds,
        sent_bytes=vm.sent_bytes,
    )


def _ended(ended: EndedRun) -> Event:
    run, code = ended.run, ended.exit_code
    counts = {outcome: sum(vm.outcome is outcome for vm in ended.vms) for outcome in Outcome}
    words = ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items() if count)
    why = ended.reason or words or "there was no VM to work on"
    seconds = ended.ended - ended.started
    outcome = "done" if code == ExitCode.DONE else _name(code)
    message = f"{run.kind.value} ended with exit code {code} after {seconds:.1f} s: {why}"
    return Event(
        ended.ended,
        _priority(code),
        What.RUN_ENDED,
        message,
        run.job,
        run.kind.value,
        node=run.node,
        vm=run.vm,
        outcome="skipped" if ended.skipped else outcome,
        reason=ended.reason,
        exit_code=code,
        seconds=seconds,
        sent_bytes=sum(vm.sent_bytes for vm in ended.vms),
    )


def _priority(code: int) -> Priority:
    if code == ExitCode.DONE:
        return Priority.INFO
    return Priority.WARNING if code == ExitCode.BUSY else Priority.ERROR


def _name(code: int) -> str:
    """The word of an exit code; a run that a signal has ended was interrupted."""
    known = {int(one): one.name.lower() for one in ExitCode}
    return known.get(code, ExitCode.INTERRUPTED.name.lower())
