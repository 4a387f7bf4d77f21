"""What the pump between ``zfs send`` and ssh costs, and how well it keeps a speed limit.

Throughput: zeros from one process to another, through a bare pipe of the shell, through a ``cat`` between the
two, and through hoster, in turn; the median of the rounds. Of hoster's own process the CPU seconds are told
as well: what it takes away from ssh on a busy machine.

Limit: as many bytes as take ten seconds at the limit, timed from the first process to the end of the last;
then three streams that share one limit for ten seconds.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from hoster.errors import OperationFailed
from hoster.host.process import Meter, SystemRunner
from hoster.host.throttle import MIB, SpeedLimit

GIB = 1024 * MIB
LIMIT_S = 10.0
SINK = ["sh", "-c", "exec cat >/dev/null"]


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gib", type=int, default=4, help="size of each stream (4)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is measured (5)")
    options = parser.parse_args()
    _throughput(options.gib, options.rounds)
    for rate in (2, 90):
        _limit(rate)
        _shared(rate)


def _throughput(gib: int, rounds: int) -> None:
    source = f"head -c {gib * GIB} /dev/zero"
    ways: dict[str, Callable[[], None]] = {
        "shell: producer | consumer": lambda: _shell(f"{source} | cat >/dev/null"),
        "shell: producer | cat | consumer": lambda: _shell(f"{source} | cat | cat >/dev/null"),
        "hoster": lambda: _hoster(gib, lambda _: None),
        "hoster, with a limit that is never reached": lambda: _hoster(gib, SpeedLimit(1e15)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    own: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, carry in ways.items():
            cpu, started = time.process_time(), time.monotonic()
            carry()
            seconds[name].append(time.monotonic() - started)
            own[name].append(time.process_time() - cpu)
    bare = statistics.median(next(iter(seconds.values())))
    _say(f"{gib} GiB of zeros, median of {rounds}: {'GiB/s':>36} {'of bare':>9} {'own CPU s/GiB':>14}")
    for name in ways:
        taken = statistics.median(seconds[name])
        cpu = statistics.median(own[name]) / gib
        _say(f"  {name:<56} {gib / taken:7.2f} {bare / taken:8.0%} {cpu:14.3f}")
    _say(
        f"  most memory that this process ever held: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} KiB"
    )


def _shell(line: str) -> None:
    subprocess.run(["sh", "-c", line], check=True)


def _hoster(gib: int, meter: Meter) -> None:
    piped = SystemRunner().pipe(["head", "-c", str(gib * GIB), "/dev/zero"], SINK, meter)
    assert piped.sent_bytes == gib * GIB


def _limit(rate: int) -> None:
    """One stream that should take ``LIMIT_S`` at ``rate`` MiB/s."""
    limit = SpeedLimit(rate * MIB)
    cpu, started = time.process_time(), time.monotonic()
    moments: list[tuple[float, int]] = []

    def meter(amount: int) -> None:
        limit(amount)
        moments.append((time.monotonic() - started, amount))

    SystemRunner().pipe(["head", "-c", str(int(rate * MIB * LIMIT_S)), "/dev/zero"], SINK, meter)
    seconds = time.monotonic() - started
    cpu = (time.process_time() - cpu) / seconds
    whole = [sum(amount for at, amount in moments if s <= at < s + 1) for s in range(1, int(LIMIT_S) - 1)]
    least, most = min(whole) / MIB, max(whole) / MIB
    _say(
        f"limit {rate} MiB/s: {rate * LIMIT_S / seconds:.3f} MiB/s over {seconds:.2f} s"
        f" ({LIMIT_S / seconds - 1:+.2%}); single seconds {least:.2f} to {most:.2f} MiB/s;"
        f" largest piece {max(amount for _, amount in moments) // 1024} KiB; own CPU {cpu:.1%} of one core"
    )


def _shared(rate: int) -> None:
    """Three streams that begin one after the other and share ``rate`` MiB/s."""
    limit, runner = SpeedLimit(rate * MIB), SystemRunner()
    moved = [0, 0, 0]
    counting = threading.Event()

    def stream(index: int) -> None:
        def meter(amount: int) -> None:
            limit(amount)
            if counting.is_set():
                moved[index] += amount

        try:
            runner.pipe(["cat", "/dev/zero"], SINK, meter)
        except OperationFailed:
            return

    streams = [threading.Thread(target=stream, args=(index,)) for index in range(len(moved))]
    for thread in streams:
        thread.start()
        time.sleep(0.5)
    started = time.monotonic()
    counting.set()
    time.sleep(LIMIT_S)
    counting.clear()
    seconds = time.monotonic() - started
    runner.stop()
    for thread in streams:
        thread.join()
    shares = ", ".join(f"{amount / sum(moved):.1%}" for amount in moved)
    together = sum(moved) / MIB / seconds
    _say(f"  shared by three streams: {together:.3f} MiB/s ({together / rate - 1:+.2%}); shares {shares}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
