"""A guest is ended because it did not power down, never because nobody could ask it to."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.errors import OperationFailed
from hoster.hypervisors.memory import InMemory
from hoster.hypervisors.protocol import GuestRef
from hoster.operations.going_back import Power
from tests.unit.operations.going_back import World
from tests.unit.operations.nodes import Nodes


class Unheard(InMemory):
    """Its machines run, and their monitors do not answer whoever wants them to power down."""

    def stop(self, ref: GuestRef, *, force: bool, limit_s: float) -> bool:
        if not force:
            raise OperationFailed(f"{ref.name}: its process is there, and does not answer")
        return super().stop(ref, force=force, limit_s=limit_s)


def test_a_vm_does_not_go_back_then_and_runs_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.machines = Unheard()
    world.context = replace(world.context, driver=world.machines)
    world.run()
    before = world.seen()
    with pytest.raises(OperationFailed, match="does not answer"):
        world.roll_back(power=Power(force_stop=True))
    assert "web" in world.machines.machines
    assert world.seen() == before


def test_nor_is_it_moved(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    machines = Unheard()
    nodes.contexts["a"] = replace(nodes.contexts["a"], driver=machines)
    nodes.start("a")
    with pytest.raises(OperationFailed, match="does not answer"):
        nodes.migrate("a", "b")
    assert "web" in machines.machines
    assert (nodes.mark("a", "role"), nodes.mark("b", "role")) == ("primary", "replica")
