"""Finds the machine's own Debian mirror, so that no address stands in the repository.

Reads apt's configuration through `apt-get indextargets`, which understands one-line and deb822 sources
alike, and hands out source lines for another suite of the same mirror.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

__all__ = ["Mirror", "codename", "machine_mirror"]

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_CARRIED_OPTIONS = ("Acquire::http", "Acquire::https", "Acquire::Check", "Acquire::Retries")


@dataclass(frozen=True, slots=True)
class Mirror:
    """A Debian mirror: its address, the keyring that verifies it, and apt's options to reach it."""

    address: str
    keyring: Path
    options: tuple[str, ...]

    def sources(self, suites: tuple[str, ...]) -> tuple[str, ...]:
        """One-line apt sources for these suites, components main and contrib (OpenZFS is in contrib)."""
        entry = f"deb [signed-by={self.keyring}] {self.address}"
        return tuple(f"{entry} {suite} main contrib" for suite in suites)


def machine_mirror() -> Mirror:
    """The mirror from which this machine's own Debian comes.

    Raises LabError when the machine is not a Debian or when its apt names no mirror for its release.
    """
    own = codename()
    listing = _output(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY)"],
    )
    for line in listing.splitlines():
        address, suite, component, *signed_by = line.split()
        if (suite, component) != (own, "main"):
            continue
        named = Path(signed_by[0]) if signed_by else _KEYRING
        # The archive's own keyring also holds the keys of newer releases, which a mirror's entry for one
        # release need not.
        keyring = _KEYRING if _KEYRING.exists() else named
        return Mirror(address=address, keyring=keyring, options=_carried_options())
    raise LabError(
        f"apt on this machine names no mirror for {own} main",
        hint="look at /etc/apt/sources.list and /etc/apt/sources.list.d, then: apt-get update",
    )


def codename() -> str:
    """The code name of this machine's Debian. Raises LabError where it is none."""
    facts = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    if facts.get("ID", "").strip('"') != "debian":
        raise LabError(
            f"the lab builds its nodes on Debian 12 or 13; this is {facts.get('PRETTY_NAME', 'unknown')}",
            hint="run it on a Debian machine or in a privileged Debian container",
        )
    return facts.get("VERSION_CODENAME", "").strip('"')


def _carried_options() -> tuple[str, ...]:
    dump = _output(["apt-config", "dump"])
    return tuple(
        line.rstrip(";")
        for line in dump.splitlines()
        if line.startswith(_CARRIED_OPTIONS) and not line.endswith('"";')
    )


def _output(argv: list[str]) -> str:
    try:
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not on this machine", hint="the lab needs a Debian machine") from error
    except subprocess.CalledProcessError as error:
        raise LabError(f"{' '.join(argv)} failed: {error.stderr.strip()}", hint="apt-get update") from error
