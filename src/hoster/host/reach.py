"""Reaching a node: a command is data, and local or remote is only a rewrite of its argv."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

SYSTEM_PATH = "/sbin:/usr/sbin:/usr/local/sbin:/bin:/usr/bin:/usr/local/bin:/opt/hoster-core"
"""Appended to PATH on the far side: a non-interactive login often lacks the sbin directories, and hoster may
lie in the original's folder."""


class Host(Protocol):
    """A node on which commands can run."""

    @property
    def name(self) -> str:
        """What the user calls it; ``local`` for this machine."""
        ...

    @property
    def machine(self) -> str:
        """Identity of the running kernel: equal for two hosts only if they are the same machine."""
        ...

    def argv(self, command: Sequence[str]) -> tuple[str, ...]:
        """What to start here so that ``command`` runs there."""
        ...


class LocalHost:
    """This machine."""

    name = "local"

    @property
    def machine(self) -> str:
        return local_machine()

    def argv(self, command: Sequence[str]) -> tuple[str, ...]:
        return tuple(command)


MACHINE_SCRIPT = (
    "cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.hostuuid kern.boottime 2>/dev/null"
    " || hostname"
)
"""Prints what :func:`local_machine` reads: Linux's boot id, or FreeBSD's host UUID and boot time."""


def local_machine() -> str:
    """Identity of this running kernel, as ``MACHINE_SCRIPT`` would print it (first line)."""
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    return boot_id.read_text().strip() if boot_id.exists() else ""


def remote_shell_line(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """``command``, with these variables, as one line that any login shell (sh, csh, fish) hands on unchanged.

    The single place in which hoster quotes: the words are quoted for sh, and the whole once more for
    whatever shell the account has, which only has to know single quotes.
    """
    variables = "".join(f"{n}={shlex.quote(v)}; export {n}; " for n, v in (environment or {}).items())
    inner = f"PATH=$PATH:{SYSTEM_PATH}; export PATH; {variables}exec {shlex.join(command)}"
    return f"exec /bin/sh -c {quoted(inner)}"


def quoted(text: str) -> str:
    """``text`` in single quotes, for sh and csh alike."""
    return "'" + text.replace("'", "'\\''") + "'"
