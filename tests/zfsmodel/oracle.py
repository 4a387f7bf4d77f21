"""Remembers every version and every state of live data ever seen on a node, and tells what was lost.

It knows nothing of hoster. A loss is excused only by name: whoever runs a plan says beforehand which
snapshots it destroys.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.state import Snapshot


@dataclass(frozen=True, slots=True)
class Loss:
    """What is not there any more, or not what it was."""

    node: str
    name: str
    what: str


@dataclass(slots=True)
class Oracle:
    """Watches nodes. :meth:`look` after each step that may change them, then ask :meth:`losses`."""

    nodes: Iterable[ModelNode]
    _content: dict[int, str] = field(default_factory=dict)
    _versions: dict[tuple[str, int], str] = field(default_factory=dict)
    _live: dict[tuple[str, str], str] = field(default_factory=dict)
    _excused: set[tuple[str, str]] = field(default_factory=set)
    _losses: list[Loss] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = tuple(self.nodes)
        for node in self.nodes:
            node.watchers.append(self._watch)
        self.look()

    def excuse(self, node: str, *full_names: str) -> None:
        """These snapshots, or the live data of these datasets, are destroyed on that node by a plan that
        names them."""
        self._excused |= {(node, full_name) for full_name in full_names}

    def look(self) -> None:
        """Sees what is there by now; whatever is not there any more, unexcused, is a loss from now on."""
        for node in self.nodes:
            held = {
                snapshot.guid: (f"{dataset.name}@{snapshot.name}", snapshot.content.digest)
                for dataset in node.datasets.values()
                for snapshot in dataset.snapshots
            }
            self._miss_versions(node.name, held.keys())
            for guid, (full_name, digest) in held.items():
                if self._content.setdefault(guid, digest) != digest:
                    self._lose(node.name, full_name, "one GUID, two contents")
                self._versions[(node.name, guid)] = full_name
            self._miss_live(node)

    def losses(self) -> tuple[Loss, ...]:
        """All that was lost so far, each once, in the order in which it was noticed."""
        self.look()
        return tuple(dict.fromkeys(self._losses))

    def _miss_versions(self, node: str, held: Iterable[int]) -> None:
        there = set(held)
        for (where, guid), full_name in list(self._versions.items()):
            if where == node and guid not in there:
                del self._versions[(where, guid)]
                self._lose(node, full_name, "the snapshot is gone")

    def _miss_live(self, node: ModelNode) -> None:
        kept: set[str] = set()
        for dataset in node.datasets.values():
            for content in (dataset.content, *(snapshot.content for snapshot in dataset.snapshots)):
                for digest in content.lineage():
                    if digest in kept:
                        break
                    kept.add(digest)
        for (where, digest), name in list(self._live.items()):
            if where == node.name and digest not in kept:
                del self._live[(where, digest)]
                self._lose(node.name, name, "data written after the newest snapshot are gone")
        for dataset in node.datasets.values():
            if dataset.written and dataset.content.before is not None:
                self._live[(node.name, dataset.content.digest)] = dataset.name

    def _watch(self, node: ModelNode, full_name: str, snapshot: Snapshot | None, verb: str) -> None:
        if (node.name, full_name) in self._excused:
            if snapshot is not None:
                self._versions.pop((node.name, snapshot.guid), None)
            else:
                self._live.pop((node.name, node.datasets[full_name].content.digest), None)
            return
        if snapshot is not None and (node.name, snapshot.guid) in self._versions:
            del self._versions[(node.name, snapshot.guid)]
            self._lose(node.name, full_name, f"the snapshot was destroyed by {verb}")

    def _lose(self, node: str, name: str, what: str) -> None:
        if (node, name) not in self._excused:
            self._losses.append(Loss(node, name, what))
