"""Checks that this node can do the work, and writes its first configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from hoster.config.settings import (
    SETTINGS_NAME,
    find_settings_file,
    first_settings_text,
    read_settings,
    write_first_settings,
)
from hoster.errors import ConfigurationError, HosterError, OperationFailed
from hoster.model.names import dataset_name
from hoster.zfs.store import ZfsStore, pool_of

OLDEST_OPENZFS = (2, 1)
"""The oldest line that hoster supports: channel programs that make bookmarks and set properties are there."""


class Check(Struct, frozen=True):
    """One thing that was looked at; ``remedy`` is empty where it is as it should be."""

    what: str
    found: str
    remedy: str = ""

    @property
    def passed(self) -> bool:
        return not self.remedy


class Initialised(Struct, frozen=True):
    """What was found, and the configuration that was written (None: nothing was)."""

    checks: tuple[Check, ...]
    written: Path | None
    existing: Path | None = None

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def initialise(zfs: ZfsStore, datasets: Sequence[str], place: Path, hostname: str) -> Initialised:
    """Checks the node for ``datasets`` and, if all is well and there is none yet, writes hoster.toml into
    ``place``. With no ``datasets`` the existing configuration is checked."""
    existing = _existing()
    names = tuple(dict.fromkeys(datasets))
    if existing is not None:
        settings = read_settings(existing)
        hostname = settings.hostname or hostname
        if names and names != settings.datasets:
            raise ConfigurationError(
                f"{existing} is there already, with datasets {', '.join(settings.datasets)}",
                hint=f"edit datasets in {existing}",
            )
        names = settings.datasets
    elif not names:
        raise ConfigurationError(
            "no dataset was named and there is no configuration yet",
            hint="hoster init --dataset POOL/DATASET",
        )
    for name in names:
        try:
            dataset_name(name)
        except ValueError as error:
            raise ConfigurationError(f"--dataset: {error}") from None
    checks = tuple(_checks(zfs, names, hostname))
    if existing is not None or not all(check.passed for check in checks):
        return Initialised(checks, None, existing)
    path = place / SETTINGS_NAME
    write_first_settings(path, first_settings_text(names))
    return Initialised(checks, path)


def _existing() -> Path | None:
    try:
        return find_settings_file(os.environ)
    except ConfigurationError:
        if os.environ.get("HOSTER_CONFIG"):
            raise
        return None


def _checks(zfs: ZfsStore, datasets: Sequence[str], hostname: str) -> Iterator[Check]:
    yield _check_rights()
    version = _check("OpenZFS", lambda: _version(zfs))
    yield version
    if version.passed:
        for name in datasets:
            yield _check_dataset(zfs, name)
    yield _check_hostname(hostname)


def _check(what: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except HosterError as error:
        return Check(what, error.message, error.hint or "look into the message on the left")


def _check_rights() -> Check:
    if os.geteuid() == 0:
        return Check("rights", "running as root")
    return Check("rights", f"running as user {os.geteuid()}", "run hoster as root (sudo or doas)")


def _version(zfs: ZfsStore) -> Check:
    try:
        version = zfs.version()
    except OperationFailed as error:
        return Check("OpenZFS", error.message, "install OpenZFS and load its kernel module (modprobe zfs)")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None:
        return Check("OpenZFS", f"its version {version!r} cannot be read", "look at: zfs version")
    if (int(numbers[1]), int(numbers[2])) < OLDEST_OPENZFS:
        return Check("OpenZFS", f"{version} is too old", "upgrade to OpenZFS 2.1 or later")
    return Check("OpenZFS", version)


def _check_dataset(zfs: ZfsStore, name: str) -> Check:
    what = f"dataset {name}"
    pool = pool_of(name)
    try:
        seen = zfs.look_at([pool, name])
    except OperationFailed as error:
        return Check(what, error.message, "look at: zpool status")
    if seen.get(pool) is None:
        return Check(what, f"there is no pool {pool}", f"zpool import {pool}")
    dataset = seen.get(name)
    if dataset is None:
        return Check(what, "it does not exist", f"zfs create -p {name}")
    if not dataset.key_loaded:
        return Check(what, "its encryption key is not loaded", f"zfs load-key {name} && zfs mount -a")
    if not dataset.mounted:
        return Check(what, "it is not mounted", f"zfs mount {name}")
    return Check(what, f"mounted at {dataset.mountpoint}")


def _check_hostname(hostname: str) -> Check:
    if hostname in {"", "localhost", "localhost.localdomain", "(none)"}:
        return Check(
            "host name",
            f"{hostname!r} does not tell this node from others",
            "give the node a name (hostnamectl set-hostname NAME), or set hostname in hoster.toml",
        )
    return Check("host name", hostname)
