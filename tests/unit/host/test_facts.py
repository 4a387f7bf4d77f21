"""What this machine says of itself, here and where it says nothing."""

from __future__ import annotations

import os
from pathlib import Path

from hoster.host.facts import machine_facts


def test_this_machine_says_what_it_is() -> None:
    facts = machine_facts()
    assert os.uname().release in facts.system
    assert facts.cpus == os.cpu_count()
    assert facts.uptime_s is not None
    assert facts.uptime_s > 0
    assert facts.memory_bytes is not None
    assert facts.memory_bytes > 2**20


def test_the_cache_of_zfs_is_read_where_there_is_one(tmp_path: Path) -> None:
    assert machine_facts(tmp_path).cache_bytes is None
    stats = tmp_path / "spl/kstat/zfs"
    stats.mkdir(parents=True)
    (stats / "arcstats").write_text("13 1 0x01 147 39984\nname type data\nc_max 4 99\nsize 4 2048\n")
    assert machine_facts(tmp_path).cache_bytes == 2048
    (stats / "arcstats").write_text("")
    assert machine_facts(tmp_path).cache_bytes is None
