"""The lab tests that depend on OpenZFS, once with each of its lines: python -m tests.lab.matrix.

Each entry is a pytest of its own, one after another; one that fails stops no other. Ends with a table on
standard output, and with 1 if anything failed in any of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import LabError
from lab.image import build_image
from lab.release import releases_named

ENTRIES = ("bookworm", "trixie", "trixie-backports", "trixie,bookworm")
"""OpenZFS 2.1, 2.3, 2.4; and from 2.3 to 2.1, a newer source than target."""

FILES = (
    *("test_replication", "test_snapshots", "test_encryption", "test_trees", "test_targets", "test_names"),
    *("test_parting", "test_interruption", "test_refusals", "test_budget", "test_zfs_model"),
)
"""What depends on OpenZFS, and not only on hoster or on the lab."""

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Row:
    """How an entry ended. `openzfs` is what its nodes had loaded, "-" where none came up."""

    entry: str
    openzfs: str
    passed: int
    failed: int
    skipped: int
    minutes: float
    status: int

    def cells(self) -> tuple[str, ...]:
        failed = str(self.failed) if self.failed or not self.status else "did not run"
        return (self.entry, self.openzfs, str(self.passed), failed, str(self.skipped), f"{self.minutes:.1f}")


_HEADINGS = ("releases", "OpenZFS", "passed", "failed", "skipped", "minutes")


def main(arguments: Sequence[str]) -> int:
    """Run the entries named, or all; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.matrix", description=__doc__)
    parser.add_argument("entries", nargs="*", default=ENTRIES, metavar="NAME[,NAME...]", help="releases")
    parser.add_argument("-k", dest="only", metavar="EXPRESSION", help="only the tests that pytest -k selects")
    asked = parser.parse_args(arguments)
    rows = [_run(entry, asked.only) for entry in asked.entries]
    print(_table([_HEADINGS, *(row.cells() for row in rows)]))
    return int(any(row.status for row in rows))


def _run(entry: str, only: str | None) -> Row:
    began = time.monotonic()
    print(f"== {entry}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hoster-matrix-") as work:
        report = Path(work) / "report.xml"
        try:
            for release in releases_named(entry):
                build_image(release)
        except LabError as error:
            print(f"lab: {error}", file=sys.stderr)
            status = 1
        else:
            files = [str(_HERE / f"{name}.py") for name in FILES]
            command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", *files]
            command += ["--lab-releases", entry, f"--junit-xml={report}", *(("-k", only) if only else ())]
            status = subprocess.run(command, cwd=_HERE.parents[1], check=False).returncode
        openzfs, outcomes = read_report(report) if report.exists() else ("-", Counter[str]())
    return Row(
        entry,
        openzfs,
        outcomes["passed"],
        outcomes["failed"],
        outcomes["skipped"],
        (time.monotonic() - began) / 60,
        status,
    )


def read_report(report: Path) -> tuple[str, Counter[str]]:
    """The versions of OpenZFS that the tests have seen, "-" if none, and how many ended in which way."""
    versions = set()
    outcomes: Counter[str] = Counter()
    for case in ET.parse(report).iter("testcase"):
        versions |= {one.get("value", "") for one in case.iter("property") if one.get("name") == "openzfs"}
        ends = {child.tag for child in case} & {"failure", "error", "skipped"}
        outcomes["skipped" if ends == {"skipped"} else "failed" if ends else "passed"] += 1
    return " ".join(sorted(versions)) or "-", outcomes


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
