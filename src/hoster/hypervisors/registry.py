"""The hypervisors that hoster can work with, by name: the settings' choice, or the system's own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hoster.errors import ConfigurationError
from hoster.host.process import Runner

if TYPE_CHECKING:
    from hoster.hypervisors.protocol import Hypervisor

NAMES = ("qemu",)
"""What the key ``hypervisor`` of the settings may be."""


def hypervisor(name: str | None, runner: Runner) -> Hypervisor:
    """The hypervisor called ``name``; without one, that of this system.

    ConfigurationError where hoster has no driver for it.
    """
    match name or _of_this_system():
        case "qemu":
            from hoster.hypervisors.qemu import Qemu

            return Qemu(runner)
        case "bhyve":
            raise ConfigurationError(
                "hoster has no driver for bhyve yet, and so starts, stops and watches no VMs on FreeBSD",
                hint="start and stop them with the original; snapshots and replication need no hypervisor",
            )
        case other:
            raise ConfigurationError(
                f"hypervisor: found {other!r}, expected {' or '.join(NAMES)}", hint="see hoster.toml"
            )


def has_driver(name: str | None) -> bool:
    """Whether :func:`hypervisor` gives one for that name, or else for this system."""
    return (name or _of_this_system()) != "bhyve"


def _of_this_system() -> str:
    return "bhyve" if sys.platform.startswith("freebsd") else "qemu"
