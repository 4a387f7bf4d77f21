"""The command line of every zfs and zpool verb that hoster uses: one pure function each.

Always parsable output (``-Hp``), always full names after the options. Nothing here knows of ssh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hoster.model.plan import Send
from hoster.model.storage import Bookmark, DatasetKind, Mode

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
    "origin",
    "readonly",
    "receive_resume_token",
    "hoster:id",
    "hoster:role",
    "hoster:epoch",
    "hoster:parent",
    "hoster:production",
    "hoster:mode",
    "hoster:key",
    "hoster:swap",
    "hoster:demoted",
    "hoster:sites",
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
    """The stream of ``step``: raw (``-w``), or plain with large blocks kept and data as compressed on disk
    (``-L -c``). A partly received one goes on in the mode that its token says (zfs-send(8))."""
    if step.resume is not None:
        return ("zfs", "send", "-t", step.resume.text)
    words = ["zfs", "send", *(("-w",) if step.mode is Mode.RAW else ("-L", "-c"))]
    match step.base:
        case None:
            pass
        case Bookmark() as bookmark:
            words += ["-i", bookmark.full_name]
        case base:
            words += ["-I" if step.intermediate else "-i", base.full_name]
    return (*words, step.through.full_name)


def receive(step: Send, marks: Mapping[str, str]) -> Argv:
    """Receives ``step``: never mounted (``-u``), never forced, never where its properties say; what has
    arrived of a stream that breaks off is kept (``-s``).

    A filesystem is not mounted later either, and a volume shows no device: two options of which each is
    wrong for the other kind (seen on OpenZFS 2.3.9). ``marks`` are for a dataset that is new.
    """
    properties = {"readonly": "on"}
    words: tuple[str, ...] = ()
    if step.kind is DatasetKind.VOLUME:
        properties["volmode"] = "none"
    else:
        properties["canmount"] = "noauto"
        words = ("-x", "mountpoint")
    if step.base is None and step.resume is None:
        properties |= marks
    if step.resume is not None:
        properties, words = {}, ()
    return ("zfs", "receive", "-s", "-u", *_settings(properties), *words, step.target)


def give_up_partial(target: str) -> Argv:
    """Gives up what has arrived of a stream that broke off; a dataset that holds nothing else goes too."""
    return ("zfs", "receive", "-A", target)


def hold(tag: str, snapshots: Iterable[str]) -> Argv:
    """Holds all of them, or none where one has that tag already or is gone."""
    return ("zfs", "hold", tag, *snapshots)


def release(tag: str, snapshots: Iterable[str]) -> Argv:
    """Releases that tag of all of them."""
    return ("zfs", "release", tag, *snapshots)


def holds(snapshots: Iterable[str]) -> Argv:
    """Lists the tags of holds: name, tag and time, parted by tabs."""
    return ("zfs", "holds", "-H", *snapshots)


def look_beside(parents: Iterable[str]) -> Argv:
    """The same of ``parents`` and the datasets directly in them."""
    return (
        *("zfs", "get", "-Hp", "-d", "1", "-t", "filesystem,volume"),
        *("-o", "name,property,value,source", ",".join(LISTED_PROPERTIES)),
        *parents,
    )


def local_properties(datasets: Iterable[str]) -> Argv:
    """All properties that are set on these datasets themselves."""
    return ("zfs", "get", "-Hp", "-s", "local", "-o", "name,property,value", "all", *datasets)


def clone(snapshot: str, name: str, properties: Mapping[str, str]) -> Argv:
    """Makes ``name`` a writable copy of a snapshot, with these properties."""
    return ("zfs", "clone", *_settings(properties), snapshot, name)


def promote(name: str) -> Argv:
    """Gives a clone the versions that it shares with its origin (zfs-promote(8))."""
    return ("zfs", "promote", name)


def rename(name: str, becomes: str) -> Argv:
    """Renames a dataset with all below it."""
    return ("zfs", "rename", name, becomes)


def mount(name: str) -> Argv:
    """Mounts a filesystem where its properties say."""
    return ("zfs", "mount", name)


def unmount(name: str) -> Argv:
    """Unmounts a filesystem, never by force: that fails while anything is in use there."""
    return ("zfs", "unmount", name)


def rollback(snapshot: str) -> Argv:
    """Gives up what was written since a snapshot; refused while anything newer exists (zfs-rollback(8))."""
    return ("zfs", "rollback", snapshot)


def bookmark(version: str, name: str) -> Argv:
    """Makes a bookmark of a snapshot, or of a bookmark of the same dataset."""
    return ("zfs", "bookmark", version, name)


def inherit(key: str, names: Iterable[str]) -> Argv:
    """Takes a local value from all of ``names``."""
    return ("zfs", "inherit", key, *names)


def set_default(key: str, name: str) -> Argv:
    """Takes a local value of a property that is not inherited, such as ``canmount``: without ``-S``
    zfs-inherit(8) refuses these."""
    return ("zfs", "inherit", "-S", key, name)


def destroy_dataset(name: str) -> Argv:
    """Destroys one dataset that has neither snapshots nor datasets below it."""
    return ("zfs", "destroy", name)


def delegations(name: str) -> Argv:
    """Shows who may do what with a dataset (zfs-allow(8))."""
    return ("zfs", "allow", name)


def allow(words: Sequence[str], name: str) -> Argv:
    """Lets somebody do something with a dataset."""
    return ("zfs", "allow", *words, name)


def set_properties(properties: Mapping[str, str], names: Sequence[str]) -> Argv:
    """Sets the same values on all of ``names``."""
    return ("zfs", "set", *(f"{key}={value}" for key, value in properties.items()), *names)


def create_unmounted(dataset: str) -> Argv:
    """Makes a dataset for replicas to lie in, with the missing ones above it; nothing gets mounted."""
    return ("zfs", "create", "-p", "-o", "canmount=off", dataset)


def create(name: str) -> Argv:
    """Makes a filesystem below one that exists, and mounts it where that one's properties say."""
    return ("zfs", "create", name)


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
