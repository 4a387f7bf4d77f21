"""``hoster vm demote``, ``failback``, ``migrate``, ``restore``: which node runs a VM, and who has copies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hoster.cli.messages import CHANGED, say
from hoster.cli.options import (
    DATASET,
    ENDPOINT,
    MIB_PER_S,
    NEW_VM_NAME,
    SNAPSHOT_NAME,
    dry_run_option,
    json_option,
    vm_argument,
)
from hoster.cli.parent import ID_OPTION
from hoster.cli.progress import observer_for
from hoster.cli.recording import finish_recorded, run_about
from hoster.cli.replicate import replication_options, request_of
from hoster.host.ssh import SshOptions
from hoster.host.throttle import MIB
from hoster.model.names import Endpoint
from hoster.model.plan import Report
from hoster.operations.context import wire
from hoster.operations.recording import Recorder
from hoster.records.runs import Run, RunKind


@click.command()
@vm_argument
@ID_OPTION
@dry_run_option
@json_option
def demote(name: str, identity: str | None, dry_run: bool, as_json: bool) -> None:
    """Make this node's copy of a VM a replica: it gives way to the node that runs it now.

    Nothing is lost: what this copy wrote alone is set aside as a branch by the next replication from there.

    Exit codes: 0 it is a replica, 3 failed, 10 it runs here or is in use, 11 somebody is at work on it.
    """
    from hoster.operations.demotion import demote as give_way

    context = wire()
    finish_recorded(
        context,
        run_about(RunKind.DEMOTION, name),
        lambda _: give_way(context, name, dry_run=dry_run, identity=identity),
        dry_run=dry_run,
        as_json=as_json,
    )


@click.command()
@vm_argument
@replication_options
def failback(name: str, as_json: bool, **options: Any) -> None:
    """Make an old host's copy a replica of this node's VM again, incrementally.

    Runs `hoster vm demote NAME` on that node and replicates to it. What it had written alone is kept there as
    a branch. To run the VM there again afterwards: `hoster vm migrate NAME --endpoint OLDHOST`.

    Exit codes: 0 it is an up-to-date replica, 2 usage, 3 failed, 10 refused, 11 busy, 12 unreachable.
    """
    from hoster.operations.handover import failback as go_back

    context = wire()
    request = request_of(context, (name,), **options)

    def act(recorder: Recorder) -> Report:
        observer = recorder.watching(observer_for(quiet=as_json))
        return go_back(context, request, observer, teller(as_json=as_json))

    run = run_about(RunKind.FAILBACK, name, request.node)
    finish_recorded(context, run, act, dry_run=request.dry_run, as_json=as_json)


@click.command()
@vm_argument
@click.option("--force-stop", is_flag=True, help="End a guest that does not power down in time.")
@click.option(
    "--stop-wait",
    type=click.IntRange(min=1),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="How long the guest may take to power down.",
)
@replication_options
def migrate(name: str, force_stop: bool, stop_wait: int, as_json: bool, **options: Any) -> None:
    """Move a VM to another node: it is stopped here, and runs there with everything that it wrote.

    Most is sent while it runs; then it is stopped, the rest is sent, and the other node's copy becomes
    primary and is started. Whatever fails, exactly one side can start it, and the message says which.
    Replication then goes the other way round: run it there, with this node as its endpoint.

    Exit codes: 0 it is the other node's, 2 usage, 3 failed, 10 refused, 11 busy, 12 unreachable,
    130 interrupted.
    """
    from hoster.operations.handover import Migration
    from hoster.operations.handover import migrate as move

    context = wire()
    request = request_of(context, (name,), **options)

    def act(recorder: Recorder) -> Report:
        observer = recorder.watching(observer_for(quiet=as_json))
        return move(context, Migration(request, force_stop, stop_wait), observer, teller(as_json=as_json))

    run = run_about(RunKind.MIGRATION, name, request.node)
    finish_recorded(context, run, act, dry_run=request.dry_run, as_json=as_json)


def teller(*, as_json: bool) -> Callable[[str], None]:
    """Tells what has been done so far; where it cannot be told, that is all."""

    def tell(text: str) -> None:
        # Between the stop here and the start there, a terminal that is gone or a full disk must end nothing.
        with contextlib.suppress(OSError):
            if not as_json:
                say(CHANGED, text)

    return tell


@click.command()
@vm_argument
@click.option(
    "--from",
    "endpoint",
    type=ENDPOINT,
    required=True,
    metavar="[USER@]HOST",
    help="A node with a copy of it.",
)
@click.option("-p", "--port", type=click.IntRange(1, 65535), help="ssh port; otherwise as ssh is configured.")
@click.option(
    "-k",
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="ssh key file; otherwise your ssh configuration and agent.",
)
@click.option(
    "--from-dataset",
    type=DATASET,
    metavar="DATASET",
    help="Its dataset there; otherwise the path it has here.",
)
@click.option(
    "--snapshot", type=SNAPSHOT_NAME, metavar="SNAPSHOT", help="The version to end at; otherwise the newest."
)
@click.option(
    "--as", "called", type=NEW_VM_NAME, metavar="NEWNAME", help="Bring it as a VM of its own, by this name."
)
@click.option("--speed-limit", type=MIB_PER_S, metavar="MIB", help="MiB per second.")
@dry_run_option
@json_option
def restore(
    name: str,
    endpoint: Endpoint,
    port: int | None,
    key: Path | None,
    from_dataset: str | None,
    speed_limit: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Bring a VM back to this node from one that has a copy of it, with all its snapshots.

    It then is this node's own, unless another node may run it, or has something newer: then it stays a
    replica here. Nothing is overwritten, and what was cut goes on where it stopped.

    Exit codes: 0 it is here, 2 usage, 3 failed, 10 something of that name is here already, 11 somebody is at
    work on it, 12 unreachable.
    """
    from hoster.cli.asking import ask_for_key
    from hoster.operations.restore import RestoreRequest
    from hoster.operations.restore import restore as bring_back

    context = wire()
    timeout = context.settings.replication.connect_timeout_s
    request = RestoreRequest(
        name,
        SshOptions(endpoint, port, key, timeout),
        from_dataset,
        speed_limit=None if speed_limit is None else speed_limit * MIB,
        **options,
    )

    def act(recorder: Recorder) -> Report:
        return bring_back(context, request, recorder.watching(observer_for(quiet=as_json)), ask_for_key)

    run = Run(RunKind.RESTORE, f"restore_{request.name}", str(endpoint), request.name)
    finish_recorded(context, run, act, dry_run=request.dry_run, as_json=as_json)
