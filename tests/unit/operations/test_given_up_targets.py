"""A VM that is another node's now is late nowhere: what is remembered of its targets here goes with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.errors import ExitCode
from hoster.operations.measuring import measure_after
from hoster.operations.recording import recorded
from hoster.operations.replicate import replicate
from hoster.records.journal import Journal
from hoster.records.runs import Run, RunKind
from tests.properties.world import Quiet
from tests.unit.operations.nodes import Nodes

DUE = "hoster_replication_due_timestamp_seconds"


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    """Its VM was replicated from a to b, and that is in the journal."""
    nodes = Nodes(tmp_path)
    own = nodes.contexts["a"]
    nodes.contexts["a"] = replace(own, settings=replace(own.settings, marker_dir=tmp_path / "markers"))
    with recorded(nodes.contexts["a"], Run(RunKind.REPLICATION, "to_b", "b"), pytest.fail) as recorder:
        recorder.report(replicate(nodes.contexts["a"], nodes.request("b"), Quiet()), ExitCode.DONE)
    assert due(nodes)
    return nodes


def due(nodes: Nodes) -> list[str]:
    """The VMs of which node a says when their replicas are late."""
    samples = measure_after(nodes.contexts["a"], None).of_runs
    return [sample.labels["vm"] for sample in samples if sample.metric == DUE]


def test_after_a_migration_the_old_node_has_no_replica_that_could_be_late(nodes: Nodes) -> None:
    nodes.migrate("a", "b")
    assert nodes.mark("a", "role") == "replica"
    assert due(nodes) == []
    journal = Journal(nodes.contexts["a"].settings.state_dir)
    assert [run.job for run in journal.runs()] == ["to_b"], "what ran is kept"


def test_a_journal_that_cannot_be_written_keeps_no_copy_from_giving_way(nodes: Nodes) -> None:
    nodes.replicate("a", "b")
    nodes.take_over("b", accept_loss=True)
    path = Journal(nodes.contexts["a"].settings.state_dir).path
    path.write_text("no database")
    report = nodes.demote("a")
    assert nodes.mark("a", "role") == "replica"
    assert any("the journal of runs cannot be written" in note for note in report.notes)


def test_where_there_is_no_journal_nothing_is_forgotten(tmp_path: Path) -> None:
    assert Journal(tmp_path).forget_replicas("web") == ""
    assert list(tmp_path.iterdir()) == []
