"""A target that takes nothing does not fill the source, whatever version it has stopped at: on the model."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from hoster.config.settings import ReplicationSettings, Settings
from hoster.host.reach import LocalHost
from hoster.host.ssh import SshOptions
from hoster.model.names import Endpoint
from hoster.model.plan import Outcome
from hoster.operations.replicate import replicate
from hoster.operations.request import ReplicationRequest
from hoster.zfs.store import ZfsStore
from tests.campaign.world import MARKS, CampaignContext, MemoryLocks, MortalCluster, Nothing, Quiet
from tests.zfsmodel.cluster import HERE
from tests.zfsmodel.node import ModelNode

KEEP = 3
WEB = "tank/vm/web"
REQUEST = ReplicationRequest(SshOptions(Endpoint("b")), names=("web",))


class World:
    """The VM web here, and the node b whose quota says how much it takes."""

    def __init__(self) -> None:
        self.clock = datetime(2024, 3, 31, 1, 30)
        nodes = {
            HERE: ModelNode(HERE, ("tank",), {"tank": 5000}),
            "b": ModelNode("b", ("tank",), {"tank": 9}),
        }
        self.source, self.target = nodes[HERE], nodes["b"]
        self.cluster = MortalCluster(nodes, shuffle=Random(1))
        for node in nodes.values():
            node.create("tank/vm", {})
        self.source.create(WEB, {**MARKS, "hoster:id": "id-of-web", "hoster:production": "yes"})
        self.context = CampaignContext(
            Settings(Path("/nowhere"), ("tank/vm",), replication=ReplicationSettings(KEEP, {})),
            "node1",
            self.cluster,
            ZfsStore(LocalHost(), self.cluster),
            MemoryLocks(),
            now=lambda: self.clock,
            driver=Nothing(),
        )

    def run(self, *, write: int) -> Outcome:
        """Writes so much, and replicates a minute later."""
        self.source.write(WEB, write)
        self.clock += timedelta(minutes=1)
        self.cluster.begin()
        return replicate(self.context, REQUEST, Quiet()).vms[0].outcome

    def room(self, amount: int) -> None:
        self.target.datasets["tank/vm"].properties["quota"] = str(amount)


@pytest.mark.parametrize("by_hand", [0, 1, 2])
def test_a_stream_under_way_that_never_goes_on_keeps_no_more_and_no_more_snapshots(by_hand: int) -> None:
    """``by_hand`` snapshots lie between the base and the end of the transfer that was cut."""
    world = World()
    assert world.run(write=100) is Outcome.DONE
    for number in range(by_hand):
        world.source.write(WEB, 1000)
        world.source.snapshot([f"{WEB}@by-hand-{number}"], {})
    world.room(700)
    counts = []
    for _ in range(12):
        assert world.run(write=1000) is Outcome.FAILED
        counts.append(len(world.source.datasets[WEB].snapshots))
    assert world.target.datasets[WEB].partial is not None, "a part has arrived"
    assert counts[-1] == counts[-2] <= 1 + by_hand + 1 + KEEP + 1, counts
    world.room(0)
    assert world.run(write=1000) is Outcome.DONE
    assert {s.guid for s in world.source.datasets[WEB].snapshots} <= {
        s.guid for s in world.target.datasets[WEB].snapshots
    }
    world.run(write=1000)
    assert len(world.source.datasets[WEB].snapshots) == KEEP + by_hand
