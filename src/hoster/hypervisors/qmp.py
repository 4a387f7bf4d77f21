"""Talks to QEMU through its QMP socket, one short conversation at a time.

QEMU serves one client at a time and lets others wait; so nobody stays, and everything has a time limit.
The protocol is the library's (qemu.qmp), which is imported when somebody talks: it takes its time.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoster.errors import OperationFailed

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

Question = tuple[str, Mapping[str, Any]]
"""A QMP command and its arguments."""

_QUEUE_IS_FULL = frozenset({errno.EAGAIN, errno.EINVAL})
"""QEMU's socket lets one client wait. To the next, connect(2) says EAGAIN, which asyncio takes for a
connection on its way; reading from that is EINVAL."""

_QUEUE_POLL_S = 0.05


class NoAnswer(OperationFailed):
    """The socket is not there, nobody listens on it, or whoever does says nothing in time."""


def ask(socket: Path, questions: Sequence[Question], *, limit_s: float) -> list[Any]:
    """The answers of the QEMU behind ``socket``, in order.

    NoAnswer if none comes within ``limit_s`` seconds; OperationFailed with QEMU's words for a command that
    it rejects.
    """
    import asyncio

    return asyncio.run(_conversation(socket, questions, limit_s))


async def _conversation(socket: Path, questions: Sequence[Question], limit_s: float) -> list[Any]:
    import asyncio

    from qemu.qmp import ExecuteError, QMPError

    try:
        async with asyncio.timeout(limit_s):
            client = await _connected(socket)
            try:
                return [await client.execute(command, dict(given)) for command, given in questions]
            finally:
                # A connection that ended by itself is reported once more when it is closed.
                with contextlib.suppress(QMPError, OSError, EOFError):
                    await client.disconnect()
    except ExecuteError as error:
        raise OperationFailed(f"QEMU does not do it: {error}") from error
    except TimeoutError:
        raise NoAnswer(f"{socket}: QEMU does not answer within {limit_s:g} seconds") from None
    except (QMPError, OSError, EOFError) as error:
        raise NoAnswer(f"{socket}: QEMU does not answer: {error}") from error


async def _connected(socket: Path) -> QMPClient:
    """A client that QEMU listens to, however long others are before it."""
    import asyncio

    from qemu.qmp import ConnectError, QMPClient

    while True:
        client = QMPClient("hoster")
        try:
            await client.connect(str(socket))
        except ConnectError as error:
            if not isinstance(error.exc, OSError) or error.exc.errno not in _QUEUE_IS_FULL:
                raise
            await asyncio.sleep(_QUEUE_POLL_S)
        else:
            return client
