"""The lab: two or three nodes with real OpenZFS, up as long as a Lab is held."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.deploy import deploy, pack
from lab.emulator import emulator
from lab.errors import LabError
from lab.identity import MOST_NODES
from lab.image import build_image, cache_directory
from lab.machine import check_machine, check_memory, check_space, kvm_works
from lab.network import Links, add_taps, make_bridges
from lab.node import Node, Place
from lab.qemu import Hardware
from lab.release import DEFAULT, Release
from lab.run import Run, remove_dead_runs

__all__ = ["Lab"]

_MEMORY_MIB = 2048
_SPACE_GIB = 1


class Lab:
    """Nodes side by side, node1 onwards, started by `with`; nothing of them outlives it or its process.

    Each of `releases` is for one node, node1 first; the last is for all that follow. Raises LabError when
    the machine cannot run them. The first start of a release on a machine builds its image.
    """

    def __init__(
        self, nodes: int = 2, releases: Sequence[Release] = (DEFAULT,), memory_mib: int = _MEMORY_MIB
    ) -> None:
        if not 1 <= nodes <= MOST_NODES:
            raise LabError(f"a lab has 1 to {MOST_NODES} nodes, not {nodes}")
        if not 1 <= len(releases) <= MOST_NODES:
            raise LabError(f"a lab's nodes run 1 to {MOST_NODES} releases, not {len(releases)}")
        check_machine()
        check_memory(nodes * memory_mib)
        remove_dead_runs()
        check_space(Path(tempfile.gettempdir()), nodes * _SPACE_GIB)
        self._releases = tuple(releases)
        self._images = {release: build_image(release) for release in self._releases}
        probed = self._images[self._releases[0]]
        kvm = kvm_works(probed.kernel, probed.initrd, cache_directory())
        self._hardware = Hardware(memory_mib, kvm, emulator(cache_directory()))
        self._run = Run()
        self.link = Links(self._run, self._in_node)
        self.nodes: list[Node] = []
        self._wanted = nodes

    def __enter__(self) -> Self:
        try:
            make_bridges(self._run)
            self._add_nodes(self._wanted)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise LabError(f"no node is called {name}", hint=f"there are {[node.name for node in self.nodes]}")

    @property
    def node1(self) -> Node:
        return self["node1"]

    @property
    def node2(self) -> Node:
        return self["node2"]

    def release_of(self, number: int) -> Release:
        """What node `number` runs."""
        return self._releases[min(number, len(self._releases)) - 1]

    @property
    def directory(self) -> Path:
        """Where this run keeps its disks, consoles and sockets."""
        return self._run.directory

    def add_node(self) -> Node:
        """Start one node more and return it; there can be three."""
        if len(self.nodes) == MOST_NODES:
            raise LabError(f"a lab has {MOST_NODES} nodes at most")
        check_memory(self._hardware.memory_mib)
        self._add_nodes(1)
        return self.nodes[-1]

    def deploy(self, package: Path) -> None:
        """Make `hoster` on every node the package in this directory (src/hoster)."""
        packed = pack(package)
        self.on_all(lambda node: deploy(packed, node))

    def reset(self, *, tank: int = 1, **others: int) -> None:
        """Bring links, clocks and pools of all nodes back to their beginning (see Node.reset_pools)."""
        self.restore_links()
        self.on_all(lambda node: _reset(node, tank, others))

    def restore_links(self) -> None:
        """Make all links between the nodes whole again."""
        self.link.restore_all()

    def run_beside(self, *argv: str) -> str:
        """Run a short program of this machine in the control network, beside the nodes; its output."""
        return self._run.run(*argv)

    @contextmanager
    def beside(self, name: str, argv: Sequence[str], log: Path) -> Iterator[None]:
        """The same with one that goes on: it runs as long as the block, under a name of its own."""
        self._run.spawn(name, argv, log)
        try:
            yield
        finally:
            self._run.kill(name)

    def on_all(self, act: Callable[[Node], object]) -> None:
        """Do something with every node, side by side; the first error is raised when all have ended."""
        _side_by_side(act, self.nodes)

    def close(self) -> None:
        """End the nodes and remove all traces of them."""
        self._run.close()

    def _in_node(self, name: str, command: str) -> None:
        # What a node that is off has lost, its start puts back (Links.node_started).
        if self[name].is_on:
            self[name].run(command)

    def _add_nodes(self, count: int) -> None:
        new = []
        for number in range(len(self.nodes) + 1, len(self.nodes) + count + 1):
            add_taps(self._run, number)
            place = Place(self._run, self._images[self.release_of(number)], self._hardware)
            new.append(Node(number, place, self.link))
        self.nodes += new
        self._run.tell([node.name for node in self.nodes])
        _side_by_side(Node.start, new)


def _reset(node: Node, tank: int, others: dict[str, int]) -> None:
    node.reset_pools(tank=tank, **others)
    node.restore_clock()


def _side_by_side(act: Callable[[Node], object], nodes: Iterable[Node]) -> None:
    with ThreadPoolExecutor(max_workers=MOST_NODES) as pool:
        results = [pool.submit(act, node) for node in nodes]
    for result in results:
        result.result()
