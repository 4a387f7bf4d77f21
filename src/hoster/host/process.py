"""The only place that starts processes: one at a time, two joined by a pipe, or one that is to live on.

Commands are argv lists, never shell text. Every process ends with the call that started it: on an error,
a time-out or an interrupt it is killed and waited for. What outlives hoster is what :func:`spawn` starts, and
what the kernel does not let end: a listing of a suspended pool.
Nothing here reads hoster's own standard input.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Protocol, TypeVar

from msgspec import Struct

from hoster.errors import OperationFailed
from hoster.host.pump import TALK_LIMIT, Cancellation, Ending, Flow, Listener, Meter, pump
from hoster.host.spoken import Spoken

__all__ = [
    "OUTPUT_LIMIT",
    "Completed",
    "Detached",
    "Ending",
    "Meter",
    "Patience",
    "Piped",
    "Runner",
    "SystemRunner",
    "end",
    "spawn",
]

OUTPUT_LIMIT = 64 * 1024 * 1024
"""Most that one command may print that is not read line by line, in bytes."""

KILLED_S = 10.0
"""How long a process that was killed is waited for: while the kernel is at work for it, it stays."""

T = TypeVar("T")


class Completed(Struct, frozen=True):
    """How a command ended. ``returncode`` is negative for a signal, as in :mod:`subprocess`."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Piped(Struct, frozen=True):
    """How the two ends of a pipe ended, why the stream did, and how many bytes the consumer was given."""

    producer: Completed
    consumer: Completed
    sent_bytes: int
    ending: Ending = Ending.COMPLETE

    @property
    def stalled(self) -> bool:
        """Nothing moved for too long, and both were ended for it."""
        return self.ending in {Ending.SILENT, Ending.STUCK, Ending.UNFINISHED}


class Patience(Struct, frozen=True):
    """How long the two ends of a pipe are waited for, in seconds."""

    stall_s: float = 45.0
    """Without a byte moving; a stream is ended then."""

    finish_s: float = 600.0
    """After the last byte: a receive may still have much to commit."""

    grace_s: float = 10.0
    """To leave by themselves, once they have been told that the stream is over."""


class Runner(Protocol):
    """What runs commands: the system (:class:`SystemRunner`) or a script (:mod:`hoster.testing`)."""

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed: ...

    def read(
        self,
        argv: Sequence[str],
        reader: Callable[[Iterator[str]], T],
        *,
        timeout_s: float | None = None,
    ) -> tuple[T, Completed]: ...

    def pipe(self, producer: Sequence[str], consumer: Sequence[str], meter: Meter) -> Piped: ...

    def head(self, argv: Sequence[str], amount: int) -> bytes: ...

    def stop(self) -> None: ...


class SystemRunner:
    """Runs commands on this machine, with messages in the C locale so that they can be understood."""

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._environment = {**os.environ, "LC_ALL": "C"}
        self._cancellation = Cancellation()

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        """Runs ``argv`` to its end. OperationFailed if it cannot be started or outlasts ``timeout_s``."""
        process = self._start(argv, subprocess.PIPE if stdin else subprocess.DEVNULL)
        try:
            out, err = process.communicate(stdin.encode() if stdin else None, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise OperationFailed(f"{argv[0]}: no answer within {timeout_s:g} seconds") from None
        finally:
            _end(process)
        if len(out) > OUTPUT_LIMIT:
            raise OperationFailed(f"{argv[0]} printed more than {OUTPUT_LIMIT} bytes")
        return Completed(tuple(argv), process.returncode, _text(out), _text(err))

    def read(
        self,
        argv: Sequence[str],
        reader: Callable[[Iterator[str]], T],
        *,
        timeout_s: float | None = None,
    ) -> tuple[T, Completed]:
        """Runs ``argv`` to its end and hands its output to ``reader``, line by line, as it is printed.

        What ``reader`` returns, and how the command ended, which holds no output. What it does not read is
        passed over. OperationFailed if the command cannot be started, or prints nothing for ``timeout_s``.
        """
        process = self._start(argv, subprocess.DEVNULL)
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            spoken = Spoken(argv[0], process.stdout.fileno(), process.stderr.fileno(), timeout_s)
            result = reader(spoken.lines())
            for _ in spoken.lines():
                pass
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise OperationFailed(f"{argv[0]}: it does not end") from None
        finally:
            _end(process)
        return result, Completed(tuple(argv), process.returncode, "", _text(spoken.messages))

    def pipe(self, producer: Sequence[str], consumer: Sequence[str], meter: Meter) -> Piped:
        """Feeds the output of ``producer`` to ``consumer``, through ``meter``.

        Returns when both have ended; the end of either is the end of both. How they ended is for the
        caller to judge: a pipe in which either failed has failed. One in which nothing moves any more is
        ended as well (:attr:`Piped.stalled`). OperationFailed after :meth:`stop`.
        """
        with self._cancellation.watch() as cancelled:
            source = self._start(producer, subprocess.DEVNULL)
            try:
                sink = self._start(consumer, subprocess.PIPE)
                try:
                    listener = Listener(_talk(source, sink), cancelled)
                    flow = _carry(source, sink, meter, listener, self._patience)
                finally:
                    _end(sink)
            finally:
                _end(source)
        source_err, sink_out, sink_err = (_text(words) for words in listener.said())
        return Piped(
            Completed(tuple(producer), _status(source), "", source_err),
            Completed(tuple(consumer), _status(sink), sink_out, sink_err),
            flow.sent_bytes,
            flow.ending,
        )

    def head(self, argv: Sequence[str], amount: int, timeout_s: float = 120.0) -> bytes:
        """The first ``amount`` bytes of what ``argv`` prints, which is killed then; fewer if it ends before.
        OperationFailed with its words where it fails, or where it outlasts ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        process = self._start(argv, subprocess.DEVNULL)
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            found = b""
            out = process.stdout.fileno()
            while len(found) < amount and (piece := _piece(out, amount - len(found), deadline)):
                found += piece
            if len(found) < amount and process.wait(deadline - time.monotonic()) != 0:
                words = " ".join(_text(process.stderr.read(TALK_LIMIT)).split())
                raise OperationFailed(f"{argv[0]}: {words or f'exit status {process.returncode}'}")
        except subprocess.TimeoutExpired:
            raise OperationFailed(f"{argv[0]}: no answer within {timeout_s:g} seconds") from None
        finally:
            _end(process)
        return found

    def stop(self) -> None:
        """Kills both ends of every pipe, which then raise OperationFailed, and lets none begin from now on.

        For another thread than those that wait in :meth:`pipe`. Single commands (:meth:`run`) are not
        affected, so that what has arrived can still be looked at.
        """
        self._cancellation.cancel()

    def start(self, argv: Sequence[str], *, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        """Starts a long-lived companion whose input and output are piped and whose messages go to
        ``stderr``; the caller ends it with :func:`end`."""
        return self._start(argv, subprocess.PIPE, stderr)

    def _start(
        self, argv: Sequence[str], stdin: int, stderr: IO[bytes] | int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                list(argv),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=self._environment,
            )
        except FileNotFoundError:
            raise OperationFailed(
                f"{argv[0]}: command not found", hint=f"install the package that provides {argv[0]}"
            ) from None
        except OSError as error:
            raise OperationFailed(f"{argv[0]}: cannot be started: {error.strerror}") from error


def end(process: subprocess.Popen[bytes], grace_s: float = 2.0) -> None:
    """Closes the companion's input, gives it ``grace_s`` to leave, then kills it."""
    if process.stdin is not None:
        _close(process.stdin)
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _end(process)


class Detached:
    """A process that lives on by itself; for as long as this one lives, it is asked after here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def ended(self) -> int | None:
        """How it ended, negative for a signal; None while it lives."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def kill(self) -> None:
        """Ends it at once and waits for that."""
        if self.ended() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def spawn(argv: Sequence[str], output: int, inherited: Sequence[int] = ()) -> Detached:
    """Starts a process that outlives this one: in a session of its own, with / as its working directory.

    What it prints goes to the descriptor ``output``; the descriptors ``inherited`` are open in it under
    their numbers here. A command that does not exist ends with 127, having said so.
    """
    # The constant script is what posix_spawn(3) has no portable action for.
    command = ("/bin/sh", "-c", 'cd / && exec "$@"', "sh", *argv)
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)
    try:
        pid = os.posix_spawn(
            command[0],
            command,
            {**os.environ, "LC_ALL": "C"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM],
        )
    except OSError as error:
        raise OperationFailed(f"{argv[0]}: cannot be started: {error.strerror}") from error
    finally:
        for descriptor in inherited:
            os.set_inheritable(descriptor, False)
    return Detached(pid)


def _talk(source: subprocess.Popen[bytes], sink: subprocess.Popen[bytes]) -> tuple[int, int, int]:
    """Where the two talk beside the stream: the producer's messages, the consumer's output and messages."""
    assert source.stderr is not None
    assert sink.stdout is not None
    assert sink.stderr is not None
    return source.stderr.fileno(), sink.stdout.fileno(), sink.stderr.fileno()


def _carry(
    source: subprocess.Popen[bytes],
    sink: subprocess.Popen[bytes],
    meter: Meter,
    listener: Listener,
    patience: Patience,
) -> Flow:
    """Carries the stream, then waits for both; who has not ended on return is to be killed.

    Where nothing moves the end of the input comes first, so that a receive can keep what has arrived.
    """
    assert source.stdout is not None
    assert sink.stdin is not None
    flow = pump(source.stdout.fileno(), sink.stdin.fileno(), meter, listener, patience.stall_s)
    stalled = flow.ending in {Ending.SILENT, Ending.STUCK}
    if stalled:
        source.terminate()
    elif flow.ending is Ending.BROKEN:
        source.kill()
    _close(sink.stdin)
    _close(source.stdout)

    def over() -> bool:
        return source.poll() is not None and sink.poll() is not None

    if listener.until(over, patience.grace_s if stalled else patience.finish_s) or stalled:
        return flow
    source.terminate()
    sink.terminate()
    listener.until(over, patience.grace_s)
    return Flow(Ending.UNFINISHED, flow.sent_bytes)


def _piece(descriptor: int, amount: int, deadline: float) -> bytes:
    """What comes next, at most ``amount`` bytes; TimeoutExpired where nothing comes until ``deadline``."""
    heard = select.poll()
    heard.register(descriptor, select.POLLIN)
    left_s = max(deadline - time.monotonic(), 0)
    if not heard.poll(left_s * 1000):
        raise subprocess.TimeoutExpired((), left_s)
    return os.read(descriptor, amount)


def _status(process: subprocess.Popen[bytes]) -> int:
    """How it ended; one that was killed and is still there will end so."""
    return -signal.SIGKILL if process.returncode is None else process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILLED_S)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            _close(stream)


def _close(stream: IO[bytes]) -> None:
    # A broken pipe on closing: the other end is gone, which its exit status tells.
    with contextlib.suppress(OSError):
        stream.close()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
