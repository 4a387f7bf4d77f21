"""What one channel for all streams would save, against a channel for each: many small VMs, in the lab.

In turn, on the same two nodes: hoster as it is, with one, two and four VMs at a time; a bare loop of
``zfs send | ssh zfs receive`` over one shared connection; and all streams one after the other into a single
ssh channel, which a remote loop of receives takes up. First and incremental replication, and with a delay.

Every run is looked at afterwards: the newest GUID of every VM must be on both nodes. *Sending* is the part
of a run from the start of the first ``zfs send`` until the last receive has ended; *processor* what both
nodes have used of this machine's, which other work on it hardly changes. The last line gives hoster, two VMs
at a time, the sending of the single channel, and takes off the processor time that it saves the bare loop:
the most that it could save, since telling which stream failed costs nothing there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TextIO

from lab import Lab, LabError, Node, Started

DISK_BYTES = 2 * 2**20
CHANGED_KIB = 64
PACKAGE = Path(__file__).parents[1] / "src/hoster"
PROPERTIES = "-o readonly=on -o canmount=noauto -x mountpoint"
"""What hoster, too, gives to every receive."""

_SOCKET = "/run/bench-channel"
_TIMEOUT_S = 900.0


class Timing(NamedTuple):
    """Seconds of one run: in all and of its sending alone, by the node's clock; and those that the processor
    spent on both nodes, which other work on this machine hardly changes."""

    total_s: float
    sending_s: float
    processor_s: float = 0.0


class Rounds(NamedTuple):
    """How often each way is measured; a first replication in no round is done once all the same."""

    first: int
    incremental: int


@dataclass
class Stock:
    """VMs of one set on node1, with where their replicas lie; ``version`` counts the bare ways' snapshots."""

    name: str
    count: int
    version: int = 0
    vms: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.vms = [f"vm-{number:02d}" for number in range(1, self.count + 1)]

    @property
    def source(self) -> str:
        return f"tank/{self.name}-{self.count}"

    @property
    def target(self) -> str:
        return f"tank/from-{self.name}-{self.count}"


class Way(ABC):
    """One way to bring node2 up to date with all VMs of a stock."""

    def __init__(self, name: str, stock: str) -> None:
        self.name = name
        self.stock = stock

    @abstractmethod
    def run(self, lab: Lab, stock: Stock) -> Timing:
        """Replicates once. LabError if anything fails."""


class Hoster(Way):
    """hoster itself; its sending is told from the starts of programs that the node notes."""

    def __init__(self, parallel: int) -> None:
        super().__init__(f"hoster --parallel {parallel}", "hoster")
        self._parallel = parallel

    def run(self, lab: Lab, stock: Stock) -> Timing:
        words = f"hoster vm replicate-all --endpoint {lab.node2.address} --target-dataset {stock.target}"
        config = f'datasets = ["{stock.source}"]'
        lab.node1.run(f"mkdir -p /etc/hoster && echo '{config}' >/etc/hoster/hoster.toml")
        command = f"a=$EPOCHREALTIME; {words} --parallel {self._parallel} >&2; b=$EPOCHREALTIME; echo $a $b"
        with lab.node1.audit() as seen:
            began, ended = _times(lab.node1, command)
        return Timing(ended - began, _sending_s(seen.starts))


class Bare(Way):
    """Nothing but a snapshot, sends and receives over one shared connection."""

    def __init__(self, name: str, streams: str) -> None:
        super().__init__(name, "bare")
        self._streams = streams

    def run(self, lab: Lab, stock: Stock) -> Timing:
        stock.version += 1
        new, base = f"@bare-{stock.version}", f"-i @bare-{stock.version - 1}"
        script = f"""
        set -e -o pipefail
        vms="{" ".join(stock.vms)}" to="ssh -S {_SOCKET} {lab.node2.address}"
        a=$EPOCHREALTIME
        ssh -M -S {_SOCKET} -o ControlPersist=no -f -N {lab.node2.address}
        zfs snapshot {" ".join(f"{stock.source}/{vm}{new}" for vm in stock.vms)}
        stream() {{ zfs send -L -c {base if stock.version > 1 else ""} {stock.source}/$1{new}; }}
        receive="zfs receive -s -u {PROPERTIES} {stock.target}"
        b=$EPOCHREALTIME
        {self._streams}
        c=$EPOCHREALTIME
        ssh -S {_SOCKET} -O exit {lab.node2.address} 2>/dev/null
        echo $a $b $c
        """
        began, sending, ended = _times(lab.node1, script)
        return Timing(ended - began, ended - sending)


MANY = Bare("bare, a channel for each", "for vm in $vms; do stream $vm | $to exec $receive/$vm; done")
ONE = Bare(
    "bare, one channel",
    'for vm in $vms; do stream $vm; done | $to "for vm in $vms; do $receive/\\$vm || exit; done"',
)
WAYS: Sequence[Way] = (Hoster(1), Hoster(2), Hoster(4), MANY, ONE)
DEFAULT = WAYS[1]


def main() -> int:
    """Prints a table for every number of VMs and every delay; 1 if the lab cannot run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("counts", type=int, nargs="*", default=[10, 40], metavar="VMS")
    parser.add_argument("--first", type=int, default=3, help="rounds of first replication (3)")
    parser.add_argument("--incremental", type=int, default=3, help="rounds of incremental replication (3)")
    parser.add_argument("--delays", type=int, nargs="*", default=[0, 20], metavar="MS", help="(0 20)")
    parser.add_argument("--package", type=Path, default=PACKAGE, help="the hoster to measure")
    options = parser.parse_args()
    rounds = Rounds(options.first, options.incremental)
    try:
        with Lab(nodes=2) as lab:
            lab.reset()
            lab.deploy(options.package)
            for count in options.counts:
                measure(lab, WAYS, count, options.delays, rounds)
    except LabError as error:
        _say(f"{error}", sys.stderr)
        return 1
    return 0


def measure(lab: Lab, ways: Sequence[Way], count: int, delays: Sequence[int], rounds: Rounds) -> None:
    """Measures all ways with ``count`` VMs in turn, another first in every round, and prints the tables."""
    stocks = {name: Stock(name, count) for name in dict.fromkeys(way.stock for way in ways)}
    for stock in stocks.values():
        _make(lab, stock)
    for delay_ms in delays:
        if delay_ms:
            lab.link.slow("node2", delay_ms=delay_ms)
        title = f"{count} VMs, {{}} replication, {delay_ms} ms of delay, median of {{}}"
        timings: dict[str, list[Timing]] = {way.name: [] for way in ways}
        for number in range(rounds.first):
            for way in _turned(ways, number):
                _forget(lab, stocks[way.stock])
                timings[way.name].append(_run(lab, way, stocks[way.stock]))
        if rounds.first:
            _print(title.format("first", rounds.first), timings)
        elif delay_ms == delays[0]:
            for name, stock in stocks.items():
                _run(lab, next(way for way in ways if way.stock == name), stock)
        timings = {way.name: [] for way in ways}
        for number in range(rounds.incremental):
            for way in _turned(ways, number):
                _change(lab.node1, stocks[way.stock], number)
                timings[way.name].append(_run(lab, way, stocks[way.stock]))
        if rounds.incremental:
            _print(title.format("incremental", rounds.incremental), timings)
        lab.restore_links()


def _turned(ways: Sequence[Way], number: int) -> Sequence[Way]:
    first = number % len(ways)
    return (*ways[first:], *ways[:first])


def _run(lab: Lab, way: Way, stock: Stock) -> Timing:
    spent = _processor_s(lab)
    timing = way.run(lab, stock)
    timing = timing._replace(processor_s=_processor_s(lab) - spent)
    sent, arrived = (
        _newest(node, top) for node, top in ((lab.node1, stock.source), (lab.node2, stock.target))
    )
    if len(sent) != stock.count or sent != arrived:
        raise LabError(f"{way.name}: {stock.target} does not hold the newest version of every VM")
    _say(f"  {way.name:<28} {timing.total_s:7.2f} s, sending {timing.sending_s:7.2f} s", sys.stderr)
    return timing


def _make(lab: Lab, stock: Stock) -> None:
    """Makes and marks VMs as `hoster vm adopt` does."""
    lab.node2.run(f"zfs create -o canmount=off {stock.target}")
    script = f"""
    set -e
    zfs create {stock.source}
    for vm in {" ".join(stock.vms)}; do
        zfs create -o hoster:id=$(cat /proc/sys/kernel/random/uuid) -o hoster:role=primary \
            -o hoster:epoch=1@node1 -o hoster:parent=node1 -o hoster:production=yes {stock.source}/$vm
        head -c {DISK_BYTES} /dev/urandom >/{stock.source}/$vm/disk0.img
        echo '{{"production": true, "parent_host": "node1"}}' >/{stock.source}/$vm/vm_config.json
    done
    """
    lab.node1.run(script, timeout_s=_TIMEOUT_S)


def _forget(lab: Lab, stock: Stock) -> None:
    """Takes away what replication has made on both nodes."""
    stock.version = 0
    here = f"""
    zfs list -H -r -t bookmark -o name {stock.source} | xargs -r -n 1 zfs destroy
    zfs destroy -r {stock.source}@% 2>/dev/null
    zpool sync
    """
    there = f"zfs destroy -r {stock.target} && zfs create -o canmount=off {stock.target} && zpool sync"
    lab.on_all(lambda node: node.run(here if node is lab.node1 else there, timeout_s=_TIMEOUT_S))


def _change(node: Node, stock: Stock, number: int) -> None:
    """Writes a piece of every disk anew."""
    node.run(
        f"for vm in {' '.join(stock.vms)}; do dd if=/dev/urandom of=/{stock.source}/$vm/disk0.img"
        f" bs={CHANGED_KIB}k count=1 seek={number} conv=notrunc status=none || exit; done; zpool sync",
        timeout_s=_TIMEOUT_S,
    )


def _newest(node: Node, top: str) -> dict[str, str]:
    """The GUID of every VM's newest snapshot."""
    listed = node.run(f"zfs list -Hp -r -t snapshot -o name,guid -s createtxg {top}", timeout_s=_TIMEOUT_S)
    rows = (line.split("\t") for line in listed.stdout.splitlines())
    return {name.partition("@")[0].removeprefix(top): guid for name, guid in rows}


def _processor_s(lab: Lab) -> float:
    """What the lab's machines have used of this machine's processors."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # one that has ended meanwhile
            if f"{lab.directory}/".encode() in (process / "cmdline").read_bytes():
                ticks += sum(map(int, (process / "stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _times(node: Node, script: str) -> list[float]:
    """What the script prints last: moments in seconds."""
    return [float(word) for word in node.run(script, timeout_s=_TIMEOUT_S).stdout.split()]


def _sending_s(starts: Sequence[Started]) -> float:
    """From the first ``zfs send`` until the far side is looked at again, which follows the last receive."""
    sends = [start for start in starts if start.name == "zfs" and start.arguments[:1] == ("send",)]
    channels = [start for start in starts if start.name == "ssh"]
    after = [c for c in channels if c.at_ns > sends[-1].at_ns and " receive " not in c.arguments[-1]]
    return (after[0].at_ns - sends[0].at_ns) / 1e9


def _print(title: str, timings: dict[str, list[Timing]]) -> None:
    medians = {
        name: Timing(*(statistics.median(column) for column in zip(*of_way, strict=True)))
        for name, of_way in timings.items()
    }
    usual, many, one = (medians[way.name] for way in (DEFAULT, MANY, ONE))
    medians["hoster, if it had one channel"] = Timing(
        usual.total_s - usual.sending_s + one.sending_s,
        one.sending_s,
        usual.processor_s - many.processor_s + one.processor_s,
    )
    _say(f"\n{title}")
    _say(f"{'':<32} {'seconds':>18} {'of hoster':>10} {'sending':>8} {'processor':>10} {'of hoster':>10}")
    for name, median in medians.items():
        spread = [timing.total_s for timing in timings.get(name, ())]
        reach = f"({min(spread):.1f}-{max(spread):.1f})" if spread else "(computed)"
        time, work = median.total_s / usual.total_s, median.processor_s / usual.processor_s
        _say(
            f"{name:<32} {reach:>12} {median.total_s:5.1f} {time:10.0%} {median.sending_s:8.1f}"
            f" {median.processor_s:10.1f} {work:10.0%}"
        )


def _say(line: str, to: TextIO = sys.stdout) -> None:
    to.write(f"{line}\n")
    to.flush()


if __name__ == "__main__":
    sys.exit(main())
