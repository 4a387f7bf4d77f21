"""How much room a pool had at one moment. Pure values."""

from __future__ import annotations

from msgspec import Struct


class PoolSample(Struct, frozen=True):
    """The room in a pool of a node at one moment: sizes in bytes, the moment in Unix seconds.

    ``node`` is the endpoint of a target, or ``local``.
    """

    node: str
    pool: str
    at: float
    size: int
    free: int
