"""The configuration that is written for a node can be read again."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.config.settings import read_settings
from hoster.host.reach import LocalHost
from hoster.model.storage import Dataset
from hoster.operations.initialise import initialise
from hoster.testing import Says, ScriptedRunner, dataset, listing
from hoster.zfs.store import ZfsStore

MOUNTED = replace(dataset("tank/vm"), mounted=True, mountpoint="/tank/vm")


def test_a_dataset_that_is_named_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("hoster.operations.initialise._existing", lambda: None)
    runner = ScriptedRunner()
    runner.answer(("zfs", "version"), Says("zfs-2.3.9-1\n"))
    runner.answer(("zfs", "get"), Says(listing(dataset("tank"), MOUNTED)))
    done = initialise(ZfsStore(LocalHost(), runner), ["tank/vm", "tank/vm"], tmp_path, "node1")
    assert done.passed
    assert done.written is not None
    assert read_settings(done.written).datasets == ("tank/vm",)


@pytest.mark.parametrize(
    ("there", "found", "remedy"),
    [
        ([], "there is no pool tank", "zpool import tank"),
        ([dataset("tank")], "it does not exist", "zfs create -p tank/vm"),
    ],
)
def test_a_dataset_that_is_not_there_has_a_remedy_that_can_be_typed(
    there: list[Dataset], found: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("hoster.operations.initialise._existing", lambda: None)
    runner = ScriptedRunner()
    runner.answer(("zfs", "version"), Says("zfs-2.3.9-1\n"))
    runner.answer(("zfs", "get"), Says(listing(*there), "cannot open 'tank/vm': dataset does not exist\n", 1))
    done = initialise(ZfsStore(LocalHost(), runner), ["tank/vm"], tmp_path, "node1")
    (check,) = [check for check in done.checks if not check.passed]
    assert (check.found, check.remedy) == (found, remedy)
    assert done.written is None
