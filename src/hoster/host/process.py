"""The only place that starts processes: one at a time, or two joined by a pipe.

Commands are argv lists, never shell text. Every process ends with the call that started it: on an error,
a time-out or an interrupt it is killed and waited for. Nothing here reads hoster's own standard input.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import IO, Protocol

from msgspec import Struct

from hoster.errors import OperationFailed

OUTPUT_LIMIT = 256 * 1024 * 1024
"""Most that one command may print, in bytes; a listing of 100,000 snapshots stays well below."""

_CHUNK = 1024 * 1024


class Completed(Struct, frozen=True):
    """How a command ended. ``returncode`` is negative for a signal, as in :mod:`subprocess`."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Piped(Struct, frozen=True):
    """How the two ends of a pipe ended, and how many bytes went through."""

    producer: Completed
    consumer: Completed
    sent_bytes: int


Meter = Callable[[int], None]
"""Told the size of each chunk just before it is written; may sleep to hold a speed limit."""


class Runner(Protocol):
    """What runs commands: the system (:class:`SystemRunner`) or a script (:mod:`hoster.testing`)."""

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed: ...

    def pipe(self, producer: Sequence[str], consumer: Sequence[str], meter: Meter) -> Piped: ...


class SystemRunner:
    """Runs commands on this machine, with messages in the C locale so that they can be understood."""

    def __init__(self) -> None:
        self._environment = {**os.environ, "LC_ALL": "C"}

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

    def pipe(self, producer: Sequence[str], consumer: Sequence[str], meter: Meter) -> Piped:
        """Feeds the output of ``producer`` to ``consumer``, through ``meter``.

        Returns when both have ended; the end of either is the end of both. How they ended is for the
        caller to judge: a pipe in which either failed has failed.
        """
        source = self._start(producer, subprocess.DEVNULL)
        try:
            sink = self._start(consumer, subprocess.PIPE)
        except OperationFailed:
            _end(source)
            raise
        try:
            return _pump(source, producer, sink, consumer, meter)
        finally:
            _end(source)
            _end(sink)

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


def _pump(
    source: subprocess.Popen[bytes],
    producer: Sequence[str],
    sink: subprocess.Popen[bytes],
    consumer: Sequence[str],
    meter: Meter,
) -> Piped:
    assert source.stdout is not None
    assert source.stderr is not None
    assert sink.stdin is not None
    assert sink.stdout is not None
    assert sink.stderr is not None
    said = [_Listener(stream) for stream in (source.stderr, sink.stdout, sink.stderr)]
    sent = 0
    try:
        while chunk := os.read(source.stdout.fileno(), _CHUNK):
            meter(len(chunk))
            _write_all(sink.stdin.fileno(), chunk)
            sent += len(chunk)
    except BrokenPipeError:
        source.kill()
    _close(sink.stdin)
    _close(source.stdout)
    source.wait()
    sink.wait()
    source_err, sink_out, sink_err = (listener.text() for listener in said)
    return Piped(
        Completed(tuple(producer), source.returncode, "", source_err),
        Completed(tuple(consumer), sink.returncode, sink_out, sink_err),
        sent,
    )


def _write_all(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class _Listener:
    """Collects what a process says while its other streams are busy."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._said = b""
        self._thread = threading.Thread(target=self._listen, args=(stream,), daemon=True)
        self._thread.start()

    def _listen(self, stream: IO[bytes]) -> None:
        while chunk := stream.read1(65536):  # type: ignore[attr-defined]
            self._said = (self._said + chunk)[-65536:]

    def text(self) -> str:
        self._thread.join()
        return _text(self._said)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            _close(stream)


def _close(stream: IO[bytes]) -> None:
    # A broken pipe on closing: the other end is gone, which its exit status tells.
    with contextlib.suppress(OSError):
        stream.close()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
