"""``hoster vm forget-target``."""

from __future__ import annotations

import click
from msgspec.structs import replace

from hoster.cli.options import DATASET, ENDPOINT, TARGET_GUID, dry_run_option, json_option, vm_argument
from hoster.cli.recording import finish_recorded, run_about
from hoster.model.anchors import TargetKey
from hoster.model.names import Endpoint
from hoster.model.plan import VmReport
from hoster.operations.context import wire
from hoster.operations.forgetting import ForgetRequest
from hoster.operations.forgetting import forget_target as forget
from hoster.records.runs import RunKind


@click.command(name="forget-target")
@vm_argument
@click.option(
    "-e",
    "--endpoint",
    type=ENDPOINT,
    required=True,
    metavar="[USER@]HOST",
    help="The target's node, as replication has called it.",
)
@click.option(
    "--target-dataset", type=DATASET, metavar="DATASET", help="Where its replicas are, if there are several."
)
@click.option(
    "--target-guid",
    type=TARGET_GUID,
    metavar="GUID",
    help="The target by what its anchors are named after, if they cannot be told from another's.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@json_option
def forget_target(
    name: str,
    endpoint: Endpoint,
    target_dataset: str | None,
    target_guid: TargetKey | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Give up what is kept here for a target that is gone for good.

    Its anchors, for which snapshots are kept; holds that it has left; its mark; its line in status and
    metrics. All of that is shown, and asked about, first. Nothing on the other node is touched, and of the VM
    nothing else is destroyed.

    Exit codes: 0 forgotten, 2 usage, 3 there is no such VM or target, 10 its anchors cannot be told from
    another target's, 11 the VM is being replicated, or goes back.
    """
    context = wire()
    request = ForgetRequest(name, str(endpoint), target_dataset, target_guid, dry_run=dry_run)
    if not dry_run and not yes:
        request = replace(request, agreed=_agreed(forget(context, replace(request, dry_run=True)).vms[0]))
    run = run_about(RunKind.FORGETTING, name, request.endpoint)
    finish_recorded(context, run, lambda _: forget(context, request), dry_run=dry_run, as_json=as_json)


def _agreed(planned: VmReport) -> frozenset[str]:
    """The anchors that would go, once somebody has said yes to that and the rest."""
    anchors = [gone.snapshot for gone in planned.destroyed]
    for line in (*anchors, *planned.done, *planned.notes):
        click.echo(line, err=True)
    click.confirm(f"Give up these {len(anchors)} anchors, and the rest?", abort=True, err=True)
    return frozenset(anchors)
