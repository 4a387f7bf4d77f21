"""What hoster asks of a hypervisor, and what it tells it of a machine. No driver is named here.

A driver knows nothing of ZFS, of roles or of settings: it is given a machine whose disks are paths, starts
it, says whether it runs, and stops it. The truth is the running process itself. What a driver writes below
:attr:`GuestRef.run_dir` is how it finds that process again, from another run of hoster; what is left there
by one that has ended means nothing.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from hoster.errors import OperationFailed
from hoster.model.machines import MachineConfig


class GuestRef(Struct, frozen=True):
    """Which machine is meant. ``run_dir`` is a folder of this machine alone, local to the node."""

    name: str
    run_dir: Path


class Drive(Struct, frozen=True):
    """One disk or CD: ``kind`` as in the configuration (:class:`~hoster.model.machines.DiskType`), and the
    file or block device that it is."""

    kind: str
    path: Path
    is_volume: bool = False


class Guest(Struct, frozen=True):
    """A machine that can be started.

    ``folder`` is its own: what a driver writes there is backed up with the machine. ``log`` is outside of
    it. ``vnc_address`` is the address on which its screen is to be reached, if ``config`` gives it a port.
    """

    ref: GuestRef
    folder: Path
    config: MachineConfig
    drives: tuple[Drive, ...]
    log: Path
    vnc_address: str = "127.0.0.1"

    @property
    def name(self) -> str:
        return self.ref.name


def console_path(log: Path) -> Path:
    """Where what the guest prints on its serial line is kept: beside the log of its process, and never the
    log of another machine, all of which end in ``.log``."""
    return log.with_suffix(".console")


class Running(Struct, frozen=True):
    """A machine's process, seen alive: its id, and when it was started, in UTC."""

    pid: int
    since: datetime


class StillRuns(OperationFailed):
    """The guest was asked to power down, and has not done so in the time that it was given."""


class Plan(Struct, frozen=True):
    """How a machine would be started: the command, and what is worth saying about it."""

    command: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Hypervisor(Protocol):
    """What runs machines on this node."""

    @property
    def name(self) -> str:
        """As in the settings: ``qemu``."""
        ...

    def running(self, ref: GuestRef) -> Running | None:
        """The machine's process if it runs, None if it does not.

        OperationFailed where it cannot be told: a process that is there and does not answer, or answers as
        another machine. Whoever needs the machine stopped must take that as running.
        """
        ...

    def plan(self, guest: Guest) -> Plan:
        """How :meth:`start` would start it. Changes nothing.

        ConfigurationError or OperationFailed for what would keep it from starting, as far as that can be
        seen beforehand.
        """
        ...

    def start(self, guest: Guest) -> Running:
        """Starts it and returns when it runs, by itself from then on: it outlives this process.

        OperationFailed with what the hypervisor said if it does not come to run; nothing is left then.
        Starting one that runs is the caller's mistake, and fails.
        """
        ...

    def stop(self, ref: GuestRef, *, force: bool, limit_s: float) -> bool:
        """Returns when it is seen stopped, at once if it is stopped already; whether it ran.

        Asks the guest to power down and waits at most ``limit_s`` seconds; with ``force`` its process is
        killed. StillRuns if it was asked and still runs then; OperationFailed where it could not be asked, or
        was killed and is still there.
        """
        ...
