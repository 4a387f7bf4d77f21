"""The command line of every zfs and zpool verb that hoster uses: one pure function each.

Always parsable output (``-Hp``), always full names after the options. Nothing here knows of ssh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hoster.model.plan import Send
from hoster.model.storage import Bookmark

Argv = tuple[str, ...]

LISTED_PROPERTIES = (
    "type",
    "guid",
    "createtxg",
    "creation",
    "used",
    "written",
    "userrefs",
    "clones",
    "encryption",
    "keystatus",
    "mounted",
    "mountpoint",
    "readonly",
    "receive_resume_token",
    "hoster:id",
    "hoster:role",
    "hoster:epoch",
    "hoster:parent",
    "hoster:production",
    "hoster:from",
    "hoster:sdescription",
)
"""What one look asks of every dataset, snapshot and bookmark; user properties last."""


def look(roots: Iterable[str]) -> Argv:
    """Everything hoster needs to know of ``roots`` and all below them, in one command.

    ``zfs get`` rather than ``zfs list``, because it alone tells local user properties from inherited ones.
    """
    return (
        *("zfs", "get", "-Hp", "-r", "-t", "filesystem,volume,snapshot,bookmark"),
        *("-o", "name,property,value,source", ",".join(LISTED_PROPERTIES)),
        *roots,
    )


def look_at(datasets: Iterable[str]) -> Argv:
    """The same of just these datasets, without what is below them or their snapshots."""
    return (
        *("zfs", "get", "-Hp", "-t", "filesystem,volume"),
        *("-o", "name,property,value,source", ",".join(LISTED_PROPERTIES)),
        *datasets,
    )


def sync(pools: Iterable[str]) -> Argv:
    """Ends the current transaction group, so that ``written`` counts what was written until now."""
    return ("zpool", "sync", *pools)


def snapshot(full_names: Iterable[str], properties: Mapping[str, str]) -> Argv:
    """Takes all of them at one moment, or none; all must lie in one pool (zfs-snapshot(8))."""
    return ("zfs", "snapshot", *_settings(properties), *full_names)


def send(step: Send) -> Argv:
    """The stream of ``step``: plain, large blocks kept, data as compressed on disk (zfs-send(8))."""
    words = ["zfs", "send", "-L", "-c"]
    match step.base:
        case None:
            pass
        case Bookmark() as bookmark:
            words += ["-i", bookmark.full_name]
        case base:
            words += ["-I" if step.intermediate else "-i", base.full_name]
    return (*words, step.through.full_name)


def receive(target: str, properties: Mapping[str, str]) -> Argv:
    """Receives into ``target``: never mounted (``-u``), never forced, never where its properties say."""
    return ("zfs", "receive", "-u", *_settings(properties), "-x", "mountpoint", target)


def set_properties(properties: Mapping[str, str], names: Sequence[str]) -> Argv:
    """Sets the same values on all of ``names``."""
    return ("zfs", "set", *(f"{key}={value}" for key, value in properties.items()), *names)


def create_unmounted(dataset: str) -> Argv:
    """Makes a dataset for replicas to lie in, with the missing ones above it; nothing gets mounted."""
    return ("zfs", "create", "-p", "-o", "canmount=off", dataset)


def program(pool: str, arguments: Iterable[str]) -> Argv:
    """Runs a channel program, read from standard input, in one transaction group (zfs-program(8))."""
    return ("zfs", "program", "-j", pool, "-", *arguments)


def destroy_bookmark(full_name: str) -> Argv:
    """Destroys one bookmark; zfs-destroy(8) takes no more than one, and channel programs none."""
    return ("zfs", "destroy", full_name)


def version() -> Argv:
    """Asks for the release of the tools and of the kernel module."""
    return ("zfs", "version")


def _settings(properties: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(word for key, value in properties.items() for word in ("-o", f"{key}={value}"))
