"""``hoster status``: how the VMs of this node and their replicas stand, for people, programs and Nagios."""

from __future__ import annotations

import time

import click

from hoster.cli.history import local_time
from hoster.cli.messages import WARNING, say
from hoster.cli.options import VM_NAME, complete_vm_name, json_option, unix_option
from hoster.cli.render import human_size, print_json, print_table
from hoster.errors import HosterError
from hoster.operations.context import wire
from hoster.operations.pool_status import PoolStatus
from hoster.operations.status import NodeStatus, TargetStatus, VmStatus, node_status
from hoster.planning.verdicts import Verdict, duration

_VMS = ("VM Name", "Role", "Target", "Newest There", "Data Age", "Behind", "Last Success", "State")
_POOLS = ("Node", "Pool", "Health", "Full", "Free", "Full In", "Last Scrub", "State")
_SIGNS = {"ok": "🟢", "warning": "🟡", "critical": "🔴"}


@click.command()
@click.argument("name", type=VM_NAME, metavar="[NAME]", required=False, shell_complete=complete_vm_name)
@click.option("--check", is_flag=True, help="One line and an exit code, for Nagios and Icinga.")
@unix_option
@json_option
def status(name: str | None, check: bool, unix: bool, as_json: bool) -> None:
    """Show how old the data of each VM are on each of its targets, and whatever is wrong.

    The targets are asked; what is told of one that cannot be reached is remembered from the last run.

    Exit codes: 0 shown, however things stand, 3 there is no such VM, or this node cannot be looked at.
    With --check they are those of monitoring plugins, as in docs/reference.md.
    """
    if check:
        _check(name)
        return
    found = node_status(wire(), name)
    if as_json:
        print_json(found)
        return
    now = time.time()
    print_table("Replicas", _VMS, [row for vm in found.vms for row in _rows(vm, now)], unix=unix)
    if unix:
        return
    print_table("Pools", _POOLS, [_pool_row(pool, now) for pool in found.pools], unix=False)
    for vm in found.vms:
        _show_details(vm, single=name is not None)
    for problem in found.problems:
        say(WARNING, problem)


def _check(name: str | None) -> None:
    """Says the worst on one line, with all the rest that is not well, and leaves with the plugin's code."""
    try:
        found = node_status(wire(), name)
    except HosterError as error:
        click.echo(f"HOSTER UNKNOWN - {_plain(error.message)}")
        raise click.exceptions.Exit(Verdict.UNKNOWN) from None
    verdict = Verdict[found.verdict.upper()]
    wrong = _wrong(found)
    counts = f"{len(found.vms)} VM(s), {sum(len(vm.targets) for vm in found.vms)} replica(s)"
    words = "; ".join(wrong) if wrong else f"{counts}, all as promised"
    ages = [now - t.data_at for now in (time.time(),) for vm in found.vms for t in vm.targets if t.data_at]
    oldest = f" oldest_data={max(ages):.0f}s" if ages else ""
    click.echo(f"HOSTER {verdict.name} - {_plain(words)} | wrong={len(wrong)}{oldest}")
    raise click.exceptions.Exit(verdict)


def _wrong(found: NodeStatus) -> list[str]:
    """Everything that is not well, the worst first."""
    said = [(vm.verdict, f"{vm.vm}: {vm.why}") for vm in found.vms]
    said += [(pool.verdict, f"{pool.node} pool {pool.pool}: {pool.why}") for pool in found.pools]
    said += [("warning", problem) for problem in found.problems]
    wrong = [(Verdict[verdict.upper()], words) for verdict, words in said if verdict != "ok"]
    return [words for _, words in sorted(wrong, key=lambda one: -one[0])]


def _plain(words: str) -> str:
    """On one line, and without the sign that ends a plugin's text."""
    return " ".join(words.replace("|", "/").split())


def _rows(vm: VmStatus, now: float) -> list[tuple[str, ...]]:
    if not vm.targets:
        return [(vm.vm, vm.role, "-", "-", "-", "-", "-", _state(vm.verdict, vm.why))]
    return [(vm.vm, vm.role, *_target_row(target, now)) for target in vm.targets]


def _target_row(target: TargetStatus, now: float) -> tuple[str, ...]:
    remembered = " (remembered)" if target.trouble else ""
    age = "equal now" if target.equal else "-"
    if target.data_at is not None and not target.equal:
        age = duration(now - target.data_at)
    return (
        target.node,
        f"{target.newest.name}{remembered}" if target.newest else f"-{remembered}",
        age,
        "-" if target.behind_bytes is None else human_size(target.behind_bytes),
        "-" if target.success_at is None else local_time(target.success_at),
        _state(target.verdict, target.why),
    )


def _state(verdict: str, why: str) -> str:
    return f"{_SIGNS[verdict]} {why or verdict}"


def _pool_row(pool: PoolStatus, now: float) -> tuple[str, ...]:
    return (
        *(pool.node, pool.pool, pool.health, f"{pool.capacity:.0%}", human_size(pool.free)),
        "-" if pool.full_at is None else duration(pool.full_at - now),
        pool.scrub,
        _state(pool.verdict, pool.why),
    )


def _show_details(vm: VmStatus, *, single: bool) -> None:
    """What a table has no room for: of one VM everything, of many what a person has to know."""
    if single:
        for kind in vm.snapshots:
            oldest, newest = local_time(kind.oldest), local_time(kind.newest)
            click.echo(f"{vm.vm}: {kind.count} {kind.stype}, oldest {oldest}, newest {newest}")
        click.echo(f"{vm.vm}: {vm.dataset}, epoch {vm.epoch or 'none'}, parent {vm.parent or 'unknown'}")
    if vm.branches:
        click.echo(f"{vm.vm}: {vm.branches} branch(es) here hold {human_size(vm.branch_bytes)}")
    for target in vm.targets:
        where = f"{vm.vm} on {target.node}"
        if target.branches:
            click.echo(f"{where}: {target.branches} branch(es) hold {human_size(target.branch_bytes)}")
        if target.partly_received:
            click.echo(f"{where}: a part of a newer version has arrived; the next run goes on from there")
        if target.trouble:
            say(WARNING, f"{where}: it cannot be asked: {target.trouble}")
        if single and target.failure_at is not None:
            click.echo(f"{where}: last failure {local_time(target.failure_at)}: {target.failure}")
