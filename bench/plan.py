"""What it costs to understand listings and to plan: 100, 1000 and 10,000 VMs, 100 snapshots at both ends.

The listings are what ``zfs get`` prints, made up in portions of ``PORTION`` VMs, as a whole one would be
1.5 GB; hoster holds no more than a line of one. The views of the portions are put together. What grows
faster than the number of VMs shows as more microseconds for each. ``--profile`` says where the time of 1000
VMs goes.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from hoster.model.anchors import TargetKey, anchor_name
from hoster.model.names import SnapshotType
from hoster.model.storage import Dataset, Role, View
from hoster.planning.refusals import Subject, TargetSite
from hoster.planning.replication import Clearance, is_up_to_date, judge, preview
from hoster.planning.retention import plan_retention, plan_target_retention
from hoster.zfs.argv import LISTED_PROPERTIES
from hoster.zfs.parse import read_view

T = TypeVar("T")

SNAPSHOTS = 100
PORTION = 500
SITE = TargetSite("backup1", "backup/vm", 0xBAC0)
CHANGED = 10
"""Every how many VMs one was written to and has five snapshots that the target lacks."""

_UNSENT = 5


def main() -> None:
    """Prints one line for each number of VMs, or the profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("numbers", type=int, nargs="*", default=[100, 1000, 10_000], metavar="VMS")
    parser.add_argument("--profile", action="store_true", help="say where the time goes")
    options = parser.parse_args()
    if options.profile:
        profile = cProfile.Profile()
        profile.enable()
        measure(1000)
        profile.disable()
        pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(15)
        return
    for number in options.numbers:
        measure(number)


def measure(number: int) -> None:
    """Reads both listings of ``number`` VMs, plans for all of them, and prints what each step took."""
    size = 0
    parsing_s = 0.0
    views: list[View] = []
    for target in (False, True):
        datasets: dict[str, Dataset] = {}
        for first in range(0, number, PORTION):
            text = "".join(vm_listing(i, target=target) for i in range(first, min(first + PORTION, number)))
            size += len(text)
            lines = text.splitlines()
            seconds, view = _timed(lambda lines=lines: read_view("node", lines))  # type: ignore[misc]
            parsing_s += seconds
            datasets |= view.datasets
        views.append(View("node", datasets))
    source, target_view = views
    gc.collect()
    stock_s, subjects = _timed(lambda: list(_subjects(source)))
    found_s, replicas = _timed(lambda: [_replicas(target_view, s.name) for s in subjects])
    judging_s, cleared = _timed(
        lambda: [judge(s, SITE, f"backup/vm/{s.name}", r) for s, r in zip(subjects, replicas, strict=True)]
    )
    clear = [(s, c) for s, c in zip(subjects, cleared, strict=True) if isinstance(c, Clearance)]
    assert len(clear) == number
    due = [(s, c) for s, c in clear if not is_up_to_date(c)]
    assert len(due) == -(-number // CHANGED)
    planning_s, _ = _timed(lambda: [preview(s, c, "replication_2025-01-01_00-00-00") for s, c in due])
    pruning_s, _ = _timed(lambda: _prune_all(subjects, replicas))
    listing = size / 2
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    _say(
        f"{number} VMs x {SNAPSHOTS} snapshots at both ends: {listing / 1024**2:.0f} MiB a listing;"
        f" {memory:.1f} GiB of memory at most"
    )
    for name, seconds, count in (
        ("read_view, both listings", parsing_s, number),
        ("View.children and below, source", stock_s, number),
        ("View.below, target", found_s, number),
        ("judge", judging_s, number),
        ("preview (VMs that changed)", planning_s, len(due)),
        ("retention, both ends", pruning_s, number),
    ):
        _say(f"  {name:<34} {seconds:8.3f} s {seconds / count * 1e6:10.1f} µs a VM")


def vm_listing(index: int, *, target: bool) -> str:
    """What ``zfs get`` prints of one VM with its snapshots and its anchor, on the source or on the target."""
    name = f"{'backup' if target else 'tank'}/vm/vm{index:05}"
    vm_id = f"00000000-0000-4000-8000-{index:012}"
    changed = index % CHANGED == 0
    marks = {
        "hoster:id": vm_id,
        "hoster:role": "replica" if target else "primary",
        "hoster:epoch": "1@node1",
        "hoster:parent": "node1",
        "hoster:production": "yes",
    }
    written = 4096 if changed and not target else 0
    lines = [_lines(name, {"type": "filesystem", "guid": 1 + index, "written": written}, marks)]
    count = SNAPSHOTS - _UNSENT if target and changed else SNAPSHOTS
    sent = {"hoster:from": f"{vm_id}/1"} if target else {}
    lines += [_snapshot(name, index, position, sent) for position in range(count)]
    if not target:
        arrived = SNAPSHOTS - _UNSENT - 1 if changed else SNAPSHOTS - 1
        anchor = anchor_name(TargetKey(0xBAC0), _guid(index, arrived))
        values = {"type": "bookmark", "guid": _guid(index, arrived), "createtxg": 1000 + arrived}
        lines.append(_lines(f"{name}#{anchor}", values, {}))
    return "".join(lines)


def _snapshot(dataset: str, index: int, position: int, marks: dict[str, str]) -> str:
    stype = ("hourly", "daily", "replication")[position % 3]
    day, hour = divmod(position, 24)
    name = f"{dataset}@{stype}_2024-01-{day + 1:02}_{hour:02}-00-00"
    values = {
        "type": "snapshot",
        "guid": _guid(index, position),
        "createtxg": 1000 + position,
        "creation": 1_704_067_200 + 3600 * position,
        "used": 123_456,
        "written": 1_234_567,
        "userrefs": 0,
        "encryption": "off",
    }
    return _lines(name, values, marks)


def _guid(index: int, position: int) -> int:
    return (1 << 63) + index * 1000 + position


def _lines(name: str, values: dict[str, object], local: dict[str, str]) -> str:
    values = {"createtxg": 1, **values}
    return "".join(
        f"{name}\t{key}\t{local[key]}\tlocal\n"
        if key in local
        else f"{name}\t{key}\t{values.get(key, '-')}\t-\n"
        for key in LISTED_PROPERTIES
    )


def _subjects(view: View) -> Iterator[Subject]:
    for dataset in view.children("tank/vm"):
        descendants = tuple(view.below(dataset.name))
        yield Subject(dataset.name.rpartition("/")[2], dataset, Role.PRIMARY, "node1", descendants)


def _replicas(view: View, name: str) -> list[Dataset]:
    replica = view.datasets[f"backup/vm/{name}"]
    return [replica, *view.below(replica.name)]


def _prune_all(subjects: Sequence[Subject], replicas: Sequence[Sequence[Dataset]]) -> None:
    counts = {SnapshotType.HOURLY: 10, SnapshotType.DAILY: 10, SnapshotType.REPLICATION: 10}
    for subject, (replica, *_) in zip(subjects, replicas, strict=True):
        source = subject.dataset
        plan_retention(source, SnapshotType.REPLICATION, 10)
        assert source.marks.vm_id is not None
        newest = source.snapshots[-1].guid
        plan_target_retention(replica, counts, newest_common=newest, sent_by=source.marks.vm_id)


def _timed(act: Callable[[], T]) -> tuple[float, T]:
    """The seconds of processor time that ``act`` takes, which other work on the machine does not lengthen."""
    started = time.process_time()
    result = act()
    return time.process_time() - started, result


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
