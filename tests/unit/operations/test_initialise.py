"""The configuration that is written for a node can be read again."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.config.settings import read_settings
from hoster.host.reach import LocalHost
from hoster.operations.initialise import initialise
from hoster.testing import Says, ScriptedRunner, dataset, listing
from hoster.zfs.store import ZfsStore


def test_a_dataset_that_is_named_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("hoster.operations.initialise._existing", lambda: None)
    runner = ScriptedRunner()
    runner.answer(("zfs", "version"), Says("zfs-2.3.9-1\n"))
    mounted = replace(dataset("tank/vm"), mounted=True, mountpoint="/tank/vm")
    runner.answer(("zfs", "get"), Says(listing(mounted)))
    done = initialise(ZfsStore(LocalHost(), runner), ["tank/vm", "tank/vm"], tmp_path, "node1")
    assert done.passed
    assert done.written is not None
    assert read_settings(done.written).datasets == ("tank/vm",)
