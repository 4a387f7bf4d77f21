"""What must not run together is refused, and the answer says who is in the way and how far that has come."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.errors import Busy, Refused
from hoster.host.locks import Locks
from hoster.host.origin import own_origin
from hoster.model.names import SnapshotType
from hoster.model.plan import Outcome
from hoster.operations.adopt import adopt
from hoster.operations.branches import destroy_branch, expire_branches, list_branches, restore_branch
from hoster.operations.context import wire
from hoster.operations.going_back import Power
from hoster.operations.history import hold_history
from hoster.operations.inventory import look_around
from hoster.operations.power import hold_power
from hoster.operations.replicate import replicate
from hoster.operations.rollback import RollbackRequest, roll_back
from hoster.operations.snapshots import SnapshotRequest, destroy_snapshot, snapshot_all
from hoster.operations.status import node_status
from hoster.operations.takeover import TakeoverRequest, take_over
from hoster.records.job_states import JobState, Phase, jobs_in, progress_of, write_state
from tests.properties.world import Quiet
from tests.unit.operations.nodes import WEB, NodeContext, Nodes

COMMAND = "hoster vm replicate-all --endpoint b"
MIB = 2**20


class Busily:
    """Node a, where another process seems to be at work on the VM."""

    def __init__(self, folder: Path) -> None:
        self.nodes = Nodes(folder)
        own = self.nodes.contexts["a"]
        self.jobs = jobs_in(own.settings.run_dir)
        locks = Locks(own.settings.run_dir / "locks", COMMAND, lambda pid: progress_of(self.jobs, pid))
        self.context: NodeContext = replace(own, locks=locks)
        self.nodes.contexts["a"] = self.context
        self.nodes.replicate("a", "b")

    def sending(self, sent: int) -> None:
        phases = (Phase("web", 8 * MIB, sent * MIB),)
        state = JobState("to_b", "replication", "b", os.getpid(), own_origin(), 0.0, 0.0, phases)
        assert write_state(self.jobs, state) == ""

    def newest(self) -> str:
        return self.nodes.cluster.nodes["a"].dataset(WEB).snapshots[-1].name

    def destroy(self) -> None:
        destroy_snapshot(self.context, "web", self.newest())

    def destroy_branch(self) -> None:
        destroy_branch(self.context, list_branches(self.context)[0].name, dry_run=False)

    def restore_branch(self) -> None:
        restore_branch(self.context, list_branches(self.context)[0].name, Power(), dry_run=False)

    def roll_back(self) -> None:
        roll_back(self.context, RollbackRequest("web", self.newest()))


@pytest.fixture
def busily(tmp_path: Path) -> Busily:
    return Busily(tmp_path)


ALONE: dict[str, Callable[[Busily], object]] = {
    "snapshot rollback": Busily.roll_back,
    "change parent": lambda busily: busily.nodes.take_over("a"),
    "vm demote": lambda busily: busily.nodes.demote("a"),
    "vm cireset": lambda busily: busily.nodes.cireset("a"),
    "vm restore": lambda busily: busily.nodes.restore("a", "b"),
}


@pytest.mark.parametrize("command", sorted(ALONE))
def test_what_needs_a_vm_alone_is_busy_while_it_is_sent(busily: Busily, command: str) -> None:
    busily.sending(2)
    before = busily.nodes.content("a")
    with (
        hold_history(busily.context, "web", "hoster vm replicate, job to_b", shared=True),
        pytest.raises(Busy) as caught,
    ):
        ALONE[command](busily)
    assert caught.value.message.startswith(f"the history of web is in use by process {os.getpid()} since 2")
    assert caught.value.message.endswith(
        f": hoster vm replicate, job to_b ({COMMAND}); 2.0 of about 8.0 MiB are sent"
    )
    assert busily.nodes.content("a") == before


BESIDE: dict[str, Callable[[Busily], object]] = {
    "snapshot destroy": Busily.destroy,
    "vm branches destroy": Busily.destroy_branch,
    "vm branches restore": Busily.restore_branch,
}


@pytest.mark.parametrize("command", [*sorted(ALONE), *sorted(BESIDE)])
def test_what_needs_a_vm_is_busy_while_another_has_it_alone(busily: Busily, command: str) -> None:
    busily.nodes.write("a")
    busily.roll_back()
    act = {**ALONE, **BESIDE}[command]
    with (
        hold_history(busily.context, "web", "hoster, web is going back"),
        pytest.raises(Busy, match="web is going back"),
    ):
        act(busily)


def test_a_branch_is_destroyed_while_its_vm_is_sent(busily: Busily) -> None:
    busily.nodes.write("a")
    busily.roll_back()
    with hold_history(busily.context, "web", "hoster vm replicate, job to_b", shared=True):
        busily.destroy_branch()
    assert list_branches(busily.context) == ()


def test_a_branch_that_is_in_use_does_not_expire_now(busily: Busily) -> None:
    busily.nodes.write("a")
    busily.roll_back()
    with hold_history(busily.context, "web", "hoster, web is going back"):
        (report,) = expire_branches(busily.context, older_than=-timedelta(days=1), dry_run=False).vms
    assert (report.outcome, len(list_branches(busily.context))) == (Outcome.BUSY, 1)
    assert "web is going back" in report.reason


def test_a_replication_says_which_vm_somebody_else_has(busily: Busily) -> None:
    busily.nodes.write("a")
    with hold_history(busily.context, "web", "hoster, web is going back"):
        report = busily.nodes.replicate("a", "b")
    assert report.outcome is Outcome.BUSY
    assert "web is going back" in report.reason
    assert busily.nodes.replicate("a", "b").outcome is Outcome.DONE


@pytest.fixture
def half_way(busily: Busily) -> Busily:
    """Its VM is on its way back: what is begun is noted on it."""
    web = busily.nodes.cluster.nodes["a"].dataset(WEB)
    web.properties["hoster:swap"] = f"20240101T000000Z/{web.snapshots[0].guid:016x}/-/{WEB}"
    return busily


def test_a_vm_half_way_back_is_busy_for_all_as_long_as_somebody_is_at_it(half_way: Busily) -> None:
    context = half_way.context
    with hold_history(context, "web", "hoster, web is going back"):
        assert half_way.nodes.replicate("a", "b").outcome is Outcome.BUSY
        (snapshot,) = snapshot_all(context, SnapshotRequest(SnapshotType.HOURLY, 3)).vms
        assert (snapshot.outcome, snapshot.vm) == (Outcome.BUSY, "web")
        with pytest.raises(Busy, match="web is going back"):
            half_way.destroy()
        status = node_status(context)
        assert status.verdict == "warning"
        assert "web is going back" in status.problems[0]


def test_a_vm_half_way_back_that_nobody_is_at_is_finished_by_the_next_command(half_way: Busily) -> None:
    (left,) = look_around(half_way.context, mend=False).unusable
    assert not left.busy
    assert left.problem.endswith("it is finished by the next command that is no dry run")
    assert half_way.nodes.replicate("a", "b").outcome is Outcome.UNCHANGED
    assert not look_around(half_way.context, mend=False).unusable


def test_a_snapshot_on_its_way_is_busy_and_refused_when_that_has_ended(busily: Busily) -> None:
    busily.sending(3)
    with pytest.raises(Busy) as caught:
        busily.destroy()
    assert "is needed by a target, and web is being sent by process" in caught.value.message
    assert caught.value.message.endswith(": job to_b to b; 3.0 of about 8.0 MiB are sent")
    for path in busily.jobs.iterdir():
        path.unlink()
    with pytest.raises(Refused, match="next increment starts from"):
        busily.destroy()


def test_snapshots_are_taken_while_a_vm_is_sent(busily: Busily) -> None:
    busily.nodes.write("a")
    with hold_history(busily.context, "web", "hoster vm replicate, job to_b", shared=True):
        report = snapshot_all(busily.context, SnapshotRequest(SnapshotType.HOURLY, 3))
    assert [vm.outcome for vm in report.vms] == [Outcome.DONE]


def test_a_snapshot_that_no_target_needs_goes_while_the_vm_is_sent(busily: Busily) -> None:
    busily.nodes.write("a")
    snapshot_all(busily.context, SnapshotRequest(SnapshotType.HOURLY, 3))
    busily.sending(3)
    with hold_history(busily.context, "web", "hoster vm replicate, job to_b", shared=True):
        busily.destroy()
    assert not busily.newest().startswith("hourly")


ARRIVING = f"812 zfs receive -s -u {WEB} PATH=/bin"


def test_a_takeover_is_busy_while_a_source_that_answers_may_be_sending(busily: Busily) -> None:
    nodes = busily.nodes
    nodes.cluster.receiving["b"] = ARRIVING
    with pytest.raises(Busy, match=f"{WEB} is being received by process 812, and a answers") as caught:
        nodes.take_over("b", accept_loss=True)
    assert "on a: hoster jobs" in caught.value.hint
    assert nodes.mark("b", "role") == "replica"


def test_a_takeover_ends_what_waits_for_a_host_that_is_dead(busily: Busily) -> None:
    nodes = busily.nodes
    nodes.cluster.receiving["b"] = ARRIVING
    nodes.cut.add("a")
    dry = TakeoverRequest("web", dry_run=True)
    planned = take_over(nodes.contexts["b"], dry, lambda _: None, lambda _: False).vms[0]
    assert f"the receiving of {WEB} (process 812) would be ended: its source does not answer" in planned.notes
    assert nodes.cluster.receiving
    report = nodes.take_over("b")
    assert report.outcome is Outcome.DONE
    assert f"the receiving of {WEB} (process 812) was ended: its source does not answer" in report.notes
    assert not nodes.cluster.receiving
    assert nodes.mark("b", "role") == "primary"


def test_another_vms_stream_is_in_nobodys_way(busily: Busily) -> None:
    busily.nodes.cluster.receiving["b"] = ARRIVING.replace("web", "web2")
    busily.nodes.cut.add("a")
    assert busily.nodes.take_over("b").outcome is Outcome.DONE
    assert busily.nodes.cluster.receiving


def test_who_has_to_wait_is_told_the_command_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "hoster.toml"
    config.write_text(f'datasets = ["tank/vm"]\nrun-dir = "{tmp_path}/run"\n')
    monkeypatch.setattr("sys.argv", ["/opt/bin/hoster", "vm", "replicate", "my\nvm", "x" * 500])
    context = wire({"HOSTER_CONFIG": str(config)})
    state = JobState("to_b", "replication", "b", os.getpid(), own_origin(), 0.0, 0.0, (Phase("web", MIB, 0),))
    assert write_state(jobs_in(context.settings.run_dir), state) == ""
    with (
        hold_history(context, "web", "it", shared=True),
        pytest.raises(Busy) as caught,
        hold_history(context, "web", "me"),
    ):
        pass
    told = caught.value.message
    assert ": it (hoster vm replicate 'my vm' xxxx" in told
    assert told.endswith("xxx…); 0.0 of about 1.0 MiB are sent")
    assert len(told) < 500


class Ending(Locks):
    """Lets another process end what it has locked as soon as anybody waits for it."""

    def __init__(self, folder: Path, what: str, ends: Callable[[], None]) -> None:
        Locks.__init__(self, folder)
        self.what, self.ends = what, ends

    @contextmanager
    def hold(self, what: str, *, holder: str, wait_s: float = 0.0, shared: bool = False) -> Iterator[float]:
        if what == self.what and wait_s:
            self.ends()
        with Locks.hold(self, what, holder=holder, wait_s=wait_s, shared=shared) as let_go_at:
            yield let_go_at


@pytest.mark.parametrize("what", ["the replication of web to b", "the history of web"])
def test_who_has_waited_looks_again_at_what_the_other_has_left(busily: Busily, what: str) -> None:
    nodes, folder = busily.nodes, busily.context.settings.run_dir / "locks"
    nodes.write("a")
    other = replace(busily.context, locks=Locks(folder.parent / "of the other job"))
    with ExitStack() as held:

        def ends() -> None:
            (report,) = replicate(other, nodes.request("b"), Quiet()).vms
            assert report.outcome is Outcome.DONE
            held.close()

        held.enter_context(Locks(folder).hold(what, holder="another job"))
        waiting = replace(busily.context, locks=Ending(folder, what, ends))
        (report,) = replicate(waiting, replace(nodes.request("b"), wait_s=60.0), Quiet()).vms
    assert (report.outcome, report.reason) == (Outcome.UNCHANGED, "b has everything")


def test_one_run_waits_for_all_its_vms_together_no_longer_than_asked(busily: Busily) -> None:
    began = time.monotonic()
    with busily.context.locks.hold("the replication of web to b", holder="another job"):
        (report,) = replicate(busily.context, replace(busily.nodes.request("b"), wait_s=0.3), Quiet()).vms
    assert report.outcome is Outcome.BUSY
    assert 0.3 <= time.monotonic() - began < 30


def test_nobody_adopts_what_another_one_is_making_this_nodes_own(tmp_path: Path) -> None:
    """Two who mark a dataset as a VM would give it two identities, one of which a copy might keep."""
    nodes = Nodes(tmp_path)
    context = nodes.contexts["a"]
    before = dict(nodes.cluster.nodes["a"].dataset(WEB).properties)
    with hold_power(context, "web"), pytest.raises(Busy):
        adopt(context, "web", production=False)
    assert nodes.cluster.nodes["a"].dataset(WEB).properties == before
