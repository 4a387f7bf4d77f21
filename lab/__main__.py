"""The lab by hand: python -m lab build | up | ssh | status | down | clean."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.image import build_image, cache_directory, clean_cache
from lab.lab import Lab
from lab.node import ssh_command
from lab.release import DEFAULT, RELEASES, releases_named
from lab.run import LiveRun, live_runs, remove_dead_runs

_DOWN_TIMEOUT_S = 10.0
_PACKAGE = Path(__file__).parents[1] / "src/hoster"


def main(arguments: Sequence[str]) -> int:
    """Run one subcommand; its exit code."""
    asked = _parser().parse_args(arguments)
    try:
        match asked.command:
            case "build":
                for release in releases_named(asked.release):
                    print(build_image(release).directory)
            case "up":
                _up(asked.nodes, asked.release)
            case "ssh":
                _ssh(asked.node, asked.words, asked.held_by)
            case "status":
                _status()
            case "down":
                _down(asked.held_by)
            case _:
                _clean()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the nodes' images, unless they are in the cache")
    up = commands.add_parser("up", help="start nodes and hold them up until Ctrl-C")
    up.add_argument("--nodes", type=int, default=2, metavar="N", help="how many, 1 to 3 (default: 2)")
    for command in (build, up):
        command.add_argument(
            "--release",
            default=DEFAULT.name,
            metavar="NAME[,NAME...]",
            help=f"what the nodes run, node1 first: {', '.join(RELEASES)} (default: {DEFAULT.name})",
        )
    ssh = commands.add_parser("ssh", help="a shell, or one command, in a node that is up")
    ssh.add_argument("node")
    ssh.add_argument("words", nargs=argparse.REMAINDER, metavar="command")
    commands.add_parser("status", help="the labs that are up on this machine, and the images in the cache")
    down = commands.add_parser("down", help="end all labs on this machine")
    for command in (ssh, down):
        command.add_argument("--held-by", type=int, metavar="PID", help="only the lab of this process")
    commands.add_parser("clean", help="remove all images from the cache")
    return parser


def _up(nodes: int, releases: str) -> None:
    with Lab(nodes=nodes, releases=releases_named(releases)) as lab:
        lab.reset()
        lab.deploy(_PACKAGE)
        print("Each node has hoster and an empty pool, tank. To log in, from another terminal:")
        for node in lab.nodes:
            print(f"{node.name} ({node.address}):  python3 -m lab ssh {node.name}")
        print("Ctrl-C ends them.", flush=True)
        while True:
            signal.pause()


def _ssh(node: str, words: list[str], held_by: int | None) -> None:
    for run in _runs(held_by):
        if node in run.nodes:
            terminal = ["-t"] if not words and sys.stdin.isatty() else []
            first, *rest = ssh_command(run.directory / node)
            os.execvp(first, [first, *terminal, *rest, *words])
    raise LabError(f"no lab is up that has a {node}", hint="python -m lab up")


def _status() -> None:
    for run in live_runs():
        print(f"up: {' '.join(run.nodes)}, held by process {run.pid}, in {run.directory}")
    images = cache_directory()
    for image in sorted(images.glob("*/disk.ext4")):
        print(f"image: {image.parent}, {image.stat().st_blocks * 512 // 2**20} MiB")


def _down(held_by: int | None) -> None:
    runs = _runs(held_by)
    for run in runs:
        os.kill(run.pid, signal.SIGTERM)
    gives_up_at = time.monotonic() + _DOWN_TIMEOUT_S
    while _still_up(runs):
        if time.monotonic() > gives_up_at:
            raise LabError(f"still up: {', '.join(str(run.directory) for run in _still_up(runs))}")
        time.sleep(0.1)
    remove_dead_runs()


def _runs(held_by: int | None) -> list[LiveRun]:
    return [run for run in live_runs() if held_by in {None, run.pid}]


def _still_up(runs: list[LiveRun]) -> list[LiveRun]:
    now = {run.directory for run in live_runs()}
    return [run for run in runs if run.directory in now]


def _clean() -> None:
    if live_runs():
        raise LabError("a lab is up and needs its image", hint="python -m lab down")
    clean_cache()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
