"""The lab's two networks, and the faults of the one between the nodes.

Both are bridges in the run's namespace with one tap a node. The lab reaches the nodes over the control
network, which no fault touches; the nodes reach each other over the data network, where a node's link can be
cut, slowed down, or made to swallow packets.
"""

from __future__ import annotations

from collections.abc import Callable

from lab.identity import CONTROL_HOST
from lab.run import Run

__all__ = ["Links", "add_taps", "control_tap", "data_tap", "make_bridges"]

_LEAST_BURST_BYTES = 128 * 1024
_QUEUE_MS = 300


def control_tap(number: int) -> str:
    return f"control{number}"


def data_tap(number: int) -> str:
    return f"data{number}"


def make_bridges(run: Run) -> None:
    """Make the two bridges; the machine's own end of the control network is CONTROL_HOST."""
    _ip(
        run,
        "link set lo up",
        "link add control type bridge mcast_snooping 0",
        "link add data type bridge mcast_snooping 0",
        f"addr add {CONTROL_HOST}/24 dev control",
        "link set control up",
        "link set data up",
    )


def add_taps(run: Run, number: int) -> None:
    """Make a node's tap on either bridge, and the device that can slow down what comes from it."""
    for tap, bridge in ((control_tap(number), "control"), (data_tap(number), "data")):
        _ip(run, f"tuntap add dev {tap} mode tap", f"link set {tap} master {bridge}", f"link set {tap} up")
    # What a tap receives cannot be queued there: it is sent through this device when it shall be slow.
    _ip(run, f"link add from{number} type ifb", f"link set from{number} up")


class Links:
    """The faults of the nodes' links. `in_node(name, command)` runs a shell command in a node that is on."""

    def __init__(self, run: Run, in_node: Callable[[str, str], object]) -> None:
        self._run = run
        self._in_node = in_node
        self._half_open: set[str] = set()
        self._delay_ms: dict[str, int] = {}
        self._disturbed: set[str] = set()

    def cut(self, name: str) -> None:
        """Nothing comes from the node or to it, as if its cable had been pulled."""
        self._disturbed.add(name)
        _ip(self._run, f"link set {_tap_of(name)} down")

    def half_open(self, name: str) -> None:
        """Swallow IP packets from and to the node: connections stay open on both ends and hear nothing.

        Addresses still resolve, so that new connections time out and are not refused as unreachable.
        """
        self._disturbed.add(name)
        self._half_open.add(name)
        self._swallow()

    def slow(self, name: str, *, rate_mbit: float | None = None, delay_ms: int = 0) -> None:
        """Let at most `rate_mbit` a second pass each way, and every round trip last `delay_ms` longer.

        The delay is made in the node, on its way out, since not every machine's kernel has netem; it
        is put back when the node restarts.
        """
        self._disturbed.add(name)
        self._unslow(name)
        if rate_mbit is not None:
            self._limit(name, rate_mbit)
        if delay_ms:
            self._delay_ms[name] = delay_ms
            self.node_started(name)

    def restore(self, name: str) -> None:
        """Make the link whole again, whatever was done to it. Untouched links cost nothing."""
        if name not in self._disturbed:
            return
        self._half_open.discard(name)
        self._swallow()
        self._unslow(name)
        _ip(self._run, f"link set {_tap_of(name)} up")
        self._disturbed.discard(name)

    def restore_all(self) -> None:
        """Make all links whole again."""
        for name in tuple(self._disturbed):
            self.restore(name)

    def node_started(self, name: str) -> None:
        """Put back what a restart of the node has undone."""
        if delay_ms := self._delay_ms.get(name):
            self._in_node(name, f"tc qdisc replace dev eth1 root netem delay {delay_ms}ms limit 100000")

    def _swallow(self) -> None:
        taps = "".join(
            f'iifname "{_tap_of(name)}" ether type ip drop\noifname "{_tap_of(name)}" ether type ip drop\n'
            for name in sorted(self._half_open)
        )
        rules = (
            "table bridge lab\ndelete table bridge lab\ntable bridge lab {\n"
            f"chain forward {{ type filter hook forward priority 0;\n{taps}}}\n}}\n"
        )
        self._run.run("nft", "-f", "-", text=rules)

    def _limit(self, name: str, rate_mbit: float) -> None:
        tap, device = _tap_of(name), f"from{_number_of(name)}"
        burst = max(_LEAST_BURST_BYTES, int(rate_mbit * 1e6 / 8 / 100))
        shape = f"tbf rate {int(rate_mbit * 1000)}kbit burst {burst} latency {_QUEUE_MS}ms"
        self._tc(
            f"qdisc replace dev {tap} root {shape}",
            f"qdisc replace dev {device} root {shape}",
            f"qdisc add dev {tap} handle ffff: ingress",
            f"filter add dev {tap} parent ffff: protocol all u32 match u32 0 0 "
            f"action mirred egress redirect dev {device}",
        )

    def _unslow(self, name: str) -> None:
        if self._delay_ms.pop(name, None) is not None:
            self._in_node(name, "tc qdisc del dev eth1 root 2>/dev/null || true")
        tap = _tap_of(name)
        # Deleting what is not there fails; putting the default in its place does not.
        self._tc(f"qdisc replace dev {tap} handle ffff: ingress", f"qdisc del dev {tap} ingress")
        self._tc(f"qdisc replace dev {tap} root pfifo limit 1000")

    def _tc(self, *commands: str) -> None:
        self._run.run("tc", "-batch", "-", text="".join(f"{command}\n" for command in commands))


def _ip(run: Run, *commands: str) -> None:
    run.run("ip", "-batch", "-", text="".join(f"{command}\n" for command in commands))


def _number_of(name: str) -> int:
    return int(name.removeprefix("node"))


def _tap_of(name: str) -> str:
    return data_tap(_number_of(name))
