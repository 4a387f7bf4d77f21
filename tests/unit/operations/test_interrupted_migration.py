"""A migration that is interrupted, or loses the other node: one side can start the VM, and it says which."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from hoster.errors import ExitCode, Interrupted, OperationFailed, Refused, Unreachable
from hoster.host.process import Completed
from hoster.hypervisors.memory import InMemory
from hoster.hypervisors.protocol import GuestRef
from hoster.model.plan import Outcome
from hoster.operations.handover import Migration, migrate
from tests.properties.world import Quiet
from tests.unit.operations.nodes import DISK, Nodes

Far = Callable[[str, tuple[str, ...]], Completed]


class Stopping(InMemory):
    """Lets something happen when a machine has been stopped."""

    then: Callable[[], None] = msgspec.field(default=lambda: None)

    def stop(self, ref: GuestRef, *, force: bool, limit_s: float) -> bool:
        ran = InMemory.stop(self, ref, force=force, limit_s=limit_s)
        self.then()
        return ran


def interrupt() -> None:
    raise KeyboardInterrupt


def running(folder: Path) -> Nodes:
    """A VM that runs on node a, has a replica on b, and has written since."""
    nodes = Nodes(folder)
    nodes.contexts["a"] = replace(nodes.contexts["a"], driver=Stopping())
    nodes.replicate("a", "b")
    nodes.write("a")
    nodes.start("a")
    return nodes


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return running(tmp_path)


def after_the_stop(nodes: Nodes, then: Callable[[], None]) -> None:
    driver = nodes.contexts["a"].driver
    assert isinstance(driver, Stopping)
    driver.then = then


def runs(nodes: Nodes, name: str) -> bool:
    driver = nodes.contexts[name].driver
    assert isinstance(driver, InMemory)
    return bool(driver.machines)


def stays_and_can_be_moved(nodes: Nodes) -> None:
    """The VM runs on a, with what it wrote, and nowhere else; the same command moves it after all."""
    content = nodes.content("a"), nodes.content("a", DISK)
    assert runs(nodes, "a")
    assert not runs(nodes, "b")
    nodes.stop("a")
    after_the_stop(nodes, lambda: None)
    assert nodes.primaries() == ["a"]
    if nodes.mark("b", "role") != "replica":
        nodes.failback("a", "b")
    assert nodes.migrate("a", "b").outcome is Outcome.DONE
    assert nodes.primaries() == ["b"]
    assert (nodes.content("b"), nodes.content("b", DISK)) == content


def of_promotions(nodes: Nodes, acts: Far) -> None:
    """Lets a promotion on another node go otherwise; all else of hoster there is as it is."""
    usual = nodes.cluster.hoster

    def far(name: str, words: tuple[str, ...]) -> Completed:
        return acts(name, words) if words[0] == "change" else usual(name, words)

    nodes.cluster.hoster = far


def test_a_link_that_is_lost_while_the_rest_is_sent_leaves_it_running_here(nodes: Nodes) -> None:
    after_the_stop(nodes, lambda: nodes.cut.add("b"))
    with pytest.raises(OperationFailed, match="web stays this node's VM and runs here again"):
        nodes.migrate("a", "b")
    nodes.cut.clear()
    stays_and_can_be_moved(nodes)


def test_a_promotion_whose_answer_is_lost_with_the_link_does_not_count(nodes: Nodes) -> None:
    usual = nodes.cluster.hoster

    def promoted_and_lost(name: str, words: tuple[str, ...]) -> Completed:
        usual(name, words)
        nodes.cut.add("b")
        raise Unreachable("b: the connection was lost")

    of_promotions(nodes, promoted_and_lost)
    with pytest.raises(OperationFailed, match="runs here again"):
        nodes.migrate("a", "b")
    nodes.cluster.hoster = usual
    nodes.cut.clear()
    assert (nodes.mark("b", "role"), nodes.mark("b", "epoch")) == ("primary", "2@b")
    assert nodes.mark("a", "epoch") == "3@a"
    stays_and_can_be_moved(nodes)


def test_a_promotion_that_comes_after_it_was_given_up_does_not_count(nodes: Nodes) -> None:
    usual = nodes.cluster.hoster
    late: list[tuple[str, tuple[str, ...]]] = []

    def still_under_way(name: str, words: tuple[str, ...]) -> Completed:
        late.append((name, words))
        return Completed(words, 255, "", "no end after 600 s")

    of_promotions(nodes, still_under_way)
    with pytest.raises(OperationFailed, match="runs here again"):
        nodes.migrate("a", "b")
    nodes.cluster.hoster = usual
    assert usual(*late[0]).returncode == ExitCode.REFUSED, "its handing over is over"
    # One that had asked before this copy went before it is not kept from its promotion by anything.
    for key, value in (("role", "primary"), ("epoch", "2@b"), ("parent", "b")):
        nodes.cluster.nodes["b"].dataset("tank/vm/web").properties[f"hoster:{key}"] = value
    with pytest.raises(Refused, match="a has taken it over"):
        nodes.start("b")
    stays_and_can_be_moved(nodes)


@pytest.mark.parametrize("promoted", [True, False])
def test_an_interruption_while_it_is_promoted_leaves_it_running_here(nodes: Nodes, promoted: bool) -> None:
    usual = nodes.cluster.hoster

    def interrupted(name: str, words: tuple[str, ...]) -> Completed:
        if promoted:
            usual(name, words)
        raise KeyboardInterrupt

    of_promotions(nodes, interrupted)
    with pytest.raises(
        Interrupted, match="interrupted; web stays this node's VM and runs here again"
    ) as error:
        nodes.migrate("a", "b")
    assert error.value.exit_code is ExitCode.INTERRUPTED
    nodes.cluster.hoster = usual
    stays_and_can_be_moved(nodes)


def test_an_interruption_while_it_powers_down_says_that_it_may(nodes: Nodes) -> None:
    after_the_stop(nodes, interrupt)
    with pytest.raises(Interrupted, match="may still power down") as error:
        nodes.migrate("a", "b")
    assert error.value.hint == "hoster vm start web, if it did"
    assert nodes.mark("a", "role") == "primary"


def test_an_interruption_after_the_promotion_names_the_other_side_and_is_finished_by_the_next(
    nodes: Nodes,
) -> None:
    usual = nodes.cluster.hoster

    def interrupted_at_its_start(name: str, words: tuple[str, ...]) -> Completed:
        if words[:2] == ("vm", "start"):
            raise KeyboardInterrupt
        return usual(name, words)

    nodes.cluster.hoster = interrupted_at_its_start
    with pytest.raises(Interrupted, match="web is b's VM now, and may not have been started there") as error:
        nodes.migrate("a", "b")
    assert error.value.hint == "on b: hoster vm start web"
    nodes.cluster.hoster = usual
    again = nodes.migrate("a", "b")
    assert again.outcome is Outcome.DONE
    assert again.notes[0] == "web was b's VM already"
    assert nodes.primaries() == ["b"]


def test_a_request_to_end_keeps_its_exit_code_and_is_told_how_it_stands(nodes: Nodes) -> None:
    def ended(name: str, words: tuple[str, ...]) -> Completed:
        raise SystemExit(143)

    usual = nodes.cluster.hoster
    of_promotions(nodes, ended)
    with pytest.raises(SystemExit) as left:
        nodes.migrate("a", "b")
    assert left.value.code == 143
    nodes.cluster.hoster = usual
    stays_and_can_be_moved(nodes)


SESSION = """
import os, signal, sys
from pathlib import Path
import hoster.cli.main as cli
import hoster.operations.primacy as primacy
from tests.unit.operations.test_interrupted_migration import of_promotions, running, runs

primacy.await_devices = lambda volumes: ()
nodes = running(Path(sys.argv[1]))
usual = nodes.cluster.hoster

def breaks_off(name, words):
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    return usual(name, words)

of_promotions(nodes, breaks_off)
cli.hoster.main = lambda **_: nodes.migrate("a", "b")
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[3]))
try:
    cli.main()
finally:
    print(*(name for name in "ab" if runs(nodes, name)))
"""


@pytest.mark.parametrize(
    ("sent", "hangup", "code", "where"),
    [
        pytest.param("SIGTERM", "SIG_DFL", 143, "a", id="a request to end"),
        pytest.param("SIGHUP", "SIG_DFL", 143, "a", id="the session breaks off"),
        pytest.param("SIGHUP", "SIG_IGN", 0, "b", id="the session breaks off, under nohup"),
    ],
)
def test_a_session_that_breaks_off_after_the_stop_leaves_it_running_on_one_side(
    tmp_path: Path, sent: str, hangup: str, code: int, where: str
) -> None:
    command = [sys.executable, "-c", SESSION, str(tmp_path), sent, hangup]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, f"{where}\n"), done.stderr


def test_a_guest_that_does_not_power_down_in_time_may_still_do_so_and_that_is_said(nodes: Nodes) -> None:
    driver = nodes.contexts["a"].driver
    assert isinstance(driver, Stopping)
    driver.deaf = frozenset({"web"})
    patience = Migration(nodes.request("b"), limit_s=0.01)
    with pytest.raises(
        OperationFailed, match="; web stays this node's VM, and may still power down, as it was asked to"
    ) as error:
        migrate(nodes.contexts["a"], patience, Quiet(), lambda _: None)
    assert error.value.hint == "hoster vm start web, if it did; hoster vm stop web --force"
    stays_and_can_be_moved(nodes)


def test_where_another_node_took_it_over_in_between_it_does_not_run_here(nodes: Nodes) -> None:
    def taken_over() -> None:
        properties = nodes.cluster.nodes["b"].dataset("tank/vm/web").properties
        properties.update({"hoster:role": "primary", "hoster:epoch": "2@b", "hoster:parent": "b"})

    after_the_stop(nodes, taken_over)
    with pytest.raises(OperationFailed, match="is not running, and is not started here: web: another node"):
        nodes.migrate("a", "b")
    assert nodes.primaries() == ["b"]


def test_what_another_node_has_already_is_not_moved_while_it_runs_here(nodes: Nodes) -> None:
    nodes.cut.add("a")
    nodes.take_over("b")
    nodes.cut.clear()
    with pytest.raises(Refused, match="web runs here"):
        nodes.migrate("a", "b")
    alone = nodes.content("a")
    nodes.stop("a")
    assert nodes.migrate("a", "b").notes[0] == "web was b's VM already"
    assert nodes.content("a") == alone, "what it wrote alone is there, for the next replication to set aside"
    with pytest.raises(Refused, match="is not this node's own VM"):
        nodes.migrate("a", "c")


def test_one_that_did_not_run_is_not_started_there_and_that_is_said(nodes: Nodes) -> None:
    nodes.stop("a")
    report = nodes.migrate("a", "b")
    assert report.outcome is Outcome.DONE
    assert not runs(nodes, "b")
    assert report.notes[-1] == "it did not run here, and is not started there: on b: hoster vm start web"
