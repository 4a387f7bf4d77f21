"""Which Debian and which OpenZFS a node runs. Pure values: nothing is fetched or built here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lab.errors import LabError

__all__ = ["DEFAULT", "RELEASES", "Release", "release_named", "releases_named"]


@dataclass(frozen=True, slots=True)
class Release:
    """One kind of node: a Debian suite with its kernel and its OpenZFS.

    `zfs` is the line of OpenZFS, such as "2.3". Its packages come from `zfs_suite`, which is `suite` itself
    or one beside it (backports). `python` is the version that the nodes' wheels must fit.
    """

    name: str
    suite: str
    zfs: str
    zfs_suite: str
    python: str
    packages: tuple[str, ...]
    wheels: tuple[str, ...]
    kernel_package: str = "linux-image-cloud-amd64"
    headers_package: str = "linux-headers-cloud-amd64"
    zfs_source_package: str = "zfs-dkms"
    zfs_package: str = "zfsutils-linux"

    @property
    def suites(self) -> tuple[str, ...]:
        """All suites that packages come from."""
        return tuple(dict.fromkeys((self.suite, self.zfs_suite)))


_PYTHON_PACKAGES = ("python3-click", "python3-prometheus-client", "python3-pycdlib", "python3-rich")

# What Debian has no package of comes as a wheel.
BOOKWORM = Release(
    name="bookworm",
    suite="bookworm",
    zfs="2.1",
    zfs_suite="bookworm",
    python="3.11",
    packages=_PYTHON_PACKAGES,
    wheels=("msgspec", "qemu.qmp"),
)
TRIXIE = Release(
    name="trixie",
    suite="trixie",
    zfs="2.3",
    zfs_suite="trixie",
    python="3.13",
    packages=(*_PYTHON_PACKAGES, "python3-msgspec"),
    wheels=("qemu.qmp",),
)
TRIXIE_BACKPORTS = replace(TRIXIE, name="trixie-backports", zfs="2.4", zfs_suite="trixie-backports")

RELEASES = {release.name: release for release in (BOOKWORM, TRIXIE, TRIXIE_BACKPORTS)}
DEFAULT = TRIXIE


def release_named(name: str) -> Release:
    """The release of that name. Raises LabError for one that the lab does not know."""
    try:
        return RELEASES[name]
    except KeyError:
        known = ", ".join(RELEASES)
        raise LabError(f"no release is called {name!r}", hint=f"known releases: {known}") from None


def releases_named(names: str) -> tuple[Release, ...]:
    """The releases of a list such as "trixie,bookworm". Errors as for release_named."""
    return tuple(release_named(name) for name in names.split(","))
