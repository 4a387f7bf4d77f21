"""Which Debian and which OpenZFS a node runs. Pure values: nothing is fetched or built here."""

from __future__ import annotations

from dataclasses import dataclass

from lab.errors import LabError

__all__ = ["DEFAULT", "RELEASES", "Release", "release_named"]


@dataclass(frozen=True, slots=True)
class Release:
    """One kind of node: a Debian suite with its kernel and its OpenZFS.

    `extra_suites` are added to `suite` (backports, say). `pinned` packages come from the last of the
    extra suites, whatever `suite` holds. `python` is the version that the nodes' wheels must fit.
    """

    name: str
    suite: str
    python: str
    extra_suites: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    kernel_package: str = "linux-image-cloud-amd64"
    headers_package: str = "linux-headers-cloud-amd64"
    zfs_source_package: str = "zfs-dkms"
    zfs_packages: tuple[str, ...] = ("zfsutils-linux",)
    packages: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()


# Debian 13 has no package of qemu.qmp.
TRIXIE = Release(
    name="trixie",
    suite="trixie",
    python="3.13",
    packages=(
        "python3-click",
        "python3-msgspec",
        "python3-prometheus-client",
        "python3-pycdlib",
        "python3-rich",
    ),
    wheels=("qemu.qmp",),
)

RELEASES = {release.name: release for release in (TRIXIE,)}
DEFAULT = TRIXIE


def release_named(name: str) -> Release:
    """The release of that name. Raises LabError for one that the lab does not know."""
    try:
        return RELEASES[name]
    except KeyError:
        known = ", ".join(RELEASES)
        raise LabError(f"no release is called {name!r}", hint=f"known releases: {known}") from None
