"""Pools: their space, their health and what became of their last scrub, of one node, near or far."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from hoster.errors import DatasetMissing, ZfsError
from hoster.host.process import Runner
from hoster.host.reach import Host
from hoster.zfs.failures import zfs_error

_COLUMNS = ("name", "size", "allocated", "free", "fragmentation", "capacity", "dedupratio", "health")
_TIMEOUT_S = 120.0
_SECTION = re.compile(r"^ *(pool|scan): (.*)$")
_CLEAN = re.compile(r"scrub repaired .* with 0 errors on (.+)")
_CTIME = "%a %b %d %H:%M:%S %Y"
_NEVER = "never scrubbed"


class Pool(Struct, frozen=True):
    """A pool: sizes in bytes, ratios from 0 to 1 (``dedup`` from 1), ``health`` such as ONLINE.

    ``fragmentation`` is None where the pool does not tell.
    """

    name: str
    size: int
    allocated: int
    free: int
    fragmentation: float | None
    capacity: float
    dedup: float
    health: str

    @property
    def healthy(self) -> bool:
        return self.health == "ONLINE"


def pools(host: Host, runner: Runner, names: Iterable[str]) -> tuple[Pool, ...]:
    """These pools, by name. ZfsError where one of them does not exist."""
    wanted = sorted(set(names))
    if not wanted:
        return ()
    command = ("zpool", "list", "-Hp", "-o", ",".join(_COLUMNS), *wanted)
    completed = runner.run(host.argv(command), timeout_s=_TIMEOUT_S)
    if completed.returncode != 0:
        raise zfs_error(host.name, "listing pools", completed)
    return parse_pools(completed.stdout)


def imported(host: Host, runner: Runner, names: Iterable[str]) -> tuple[Pool, ...]:
    """Those of these pools that are there; asked one by one only where one of them is not."""
    wanted = sorted(set(names))
    try:
        return pools(host, runner, wanted)
    except DatasetMissing:
        several = wanted if len(wanted) > 1 else ()
    return tuple(pool for name in several for pool in imported(host, runner, [name]))


def scrubs(host: Host, runner: Runner, names: Iterable[str]) -> dict[str, str]:
    """What ``zpool status`` says of the last scrub or resilver of each of these pools, in its own words."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    completed = runner.run(host.argv(("zpool", "status", *wanted)), timeout_s=_TIMEOUT_S)
    if completed.returncode != 0:
        raise zfs_error(host.name, "asking for the state of pools", completed)
    found: dict[str, str] = {}
    pool = ""
    for line in completed.stdout.splitlines():
        if section := _SECTION.match(line):
            if section[1] == "pool":
                pool = section[2].strip()
                found[pool] = _NEVER
            else:
                found[pool] = section[2].strip()
    return found


def verified_at(scan: str) -> float | None:
    """When the last scrub ended, in Unix seconds, by its words on this very node: everything in the pool was
    read then, and nothing was wrong. 0 where it found errors, and where there was none; None while one is
    under way, and after a resilver, which takes its place in what the pool tells."""
    if scan == _NEVER or (scan.startswith("scrub repaired") and not _CLEAN.fullmatch(scan)):
        return 0.0
    ended = _CLEAN.fullmatch(scan)
    if ended is None:
        return None
    try:
        return datetime.strptime(ended[1], _CTIME).timestamp()
    except ValueError:
        return None


def parse_pools(printed: str) -> tuple[Pool, ...]:
    """What ``zpool list -Hp`` prints of :data:`_COLUMNS`; ZfsError for anything else."""
    found = []
    for line in printed.splitlines():
        fields = line.split("\t")
        try:
            name, size, allocated, free, fragmentation, capacity, dedup, health = fields
            found.append(
                Pool(
                    name,
                    int(size),
                    int(allocated),
                    int(free),
                    None if fragmentation == "-" else int(fragmentation.rstrip("%")) / 100,
                    int(capacity.rstrip("%")) / 100,
                    float(dedup.rstrip("x")),
                    health,
                )
            )
        except ValueError:
            raise ZfsError(f"zpool list printed a line that is not understood: {line!r}") from None
    return tuple(found)
