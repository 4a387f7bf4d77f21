"""Shows results: tables for people, plain lines for pipes, JSON for programs."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from hoster.cli.messages import CHANGED, ERROR, INFO, WARNING, say
from hoster.errors import ExitCode
from hoster.model.plan import Outcome, Report, VmReport

if TYPE_CHECKING:
    from hoster.operations.inventory import Unusable

_KIB = 1024
_BLANK = re.compile(r"\s")


def human_size(size: int) -> str:
    """Bytes as the original prints them: ``12K``, ``3M``, ``1.50G``; a unit begins above 1024 of the last.

    >>> human_size(2068480), human_size(0)
    ('1M', '0K')
    """
    kib = size // _KIB
    if kib <= _KIB:
        return f"{kib}K"
    if kib // _KIB <= _KIB:
        return f"{kib // _KIB}M"
    return f"{kib / _KIB / _KIB:.2f}G"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, unix: bool) -> None:
    """A bordered table, or with ``unix`` one line a row, fields parted by single blanks."""
    if unix:
        for row in rows:
            click.echo(" ".join(_BLANK.sub("_", field) if field else "-" for field in row))
        return
    from rich.box import ROUNDED
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=ROUNDED, border_style="bright_cyan", header_style="bold", show_lines=False)
    for name in header:
        table.add_column(name, overflow="fold", justify="right" if name in _RIGHT else "left")
    for row in rows:
        table.add_row(*row)
    # Into a pipe nothing is folded, unless COLUMNS says how wide the reader is.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 250
    # What people have written is no markup: "[/etc]" would end with an error, and "[old]" not be shown.
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)


_RIGHT = frozenset({"#", "Snapshot Size Human", "Snapshot Size Bytes", "Snapshot Dependents"})


def print_json(value: object, *, pretty: bool = True) -> None:
    """``value`` (of structs, tuples, mappings and scalars) as JSON; stable, and documented."""
    import msgspec

    data = msgspec.json.encode(msgspec.to_builtins(value))
    click.echo(msgspec.json.format(data, indent=3 if pretty else -1).decode())


def say_missing(missing: Sequence[Unusable]) -> None:
    """Says which active datasets are missing from what was shown, and leaves as failed; else nothing."""
    for one in missing:
        say(ERROR, f"{one.dataset}: {one.problem}", hint=one.hint, err=True)
    if missing:
        raise click.exceptions.Exit(ExitCode.FAILED)


def exit_code(report: Report) -> ExitCode:
    """Any failure 3, else any refusal 10, else any that was busy 11, else 0."""
    for outcome, code in (
        (Outcome.FAILED, ExitCode.FAILED),
        (Outcome.REFUSED, ExitCode.REFUSED),
        (Outcome.BUSY, ExitCode.BUSY),
    ):
        if report.with_outcome(outcome):
            return code
    return ExitCode.DONE


def finish(report: Report, *, as_json: bool) -> None:
    """Shows the report and leaves with its exit code."""
    code = exit_code(report)
    with contextlib.suppress(BrokenPipeError):  # whoever reads it may have gone; the code tells all the same
        if as_json:
            print_json(report_document(report, code))
        else:
            for vm in report.vms:
                _show_vm(vm, dry_run=report.dry_run)
            _show_summary(report)
    raise click.exceptions.Exit(code)


def report_document(report: Report, code: ExitCode) -> dict[str, Any]:
    """The report as ``--json`` prints it."""
    return {"dry_run": report.dry_run, "exit_code": int(code), "vms": report.vms}


def log_lines(report: Report) -> list[str]:
    """The report for a log: one line for each VM."""
    lines = []
    for vm in report.vms:
        sent = f", {len(vm.sent)} sent, {vm.sent_bytes} bytes in {vm.seconds:.1f} s" if vm.sent else ""
        reason = f": {vm.reason}" if vm.reason else ""
        notes = "".join(f"; {note}" for note in vm.notes)
        lines.append(f"{vm.vm}: {vm.outcome.value}{sent}{reason}{notes}")
    return lines or ["there was no VM to work on"]


def _show_vm(vm: VmReport, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for name in vm.taken:
        why = f" ({vm.reason})" if vm.reason and vm.outcome in {Outcome.DONE, Outcome.PLANNED} else ""
        say(CHANGED if not dry_run else INFO, f"{vm.vm}: {would}taken: {name}{why}")
    for name in vm.sent:
        say(CHANGED if not dry_run else INFO, f"{vm.vm}: {would}sent: {name}")
    if vm.sent and not dry_run:
        say(INFO, f"{vm.vm}: {human_size(vm.sent_bytes)} in {vm.seconds:.1f} s")
    for gone in vm.destroyed:
        where = "" if gone.node == "local" else f" on {gone.node}"
        tag = CHANGED if not dry_run else INFO
        say(tag, f"{vm.vm}: {would}destroyed{where}: {gone.snapshot} ({gone.reason})")
    for words in vm.done:
        say(CHANGED if not dry_run else INFO, f"{vm.vm}: {words}")
    for note in vm.notes:
        say(WARNING, f"{vm.vm}: {note}")
    _show_outcome(vm)


def _show_outcome(vm: VmReport) -> None:
    match vm.outcome:
        case Outcome.UNCHANGED:
            say(INFO, f"{vm.vm}: unchanged: {vm.reason}")
        case Outcome.REFUSED:
            say(ERROR, f"{vm.vm}: refused: {vm.reason}", hint=vm.remedy)
        case Outcome.BUSY:
            say(WARNING, f"{vm.vm}: busy: {vm.reason}", hint=vm.remedy)
        case Outcome.FAILED:
            say(ERROR, f"{vm.vm}: failed: {vm.reason}", hint=vm.remedy)
        case Outcome.DONE if vm.reason and not (vm.taken or vm.sent):
            say(CHANGED if vm.branch or vm.destroyed else INFO, f"{vm.vm}: {vm.reason}", hint=vm.remedy)
        case Outcome.DONE if not (vm.taken or vm.sent or vm.destroyed or vm.done):
            say(INFO, f"{vm.vm}: done")
        case Outcome.PLANNED if vm.reason and not (vm.taken or vm.sent):
            say(INFO, f"{vm.vm}: it would be so: {vm.reason}")
        case Outcome.PLANNED if not (vm.taken or vm.sent or vm.destroyed or vm.done or vm.notes):
            say(INFO, f"{vm.vm}: the marks of an earlier run would be put right")
        case _:
            pass


def _show_summary(report: Report) -> None:
    counts = {outcome: len(report.with_outcome(outcome)) for outcome in Outcome}
    words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    if len(report.vms) != 1:
        sent = sum(vm.sent_bytes for vm in report.vms)
        total = f", {human_size(sent)} sent" if sent else ""
        say(INFO, f"{words}{total}" if words else "there was no VM to work on")
