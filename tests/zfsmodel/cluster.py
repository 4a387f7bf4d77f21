"""Model nodes behind hoster's runner, with everything that can go wrong at every command.

A command is a step: hoster numbers them from 0 in one run. Commands for other nodes begin with ``on NAME``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import TypeVar

from hoster.errors import OperationFailed
from hoster.host.process import Completed, Meter, Piped
from hoster.testing import read_whole
from tests.zfsmodel.command import command, received, sent
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.state import Failed
from tests.zfsmodel.streams import Cut, Stream, head_of

T = TypeVar("T")

LINK_LOST = "mux_client_request_session: read from master failed: Broken pipe"
HERE = "local"

HALF = Cut(0, 0.5)
"""In the middle of the first version."""

_KILLED = -9
_PIPE_BYTES = 65536
"""What a pipe takes in before its writer notices that nobody reads (pipe(7))."""


class Killed(BaseException):
    """hoster was killed here: nothing in it may catch this."""


class Accident(Enum):
    """What can go wrong at a command.

    The first two kill hoster there. ``LINK_LOST`` lets every command to another node fail from there on;
    ``POWER_CUT`` lets the node named by the fault go off before the command, until :meth:`Cluster.start`.
    The next three end the stream of that command early: ``STREAM_CUT`` with its connection,
    ``SENDER_KILLED`` at the sender, ``STREAM_KILLED`` with hoster. ``LIE`` lets a stream end well though
    nothing arrives. ``MEANWHILE`` lets something else happen first.
    """

    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"
    LINK_LOST = "link lost"
    POWER_CUT = "power cut"
    STREAM_CUT = "stream cut"
    SENDER_KILLED = "sender killed"
    STREAM_KILLED = "stream killed"
    LIE = "lie"
    MEANWHILE = "meanwhile"


_STREAM_ACCIDENTS = frozenset(
    {Accident.STREAM_CUT, Accident.SENDER_KILLED, Accident.STREAM_KILLED, Accident.LIE}
)


@dataclass(frozen=True, slots=True)
class Fault:
    """An accident at the command numbered ``at``; those of streams wait for the next stream from there.

    ``cut`` says how much of the stream still arrives, ``node`` whose power goes.
    """

    accident: Accident
    at: int
    cut: Cut = HALF
    node: str = ""


@dataclass(slots=True)
class ModelCluster:
    """The nodes, and a :class:`hoster.host.process.Runner` for hoster on the one called ``local``."""

    nodes: dict[str, ModelNode]
    shuffle: Random | None = None
    fault: Fault | None = None
    meanwhile: Callable[[], object] = lambda: None
    count: int = 0
    commands: list[tuple[str, ...]] = field(default_factory=list)
    off: set[str] = field(default_factory=set)

    def begin(self, fault: Fault | None = None) -> None:
        """A new run of hoster begins; its commands are counted from 0, links are whole again."""
        self.fault, self.count = fault, 0

    def start(self, name: str) -> None:
        """Switches a node on again."""
        self.off.discard(name)

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        del timeout_s
        name, words = self._route(tuple(argv))
        self.commands.append(tuple(argv))
        self._before()
        if self._is_lost(name):
            self.count += 1
            return Completed(tuple(argv), 255, "", LINK_LOST)
        code, out, err = command(self.nodes[name], words, stdin, self.shuffle)
        self._after()
        return Completed(tuple(argv), code, out, err)

    def read(
        self,
        argv: Sequence[str],
        reader: Callable[[Iterator[str]], T],
        *,
        timeout_s: float | None = None,
    ) -> tuple[T, Completed]:
        return read_whole(self.run(argv, timeout_s=timeout_s), reader)

    def pipe(self, producer: Sequence[str], consumer: Sequence[str], meter: Meter) -> Piped:
        """Sends on one node and receives on another; how both ended, as the system's runner tells it."""
        source, send_words = self._route(tuple(producer))
        target, receive_words = self._route(tuple(consumer))
        self.commands += [tuple(producer), tuple(consumer)]
        self._before()
        if self._is_lost(source) or self._is_lost(target):
            self.count += 1
            return self._piped(producer, consumer, 0, *self._lost_ends(source, target))
        stream, said = self._sent(source, send_words)
        fault = self._stream_fault()
        if fault is not None and fault.accident is Accident.LIE:
            self.fault = None
            self._after()
            return self._piped(producer, consumer, 0, (0, ""), (0, ""))
        cut = fault.cut if fault is not None else None
        code, _, err = received(self.nodes[target], receive_words, stream, cut)
        size = _arrived(stream, cut)
        if size:
            meter(size)
        sender = (1, said) if stream is None else (0, "")
        if stream is not None and code and size > _PIPE_BYTES:
            sender = (_KILLED, "")
        if fault is not None and stream is not None:
            sender, (code, err) = self._broken(fault, target, (code, err))
        self._after()
        return self._piped(producer, consumer, size, sender, (code, err))

    def head(self, argv: Sequence[str], amount: int) -> bytes:
        """The beginning of a stream, for its key; OperationFailed where there is none, as the system's
        runner says it."""
        name, words = self._route(tuple(argv))
        self.commands.append(tuple(argv))
        self._before()
        lost = self._is_lost(name)
        stream, said = (None, LINK_LOST) if lost else self._sent(name, words)
        self._after()
        if stream is None:
            raise OperationFailed(f"{argv[0]}: {said.strip()}")
        return head_of(stream)[:amount]

    def stop(self) -> None:
        """Every command of the model has ended when it returns: nothing is under way."""

    def _broken(
        self, fault: Fault, target: str, receiver: tuple[int, str]
    ) -> tuple[tuple[int, str], tuple[int, str]]:
        self.fault = None
        if fault.accident is Accident.STREAM_KILLED:
            raise Killed
        if fault.accident is Accident.SENDER_KILLED:
            return (_KILLED, ""), receiver
        return (_KILLED, ""), ((255, LINK_LOST) if target != HERE else receiver)

    def _sent(self, source: str, words: Sequence[str]) -> tuple[Stream | None, str]:
        try:
            return sent(self.nodes[source], words), ""
        except Failed as error:
            return None, f"{error.said}\n"

    def _stream_fault(self) -> Fault | None:
        fault = self.fault
        due = fault is not None and fault.accident in _STREAM_ACCIDENTS and fault.at <= self.count
        return fault if due else None

    def _before(self) -> None:
        fault = self.fault
        if fault is None or fault.at != self.count:
            return
        if fault.accident is Accident.KILLED_BEFORE:
            self.fault = None
            raise Killed
        if fault.accident is Accident.POWER_CUT:
            self.fault = None
            self.nodes[fault.node].power_cut()
            if fault.node == HERE:
                raise Killed
            self.off.add(fault.node)
        if fault.accident is Accident.MEANWHILE:
            count, self.fault = self.count, None
            self.meanwhile()
            self.count = count

    def _after(self) -> None:
        fault = self.fault
        if fault is not None and fault.accident is Accident.KILLED_AFTER and fault.at == self.count:
            self.fault = None
            raise Killed
        self.count += 1

    def _is_lost(self, name: str) -> bool:
        fault = self.fault
        cut = fault is not None and fault.accident is Accident.LINK_LOST and fault.at <= self.count
        return name != HERE and (cut or name in self.off)

    def _lost_ends(self, source: str, target: str) -> tuple[tuple[int, str], tuple[int, str]]:
        ends = [(255, LINK_LOST) if self._is_lost(name) else (_KILLED, "") for name in (source, target)]
        if not self._is_lost(target):
            ends[1] = (1, "cannot receive: failed to read from stream\n")
        return ends[0], ends[1]

    def _piped(
        self,
        producer: Sequence[str],
        consumer: Sequence[str],
        size: int,
        sender: tuple[int, str],
        receiver: tuple[int, str],
    ) -> Piped:
        return Piped(
            Completed(tuple(producer), sender[0], "", sender[1]),
            Completed(tuple(consumer), receiver[0], "", receiver[1]),
            size,
        )

    def _route(self, argv: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        return (argv[1], argv[2:]) if argv[0] == "on" else (HERE, argv)


def _arrived(stream: Stream | None, cut: Cut | None) -> int:
    if stream is None:
        return 0
    if cut is None:
        return stream.size
    whole = sum(version.size for version in stream.versions[: cut.versions])
    rest = stream.versions[cut.versions : cut.versions + 1]
    return whole + sum(int(version.size * cut.fraction) for version in rest)
