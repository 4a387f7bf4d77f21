"""For the tests beside this: model nodes have no devices, and a run often comes to more than one VM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.operations.nodes import CONFIG, Nodes


@pytest.fixture(autouse=True)
def no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The volumes of model nodes have none, which nobody is to wait for."""
    monkeypatch.setattr("hoster.operations.primacy.await_devices", lambda volumes: ())


@pytest.fixture
def two_vms(tmp_path: Path) -> Nodes:
    """Node a has a second VM, zdb, which every run comes to after web."""
    nodes = Nodes(tmp_path)
    (tmp_path / "a" / "zdb").mkdir()
    (tmp_path / "a" / "zdb" / "vm_config.json").write_text(json.dumps(CONFIG))
    marks = {"hoster:id": "6c", "hoster:role": "primary", "hoster:epoch": "1@a", "hoster:parent": "a"}
    nodes.cluster.nodes["a"].create("tank/vm/zdb", marks)
    nodes.cluster.nodes["a"].write("tank/vm/zdb", 10)
    return nodes
