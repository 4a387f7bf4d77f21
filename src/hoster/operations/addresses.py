"""One command at a time chooses what no two VMs of this node may have: addresses and ports."""

from __future__ import annotations

from contextlib import AbstractContextManager

from hoster.operations.context import Context

_WAIT_S = 60.0


def hold_addresses(context: Context, holder: str, *, wait: bool = True) -> AbstractContextManager[float]:
    """For the block, nobody else chooses addresses or ports for a VM. Busy if somebody does so for long."""
    return context.locks.hold(
        "the addresses of this node's VMs", holder=holder, wait_s=_WAIT_S if wait else 0.0
    )
