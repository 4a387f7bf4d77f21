"""``hoster vm``: list, info, adopt; what starts, deploys and replicates is in modules of its own."""

from __future__ import annotations

from typing import Any

import click

from hoster.cli.main import LazyGroup
from hoster.cli.messages import CHANGED, ERROR, INFO, say
from hoster.cli.options import json_option, unix_option, vm_argument
from hoster.cli.render import human_size, print_json, print_table
from hoster.errors import ExitCode
from hoster.operations.context import Context, wire
from hoster.operations.machines import ListedVm, list_machines


@click.group(
    cls=LazyGroup,
    lazy={
        "branches": "hoster.cli.branches:branches",
        "demote": "hoster.cli.handover:demote",
        "deploy": "hoster.cli.deploy:deploy",
        "cireset": "hoster.cli.cireset:cireset",
        "failback": "hoster.cli.handover:failback",
        "forget-target": "hoster.cli.forget:forget_target",
        "migrate": "hoster.cli.handover:migrate",
        "replicate": "hoster.cli.replicate:replicate",
        "replicate-all": "hoster.cli.replicate:replicate_all",
        "restore": "hoster.cli.handover:restore",
        "show-log": "hoster.cli.power:show_log",
        "start": "hoster.cli.power:start",
        "start-all": "hoster.cli.power:start_all",
        "stop": "hoster.cli.power:stop",
        "stop-all": "hoster.cli.power:stop_all",
    },
)
def vm() -> None:
    """Make, start, stop, list and replicate VMs."""


@vm.command(name="list")
@unix_option
@json_option
@click.option("--json-pretty", is_flag=True, help="The same, indented.")
def list_(unix: bool, as_json: bool, json_pretty: bool) -> None:
    """List the VMs of this node, replicas of other nodes' VMs included.

    🟢 it runs, 🔴 it does not, 🟡 another process uses its disks, 💾 backup of another node's VM,
    🔒 encrypted, 🔁 production.

    Exit codes: 0 listed, 3 something that looks like a VM cannot be read, or it cannot be told whether one
    runs.
    """
    context = wire()
    machines = list_machines(context)
    if as_json or json_pretty:
        print_json([_document(context, item) for item in machines.vms], pretty=json_pretty)
    else:
        rows = [_row(number, item) for number, item in enumerate(machines.vms, start=1)]
        print_table("Hoster VMs", _HEADER, rows, unix=unix)
    problems = [f"{unusable.dataset}: {unusable.problem}" for unusable in machines.unusable]
    problems += [item.trouble for item in machines.vms if item.trouble]
    for problem in problems:
        say(ERROR, problem, err=True)
    raise click.exceptions.Exit(ExitCode.FAILED if problems else ExitCode.DONE)


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

    Exit codes: 0 it is a VM now, 2 the name is impossible, 3 there is no such dataset, 10 refused,
    11 somebody adopts, starts or stops it.
    """
    from hoster.operations.adopt import adopt as adopt_vm

    adopted = adopt_vm(wire(), name, production=production, parent_was=parent_was)
    kind = "production" if adopted.production else "not production"
    if adopted.new or adopted.config_written:
        say(CHANGED, f"{name} is a VM now: {adopted.dataset}, {kind}, id {adopted.vm_id}")
    else:
        say(INFO, f"{name} is a VM already: {adopted.dataset}, {kind}, id {adopted.vm_id}")


_HEADER = (
    "#",
    "VM Name",
    "VM Status",
    "CPU Sockets",
    "CPU Cores",
    "VM Memory",
    "Main IP Address",
    "OS Type",
    "Running Since",
    "Disk Used",
    "VM Description",
)


def _row(number: int, item: ListedVm) -> tuple[str, ...]:
    config = item.vm.config
    used = human_size(sum(dataset.used for dataset in item.vm.everything))
    since = f"{item.running.since.astimezone():%Y-%m-%d %H:%M:%S}" if item.running else "-"
    if config is None:
        return (str(number), item.vm.name, item.icons, *("-" * 5), since, used, item.description)
    return (
        str(number),
        item.vm.name,
        item.icons,
        str(config.cpu_sockets),
        str(config.cpu_cores),
        config.memory,
        config.networks[0].ip_address if config.networks else "-",
        config.os_comment or config.os_type,
        since,
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
        "running": item.running is not None,
        "state": item.state,
        "pid": item.running.pid if item.running else None,
        "since": item.running.since if item.running else None,
        "used_by": [
            {"pid": user.pid, "command": user.command, "path": str(user.path)} for user in item.users
        ],
        "used_bytes": sum(dataset.used for dataset in found.everything),
        "problem": found.problem or item.trouble,
        "config": None if found.config is None else _without_secrets(found.config),
    }


def _without_secrets(config: object) -> dict[str, Any]:
    import msgspec

    document: dict[str, Any] = msgspec.to_builtins(config)
    document.pop("vnc_password", None)
    return document
