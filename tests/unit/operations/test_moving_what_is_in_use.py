"""A VM whose disks another process writes is not moved: what that one writes would be in no copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hoster.errors import Refused
from tests.unit.operations.nodes import CONFIG, Nodes
from tests.unit.operations.test_power import DISK, open_elsewhere


@pytest.mark.parametrize("runs", [False, True])
def test_a_vm_whose_disk_another_process_writes_is_not_moved(tmp_path: Path, runs: bool) -> None:
    nodes = Nodes(tmp_path)
    image = tmp_path / "a/web/disk0.img"
    image.write_bytes(b"\0" * 512)
    (image.parent / "vm_config.json").write_text(json.dumps(CONFIG | {"disks": [DISK]}))
    if runs:
        nodes.start("a")
    machines = nodes.contexts["a"].driver
    with (
        open_elsewhere(image, "r+b") as pid,
        pytest.raises(Refused, match=rf"process {pid} \(.*\) has .*disk0\.img open for writing"),
    ):
        nodes.migrate("a", "b")
    assert (nodes.mark("a", "role"), nodes.mark("b", "role")) == ("primary", "replica")
    assert bool(machines.machines) is runs  # type: ignore[union-attr]
