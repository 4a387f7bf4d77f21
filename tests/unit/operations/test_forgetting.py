"""Forgetting targets, on model nodes: what was kept for one goes, all else stays, and doubt is a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.errors import Busy, OperationFailed, Refused, UsageError
from hoster.model.anchors import TargetKey, anchor_target
from hoster.model.plan import Outcome, Report, VmReport
from hoster.operations.forgetting import ForgetRequest, forget_target
from hoster.operations.history import hold_history
from hoster.operations.inventory import look_around
from hoster.operations.replicate import replicate
from hoster.operations.status import node_status
from hoster.records.journal import Journal
from hoster.records.markers import marker_path, raise_marker
from hoster.records.runs import EndedRun, Run, RunKind
from hoster.testing import NamedHost
from hoster.zfs.store import ZfsStore
from tests.properties.world import Quiet
from tests.unit.operations.nodes import WEB, NodeContext, Nodes
from tests.unit.operations.test_status import Pools
from tests.zfsmodel.command import command


class Place:
    """Node a with its VM, and b and c as targets; what runs leave behind is in a folder."""

    def __init__(self, folder: Path) -> None:
        self.nodes = Nodes(folder)
        own = self.nodes.contexts["a"]
        settings = replace(own.settings, state_dir=folder / "state", marker_dir=folder / "markers")
        pools = Pools(self.nodes)
        store = ZfsStore(NamedHost("a", "a"), pools)  # type: ignore[arg-type]
        self.context: NodeContext = replace(own, settings=settings, runner=pools, zfs=store)
        self.journal = Journal(settings.state_dir)

    def replicate(self, to: str, *, noted: bool = True) -> VmReport:
        report = replicate(self.context, self.nodes.request(to), Quiet())
        assert report.vms[0].outcome is Outcome.DONE, report
        if noted:
            run = Run(RunKind.REPLICATION, f"to_{to}", to)
            assert self.journal.write(EndedRun(run, 10.0, 11.0, 0, "", report.vms)) == ""
        return report.vms[0]

    def write(self) -> None:
        self.nodes.write("a")

    def key(self, node: str) -> TargetKey:
        return TargetKey(self.nodes.cluster.nodes[node].dataset("tank/vm").guid)

    @property
    def anchored(self) -> set[TargetKey | None]:
        vm = look_around(self.context).named("web")
        return {anchor_target(b) for dataset in vm.everything for b in dataset.bookmarks}

    @property
    def sites(self) -> list[str]:
        return [site.endpoint for site in look_around(self.context).named("web").dataset.marks.sites]

    def versions(self) -> dict[str, list[str]]:
        vm = look_around(self.context).named("web")
        return {dataset.name: [s.name for s in dataset.snapshots] for dataset in vm.everything}

    def hold(self, key: TargetKey) -> str:
        """What a killed transfer to that target has left."""
        snapshot = f"{WEB}@{self.versions()[WEB][0]}"
        self.zfs("hold", f"hoster-{key}", snapshot)
        return snapshot

    def zfs(self, *words: str) -> None:
        assert command(self.nodes.cluster.nodes["a"], ("zfs", *words))[0] == 0

    def forget(self, endpoint: str, **more: object) -> VmReport:
        report: Report = forget_target(self.context, ForgetRequest("web", endpoint, **more))  # type: ignore[arg-type]
        (vm,) = report.vms
        return vm


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def names(vm: VmReport) -> Sequence[str]:
    return [gone.snapshot for gone in vm.destroyed]


def test_what_was_kept_for_a_target_that_is_gone_goes_and_nothing_else(place: Place) -> None:
    place.replicate("b")
    first = place.versions()[WEB][0]
    place.write()
    place.replicate("c")
    held = place.hold(place.key("b"))
    place.hold(TargetKey(7))
    place.nodes.cut.add("b")
    versions = place.versions()
    planned = place.forget("b", dry_run=True)
    assert (planned.outcome, place.sites, place.anchored) == (
        Outcome.PLANNED,
        ["b", "c"],
        {place.key("b"), place.key("c")},
    )
    done = place.forget("b")
    assert names(done) == names(planned)
    assert all(f"#hoster-{place.key('b')}-" in name for name in names(done))
    assert done.done == (
        f"gives up its holds on {held}",
        "gives up the mark that a replica is in tank/vm/web on b",
        "gives up what is remembered of it, in status and metrics",
        "gives up how the job to_b stands",
    )
    assert f"{WEB}@{first}" in done.notes[-1]
    assert "left to retention" in done.notes[-1]
    assert (place.anchored, place.sites, place.versions()) == ({place.key("c")}, ["c"], versions)
    assert [(m.vm, m.node) for m in place.journal.replicas()] == [("web", "c")]
    assert [job.job for job in place.journal.jobs()] == ["to_c"]
    assert [run.job for run in place.journal.runs()] == ["to_c", "to_b"], "what ran is history all the same"
    assert [target.node for target in node_status(place.context).vms[0].targets] == ["c"]
    (one,) = [s for s in look_around(place.context).named("web").dataset.snapshots if s.name == first]
    assert one.holds == 1, "somebody else's hold stays"


def test_a_target_that_answers_is_forgotten_all_the_same_and_goes_on_by_guid(place: Place) -> None:
    first = place.replicate("b")
    there = place.nodes.content("b")
    done = place.forget("b")
    assert any(note.startswith("b answers") for note in done.notes)
    assert (place.anchored, place.sites) == (set(), [])
    assert place.nodes.content("b") == there
    assert place.nodes.mark("b", "role") == "replica"
    place.write()
    again = place.replicate("b")
    assert again.newest != first.newest
    assert place.anchored == {place.key("b")}


def test_the_marker_of_its_job_goes_with_the_last_vm_that_had_it_as_a_target(place: Place) -> None:
    place.replicate("b")
    markers = place.context.settings.marker_dir
    assert raise_marker(markers, "to_b", ["cut"], place.context.now()) == ""
    run = Run(RunKind.REPLICATION, "to_b", "b")
    other = VmReport("db", Outcome.FAILED, "cut", target="tank/vm/db")
    assert place.journal.write(EndedRun(run, 20.0, 21.0, 3, "", (other,))) == ""
    place.forget("b")
    assert marker_path(markers, "to_b").exists(), "it is still of use to db"
    assert [job.job for job in place.journal.jobs()] == ["to_b"]
    assert place.journal.forget("db", "b", ("tank/vm/db",)) == (("to_b",), "")


def test_anchors_that_cannot_be_told_from_a_silent_targets_are_left_alone(place: Place) -> None:
    for node in ("b", "c"):
        place.replicate(node)
    place.write()
    for node in ("b", "c"):
        place.replicate(node)
    place.nodes.cut |= {"b", "c"}
    with pytest.raises(Refused) as refused:
        place.forget("b")
    assert "while c cannot be asked" in refused.value.message
    assert str(place.key("b")) in refused.value.message
    assert place.anchored == {place.key("b"), place.key("c")}
    assert place.sites == ["b", "c"]
    place.forget("b", key=place.key("b"))
    assert (place.anchored, place.sites) == ({place.key("c")}, ["c"])


def test_without_a_journal_it_does_with_what_is_marked(place: Place) -> None:
    place.replicate("b", noted=False)
    place.nodes.cut.add("b")
    place.forget("b")
    assert (place.anchored, place.sites) == (set(), [])


def test_a_target_of_this_node_is_known_by_the_journal_alone(place: Place) -> None:
    place.replicate("b", noted=False)
    memory = VmReport("web", Outcome.FAILED, "cut", target="usb/vm/web")
    run = Run(RunKind.REPLICATION, "to_local", "local")
    assert place.journal.write(EndedRun(run, 10.0, 11.0, 3, "", (memory,))) == ""
    done = place.forget("local")
    assert "no anchor of it is here" in done.notes
    assert (place.anchored, place.journal.replicas()) == ({place.key("b")}, ())


def test_one_that_no_run_ever_got_to_know_is_forgotten_too(place: Place) -> None:
    run = Run(RunKind.REPLICATION, "to_x", "x")
    failed = EndedRun(run, 10.0, 11.0, 3, "", (VmReport("web", Outcome.FAILED, "cut"),))
    assert place.journal.write(failed) == ""
    assert place.forget("x").outcome is Outcome.DONE
    assert place.journal.replicas() == ()


def test_anchors_in_branches_go_as_well(place: Place) -> None:
    place.replicate("b")
    branch = f"{WEB}.branch-20240101T000000Z"
    node = place.nodes.cluster.nodes["a"]
    node.create(branch, {"hoster:role": "branch"})
    place.zfs("snapshot", f"{branch}@old")
    guid = node.dataset(branch).snapshots[-1].guid
    place.zfs("bookmark", f"{branch}@old", f"{branch}#hoster-{place.key('b')}-{guid:016x}")
    assert any(name.startswith(f"{branch}#") for name in names(place.forget("b")))


def test_of_two_datasets_there_one_must_be_named(place: Place) -> None:
    place.replicate("b")
    place.nodes.cluster.nodes["b"].create("tank/other", {})
    request = replace(place.nodes.request("b"), target_dataset="tank/other")
    assert replicate(place.context, request, Quiet()).vms[0].outcome is Outcome.DONE
    with pytest.raises(UsageError, match="tank/other or tank/vm"):
        place.forget("b")
    place.forget("b", parent="tank/other")
    (site,) = look_around(place.context).named("web").dataset.marks.sites
    assert site.dataset == "tank/vm/web"


def test_what_is_no_target_is_said_with_those_that_are(place: Place) -> None:
    with pytest.raises(OperationFailed, match="no such target: x") as nothing:
        place.forget("x")
    assert nothing.value.hint == "hoster status web"
    place.replicate("b")
    with pytest.raises(OperationFailed) as failed:
        place.forget("b", parent="tank/elsewhere")
    assert failed.value.hint == "its targets: b (tank/vm)"
    assert place.forget("c", parent="tank/vm", key=TargetKey(1)).destroyed == ()


def test_nothing_is_given_up_that_nobody_agreed_to(place: Place) -> None:
    place.replicate("b")
    with pytest.raises(OperationFailed, match="was not among what was shown"):
        place.forget("b", agreed=frozenset())
    assert (place.anchored, place.sites) == ({place.key("b")}, ["b"])


def test_while_it_is_replicated_it_is_busy(place: Place) -> None:
    place.replicate("b")
    with hold_history(place.context, "web", "a replication", shared=True):
        assert place.forget("b", dry_run=True).outcome is Outcome.PLANNED
        with pytest.raises(Busy):
            place.forget("b")


def test_a_journal_that_cannot_be_written_is_said_and_the_rest_is_done(place: Place) -> None:
    place.replicate("b")
    place.journal.path.write_bytes(b"")
    assert place.journal.forget("web", "b", ("tank/vm/web",)) == ((), "")
    place.journal.path.write_bytes(b"no database at all")
    jobs, problem = place.journal.forget("web", "b", ("tank/vm/web",))
    assert jobs == ()
    assert "the journal of runs cannot be written" in problem
