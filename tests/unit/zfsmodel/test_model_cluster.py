"""The model nodes behind hoster's runner, its faults, the oracle and the traces."""

from __future__ import annotations

import pytest

from hoster.host.process import Piped, Runner
from tests.zfsmodel.cluster import Accident, Fault, Killed, ModelCluster
from tests.zfsmodel.command import command
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.oracle import Loss, Oracle
from tests.zfsmodel.streams import Cut
from tests.zfsmodel.traces import POOLS, perform, trace


@pytest.fixture
def cluster() -> ModelCluster:
    """A source with tank/a at s1 and s2, a target b with tank."""
    cluster = ModelCluster({"local": ModelNode("local"), "b": ModelNode("b")})
    for line in ("zfs create tank/a", "write tank/a 300000", "zfs snapshot tank/a@s1"):
        command(cluster.nodes["local"], line.split())
    for line in ("write tank/a 300000", "zfs snapshot tank/a@s2"):
        command(cluster.nodes["local"], line.split())
    return cluster


def send(cluster: ModelCluster, words: str, options: str = "") -> Piped:
    receive = f"on b zfs receive -u {options} tank/r".split()
    return cluster.pipe(["zfs", "send", *words.split()], receive, lambda size: None)


def test_it_is_a_runner_that_counts_and_remembers(cluster: ModelCluster) -> None:
    runner: Runner = cluster
    assert runner.run(["on", "b", "zpool", "sync", "tank"]).returncode == 0
    done = send(cluster, "tank/a@s1")
    assert (done.producer.returncode, done.consumer.returncode, cluster.count) == (0, 0, 2)
    assert len(cluster.commands) == 3


@pytest.mark.parametrize(
    ("accident", "made"), [(Accident.KILLED_BEFORE, False), (Accident.KILLED_AFTER, True)]
)
def test_hoster_is_killed_before_or_after_the_command(
    cluster: ModelCluster, accident: Accident, made: bool
) -> None:
    cluster.begin(Fault(accident, 0))
    with pytest.raises(Killed):
        cluster.run(["zfs", "create", "tank/new"])
    assert ("tank/new" in cluster.nodes["local"].datasets) == made


def test_a_lost_link_and_a_node_that_is_off_answer_nothing(cluster: ModelCluster) -> None:
    cluster.begin(Fault(Accident.LINK_LOST, 0))
    assert cluster.run(["on", "b", "zfs", "version"]).returncode == 255
    assert cluster.run(["zfs", "version"]).returncode == 0
    assert send(cluster, "tank/a@s1").consumer.returncode == 255
    cluster.begin(Fault(Accident.POWER_CUT, 0, node="b"))
    assert cluster.run(["on", "b", "zfs", "version"]).returncode == 255
    cluster.begin()
    assert cluster.run(["on", "b", "zfs", "version"]).returncode == 255
    cluster.start("b")
    assert cluster.run(["on", "b", "zfs", "version"]).returncode == 0


@pytest.mark.parametrize(
    ("accident", "sender", "receiver"),
    [(Accident.STREAM_CUT, -9, 255), (Accident.SENDER_KILLED, -9, 1), (Accident.LIE, 0, 0)],
)
def test_a_stream_ends_early_once(
    cluster: ModelCluster, accident: Accident, sender: int, receiver: int
) -> None:
    send(cluster, "tank/a@s1")
    cluster.begin(Fault(accident, 0, Cut(0, 0.5)))
    done = send(cluster, "-i @s1 tank/a@s2", "-s")
    assert (done.producer.returncode, done.consumer.returncode) == (sender, receiver)
    there = cluster.nodes["b"].datasets["tank/r"]
    assert (there.partial is None) == (accident is Accident.LIE)
    assert len(there.snapshots) == 1


def test_something_else_happens_first(cluster: ModelCluster) -> None:
    cluster.begin(Fault(Accident.MEANWHILE, 0))
    cluster.meanwhile = lambda: cluster.run(["zfs", "create", "tank/first"])
    assert cluster.run(["zfs", "create", "tank/first"]).returncode == 1
    assert cluster.count == 1


def test_the_oracle_tells_what_was_destroyed_and_excuses_what_was_named(cluster: ModelCluster) -> None:
    oracle = Oracle(cluster.nodes.values())
    oracle.excuse("local", "tank/a@s1")
    for name in ("tank/a@s1", "tank/a@s2"):
        cluster.run(["zfs", "destroy", name])
    assert oracle.losses() == (Loss("local", "tank/a@s2", "the snapshot was destroyed by destroy"),)


def test_the_oracle_sees_what_a_forced_receive_has_done(cluster: ModelCluster) -> None:
    send(cluster, "tank/a@s1")
    oracle = Oracle(cluster.nodes.values())
    for words in ("zfs mount tank/r", "write tank/r 10", "zfs snapshot tank/r@mine", "write tank/r 10"):
        assert cluster.run(["on", "b", *words.split()]).returncode == 0
    assert oracle.losses() == ()
    assert send(cluster, "-i @s1 tank/a@s2", "-F").consumer.returncode == 0
    assert {(loss.node, loss.name) for loss in oracle.losses()} == {("b", "tank/r@mine"), ("b", "tank/r")}


def test_the_oracle_sees_live_data_that_a_rollback_has_thrown_away(cluster: ModelCluster) -> None:
    cluster.run(["write", "tank/a", "10"])
    oracle = Oracle(cluster.nodes.values())
    cluster.run(["write", "tank/a", "10"])
    assert oracle.losses() == ()
    cluster.run(["zfs", "rollback", "tank/a@s2"])
    assert {loss.name for loss in oracle.losses()} == {"tank/a"}


def test_a_trace_depends_on_its_seed_alone_and_never_stops_the_kernel() -> None:
    assert trace(7, 60) == trace(7, 60)
    for seed in range(30):
        node = ModelNode("any", POOLS)
        outcomes = [perform(node, step)[0] for step in trace(seed, 40)]
        assert outcomes.count(0) / len(outcomes) > 0.3


def test_traces_of_encrypted_datasets_come_to_what_raw_streams_allow_and_what_they_refuse() -> None:
    assert trace(7, 60, sealed=True) == trace(7, 60, sealed=True)
    refused: set[str] = set()
    raw = 0
    for seed in range(40):
        node = ModelNode("x", POOLS)
        for step in trace(seed, 40, sealed=True):
            code, _, said = perform(node, step)
            refused.add(said)
            raw += code == 0 and bool(step.through) and "-w" in step.words
    assert raw > 10
    for words in ("inherited key must be loaded", "is busy", "Key already loaded", "unencrypted dataset"):
        assert any(words in said for said in refused), words
