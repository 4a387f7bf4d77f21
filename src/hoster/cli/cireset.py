"""``hoster vm cireset``."""

from __future__ import annotations

from functools import partial

import click

from hoster.cli.asking import ask_for_key, confirm
from hoster.cli.messages import CHANGED, INFO, WARNING, say
from hoster.cli.options import json_option, vm_argument
from hoster.cli.recording import run_about
from hoster.cli.render import print_json
from hoster.errors import ExitCode
from hoster.model.plan import Outcome, Report, VmReport
from hoster.operations.cireset import ResetReport
from hoster.operations.cireset import cireset as reset_vm
from hoster.operations.context import wire
from hoster.operations.recording import recorded
from hoster.operations.takeover import TakeoverRequest
from hoster.planning.reset import Wishes
from hoster.records.runs import RunKind


@click.command()
@vm_argument
@click.option("-n", "--new-name", default="", metavar="NAME", help="Give the VM this name, too.")
@click.option(
    "--network-name", default="", metavar="NETWORK", help="Its network; the first of this node's without it."
)
@click.option("--ip-address", default="", metavar="ADDRESS", help="Its address; a free one without it.")
@click.option("--dns-server", default="", metavar="ADDRESS", help="Its name server; the gateway without it.")
@click.option("--accept-loss", is_flag=True, help="Of a replica: take over although something may be lost.")
@click.option("--dry-run", is_flag=True, help="Show what it would get; change nothing.")
@json_option
def cireset(
    name: str,
    new_name: str,
    network_name: str,
    ip_address: str,
    dns_server: str,
    accept_loss: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Give a stopped VM a new cloud-init set: passwords, keys, instance, MAC, address and VNC port.

    A replica takes over first, as by `hoster change parent`.

    The new passwords are shown, once; they are kept in cloud-init-files in the VM's folder.

    Exit codes: 0 it has its new set, 2 it cannot be what is asked for, or the networks here are not known,
    3 failed, 10 it runs, must not take over, or what is asked for is taken, 11 another command is at work on
    it.
    """
    wishes = Wishes(new_name, network_name, ip_address, dns_server)
    takeover = TakeoverRequest(name, accept_loss=accept_loss, dry_run=dry_run)
    context = wire()
    run = run_about(RunKind.RESET, name)
    with recorded(context, run, partial(say, WARNING, err=True), dry_run=dry_run) as recorder:
        report = reset_vm(context, name, wishes, takeover, ask_for_key, confirm)
        recorder.report(_recorded(report), ExitCode.DONE)
    if as_json:
        print_json(report)
    else:
        _show(report)


def _recorded(report: ResetReport) -> Report:
    """What is remembered of it: nothing that is secret."""
    new_name = f"; it is called {report.vm} now" if report.vm != report.was_called else ""
    reason = f"a new cloud-init set, instance {report.instance_id}{new_name}"
    return Report((VmReport(report.was_called, Outcome.DONE, reason, notes=report.notes),), report.dry_run)


def _show(report: ResetReport) -> None:
    for note in report.notes:
        say(WARNING, f"{report.vm}: {note}")
    if report.secrets is None:
        say(INFO, f"{report.was_called} would get a new cloud-init set, with passwords of its own")
    else:
        say(CHANGED, f"{report.was_called} has a new cloud-init set: instance {report.instance_id}")
    if report.vm != report.was_called:
        say(INFO if report.dry_run else CHANGED, f"its name: {report.vm} ({report.dataset})")
    for what, value in _rows(report):
        click.echo(f"{what + ':':<20}{value}")


def _rows(report: ResetReport) -> list[tuple[str, str]]:
    rows = [("VNC port", str(report.vnc_port)), ("SSH keys", f"{report.ssh_keys}, those of this node")]
    if report.network is not None:
        rows += [
            ("Network", report.network),
            ("IP address", str(report.ip_address)),
            ("MAC address", str(report.mac)),
            ("Name server", f"{report.dns_server}, searching {report.search_domain}"),
        ]
    if report.secrets is not None:
        rows += [
            ("VNC password", report.secrets.vnc),
            ("root password", report.secrets.root),
            ("gwitsuper password", report.secrets.gwitsuper),
        ]
    return rows
