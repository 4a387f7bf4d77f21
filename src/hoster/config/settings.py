"""The settings of this node: found, read and checked once, typed from then on.

They come from hoster.toml or, on a node that has only that, from Hoster's host_config.json. In hoster.toml
an unknown key is an error, so that a slip of the pen cannot quietly mean a default; in host_config.json it
belongs to Hoster and is ignored.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

from hoster.config import settings_file
from hoster.config.files import FileMissing, create_file, read_small_file
from hoster.config.json_text import Place
from hoster.errors import ConfigurationError
from hoster.model.names import SnapshotType, dataset_name
from hoster.model.promises import DEFAULT_RPO_MINUTES, Promises
from hoster.model.schedules import Schedule

SETTINGS_NAME = "hoster.toml"
HOST_CONFIG_NAME = "host_config.json"
ENVIRONMENT_VARIABLE = "HOSTER_CONFIG"

DEFAULT_PLACES = (
    Path("/opt/hoster-core/config_files"),
    Path("/opt/hoster/config_files"),
    Path("/usr/local/etc/hoster"),
    Path("/etc/hoster"),
    Path("/root/hoster/config_files"),
)
"""The folders in which Hoster looks for its configuration, in its order."""

DEFAULT_STATE_DIR = Path("/var/lib/hoster")
DEFAULT_RUN_DIR = Path("/var/run/hoster")
DEFAULT_MARKER_DIR = Path("/var/run/replication")
DEFAULT_VNC_ADDRESS = "127.0.0.1"

_INIT_HINT = "hoster init --dataset POOL/DATASET"
_SETTINGS_MODE = 0o644


def _default_target_keep() -> Mapping[SnapshotType, int]:
    return {
        SnapshotType.FREQUENT: 96,
        SnapshotType.HOURLY: 72,
        SnapshotType.DAILY: 60,
        SnapshotType.WEEKLY: 26,
        SnapshotType.MONTHLY: 36,
        SnapshotType.YEARLY: 10,
        SnapshotType.REPLICATION: 5,
    }


class ReplicationSettings(Struct, frozen=True):
    """How VMs are replicated where the command line does not say.

    ``keep`` is the number of ``replication`` snapshots that stay on the source. ``target_keep`` is the
    number of snapshots of each type that stay on a target; a type that is not in it is never pruned there.
    """

    keep: int = 2
    target_keep: Mapping[SnapshotType, int] = field(default_factory=_default_target_keep)
    speed_limit_mib_s: int | None = None
    connect_timeout_s: int = 10


class BranchSettings(Struct, frozen=True):
    """What becomes of branches: ``expire_after_days`` is their age in days at which they are destroyed, or
    None for never."""

    expire_after_days: int | None = None


class Settings(Struct, frozen=True):
    """The settings of this node and the file that they came from.

    ``datasets`` are the active datasets, at least one, in order of precedence; the first is where new VMs
    go. ``hostname`` takes the place of the system's own name for this node. ``ssh_keys`` are public keys
    for VMs, each a line as in authorized_keys. ``hypervisor`` takes the place of the one that
    goes with the system. ``vnc_address`` is where the screens of VMs are to be reached.
    ``key_location`` is the path of the file with the key of an encrypted VM, ``{vm}`` standing for its name.
    """

    read_from: Path
    datasets: tuple[str, ...]
    hostname: str | None = None
    tags: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    dns_servers: tuple[str, ...] = ()
    dns_search_domain: str = ""
    state_dir: Path = DEFAULT_STATE_DIR
    run_dir: Path = DEFAULT_RUN_DIR
    hypervisor: str | None = None
    vnc_address: str = DEFAULT_VNC_ADDRESS
    key_location: str | None = None
    replication: ReplicationSettings = field(default_factory=ReplicationSettings)
    branches: BranchSettings = BranchSettings()
    marker_dir: Path = DEFAULT_MARKER_DIR
    textfile_dir: Path | None = None
    """Where metrics are written for node_exporter after each run, or None for nowhere."""
    promises: Promises = Promises()
    schedules: tuple[Schedule, ...] = ()
    """In the order of the file, which is that of precedence."""


def find_settings_file(environ: Mapping[str, str], search: Sequence[Path] = DEFAULT_PLACES) -> Path:
    """The file to read: HOSTER_CONFIG, or else the first hoster.toml, or else the first host_config.json.

    A host_config.json counts only where none of the folders has a hoster.toml. ConfigurationError if there
    is nothing.
    """
    if named := environ.get(ENVIRONMENT_VARIABLE):
        if not os.path.lexists(named):
            raise FileMissing(f"{named}: {ENVIRONMENT_VARIABLE} names it, and there is no such file")
        return Path(named)
    for name in (SETTINGS_NAME, HOST_CONFIG_NAME):
        for folder in search:
            if os.path.lexists(folder / name):
                return folder / name
    places = ", ".join(map(str, search))
    raise FileMissing(f"there is no {SETTINGS_NAME} (looked in {places})", hint=_INIT_HINT)


def read_settings(path: Path) -> Settings:
    """The settings that ``path`` holds; a name that ends in .json means Hoster's format, any other TOML.

    ConfigurationError names the file with the line and column of malformed text, or with the key, what was
    found and what was expected.
    """
    data = read_small_file(path, follow_symlink=True).data
    if path.suffix == ".json":
        return _from_host_config(settings_file.host_config(data, str(path)), path)
    return _from_document(settings_file.settings_document(data, str(path)), path)


def write_first_settings(path: Path, text: str) -> None:
    """Makes the settings file, and its folder if need be. ConfigurationError if there is one already."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path.parent}: cannot be made: {error.strerror}") from error
    create_file(path, text.encode(), mode=_SETTINGS_MODE)


def first_settings_text(datasets: Sequence[str]) -> str:
    """A hoster.toml for these datasets that shows every other key, commented out, with its default.

    ValueError for something that cannot be a dataset.
    """
    named = ", ".join(f'"{dataset_name(name)}"' for name in datasets)
    replication = ReplicationSettings()
    keep = "\n".join(f"# {stype} = {count}" for stype, count in replication.target_keep.items())
    return _FIRST_SETTINGS.format(
        datasets=named,
        state_dir=DEFAULT_STATE_DIR,
        run_dir=DEFAULT_RUN_DIR,
        marker_dir=DEFAULT_MARKER_DIR,
        rpo=DEFAULT_RPO_MINUTES,
        vnc_address=DEFAULT_VNC_ADDRESS,
        keep=replication.keep,
        connect_timeout_s=replication.connect_timeout_s,
        target_keep=keep,
    )


_FIRST_SETTINGS = """\
# Settings of hoster on this node. Lines that begin with "# " and a key show its default, or an example
# where it has none; take the sign away to change it. A key that hoster does not know is an error.

# The datasets that hold VMs, one dataset below for each VM. The first is where new VMs go.
datasets = [{datasets}]

# The name of this node, where it is to differ from the system's host name. VMs name it as their parent.
# hostname = "node1"

# Words for this node.
# tags = []

# Public keys that new VMs accept, each a line as in authorized_keys.
# ssh-keys = []

# What new VMs are told to ask for names.
# dns-servers = []
# dns-search-domain = ""

# What hoster remembers between runs, and its locks.
# state-dir = "{state_dir}"
# run-dir = "{run_dir}"

# Where ERROR_<job> lies from a failure of a replication job to its next success.
# marker-dir = "{marker_dir}"

# Where metrics are written after each run: the folder of node_exporter's textfile collector.
# textfile-dir = "/var/lib/prometheus/node-exporter"

# What runs VMs, where it is to be another than the system's own (qemu on Linux).
# hypervisor = "qemu"

# The address on which the screens of VMs are shown. Their passwords are weak: other addresses than the node's
# own are for networks that nobody else is in.
# vnc-address = "{vnc_address}"

# The file with the key of an encrypted VM, {{vm}} standing for its name. It is read when a replica takes
# over; without it, the key is asked for.
# key-location = "/root/keys/{{vm}}"

[promises]
# By how many minutes a replica may lag, at most: what status, its --check and the alerts go by.
# rpo = {rpo}
# vms = {{ web1 = 15 }}
# tags = {{ database = 60 }}

[branches]
# After how many days a branch is destroyed: what was set aside when a VM went back. Without it, never.
# expire-after-days = 90

[replication]
# How many snapshots of type replication stay on this node for each VM. Those that a target still needs
# stay in any case.
# keep = {keep}

# The most that is sent in a second, in MiB. Without it, as much as goes through.
# speed-limit = 90

# How many seconds to wait for the other node to answer.
# connect-timeout = {connect_timeout_s}

# How many snapshots of each type stay on a target. A type that is not here, such as custom, is never pruned
# there.
[replication.target-keep]
{target_keep}
# custom = 1000

# What runs by itself once `hoster schedule install` was called; any number of schedules, each with its VMs,
# how many snapshots of each type are kept, and targets. `hoster schedule show` says when what will run.
# [schedules.production]
# production = true
# vms = ["web1"]
# tags = ["database"]
#
# [schedules.production.snapshots]
# hourly = 24
# daily = 14
#
# [schedules.production.targets.backup]
# endpoint = "10.0.0.2"
# every = 60
#
# [schedules.production.targets.usb]
# endpoint = "local"
# dataset = "usb/vm"
# every = 1440
# keep = {{ daily = 60 }}
# windows = ["22:00-06:00", "Sat 08:00-Sun 20:00"]
# when-reachable = true
# rpo = 4320
"""


def _from_document(document: settings_file.Document, path: Path) -> Settings:
    place = Place(str(path))
    replication = document.replication
    given = {
        stype: count
        for stype in SnapshotType
        if (count := getattr(replication.target_keep, stype)) is not None
    }
    defaults = ReplicationSettings()
    return Settings(
        read_from=path,
        datasets=_datasets(document.datasets, place.key("datasets")),
        hostname=document.hostname,
        tags=document.tags,
        ssh_keys=document.ssh_keys,
        dns_servers=document.dns_servers,
        dns_search_domain=document.dns_search_domain,
        state_dir=_folder(document.state_dir, DEFAULT_STATE_DIR, place.key("state-dir")),
        run_dir=_folder(document.run_dir, DEFAULT_RUN_DIR, place.key("run-dir")),
        hypervisor=document.hypervisor,
        key_location=_key_location(document.key_location, place.key("key-location")),
        vnc_address=_address(document.vnc_address or DEFAULT_VNC_ADDRESS, place.key("vnc-address")),
        replication=ReplicationSettings(
            keep=defaults.keep if replication.keep is None else replication.keep,
            target_keep={**defaults.target_keep, **given},
            speed_limit_mib_s=replication.speed_limit,
            connect_timeout_s=replication.connect_timeout or defaults.connect_timeout_s,
        ),
        branches=BranchSettings(document.branches.expire_after_days),
        marker_dir=_folder(document.marker_dir, DEFAULT_MARKER_DIR, place.key("marker-dir")),
        textfile_dir=_textfile_dir(document.textfile_dir, place.key("textfile-dir")),
        promises=Promises(
            document.promises.rpo or DEFAULT_RPO_MINUTES, document.promises.vms, document.promises.tags
        ),
        schedules=_schedules(document, place.key("schedules")),
    )


def _from_host_config(document: settings_file.HostConfig, path: Path) -> Settings:
    return Settings(
        read_from=path,
        datasets=_datasets(document.active_datasets or (), Place(str(path)).key("active_datasets")),
        tags=document.tags or (),
        ssh_keys=tuple(key.key_value for key in document.host_ssh_keys or () if key.key_value),
        dns_servers=document.dns_servers or (),
        dns_search_domain=document.dns_search_domain or "",
    )


def _schedules(document: settings_file.Document, place: Place) -> tuple[Schedule, ...]:
    if not document.schedules:
        return ()
    from hoster.config.schedules_file import read_schedules

    return read_schedules(document.schedules, place)


def _datasets(names: Sequence[str], place: Place) -> tuple[str, ...]:
    if not names:
        raise place.error('found none, expected at least one dataset, such as "tank/vms"')
    for index, name in enumerate(names):
        try:
            dataset_name(name)
        except ValueError as error:
            raise place.item(index).error(str(error)) from None
        if name in names[:index]:
            raise place.item(index).error(f'found "{name}" a second time, expected each dataset once')
    return tuple(names)


def _folder(text: str | None, default: Path, place: Place) -> Path:
    if text is None:
        return default
    if not text.startswith("/"):
        raise place.unexpected(text, "a path that begins with /")
    return Path(text)


def _textfile_dir(text: str | None, place: Place) -> Path | None:
    return None if text is None else _folder(text, Path("/"), place)


def _key_location(text: str | None, place: Place) -> str | None:
    if text is not None and not text.startswith("/"):
        raise place.unexpected(text, "a path that begins with /, such as /root/keys/{vm}")
    return text


def _address(text: str, place: Place) -> str:
    from ipaddress import ip_address

    try:
        return str(ip_address(text))
    except ValueError:
        raise place.unexpected(text, "an IP address, such as 127.0.0.1") from None
