"""Model nodes whose commands somebody looks at before they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from hoster.host.process import Completed, Meter, Piped
from hoster.testing import read_whole
from tests.zfsmodel.cluster import ModelCluster

T = TypeVar("T")


class Watched:
    """The nodes of ``cluster``; ``look`` is given the words of each command, and what it reads from standard
    input as one more."""

    def __init__(self, cluster: ModelCluster) -> None:
        self.cluster = cluster

    def look(self, words: Sequence[str]) -> None:
        raise NotImplementedError

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        self.look((*argv, stdin))
        return self.cluster.run(argv, stdin=stdin, timeout_s=timeout_s)

    def read(
        self, argv: Sequence[str], reader: Callable[[Iterator[str]], T], *, timeout_s: float | None = None
    ) -> tuple[T, Completed]:
        return read_whole(self.run(argv, timeout_s=timeout_s), reader)

    def pipe(self, producer: Sequence[str], consumer: Sequence[str], meter: Meter) -> Piped:
        self.look(consumer)
        return self.cluster.pipe(producer, consumer, meter)

    def __getattr__(self, name: str) -> object:
        return getattr(self.cluster, name)
