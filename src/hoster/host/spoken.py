"""Hears what a command prints while it runs: its output line by line, its messages beside it.

Knows descriptors, not processes. A listing of a million snapshots is thousands of megabytes of text: no more
of it is held here than one piece and one line.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

from hoster.errors import OperationFailed

LINE_LIMIT = 16 * 1024 * 1024
"""Most that one line may hold, in bytes: the names of 60,000 clones of one snapshot, say."""

MESSAGES_LIMIT = 16 * 1024 * 1024
"""Most that a command may say beside its output, in bytes: zfs has a line for each missing dataset."""

_PIECE = 256 * 1024


class Spoken:
    """What comes from the two descriptors of the command called ``name``.

    OperationFailed where nothing comes from either for ``silence_s`` seconds (None: wait for ever), not
    counting the time that is spent with what has come, and where a limit is exceeded.
    """

    def __init__(self, name: str, out: int, err: int, silence_s: float | None) -> None:
        self._name = name
        self._out, self._err = out, err
        self._silence_s = silence_s
        self._messages: list[bytes] = []
        self._messages_size = 0
        self._poll = select.poll()
        self._open = {out, err}
        for descriptor in self._open:
            self._poll.register(descriptor, select.POLLIN)

    @property
    def messages(self) -> bytes:
        """What was said beside the output so far: all of it, once the lines are through."""
        return b"".join(self._messages)

    def lines(self) -> Iterator[str]:
        """The lines of the output without their ends, as they come, until both descriptors are at their end.

        Bytes that are no UTF-8 are shown, not lost.
        """
        rest = b""
        while self._open:
            for piece in self._heard():
                whole, newline, piece_rest = piece.rpartition(b"\n")
                if newline:
                    yield from _text(rest + whole).split("\n")
                    rest = piece_rest
                else:
                    rest += piece_rest
                if len(rest) > LINE_LIMIT:
                    raise OperationFailed(f"{self._name} printed a line of more than {LINE_LIMIT} bytes")
        if rest:
            yield _text(rest)

    def _heard(self) -> list[bytes]:
        """The next piece of the output; none where only something else was heard."""
        happened = self._poll.poll(None if self._silence_s is None else self._silence_s * 1000)
        if not happened:
            raise OperationFailed(f"{self._name}: no answer within {self._silence_s:g} seconds")
        pieces: list[bytes] = []
        for descriptor, _ in happened:
            piece = os.read(descriptor, _PIECE)
            if not piece:
                self._poll.unregister(descriptor)
                self._open.discard(descriptor)
            elif descriptor == self._out:
                pieces.append(piece)
            else:
                self._messages.append(piece)
                self._messages_size += len(piece)
                if self._messages_size > MESSAGES_LIMIT:
                    raise OperationFailed(f"{self._name} said more than {MESSAGES_LIMIT} bytes of messages")
        return pieces


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
