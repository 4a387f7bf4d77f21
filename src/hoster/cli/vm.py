"""``hoster vm``: list, info, adopt, replicate, replicate-all."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from hoster.cli.main import LazyGroup
from hoster.cli.messages import CHANGED, ERROR, INFO, WARNING, say
from hoster.cli.options import (
    ENDPOINT,
    JOB_NAME,
    TARGET_KEEP,
    dry_run_option,
    json_option,
    unix_option,
    vm_argument,
)
from hoster.cli.progress import observer_for
from hoster.cli.render import finish, human_size, log_lines, print_json, print_table
from hoster.errors import ExitCode, HosterError
from hoster.host.ssh import SshOptions
from hoster.host.throttle import MIB
from hoster.model.names import Endpoint, SnapshotType
from hoster.operations.adopt import adopt as adopt_vm
from hoster.operations.context import Context, wire
from hoster.operations.machines import ListedVm, list_machines
from hoster.operations.replicate import replicate as replicate_vms
from hoster.operations.request import ReplicationRequest
from hoster.records.job_log import append, log_path


@click.group(cls=LazyGroup)
def vm() -> None:
    """List, adopt and replicate VMs."""


@vm.command(name="list")
@unix_option
@json_option
@click.option("--json-pretty", is_flag=True, help="The same, indented.")
def list_(unix: bool, as_json: bool, json_pretty: bool) -> None:
    """List the VMs of this node, replicas of other nodes' VMs included.

    🟢 its disks are in use, 🔴 they are not, 💾 backup of another node's VM, 🔒 encrypted, 🔁 production.

    Exit codes: 0 listed, 3 something that looks like a VM cannot be read.
    """
    context = wire()
    machines = list_machines(context)
    if as_json or json_pretty:
        print_json([_document(context, item) for item in machines.vms], pretty=json_pretty)
    else:
        rows = [_row(number, item) for number, item in enumerate(machines.vms, start=1)]
        print_table("Hoster VMs", _HEADER, rows, unix=unix)
    for unusable in machines.unusable:
        say(ERROR, f"{unusable.dataset}: {unusable.problem}", err=True)
    raise click.exceptions.Exit(ExitCode.FAILED if machines.unusable else ExitCode.DONE)


@vm.command()
@vm_argument
@json_option
@click.option("--json-pretty", is_flag=True, help="The same, indented.")
def info(name: str, as_json: bool, json_pretty: bool) -> None:
    """Show one VM: its configuration, its dataset, and what it is on this node. Always JSON.

    Exit codes: 0 shown, 3 there is no such VM.
    """
    context = wire()
    listed = list_machines(context, name).vms[0]
    print_json(_document(context, listed), pretty=json_pretty or not as_json)


@vm.command()
@vm_argument
@click.option(
    "--production/--no-production",
    default=None,
    help="Whether replicate-all takes it along; yes for a new one.",
)
@click.option("--parent-was", metavar="HOST", help="Take it over from that node, which its file names.")
def adopt(name: str, production: bool | None, parent_was: str | None) -> None:
    """Make a VM of an existing dataset: NAME below one of this node's active datasets.

    Writes a vm_config.json into it if it has none, with every *.img file as a disk, and marks the dataset.

    Exit codes: 0 it is a VM now, 2 the name is impossible, 3 there is no such dataset, 10 refused.
    """
    adopted = adopt_vm(wire(), name, production=production, parent_was=parent_was)
    kind = "production" if adopted.production else "not production"
    if adopted.new or adopted.config_written:
        say(CHANGED, f"{name} is a VM now: {adopted.dataset}, {kind}, id {adopted.vm_id}")
    else:
        say(INFO, f"{name} is a VM already: {adopted.dataset}, {kind}, id {adopted.vm_id}")


def _replication_options(function: click.decorators.FC) -> click.decorators.FC:
    options = (
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
            "--speed-limit",
            type=click.FloatRange(min=0, min_open=True),
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
            "--target-dataset",
            metavar="DATASET",
            help="Where replicas go; otherwise the path they have here.",
        ),
        click.option("--create-parent", is_flag=True, help="Make that dataset there if it is missing."),
        click.option(
            "--target-keep",
            type=TARGET_KEEP,
            multiple=True,
            help="Keep N snapshots of a type on the target; may be repeated.",
        ),
        click.option(
            "--wait",
            "wait_s",
            type=click.FloatRange(min=0),
            default=0,
            metavar="SECONDS",
            help="Wait so long for another run of this job or VM to end.",
        ),
        dry_run_option,
        json_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


@vm.command()
@vm_argument
@_replication_options
def replicate(name: str, as_json: bool, **options: Any) -> None:
    """Bring another node fully up to date with one VM.

    One run sends everything, first run or not. Only what hoster itself sent is ever continued: a target
    that differs is refused with the command that mends it, and nothing on it is overwritten.

    Exit codes: 0 up to date, 2 usage, 3 failed, 10 refused, 11 another run is under way, 12 unreachable.
    """
    context = wire()
    options["job"] = options["job"] or f"vm_{name}_to_{options['endpoint'].host}"
    request = _request(context, (name,), **options)
    _replicate(context, request, as_json=as_json)


@vm.command(name="replicate-all")
@click.option("-f", "--filter", "names", metavar="NAME,NAME…", help="Exactly these VMs, production or not.")
@click.option("--include-non-production", is_flag=True, help="VMs that are not production as well.")
@_replication_options
def replicate_all(names: str | None, as_json: bool, include_non_production: bool, **options: Any) -> None:
    """Bring another node fully up to date with every production VM of this node.

    VMs in which nothing was written cost nothing. One VM that fails or is refused does not stop the
    others. Replicas of other nodes' VMs are left out.

    Exit codes: 0 all up to date, 2 usage, 3 some VMs failed, 10 none failed but some were refused,
    11 another run is under way, 12 unreachable.
    """
    context = wire()
    chosen = None if names is None else tuple(n for word in names.split(",") if (n := word.strip()))
    if chosen == ():
        raise click.BadParameter("names no VM", param_hint="--filter")
    request = _request(context, chosen, include_non_production=include_non_production, **options)
    _replicate(context, request, as_json=as_json)


def _replicate(context: Context, request: ReplicationRequest, *, as_json: bool) -> None:
    """Runs it, and keeps the outcome in the job's log, that of a run that could not begin included."""
    path = log_path(request.job_name)
    try:
        report = replicate_vms(context, request, observer_for(quiet=as_json))
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


def _request(
    context: Context,
    names: tuple[str, ...] | None,
    *,
    endpoint: Endpoint,
    port: int | None,
    key: Path | None,
    speed_limit: float | None,
    target_keep: tuple[tuple[SnapshotType, int], ...],
    **rest: Any,
) -> ReplicationRequest:
    settings = context.settings.replication
    limit = speed_limit if speed_limit is not None else settings.speed_limit_mib_s
    return ReplicationRequest(
        ssh=SshOptions(endpoint, port, key, settings.connect_timeout_s),
        names=names,
        speed_limit=None if limit is None else limit * MIB,
        target_keep=dict(target_keep),
        **rest,
    )


_HEADER = (
    "#",
    "VM Name",
    "VM Status",
    "CPU Sockets",
    "CPU Cores",
    "VM Memory",
    "Main IP Address",
    "OS Type",
    "Disk Used",
    "VM Description",
)


def _row(number: int, item: ListedVm) -> tuple[str, ...]:
    config = item.vm.config
    used = human_size(sum(dataset.used for dataset in item.vm.everything))
    if config is None:
        return (str(number), item.vm.name, item.icons, "-", "-", "-", "-", "-", used, item.description)
    return (
        str(number),
        item.vm.name,
        item.icons,
        str(config.cpu_sockets),
        str(config.cpu_cores),
        config.memory,
        config.networks[0].ip_address if config.networks else "-",
        config.os_comment or config.os_type,
        used,
        item.description,
    )


def _document(context: Context, item: ListedVm) -> dict[str, object]:
    found = item.vm
    marks = found.dataset.marks
    return {
        "name": found.name,
        "dataset": found.dataset.name,
        "mountpoint": found.dataset.mountpoint if found.dataset.mounted else None,
        "id": marks.vm_id,
        "role": found.role,
        "epoch": None if marks.epoch is None else str(marks.epoch),
        "parent_host": found.parent,
        "current_host": context.hostname,
        "backup": not found.is_primary,
        "production": found.production,
        "encrypted": found.dataset.encrypted,
        "running": item.running,
        "used_bytes": sum(dataset.used for dataset in found.everything),
        "problem": found.problem,
        "config": None if found.config is None else _without_secrets(found.config),
    }


def _without_secrets(config: object) -> dict[str, Any]:
    import msgspec

    document: dict[str, Any] = msgspec.to_builtins(config)
    document.pop("vnc_password", None)
    return document
