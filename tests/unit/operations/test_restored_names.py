"""What is brought back gets no name that something on this node has already, in whatever active dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.errors import Refused
from hoster.operations.inventory import look_around
from tests.unit.operations.nodes import Nodes
from tests.zfsmodel.lineage import rename


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    """Node b has a replica of the VM, and node c another dataset for VMs, second to the first."""
    nodes = Nodes(tmp_path)
    nodes.replicate("a", "b")
    nodes.cut.add("a")
    nodes.cluster.nodes["c"].create("tank/fast", {"mountpoint": str(tmp_path / "fast")})
    context = nodes.contexts["c"]
    settings = replace(context.settings, datasets=("tank/vm", "tank/fast"))
    nodes.contexts["c"] = replace(context, settings=settings)
    return nodes


@pytest.mark.parametrize("called", [None, "web2"])
def test_a_vm_is_not_restored_beside_one_of_its_name(nodes: Nodes, called: str | None) -> None:
    taken = f"tank/fast/{called or 'web'}"
    marks = {"hoster:id": "77", "hoster:role": "primary", "hoster:epoch": "1@c", "hoster:parent": "c"}
    nodes.cluster.nodes["c"].create(taken, marks)
    with pytest.raises(Refused, match=f"{taken} exists already"):
        nodes.restore("c", "b", called)
    assert look_around(nodes.contexts["c"]).named(called or "web").dataset.name == taken


def test_a_vm_is_not_restored_beside_itself_under_its_new_name(nodes: Nodes, tmp_path: Path) -> None:
    """Its replicas keep the name that it had."""
    nodes.cut.clear()
    rename(nodes.cluster.nodes["a"], "tank/vm/web", "tank/vm/web2")
    (tmp_path / "a/web").rename(tmp_path / "a/web2")
    with pytest.raises(Refused, match="tank/vm/web2 is that VM, by its hoster:id") as caught:
        nodes.restore("a", "b")
    assert caught.value.hint == "hoster vm restore web --from b --as ANOTHER"
    assert look_around(nodes.contexts["a"]).named("web2").is_primary
    assert "tank/vm/web" not in nodes.cluster.nodes["a"].datasets
