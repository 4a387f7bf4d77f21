"""``hoster vm deploy``: makes a new VM."""

from __future__ import annotations

from pathlib import Path

import click

from hoster.cli.messages import CHANGED, INFO, WARNING, say
from hoster.cli.options import SIZE
from hoster.errors import UsageError
from hoster.operations.context import wire
from hoster.operations.deploy import Order, deployed_vm
from hoster.operations.deploy import deploy as make


@click.command()
@click.option("-n", "--name", required=True, metavar="NAME", help="The name of the new VM.")
@click.option(
    "-c",
    "--cpu-cores",
    "cores",
    type=click.IntRange(1, 255),
    default=2,
    show_default=True,
    metavar="N",
    help="Its processor cores.",
)
@click.option("-r", "--ram", "memory", default="2G", show_default=True, metavar="SIZE", help="Its memory.")
@click.option("-d", "--dataset", default="", metavar="DATASET", help="The active dataset that it goes into.")
@click.option(
    "--network-name", "network", default="", metavar="NETWORK", help="Give it a card on that network."
)
@click.option(
    "--loader",
    type=click.Choice(["uefi", "bios"]),
    default="uefi",
    show_default=True,
    help="What it boots with.",
)
@click.option(
    "--from-image",
    "image",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Copy its disk from this image: raw, or qcow2 if it is called so.",
)
@click.option(
    "--disk-size", type=SIZE, metavar="SIZE", help="Give it an empty disk, or a larger one than FILE."
)
@click.option("--start-now", is_flag=True, help="Start it when it is there.")
@click.option("--dry-run", is_flag=True, help="Show what would be made; change nothing.")
def deploy(
    name: str,
    cores: int,
    memory: str,
    dataset: str,
    network: str,
    loader: str,
    image: Path | None,
    disk_size: int | None,
    start_now: bool,
    dry_run: bool,
) -> None:
    """Make a new VM of this node, with one disk: a copy of an image file, or an empty one.

    Exit codes: 0 it is there, 2 what is asked for cannot be, 3 something went wrong, 10 the name is taken,
    11 somebody is starting it.
    """
    from hoster.operations.power import hold_power, start_held

    if image is None and disk_size is None:
        raise UsageError("a disk is needed", hint="--from-image FILE, or --disk-size SIZE for an empty one")
    context = wire()
    order = Order(name, cores, memory, dataset, image, disk_size or 0, network, loader, start_now)
    made = make(context, order, dry_run=dry_run)
    config = made.config
    what = (
        f"{made.dataset}, {config.cpu_cores} cores, {config.memory} of memory, {config.loader}, disk"
        f" {config.disks[0].image}, VNC port {config.vnc_port}"
    )
    if dry_run:
        say(INFO, f"{name}: would be made: {what}")
        return
    say(CHANGED, f"{name}: made: {what}")
    if start_now:
        with hold_power(context, name):
            started = start_held(context, deployed_vm(context, name))
        for note in started.notes:
            say(WARNING, f"{name}: {note}")
        say(CHANGED, f"{name}: started, as process {started.running.pid}")
