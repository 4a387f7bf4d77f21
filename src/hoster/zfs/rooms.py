"""The room of datasets: what they use and may use, and whether what lies in them is encrypted."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from hoster.errors import ZfsError
from hoster.host.process import Runner
from hoster.host.reach import Host
from hoster.zfs.failures import zfs_error

_COLUMNS = ("name", "used", "available", "encryption", "keystatus", "mounted")
_TIMEOUT_S = 120.0


class Room(Struct, frozen=True):
    """A dataset with its room, in bytes; ``available`` counts quotas in. ``key_loaded`` is true of what is
    not encrypted."""

    name: str
    used: int
    available: int
    encrypted: bool
    key_loaded: bool
    mounted: bool


def rooms(host: Host, runner: Runner, names: Sequence[str]) -> tuple[Room, ...]:
    """The room of these filesystems, in their order. ZfsError where one of them does not exist."""
    command = ("zfs", "list", "-Hp", "-d", "0", "-o", ",".join(_COLUMNS), *names)
    completed = runner.run(host.argv(command), timeout_s=_TIMEOUT_S)
    if completed.returncode != 0:
        raise zfs_error(host.name, "listing datasets", completed)
    found = {room.name: room for room in map(_parse, completed.stdout.splitlines())}
    return tuple(found[name] for name in names)


def _parse(line: str) -> Room:
    try:
        name, used, available, encryption, key, mounted = line.split("\t")
        encrypted = encryption not in {"off", "-"}
        return Room(name, int(used), int(available), encrypted, key != "unavailable", mounted == "yes")
    except ValueError:
        raise ZfsError(f"zfs list printed a line that is not understood: {line!r}") from None
