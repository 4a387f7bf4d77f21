"""Shows how a replication goes: bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from hoster.cli.messages import wants_json
from hoster.cli.render import human_size
from hoster.model.plan import VmReport

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from hoster.operations.request import Observer

_EVERY_S = 10.0


def observer_for(*, quiet: bool) -> Observer:
    """Bars where standard error is a terminal, else lines; nothing with ``quiet``, or where it gets JSON."""
    if quiet or wants_json():
        return SilentObserver()
    return BarObserver() if sys.stderr.isatty() else LineObserver()


class SilentObserver:
    """Shows nothing."""

    def begin(self, sizes: Mapping[str, int]) -> None:
        """Nothing is shown."""

    def advance(self, vm: str, amount: int) -> None:
        """Nothing is shown."""

    def finish(self, report: VmReport) -> None:
        """Nothing is shown."""


class LineObserver:
    """A line when a VM's stream begins, and one every ten seconds while it lasts, on standard error."""

    def __init__(self) -> None:
        self._sizes: Mapping[str, int] = {}
        self._sent: dict[str, int] = {}
        self._said = 0.0

    def begin(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        total = human_size(sum(sizes.values()))
        click.echo(f"sending {len(sizes)} VM(s), about {total} before compression", err=True)

    def advance(self, vm: str, amount: int) -> None:
        first = vm not in self._sent
        self._sent[vm] = self._sent.get(vm, 0) + amount
        now = time.monotonic()
        about = human_size(self._sizes.get(vm, 0))
        if first:
            self._said = now
            click.echo(f"{vm}: sending about {about}", err=True)
        elif now - self._said >= _EVERY_S:
            self._said = now
            click.echo(f"{vm}: {human_size(self._sent[vm])} sent of about {about}", err=True)

    def finish(self, report: VmReport) -> None:
        """The report says the rest."""


class BarObserver:
    """One bar for all and one for the VM under way, on standard error."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._total: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}
        self._sizes: Mapping[str, int] = {}
        self._left = 0

    def begin(self, sizes: Mapping[str, int]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        self._sizes = sizes
        self._left = len(sizes)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._progress.start()
        self._total = self._progress.add_task("in all", total=max(sum(sizes.values()), 1))

    def advance(self, vm: str, amount: int) -> None:
        assert self._progress is not None
        assert self._total is not None
        if vm not in self._tasks:
            self._tasks[vm] = self._progress.add_task(vm, total=max(self._sizes.get(vm, 0), 1))
        self._progress.update(self._tasks[vm], advance=amount)
        self._progress.update(self._total, advance=amount)

    def finish(self, report: VmReport) -> None:
        if self._progress is None:
            return
        if report.vm in self._tasks:
            self._progress.remove_task(self._tasks.pop(report.vm))
        self._left -= 1
        if self._left <= 0:
            self._progress.stop()
            self._progress = None
