"""``hoster schedule``: what runs by itself, by cron or systemd."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import click

from hoster.cli.history import local_time
from hoster.cli.main import LazyGroup
from hoster.cli.messages import CHANGED, INFO, WARNING, say
from hoster.cli.options import SNAPSHOT_TYPE, dry_run_option, json_option, unix_option
from hoster.cli.progress import observer_for
from hoster.cli.render import exit_code, finish, log_lines, print_json, print_table
from hoster.config.settings import Settings, find_settings_file
from hoster.errors import ConfigurationError, ExitCode, HosterError, UsageError
from hoster.host.process import SystemRunner
from hoster.host.systemd import Systemd
from hoster.model.names import SnapshotType
from hoster.model.schedules import ScheduledJob, all_jobs
from hoster.operations.context import Context, wire
from hoster.operations.installing import Change, Kind, Places, install, installed, remove
from hoster.operations.inventory import look_around
from hoster.operations.recording import recorded
from hoster.operations.schedules import (
    ShownJob,
    Skipped,
    chosen_by,
    is_replication,
    named_job,
    run_of,
    run_scheduled,
    show_jobs,
)
from hoster.planning.installation import Program
from hoster.records.job_log import append, log_path

_HEADER = ("Schedule", "Job", "What", "VMs", "Names", "Next Runs", "Installed")


@click.group(cls=LazyGroup)
def schedule() -> None:
    """What the schedules in hoster.toml mean, and who runs them."""


@schedule.command()
@unix_option
@json_option
def show(unix: bool, as_json: bool) -> None:
    """Show each job of each schedule: its VMs, its next three runs, and whether it is installed.

    Exit codes: 0 shown, also where there is none, 2 the configuration is malformed, 3 this node cannot be
    looked at.
    """
    context = wire()
    present, program = installed(Places()), _program(context.settings)
    jobs = show_jobs(context, present, program)
    if as_json:
        print_json(jobs)
        return
    print_table("Schedules", _HEADER, [_row(job) for job in jobs], unix=unix)
    if unix:
        return
    for job in jobs:
        for vm, earlier in job.left_to.items():
            say(INFO, f"{job.job}: {vm} is left to the schedule {earlier}")
    more = present.has_more(all_jobs(context.settings.schedules), program)
    if more or any(job.installed == "out of date" for job in jobs):
        say(WARNING, "what is installed is out of date", hint="hoster schedule install --cron or --systemd")


def _row(job: ShownJob) -> tuple[str, ...]:
    what = f"{job.kind} {job.subject}" + (f" ({job.endpoint})" if job.endpoint else "")
    runs = ", ".join(local_time(moment) for moment in job.next)
    return (job.schedule, job.job, what, str(len(job.vms)), ",".join(job.vms), runs, job.installed)


@schedule.command(name="install")
@click.option("--cron", "kind", flag_value=Kind.CRON.value, help="Write /etc/cron.d/hoster.")
@click.option("--systemd", "kind", flag_value=Kind.SYSTEMD.value, help="Write timers and services.")
@dry_run_option
def install_(kind: str | None, dry_run: bool) -> None:
    """Let cron or systemd run the jobs of all schedules, as they are in hoster.toml now.

    To be called again when that has changed. Replaces what it has installed before, of either kind, and
    nothing else.

    Exit codes: 0 they are installed, 2 usage, or there is no schedule, 3 failed, 10 a file is in the way.
    """
    if kind is None:
        raise click.UsageError("say --cron or --systemd")
    settings = wire().settings
    systemd = Systemd(SystemRunner())
    changes = install(settings, Kind(kind), _program(settings), systemd, Places(), dry_run=dry_run)
    _tell(changes, dry_run=dry_run)


@schedule.command(name="remove")
@dry_run_option
def remove_(dry_run: bool) -> None:
    """Take away what `hoster schedule install` has installed. What runs already runs to its end.

    Exit codes: 0 nothing is installed any more, 3 failed.
    """
    _tell(remove(Systemd(SystemRunner()), Places(), dry_run=dry_run), dry_run=dry_run)


def _tell(changes: Sequence[Change], *, dry_run: bool) -> None:
    for change in changes:
        what = "removed" if change.text is None else "written"
        say(INFO if dry_run else CHANGED, f"{change.path}: {'would be ' if dry_run else ''}{what}")
        if dry_run and change.text is not None:
            click.echo(change.text)
    if not changes:
        say(INFO, "there is nothing to change")


@schedule.command(name="run")
@click.argument("name", metavar="SCHEDULE")
@click.option("--snapshots", "stype", type=SNAPSHOT_TYPE, help="Take its snapshots of that type.")
@click.option("--replicate", "target", metavar="TARGET", help="Replicate to its target of that name.")
def run_(name: str, stype: SnapshotType | None, target: str | None) -> None:
    """Run one job of a schedule now: what cron and systemd call.

    Outside of the target's windows, or where it is not reachable and may be so, nothing is done, and that is
    no error. What a run that ends well has to say goes to standard output, all else to standard error.

    Exit codes: 0 done, or there was to be no run, 2 usage, 3 some VMs failed, 10 none failed but some were
    refused, 11 another run of it is under way, 12 unreachable.
    """
    if (stype is None) == (target is None):
        raise click.UsageError("say --snapshots TYPE or --replicate TARGET")
    context = wire()
    _run(context, named_job(context, name, stype or target or ""))


def _run(context: Context, job: ScheduledJob) -> None:
    try:
        with recorded(context, run_of(job), partial(say, WARNING, err=True)) as recorder:
            chosen = chosen_by(context, look_around(context), job)
            observer = recorder.watching(observer_for(quiet=not sys.stderr.isatty()))
            result = run_scheduled(context, job, chosen, observer)
            if isinstance(result, Skipped):
                recorder.skip(result.reason)
            else:
                recorder.report(result, exit_code(result))
    except HosterError as error:
        _log(job, [f"the run ended: {error.message}"])
        raise
    if isinstance(result, Skipped):
        _log(job, [f"skipped: {result.reason}"])
        say(INFO, f"{job.name}: skipped: {result.reason}")
        return
    _log(job, log_lines(result))
    well = exit_code(result) is ExitCode.DONE
    with contextlib.nullcontext() if well else contextlib.redirect_stdout(sys.stderr):
        for vm, earlier in chosen.left_to.items():
            say(INFO, f"{vm}: left to the schedule {earlier}")
        finish(result, as_json=False)


def _log(job: ScheduledJob, lines: list[str]) -> None:
    if not is_replication(job):
        return
    problem = append(log_path(job.name), lines, datetime.now())
    if problem:
        say(WARNING, problem, err=True)


def _program(settings: Settings) -> Program:
    """How this very hoster is to be called, and with which settings."""
    called = Path(sys.argv[0])
    path = str(called.absolute()) if called.name == "hoster" and os.access(called, os.X_OK) else None
    path = path or shutil.which("hoster")
    if path is None:
        raise UsageError(
            "hoster is not in the PATH, so nobody else would find it", hint="PATH=…:$PATH hoster …"
        )
    try:
        usual: Path | None = find_settings_file({})
    except ConfigurationError:
        usual = None
    return Program(path, str(settings.read_from.absolute()), named=settings.read_from != usual)
