"""The node at a glance, on model nodes: one look here, none elsewhere, and what cannot be read says so."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from hoster.errors import ZfsError
from hoster.host.origin import own_origin
from hoster.host.process import Completed
from hoster.model.plan import Outcome, VmReport
from hoster.operations.overview import Overview, Wrong, overview
from hoster.operations.replicate import replicate
from hoster.records.job_states import JobState, jobs_in, write_state
from hoster.records.journal import Journal
from hoster.records.markers import raise_marker
from hoster.records.runs import EndedRun, Run, RunKind
from hoster.testing import NamedHost, read_whole
from hoster.zfs.rooms import rooms
from hoster.zfs.store import ZfsStore
from tests.properties.world import Quiet
from tests.unit.operations.nodes import WEB, NodeContext, Nodes
from tests.unit.operations.test_status import Pools

T = TypeVar("T")

ROOM = "tank/vm\t2048\t{}\t{}\t{}\tyes\n"


class Machine(Pools):
    """The model nodes with the few commands that only an overview gives; ``broken`` are words that fail."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(nodes)
        self.broken: set[str] = set()
        self.room = ROOM.format(4096, "off", "-")

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> Completed:
        asked = tuple(argv)
        if self.broken & set(asked):
            self.commands.append(asked)
            return Completed(asked, 1, "", "cannot do that: I/O error")
        if asked[2:5] == ("zfs", "list", "-Hp"):
            self.commands.append(asked)
            return Completed(asked, 0, self.room, "")
        return super().run(argv, stdin=stdin, timeout_s=timeout_s)

    def read(
        self, argv: Sequence[str], reader: Callable[[Iterator[str]], T], *, timeout_s: float | None = None
    ) -> tuple[T, Completed]:
        return read_whole(self.run(argv, timeout_s=timeout_s), reader)


class Place:
    """Node a with its VM; what runs leave behind is in a folder."""

    def __init__(self, folder: Path) -> None:
        self.nodes = Nodes(folder)
        self.machine = Machine(self.nodes)
        own = self.nodes.contexts["a"]
        settings = replace(own.settings, state_dir=folder / "state", marker_dir=folder / "markers")
        store = ZfsStore(NamedHost("a", "a"), self.machine)  # type: ignore[arg-type]
        self.context: NodeContext = replace(own, settings=settings, runner=self.machine, zfs=store)
        self.journal = Journal(settings.state_dir)
        for node in self.nodes.cluster.nodes.values():
            node.clock = int(time.time())

    def replicate(self, to: str) -> None:
        report = replicate(self.context, self.nodes.request(to), Quiet())
        run = Run(RunKind.REPLICATION, f"to_{to}", to)
        assert self.journal.write(EndedRun(run, time.time(), time.time(), 0, "", report.vms)) == ""

    @property
    def seen(self) -> Overview:
        self.machine.commands.clear()
        return overview(self.context)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_node_on_which_all_is_well(place: Place) -> None:
    place.replicate("b")
    seen = place.seen
    assert (seen.hostname, seen.wrong) == ("a", ())
    assert seen.openzfs
    assert [(vm.name, vm.state, vm.role, vm.production) for vm in seen.vms] == [
        ("web", "stopped", "primary", True)
    ]
    (room,) = seen.datasets
    assert (room.name, room.used, room.available, room.encrypted, room.key_loaded, room.mounted) == (
        "tank/vm",
        2048,
        4096,
        False,
        True,
        True,
    )
    (target,) = seen.replication
    assert (target.node, target.vms, target.verdict, target.why) == ("b", 1, "ok", "")
    assert [pool.pool for pool in seen.zpool_list] == ["tank"]
    assert (seen.all_vms, seen.live_vms, seen.backup_vms, seen.offline_vms, seen.offline_vms_prod) == (
        *(1, 0, 0, 1, 1),
    )


def test_it_costs_one_listing_and_asks_nobody_else(place: Place) -> None:
    place.replicate("b")
    place.nodes.cut.add("b")
    assert place.seen.replication[0].verdict == "ok"
    verbs = sorted(" ".join(command[2:4]) for command in place.machine.commands)
    assert verbs == ["zfs get", "zfs list", "zfs version", "zpool list", "zpool status"]
    assert {command[1] for command in place.machine.commands} == {"a"}


def test_a_running_vm_counts_with_its_processors(place: Place) -> None:
    config = Path(f"{place.nodes.folder}/a/web/vm_config.json")
    config.write_text(config.read_text().replace("{", '{"cpu_sockets": 1, "cpu_cores": 3, ', 1))
    place.nodes.start("a")
    seen = place.seen
    assert (seen.live_vms, seen.offline_vms, seen.vms[0].state) == (1, 0, "running")
    assert seen.cpus is not None
    assert seen.vcpu_2_pcpu_ratio == 3 / seen.cpus
    assert seen.vms[0].since


def test_the_worst_of_a_target_is_told_with_the_oldest_data_there(place: Place) -> None:
    place.replicate("b")
    run = Run(RunKind.REPLICATION, "to_b", "b")
    failed = VmReport("web", Outcome.FAILED, "the link was cut", target=WEB)
    assert place.journal.write(EndedRun(run, time.time(), time.time(), 3, "", (failed,))) == ""
    (target,) = place.seen.replication
    assert target.verdict == "warning"
    assert target.why == "web: the last run failed: the link was cut"
    assert target.oldest_data_at is not None
    assert Wrong("web: b: the last run failed: the link was cut", "hoster status web") in place.seen.wrong


def test_a_job_that_runs_and_one_that_failed_are_told(place: Place) -> None:
    state = JobState("to_c", "replication", "c", os.getpid(), own_origin(), 3000.0, 3001.0)
    assert write_state(jobs_in(place.context.settings.run_dir), state) == ""
    raise_marker(place.context.settings.marker_dir, "to_b", ["exit code 3", "web: cut"], place.context.now())
    raise_marker(place.context.settings.marker_dir, "to_d", ["exit code 12"], place.context.now())
    seen = place.seen
    assert [job.job for job in seen.jobs] == ["to_c"]
    wrong = {one.hint: one.what for one in seen.wrong}
    assert wrong["hoster history --job to_b"].endswith("to_b failed: web: cut")
    assert wrong["hoster history --job to_d"].endswith("to_d failed")


def test_a_key_that_is_not_loaded_is_told(place: Place) -> None:
    place.machine.room = ROOM.format(4096, "aes-256-gcm", "unavailable")
    assert Wrong("the key of tank/vm is not loaded", "zfs load-key tank/vm") in place.seen.wrong


@pytest.mark.parametrize("broken", ["version", "list", "get", "status"])
def test_a_part_that_cannot_be_read_says_why_and_the_rest_is_there(place: Place, broken: str) -> None:
    place.replicate("b")
    place.machine.broken.add(broken)
    seen = place.seen
    assert any("I/O error" in wrong.what and wrong.hint for wrong in seen.wrong), seen.wrong
    assert seen.hostname == "a"
    assert bool(seen.vms) == (broken != "get")
    assert (seen.all_vms is None) == (broken == "get")


def test_records_that_cannot_be_read_are_told(place: Place) -> None:
    place.replicate("b")
    place.journal.path.write_bytes(b"no database at all")
    place.context.settings.marker_dir.write_text("no folder")
    jobs_in(place.context.settings.run_dir).write_text("no folder")
    hints = [wrong.hint for wrong in place.seen.wrong]
    assert {"hoster status", "hoster history"} <= set(hints)
    assert len(hints) >= 3


def test_what_zfs_prints_is_not_taken_for_something_else(place: Place) -> None:
    place.machine.room = "tank/vm\tmany\n"
    with pytest.raises(ZfsError, match="not understood"):
        rooms(place.context.zfs.host, place.machine, ("tank/vm",))  # type: ignore[arg-type]
