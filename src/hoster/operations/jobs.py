"""The jobs of this node: those that run, by their own words, and how others ended, by the journal."""

from __future__ import annotations

from hoster.errors import OperationFailed
from hoster.operations.context import Context
from hoster.operations.recording import jobs_folder
from hoster.records.job_states import JobState, running_jobs
from hoster.records.journal import Journal
from hoster.records.runs import PastRun


def jobs_now(context: Context, job: str | None = None) -> tuple[JobState, ...]:
    """The jobs that run, the oldest first, or the runs of one of them. OperationFailed where they cannot be
    found out."""
    folder = jobs_folder(context)
    try:
        found = running_jobs(folder)
    except OSError as error:
        raise OperationFailed(
            f"{folder}: cannot be read: {error.strerror}", hint="run hoster as root"
        ) from error
    return tuple(state for state in found if job is None or state.job == job)


def how_it_ended(context: Context, state: JobState) -> PastRun | None:
    """What the journal says of a run that was under way; None where it says nothing: it was killed, or the
    journal cannot be written."""
    try:
        runs = Journal(context.settings.state_dir).runs(job=state.job, limit=20)
    except OperationFailed:
        return None
    return next((run for run in runs if run.started == state.since), None)
