"""``hoster scheduler list``, ``info`` and ``status``: jobs in the original's spelling and form."""

from __future__ import annotations

from datetime import UTC, datetime

import click
from msgspec import Struct

from hoster.cli.messages import INFO, say
from hoster.cli.options import unix_option
from hoster.cli.render import human_size, print_json, print_table
from hoster.errors import ExitCode, OperationFailed
from hoster.operations.context import Context, wire
from hoster.operations.jobs import jobs_now
from hoster.records.journal import Journal
from hoster.records.runs import PastRun, PastVm

_HEADER = ("#", "Resource Name", "Type", "Job ID", "Job Type", "Status", "Added", "Finished", "Bytes")
_LISTED = 50
_FAILED = frozenset({"failed", "refused"})


class ScheduledJob(Struct, frozen=True):
    """One VM's part of a run, as the original names it; times in Unix seconds."""

    job_id: str
    res_name: str
    res_type: str
    job_type: str
    job_done: bool
    job_in_progress: bool
    job_failed: bool
    job_error: str
    time_added: int
    time_finished: int
    ssh_endpoint: str
    progress_bytes_done: int
    progress_bytes_total: int

    @property
    def status(self) -> str:
        if self.job_in_progress:
            return "In Progress"
        return "Error" if self.job_failed else "Done"


@click.command(name="list")
@unix_option
@click.option("-j", "--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--json-pretty", is_flag=True, help="The same, indented.")
def list_(unix: bool, as_json: bool, json_pretty: bool) -> None:
    """List what runs now, and the last that ran, one line for each VM; as `jobs` and `history` know it.

    Exit codes: 0 listed, 3 it cannot be found out.
    """
    found = _jobs(wire())
    if as_json or json_pretty:
        print_json(found, pretty=json_pretty)
        return
    rows = [_row(number, job) for number, job in enumerate(found, start=1)]
    print_table("Scheduler Jobs", _HEADER, rows, unix=unix)


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--json-pretty", is_flag=True, help="Indented.")
def info(job_id: str, json_pretty: bool) -> None:
    """Print one of the jobs that `scheduler list` shows, as JSON.

    Exit codes: 0 printed, 3 there is no such job.
    """
    found = next((job for job in _jobs(wire()) if job.job_id == job_id), None)
    if found is None:
        raise OperationFailed("could not find the job using the ID provided", hint="hoster scheduler list")
    print_json(found, pretty=json_pretty)


@click.command()
def status() -> None:
    """Say how many jobs run. There is no scheduler to be up or down: cron or systemd starts hoster.

    Exit codes: 0 said, 3 it cannot be found out.
    """
    count = len(jobs_now(wire()))
    say(INFO, f"hoster has no scheduler of its own: cron or systemd starts its jobs; running now: {count}")


def _jobs(context: Context) -> list[ScheduledJob]:
    found = [
        ScheduledJob(
            job_id=f"{state.job}.{state.pid}/{vm.vm}",
            res_name=vm.vm,
            res_type="VM",
            job_type=state.kind,
            job_done=False,
            job_in_progress=True,
            job_failed=False,
            job_error="",
            time_added=int(state.since),
            time_finished=0,
            ssh_endpoint=state.node,
            progress_bytes_done=vm.sent_bytes,
            progress_bytes_total=vm.estimated_bytes,
        )
        for state in jobs_now(context)
        for vm in state.vms
    ]
    journal = Journal(context.settings.state_dir)
    runs = {run.number: run for run in journal.runs(limit=_LISTED)}
    vms = journal.vm_runs(limit=_LISTED)
    ended = [(vm.run, _of_vm(vm, runs.get(vm.run))) for vm in vms]
    # One that came to no VM, since the other node could not be reached, say, has a line of its own.
    ended += [(run.number, _of_run(run)) for run in runs.values() if _failed_as_a_whole(run)]
    return [*found, *(job for _, job in sorted(ended, key=lambda one: -one[0]))]


def _of_vm(vm: PastVm, run: PastRun | None) -> ScheduledJob:
    failed = vm.outcome in _FAILED
    return ScheduledJob(
        job_id=f"{vm.run}/{vm.vm}",
        res_name=vm.vm,
        res_type="VM",
        job_type=vm.kind,
        job_done=not failed,
        job_in_progress=False,
        job_failed=failed,
        job_error=vm.reason if failed else "",
        time_added=int(vm.started),
        time_finished=0 if run is None else int(run.ended),
        ssh_endpoint=vm.node,
        progress_bytes_done=vm.sent_bytes,
        progress_bytes_total=vm.sent_bytes,
    )


def _failed_as_a_whole(run: PastRun) -> bool:
    vms = run.done + run.unchanged + run.refused + run.busy + run.failed
    return vms == 0 and run.exit_code not in {ExitCode.DONE, ExitCode.BUSY}


def _of_run(run: PastRun) -> ScheduledJob:
    return ScheduledJob(
        job_id=f"{run.number}/{run.job}",
        res_name=run.job,
        res_type="Job",
        job_type=run.kind,
        job_done=False,
        job_in_progress=False,
        job_failed=True,
        job_error=run.reason or f"exit code {run.exit_code}",
        time_added=int(run.started),
        time_finished=int(run.ended),
        ssh_endpoint=run.node,
        progress_bytes_done=0,
        progress_bytes_total=0,
    )


def _row(number: int, job: ScheduledJob) -> tuple[str, ...]:
    finished = _rfc3339(job.time_finished) if job.time_finished else "-"
    progress = f"{human_size(job.progress_bytes_done)}/{human_size(job.progress_bytes_total)}"
    return (
        *(str(number), job.res_name, job.res_type, job.job_id, job.job_type, job.status),
        *(_rfc3339(job.time_added), finished, progress),
    )


def _rfc3339(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).astimezone().isoformat()
