"""``python -m tests.campaign``: many runs, one line for each that fails, and what was counted.

``--replay SEED`` shows one run step by step; ``--planted`` proves that the oracle can fail.
"""

from __future__ import annotations

import argparse
import sys
import time
from multiprocessing import Pool

from tests.campaign.planted import DEFECTS, hunt
from tests.campaign.replications import Tally
from tests.campaign.run import Result, run

REPLAY = "python -m tests.campaign --replay"
EVERY = 250
"""Runs after which it is said how far things are."""

FOUND_AT_LEAST = 30
"""Of the planted defects; some need rarer luck than a few hundred seeds give."""


def main() -> int:
    """0 if every run was well, or every planted defect was found; else 3."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--runs", type=int, default=5000, help="how many runs, or seeds for each defect")
    parser.add_argument("--seed", type=int, default=1, help="the first seed; the others follow")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--replay", type=int, metavar="SEED", help="show this one run")
    parser.add_argument(
        "--planted", action="store_true", help="plant defects, and see whether they are found"
    )
    words = parser.parse_args()
    if words.replay is not None:
        return replay(words.replay)
    if words.planted:
        return planted(words.seed, words.runs, words.processes)
    return campaign(words.seed, words.runs, words.processes)


def campaign(first: int, runs: int, processes: int) -> int:
    """Runs all seeds and prints those that fail as they are found."""
    began = time.monotonic()
    total, failed = Tally(), 0
    with Pool(processes) as pool:
        for done, result in enumerate(pool.imap(_brief, range(first, first + runs), chunksize=10), 1):
            total.add(result.tally)
            if result.failure:
                failed += 1
                print(f"{result.line}\n    {REPLAY} {result.seed}", flush=True)
            if done % EVERY == 0:
                pace = done / (time.monotonic() - began)
                print(f"{done} of {runs} runs, {failed} failed, {pace:.1f} a second", file=sys.stderr)
    took = time.monotonic() - began
    print(f"{runs} runs, {total.steps} steps, {failed} failed, {took:.0f} s, {runs / took:.1f} runs a second")
    for what, counts in (("faults", total.faults), ("refusals", total.refusals), ("events", total.events)):
        print(f"{what}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(
        "runs until a target had everything: " + ", ".join(f"{n}: {c}" for n, c in sorted(total.runs.items()))
    )
    return 3 if failed else 0


def replay(seed: int) -> int:
    """Shows one run."""
    result = run(seed)
    print("\n".join(result.trace))
    print(result.line if result.failure else f"seed={seed} is well")
    return 3 if result.failure else 0


def planted(first: int, runs: int, processes: int) -> int:
    """Plants each defect and prints which seed found it, and by what."""
    found = 0
    with Pool(processes) as pool:
        hunts = [(number, first, runs) for number in range(len(DEFECTS))]
        for defect, result in zip(DEFECTS, pool.imap(_hunt, hunts), strict=True):
            found += result is not None
            where = f"seed {result.seed:5}  {result.failure[:110]}" if result else "NOT FOUND"
            print(f"{defect.name:60} {where}", flush=True)
    print(f"{found} of {len(DEFECTS)} found")
    return 0 if found >= FOUND_AT_LEAST else 3


def _brief(seed: int) -> Result:
    result = run(seed)
    result.trace = []
    return result


def _hunt(words: tuple[int, int, int]) -> Result | None:
    number, first, runs = words
    return hunt(DEFECTS[number], first, runs)


if __name__ == "__main__":
    sys.exit(main())
