"""What a tool before hoster has left is restored: under another name, or once it is known who may run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoster.errors import Refused
from hoster.model.plan import Outcome
from hoster.operations.inventory import look_around
from tests.unit.operations.nodes import DISK, WEB, Nodes


@pytest.fixture
def unmarked(tmp_path: Path) -> Nodes:
    """Node a has the VM without any of hoster's marks, as a tool before hoster left it there."""
    nodes = Nodes(tmp_path)
    node = nodes.cluster.nodes["a"]
    properties = node.dataset(WEB).properties
    for key in [key for key in properties if key.startswith("hoster:")]:
        del properties[key]
    node.snapshot([f"{WEB}@daily_2024-01-01_00-00-00", f"{DISK}@daily_2024-01-01_00-00-00"], {})
    return nodes


def test_of_a_copy_without_an_identity_nothing_is_pulled_before_it_has_one(unmarked: Nodes) -> None:
    with pytest.raises(
        Refused, match="has no hoster:id, by which it could be told who may run it"
    ) as refused:
        unmarked.restore("b", "a")
    assert WEB not in unmarked.cluster.nodes["b"].datasets
    typed, _, rest = refused.value.hint.removeprefix("ssh a zfs set ").partition("    ")
    assert rest.endswith("--as NEWNAME")
    *marks, name = typed.split()
    for key, _, value in (mark.partition("=") for mark in marks):
        unmarked.cluster.nodes["a"].dataset(name).properties[key] = value
    assert unmarked.restore("b", "a").outcome is Outcome.DONE
    assert unmarked.content("b") == unmarked.content("a")
    assert unmarked.primaries() == ["b"]


def test_a_copy_without_an_identity_becomes_a_vm_of_another_name(unmarked: Nodes) -> None:
    (unmarked.folder / "b" / "web2").mkdir()
    (unmarked.folder / "b" / "web2" / "vm_config.json").write_text("{}")
    assert unmarked.restore("b", "a", called="web2").outcome is Outcome.DONE
    made = look_around(unmarked.contexts["b"]).named("web2")
    assert made.is_primary
    assert made.dataset.marks.vm_id
    for name in (WEB, DISK):
        assert unmarked.content("b", name.replace("web", "web2")) == unmarked.content("a", name)
