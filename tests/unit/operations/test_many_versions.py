"""A great many versions of one VM, sent on a model of ZFS: they travel in several streams, and all arrive."""

from __future__ import annotations

from pathlib import Path

from hoster.model.plan import Outcome
from hoster.planning.transfers import STREAM_VERSIONS
from tests.unit.operations.nodes import DISK, WEB, Nodes
from tests.zfsmodel.cluster import Accident, Fault
from tests.zfsmodel.streams import Cut


def test_what_one_stream_does_not_bring_the_next_one_does(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    source, target = (nodes.cluster.nodes[name] for name in "ab")
    for number in range(STREAM_VERSIONS + 2):
        source.snapshot([f"{WEB}@s{number}", f"{DISK}@s{number}"], {})
    report = nodes.replicate("a", "b")
    assert report.outcome is Outcome.DONE
    for dataset in (WEB, DISK):
        here, there = (node.dataset(dataset).snapshots for node in (source, target))
        assert [version.guid for version in there] == [version.guid for version in here]
        assert all(not version.holds for version in here)
    receives = [words for words in nodes.cluster.commands if "receive" in words]
    assert len(receives) == 2 * 3  # of each dataset the first version, a full stream of increments, the rest


def with_two_streams_to_send(folder: Path) -> Nodes:
    folder.mkdir()
    nodes = Nodes(folder)
    nodes.replicate("a", "b")
    for number in range(2 * STREAM_VERSIONS):
        nodes.cluster.nodes["a"].snapshot([f"{WEB}@s{number}"], {})
    nodes.cluster.commands.clear()
    nodes.cluster.begin()
    return nodes


def test_after_a_cut_in_the_second_of_them_the_next_run_sends_the_rest_only(tmp_path: Path) -> None:
    rehearsal = with_two_streams_to_send(tmp_path / "rehearsal")
    assert rehearsal.replicate("a", "b").outcome is Outcome.DONE
    commands = rehearsal.cluster.commands
    _, second = (number for number, words in enumerate(commands) if "send" in words)
    nodes = with_two_streams_to_send(tmp_path / "cut")
    nodes.cluster.begin(
        Fault(Accident.STREAM_CUT, at=second - 1, cut=Cut(10, 0.5))
    )  # a stream is one command
    assert nodes.replicate("a", "b").outcome is Outcome.FAILED
    there = nodes.cluster.nodes["b"].dataset(WEB).snapshots
    assert len(there) == 1 + STREAM_VERSIONS + 10
    nodes.cluster.begin()
    rest = nodes.replicate("a", "b")
    assert len([name for name in rest.sent if name.startswith(f"{WEB}@")]) == STREAM_VERSIONS - 10
    assert there[-1].guid == nodes.cluster.nodes["a"].dataset(WEB).snapshots[-1].guid
