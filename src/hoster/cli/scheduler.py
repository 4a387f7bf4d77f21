"""``hoster scheduler``: the newer spelling of jobs that run unattended."""

from __future__ import annotations

import click

from hoster.cli.main import LazyGroup
from hoster.cli.snapshot import all_options, run_all
from hoster.model.names import SnapshotType


@click.group(
    cls=LazyGroup,
    lazy={
        "info": "hoster.cli.scheduler_jobs:info",
        "list": "hoster.cli.scheduler_jobs:list_",
        "replicate": "hoster.cli.replicate:replicate",
        "replicate-by-tag": "hoster.cli.replicate:replicate_by_tag",
        "status": "hoster.cli.scheduler_jobs:status",
    },
)
def scheduler() -> None:
    """Jobs that run unattended, in the newer spelling."""


@scheduler.command(name="snapshot-all")
@all_options
def snapshot_all(
    stype: SnapshotType,
    keep: int | None,
    production_only: bool,
    always: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take a snapshot of every VM of this node and prune that type: the same as ``snapshot all``.

    It acts at once and returns when it is done; there is no daemon. Exit codes as of ``snapshot all``.
    """
    run_all(stype, keep, production_only, always, dry_run, as_json)
