"""The simulated nodes behind a runner: the commands that hoster runs, and what can go wrong with each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from hoster.host.process import Completed, Meter, Piped
from hoster.testing import read_whole
from hoster.zfs.programs import ANCHOR, DESTROY, MARK, TELL
from tests.properties.simulated import SimulatedNode, Stream

T = TypeVar("T")

LINK_LOST = "mux_client_request_session: read from master failed: Broken pipe"


class Killed(BaseException):
    """hoster was killed here: nothing in it may catch this."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at the command numbered ``at``, counted from 0 in one run of hoster.

    ``before`` and ``after`` kill hoster there; ``link`` lets every command to another node fail from there
    on; ``stream`` cuts the next stream after ``arrives`` versions, and ``stream-killed`` hoster with it;
    ``lie`` lets the next stream end well though nothing arrives; ``meanwhile`` lets something else on the
    source happen first.
    """

    kind: str
    at: int
    arrives: int = 0


@dataclass(slots=True)
class Cluster:
    """The nodes, and a :class:`hoster.host.process.Runner` for hoster on the one called ``local``."""

    nodes: dict[str, SimulatedNode]
    fault: Fault | None = None
    meanwhile: Callable[[], object] = lambda: None
    count: int = 0
    commands: list[tuple[str, ...]] = field(default_factory=list)

    def begin(self, fault: Fault | None = None) -> None:
        """A new run of hoster begins; its commands are counted from 0."""
        self.fault, self.count = fault, 0

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        del timeout_s
        node, command = self._route(tuple(argv))
        self.commands.append(tuple(argv))
        self._pass("before")
        if self._link_lost(node):
            return Completed(tuple(argv), 255, "", LINK_LOST)
        code, out, err = self._carry_out(node, command, stdin)
        self._pass("after")
        self.count += 1
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
        source, send = self._route(tuple(producer))
        target, receive = self._route(tuple(consumer))
        self._pass("before")
        stream = source.send(*_send_words(send))
        cut = self.fault if self.fault and self.fault.kind.startswith("stream") else None
        lie = self.fault is not None and self.fault.kind == "lie" and self.fault.at <= self.count
        lost = self._link_lost(target)
        at_most = 0 if lost else cut.arrives if cut and cut.at <= self.count else 10**6
        said = "failed to read from stream"
        if isinstance(stream, Stream):
            meter(100 * len(stream.versions))
            name, marks = _receive_words(receive)
            said = "" if lie else target.receive(name, stream, marks, at_most)
        if cut is not None and cut.at <= self.count and said:
            self.fault = None
            if cut.kind == "stream-killed":
                raise Killed
        self._pass("after")
        self.count += 1
        failed = isinstance(stream, str)
        return Piped(
            Completed(tuple(producer), int(failed), "", stream if isinstance(stream, str) else ""),
            Completed(tuple(consumer), 255 if lost else int(bool(said)), "", LINK_LOST if lost else said),
            100,
        )

    def head(self, argv: Sequence[str], amount: int) -> bytes:
        """No dataset of the simulation is encrypted, so that no key is looked for."""
        raise AssertionError(f"the simulation has no streams to look into: {argv}, {amount}")

    def stop(self) -> None:
        """Everything in the simulation happens at once; nothing is under way."""

    def _pass(self, moment: str) -> None:
        if self.fault is None or self.fault.at != self.count:
            return
        if self.fault.kind == moment:
            self.fault = None
            raise Killed
        if self.fault.kind == "meanwhile" and moment == "before":
            count, self.fault = self.count, None
            self.meanwhile()
            self.count = count

    def _link_lost(self, node: SimulatedNode) -> bool:
        fault = self.fault
        return fault is not None and fault.kind == "link" and node.name != "local" and fault.at <= self.count

    def _route(self, argv: tuple[str, ...]) -> tuple[SimulatedNode, tuple[str, ...]]:
        return (self.nodes[argv[1]], argv[2:]) if argv[0] == "on" else (self.nodes["local"], argv)

    def _carry_out(self, node: SimulatedNode, command: tuple[str, ...], stdin: str) -> tuple[int, str, str]:
        match command:
            case ("zpool", "sync" | "list" as verb, *words):
                return 0, _pools(words[words.index("-o") + 2 :]) if verb == "list" else "", ""
            case ("zfs", "get", "-Hp", *rest):
                names = list(rest[rest.index("-o") + 3 :])
                if "-d" in rest:
                    names += [name for name in node.volumes if name.rpartition("/")[0] in names]
                out, said = node.listed(names, deep="-r" in rest)
                return int(bool(said)), out, said
            case ("zfs", "snapshot", *names):
                error = node.snapshot([name for name in names if "@" in name])
                return int(bool(error)), "", error
            case ("zfs", "set", *words):
                pairs = [word.partition("=") for word in words if "=" in word]
                node.volumes[words[-1]].marks.update({key: value for key, _, value in pairs})
                return 0, "", ""
            case ("zfs", "create", "-p", "-o", "canmount=off", name):
                node.create(name)
                return 0, "", ""
            case ("zfs", "hold", tag, *names):
                error = node.hold(tag, names)
                return int(bool(error)), "", error
            case ("zfs", "release", tag, *names):
                error = node.release(tag, names)
                return int(bool(error)), "", error
            case ("zfs", "holds", "-H", *names):
                return 0, node.holds(names), ""
            case ("zfs", "destroy", bookmark):
                error = node.destroy_bookmark(bookmark)
                return int(bool(error)), "", error
            case ("zfs", "program", "-j", _, "-", *arguments):
                node.txg += 1
                return 0, json.dumps({"return": dict(_answers(node, stdin, arguments))}), ""
            case _:
                raise AssertionError(f"the simulation does not know this command: {command}")


def _pools(names: Sequence[str]) -> str:
    """Pools of the simulation are half full, and never change in that."""
    return "".join(f"{name}\t1000\t500\t500\t7\t50\t1.00\tONLINE\n" for name in names)


def _answers(node: SimulatedNode, lua: str, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    programs: dict[str, tuple[Callable[..., str], int]] = {
        DESTROY: (node.destroy, 2),
        ANCHOR: (node.anchor, 3),
        MARK: (node.mark, 4),
        TELL: (node.told, 8),
    }
    act, size = programs[lua]
    for start in range(0, len(words), size):
        yield words[start], act(*words[start : start + size])


def _send_words(command: tuple[str, ...]) -> tuple[str | None, str, bool]:
    match command:
        case ("zfs", "send", "-L", "-c", through):
            return None, through, False
        case ("zfs", "send", "-L", "-c", ("-i" | "-I") as flag, base, through):
            return base, through, flag == "-I"
        case _:
            raise AssertionError(f"the simulation does not know this stream: {command}")


def _receive_words(command: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    assert command[:4] == ("zfs", "receive", "-s", "-u"), command
    assert "-F" not in command
    settings = [command[i + 1] for i, word in enumerate(command) if word == "-o"]
    pairs = (setting.partition("=") for setting in settings)
    return command[-1], {key: value for key, _, value in pairs if key.startswith("hoster:")}
