"""``hoster vm replicate`` and ``hoster vm replicate-all``."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from hoster.cli.messages import WARNING, say
from hoster.cli.options import (
    DATASET,
    ENDPOINT,
    JOB_NAME,
    MIB_PER_S,
    SECONDS,
    TARGET_KEEP,
    VM_NAMES,
    dry_run_option,
    json_option,
    vm_argument,
)
from hoster.cli.progress import observer_for
from hoster.cli.render import exit_code, finish, log_lines
from hoster.errors import HosterError
from hoster.host.ssh import SshOptions
from hoster.host.throttle import MIB
from hoster.model.names import Endpoint, SnapshotType, job_name, shown
from hoster.operations.context import Context, wire
from hoster.operations.inventory import names_with_tag
from hoster.operations.recording import recorded
from hoster.operations.replicate import replicate as replicate_vms
from hoster.operations.request import ReplicationRequest
from hoster.planning.refusals import LOCAL, Terms
from hoster.records.job_log import append, log_path
from hoster.records.runs import Run, RunKind

_WHERE = (
    click.option(
        "-e",
        "--endpoint",
        type=ENDPOINT,
        required=True,
        metavar="[USER@]HOST",
        help="The node to replicate to.",
    ),
    click.option(
        "-p",
        "--port",
        type=click.IntRange(1, 65535),
        help="ssh port; otherwise as your ssh configuration says.",
    ),
    click.option(
        "-k",
        "--key",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="ssh key file; otherwise your ssh configuration and agent.",
    ),
    click.option(
        "--target-dataset",
        type=DATASET,
        metavar="DATASET",
        help="Where replicas go; otherwise the path they have here.",
    ),
    click.option("--create-parent", is_flag=True, help="Make that dataset there if it is missing."),
)
"""Which node and which dataset."""

_HOW = (
    click.option(
        "--speed-limit",
        type=MIB_PER_S,
        metavar="MIB",
        help="MiB per second for the whole run; otherwise as configured, or none.",
    ),
    click.option(
        "--script-name",
        "job",
        type=JOB_NAME,
        help="Name of the job, for its lock and its log.",
    ),
    click.option(
        "--target-keep",
        type=TARGET_KEEP,
        multiple=True,
        help="Keep N snapshots of a type on the target; may be repeated.",
    ),
    click.option(
        "--wait",
        "wait_s",
        type=SECONDS,
        default=0,
        metavar="SECONDS",
        help="Wait so long for another run of this job or VM to end.",
    ),
    click.option(
        "--parallel",
        type=click.IntRange(1, 32),
        default=2,
        show_default=True,
        metavar="N",
        help="Send so many VMs at a time, under one speed limit.",
    ),
)
"""How the run goes."""

_TERMS = (
    click.option(
        "--no-raw",
        is_flag=True,
        help="Send encrypted VMs decrypted, to a target that encrypts by itself.",
    ),
    click.option(
        "--allow-plain-child",
        is_flag=True,
        help="Send plain datasets of encrypted VMs too; they lie readable on the target.",
    ),
    click.option(
        "--forward",
        is_flag=True,
        help="Pass replicas of other nodes' VMs on, as they are; name them.",
    ),
)
"""What is allowed only when it is asked for."""


def replication_options(function: click.decorators.FC) -> click.decorators.FC:
    """The options of every command that replicates: see :func:`request_of`."""
    for option in reversed((*_WHERE, *_HOW, *_TERMS, dry_run_option, json_option)):
        function = option(function)
    return function


@click.command()
@vm_argument
@replication_options
def replicate(name: str, as_json: bool, **options: Any) -> None:
    """Bring another node fully up to date with one VM.

    One run sends everything, first run or not. Only what hoster itself sent is ever continued: a target
    that differs is refused with the command that mends it, and nothing on it is overwritten.

    Exit codes: 0 up to date, 2 usage, 3 failed, 10 refused, 11 another run is under way, 12 unreachable.
    """
    context = wire()
    options["job"] = options["job"] or f"vm_{name}_to_{options['endpoint'].host}"
    _replicate(context, request_of(context, (name,), **options), as_json=as_json)


@click.command(name="replicate-all")
@click.option("-f", "--filter", "names", type=VM_NAMES, help="Exactly these VMs, production or not.")
@click.option("--include-non-production", is_flag=True, help="VMs that are not production as well.")
@replication_options
def replicate_all(
    names: tuple[str, ...] | None, as_json: bool, include_non_production: bool, **options: Any
) -> None:
    """Bring another node fully up to date with every production VM of this node.

    VMs in which nothing was written cost nothing. One VM that fails or is refused does not stop the
    others. Replicas of other nodes' VMs are left out.

    Exit codes: 0 all up to date, 2 usage, 3 some VMs failed, 10 none failed but some were refused,
    11 another run is under way, 12 unreachable.
    """
    context = wire()
    request = request_of(context, names, include_non_production=include_non_production, **options)
    _replicate(context, request, as_json=as_json)


@click.command(name="replicate-by-tag")
@click.argument("tag", metavar="TAG")
@replication_options
def replicate_by_tag(tag: str, as_json: bool, **options: Any) -> None:
    """Bring another node fully up to date with every VM of this node whose configuration has a tag.

    Production or not, and running or not. Otherwise the same as `hoster vm replicate-all`.

    Exit codes: 0 all up to date, 2 usage, 3 some VMs failed or none has that tag, 10 none failed but some
    were refused, 11 another run is under way, 12 unreachable.
    """
    try:
        options["job"] = options["job"] or job_name(f"tag_{tag}_to_{options['endpoint'].host}")
    except ValueError:
        raise click.UsageError(f"the tag {shown(tag)} cannot name a job: add --script-name") from None
    context = wire()
    _replicate(context, request_of(context, None, **options), as_json=as_json, tag=tag)


def _replicate(context: Context, request: ReplicationRequest, *, as_json: bool, tag: str = "") -> None:
    """Runs it, with the VMs of a tag if one is given, and records it; a run that could not begin included."""
    path = log_path(request.job_name)
    run = Run(RunKind.REPLICATION, request.job_name, request.node)
    try:
        with recorded(context, run, partial(say, WARNING, err=True), dry_run=request.dry_run) as recorder:
            if tag:
                request = replace(request, names=names_with_tag(context, tag))
            observer = recorder.watching(observer_for(quiet=as_json))
            report = replicate_vms(context, request, observer)
            recorder.report(report, exit_code(report))
    except HosterError as error:
        _log(path, request, [f"the run ended: {error.message}"])
        raise
    _log(path, request, log_lines(report))
    finish(report, as_json=as_json)


def _log(path: Path, request: ReplicationRequest, lines: list[str]) -> None:
    if request.dry_run:
        return
    problem = append(path, lines, datetime.now())
    if problem:
        say(WARNING, problem, err=True)


def request_of(
    context: Context,
    names: tuple[str, ...] | None,
    *,
    endpoint: Endpoint,
    port: int | None,
    key: Path | None,
    speed_limit: float | None,
    target_keep: tuple[tuple[SnapshotType, int], ...],
    no_raw: bool,
    allow_plain_child: bool,
    forward: bool,
    **rest: Any,
) -> ReplicationRequest:
    """The request that :func:`replication_options` ask for, completed from the settings."""
    if endpoint.host == LOCAL and rest["target_dataset"] is None:
        raise click.UsageError("--endpoint local needs --target-dataset: a dataset of another pool")
    settings = context.settings.replication
    limit = speed_limit if speed_limit is not None else settings.speed_limit_mib_s
    return ReplicationRequest(
        ssh=SshOptions(endpoint, port, key, settings.connect_timeout_s),
        names=names,
        speed_limit=None if limit is None else limit * MIB,
        target_keep=dict(target_keep),
        terms=Terms(no_raw=no_raw, allow_plain_child=allow_plain_child, forward=forward),
        **rest,
    )
