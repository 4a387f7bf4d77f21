"""Starting, stopping and showing the VMs of a scripted node: what is refused, said, and never done."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hoster.config.settings import Settings
from hoster.errors import (
    Busy,
    ConfigurationError,
    ExitCode,
    HosterError,
    OperationFailed,
    Refused,
    UsageError,
)
from hoster.host.locks import Locks
from hoster.host.reach import LocalHost
from hoster.hypervisors.memory import InMemory
from hoster.hypervisors.protocol import GuestRef, Running
from hoster.model.plan import Outcome
from hoster.model.storage import Dataset, DatasetKind, Role
from hoster.operations.context import Context
from hoster.operations.deploy import Order, deploy
from hoster.operations.guests import LOG_LINK, guest_of, image_paths, link_log
from hoster.operations.inventory import look_around
from hoster.operations.machines import State, list_machines
from hoster.operations.power import (
    hold_power,
    running_now,
    start_held,
    start_plan,
    start_vm,
    stop_vm,
    users_of,
)
from hoster.operations.power_batches import start_all, stop_all
from hoster.testing import Says, ScriptedRunner, dataset, listing
from hoster.zfs.store import ZfsStore

DISK = {"disk_type": "nvme", "disk_location": "internal", "disk_image": "disk0.img"}


class Node:
    """This node; its VMs are folders here, its hypervisor is in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machines = InMemory()
        self.runner = ScriptedRunner()
        self._datasets: list[Dataset] = []
        settings = Settings(Path("/nowhere"), ("tank/vm",), run_dir=folder / "run")
        zfs = ZfsStore(LocalHost(), self.runner)
        now = datetime(2024, 6, 1, 12)
        self.context = Context(
            settings, "node1", self.runner, zfs, Locks(folder / "locks"), lambda: now, self.machines
        )
        self.runner.answer(
            ("zfs", "get"), lambda argv, stdin: Says(listing(dataset("tank/vm"), *self._datasets))
        )
        self.runner.answer(("zfs", "create"))
        self.runner.answer(("zfs", "set"))

    def vm(
        self, name: str, role: Role | None = Role.PRIMARY, *, below: tuple[Dataset, ...] = (), **more: Any
    ) -> Path:
        """A VM with one disk, mounted in the folder that this returns."""
        home = self.folder / name
        home.mkdir()
        (home / "disk0.img").write_bytes(b"\0" * 512)
        config = {"production": True, "parent_host": "node1", "memory": "32M", "disks": [DISK], **more}
        (home / "vm_config.json").write_text(json.dumps(config))
        one = replace(dataset(f"tank/vm/{name}", "", role), mounted=True, mountpoint=str(home))
        self._datasets += [one, *below]
        return home

    def start(self, name: str) -> Running:
        return start_vm(self.context, look_around(self.context).named(name))

    def states(self) -> dict[str, State]:
        return {item.vm.name: item.state for item in list_machines(self.context).vms}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@contextmanager
def open_elsewhere(path: Path, mode: str) -> Iterator[int]:
    """Another process that has the file open."""
    script = "import sys; f = open(sys.argv[1], sys.argv[2]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(path), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process.pid
        process.kill()


def test_a_vm_runs_from_its_start_to_its_stop(node: Node) -> None:
    node.vm("web")
    running = node.start("web")
    vm = look_around(node.context).named("web")
    assert running_now(node.context, vm) == running
    assert node.states() == {"web": State.RUNNING}
    stop_vm(node.context, vm, force=False)
    assert running_now(node.context, vm) is None
    assert node.states() == {"web": State.STOPPED}
    stop_vm(node.context, vm, force=False)


def test_a_vm_that_runs_is_refused_a_second_start(node: Node) -> None:
    node.vm("web")
    running = node.start("web")
    with pytest.raises(Refused, match=f"web runs already, since .* as process {running.pid}"):
        node.start("web")
    assert node.machines.starts == ["web"]


@pytest.mark.parametrize(
    ("role", "said"), [(Role.REPLICA, "a replica of node1's VM"), (Role.SUPERSEDED, "taken it over")]
)
def test_only_the_nodes_own_vms_are_started(node: Node, role: Role, said: str) -> None:
    node.vm("web", role)
    with pytest.raises(Refused, match=said) as caught:
        node.start("web")
    assert caught.value.exit_code is ExitCode.REFUSED
    assert "on node1: hoster vm start web" in caught.value.hint
    assert node.machines.starts == []


def test_a_vm_whose_disk_another_process_writes_is_not_started_and_shown_as_in_use(node: Node) -> None:
    home = node.vm("web")
    with open_elsewhere(home / "disk0.img", "r+b") as pid:
        with pytest.raises(Refused, match=rf"process {pid} \(.*\) has .*disk0\.img open for writing"):
            node.start("web")
        assert node.states() == {"web": State.IN_USE}
        assert [user.pid for user in users_of(look_around(node.context).named("web"))] == [pid]
    assert node.states() == {"web": State.STOPPED}


def test_one_that_only_reads_it_is_in_nobodys_way(node: Node) -> None:
    home = node.vm("web")
    with open_elsewhere(home / "disk0.img", "rb"):
        assert node.states() == {"web": State.IN_USE}
        node.start("web")


def test_two_at_once_do_not_start_it_twice(node: Node) -> None:
    node.vm("web")
    with hold_power(node.context, "web"), pytest.raises(Busy, match="the power switch of web is in use"):
        node.start("web")
    assert node.machines.starts == []


def test_whoever_holds_the_power_may_stop_and_start(node: Node) -> None:
    node.vm("web")
    vm = look_around(node.context).named("web")
    with hold_power(node.context, "web"):
        started = start_held(node.context, vm)
    assert running_now(node.context, vm) == started.running


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        ({"disk_image": "disk9.img"}, "disk9.img: No such file or directory"),
        ({"disk_image": "../other/disk0.img"}, "is an internal disk that is not in the VM's folder"),
        ({"disk_image": "link.img"}, "is an internal disk that is not in the VM's folder"),
        ({"disk_image": ""}, "is an internal disk that is not in the VM's folder"),
        ({"disk_image": "folder"}, "is neither a file nor a volume"),
        ({"disk_location": "external"}, "is an external disk, and no path that begins with /"),
        ({"disk_location": "external", "disk_image": "/nowhere/x"}, "/nowhere/x: No such file or directory"),
    ],
)
def test_a_disk_that_cannot_be_keeps_the_vm_from_starting(
    node: Node, disk: dict[str, str], said: str
) -> None:
    node.vm("other")
    home = node.vm("web", disks=[{**DISK, **disk}])
    (home / "link.img").symlink_to(node.folder / "other/disk0.img")
    (home / "folder").mkdir()
    before = sorted(node.folder.rglob("*"))
    with pytest.raises(ConfigurationError) as caught:
        node.start("web")
    assert said in caught.value.message
    assert "disks[0].disk_image" in caught.value.message
    assert [path for path in sorted(node.folder.rglob("*")) if "locks" not in path.parts] == before
    assert node.machines.starts == []


def test_a_malformed_configuration_keeps_the_vm_from_starting(node: Node) -> None:
    (node.vm("web") / "vm_config.json").write_text('{"memory": ')
    with pytest.raises(ConfigurationError, match=r"vm_config\.json:1:") as caught:
        node.start("web")
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_vm_that_there_is_not_is_a_failure(node: Node) -> None:
    with pytest.raises(OperationFailed, match="there is no VM of that name"):
        node.start("web")


def test_a_disk_may_be_a_volume_of_the_vm_by_its_name(node: Node) -> None:
    volume = dataset("tank/vm/web/data", "", kind=DatasetKind.VOLUME)
    node.vm("web", below=(volume,), disks=[DISK, {**DISK, "disk_image": "data"}])
    assert [str(path) for path in image_paths(look_around(node.context).named("web"))] == [
        f"{node.folder}/web/disk0.img",
        "/dev/zvol/tank/vm/web/data",
    ]


def test_a_disk_that_no_snapshot_has_is_said(node: Node) -> None:
    outside = node.folder / "outside.img"
    outside.write_bytes(b"")
    node.vm("web", disks=[DISK, {**DISK, "disk_location": "external", "disk_image": str(outside)}])
    notes = start_plan(node.context, look_around(node.context).named("web")).notes
    assert notes == (f"{outside} is outside of tank/vm/web: no snapshot or replica of the VM has it",)
    assert node.machines.starts == []


def test_the_link_to_the_log_replaces_a_link_and_nothing_else(node: Node) -> None:
    home = node.vm("web")
    guest = guest_of(node.context, look_around(node.context).named("web"))
    link = home / LOG_LINK
    victim = node.folder / "victim"
    victim.write_text("precious")
    for before in (None, "elsewhere", str(victim)):
        link.unlink(missing_ok=True)
        if before is not None:
            link.symlink_to(before)
        assert link_log(guest) == ""
        assert link.readlink() == guest.log
    changed_at = link.lstat().st_ino
    assert link_log(guest) == ""
    assert link.lstat().st_ino == changed_at, "a link that is right is not written again"
    link.unlink()
    link.write_text("mine")
    assert "is left alone" in link_log(guest)
    assert (link.read_text(), victim.read_text()) == ("mine", "precious")


def test_start_all_starts_what_is_this_nodes_and_one_failure_stops_no_other(node: Node) -> None:
    node.vm("app")
    node.vm("broken", disks=[{**DISK, "disk_image": "gone.img"}])
    node.vm("copy", Role.REPLICA)
    node.vm("idle", production=False)
    node.vm("web")
    node.start("web")
    outcomes = {vm.vm: vm.outcome for vm in start_all(node.context, production_only=True).vms}
    assert outcomes == {"app": Outcome.DONE, "broken": Outcome.FAILED, "web": Outcome.UNCHANGED}
    everything = {vm.vm: vm.outcome for vm in start_all(node.context).vms}
    assert everything == {
        "app": Outcome.UNCHANGED,
        "broken": Outcome.FAILED,
        "idle": Outcome.DONE,
        "web": Outcome.UNCHANGED,
    }
    assert node.machines.starts == ["web", "app", "idle"]


@pytest.mark.parametrize("image", ["disk\0.img", "loop.img"], ids=["a NUL", "a loop of links"])
def test_a_disk_that_no_path_leads_to_keeps_no_other_vm_from_being_started_and_listed(
    node: Node, image: str
) -> None:
    home = node.vm("app", disks=[{**DISK, "disk_image": image}])
    (home / "loop.img").symlink_to("loop.img")
    node.vm("web")
    report = start_all(node.context)
    assert {vm.vm: vm.outcome for vm in report.vms} == {"app": Outcome.FAILED, "web": Outcome.DONE}
    assert node.states() == {"app": State.STOPPED, "web": State.RUNNING}


def test_stop_all_waits_for_each_and_reports_the_one_that_does_not_obey(node: Node) -> None:
    for name in ("app", "deaf", "off", "web"):
        node.vm(name)
    for name in ("app", "deaf", "web"):
        node.start(name)
    node.machines.deaf = frozenset({"deaf"})
    report = stop_all(node.context, limit_s=0.1)
    assert {vm.vm: vm.outcome for vm in report.vms} == {
        "app": Outcome.DONE,
        "deaf": Outcome.FAILED,
        "off": Outcome.UNCHANGED,
        "web": Outcome.DONE,
    }
    assert "--force" in report.with_outcome(Outcome.FAILED)[0].remedy
    stop_all(node.context, force=True)
    assert node.machines.machines == {}


def test_one_that_is_being_started_by_another_is_busy_in_a_batch(node: Node) -> None:
    node.vm("web")
    with hold_power(node.context, "web"):
        assert [vm.outcome for vm in start_all(node.context).vms] == [Outcome.BUSY]


def test_a_vm_of_which_it_cannot_be_told_whether_it_runs_is_listed_as_such(node: Node) -> None:
    class Unsure(InMemory):
        def running(self, ref: GuestRef) -> Running | None:
            raise OperationFailed(f"{ref.name}: its process 7 is there, and does not answer")

    node.vm("web")
    unsure = replace(node.context, driver=Unsure())
    (listed,) = list_machines(unsure).vms
    assert (listed.state, listed.icons[0]) == (State.UNKNOWN, "🟡")
    assert "does not answer" in listed.trouble


def test_where_hoster_has_no_driver_nothing_of_its_runs_and_vms_are_listed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going back, taking over and demoting look at what bhyve runs, beside."""
    monkeypatch.setattr("sys.platform", "freebsd14")
    node.vm("web")
    bare = replace(node.context, driver=None)
    assert [item.state for item in list_machines(bare).vms] == [State.STOPPED]
    assert running_now(bare, look_around(bare).named("web")) is None
    with pytest.raises(ConfigurationError, match="no driver for bhyve"):
        start_vm(bare, look_around(bare).named("web"))


def test_a_dry_run_of_a_deployment_shows_what_would_be_made(node: Node) -> None:
    node.vm("web", vnc_port=5900)
    made = deploy(node.context, Order("app1", disk_size=1024), dry_run=True)
    assert (made.dataset, made.config.vnc_port, made.config.memory) == ("tank/vm/app1", 5901, "2G")
    assert made.config.parent_host == "node1"
    assert len(made.config.vnc_password) == 8
    assert node.runner.ran("zfs", "create") == []


@pytest.mark.parametrize(
    ("order", "kind", "said"),
    [
        (Order("web", disk_size=1), Refused, "there is a dataset tank/vm/web already"),
        (Order("a b", disk_size=1), UsageError, "cannot name a VM"),
        (Order("app", disk_size=1, dataset="tank/other"), UsageError, "is not one of the active datasets"),
        (Order("app", disk_size=1, memory="much"), UsageError, "expected a size such as"),
        (Order("app", image=Path("/nowhere/x.img")), UsageError, "/nowhere/x.img: there is no such file"),
    ],
)
def test_a_deployment_that_cannot_be_makes_nothing(
    node: Node, order: Order, kind: type[HosterError], said: str
) -> None:
    node.vm("web")
    with pytest.raises(kind) as caught:
        deploy(node.context, order)
    assert said in caught.value.message
    assert node.runner.ran("zfs", "create") == []


def test_a_deployment_into_a_network_that_there_is_not_makes_nothing(node: Node, tmp_path: Path) -> None:
    """Also where it is not to be started, so that nobody would see it yet."""
    network = {
        "network_name": "internal",
        "network_gateway": "10.0.101.254",
        "network_subnet": "10.0.101.0/24",
        "network_range_start": "10.0.101.10",
        "network_range_end": "10.0.101.200",
    }
    (tmp_path / "network_config.json").write_text(json.dumps([network]))
    context = replace(
        node.context, settings=replace(node.context.settings, read_from=tmp_path / "hoster.toml")
    )
    with pytest.raises(UsageError, match="there is no network 'intrenal' on this node") as caught:
        deploy(context, Order("app", disk_size=1, network="intrenal"))
    assert caught.value.hint == "there are: internal"
    assert node.runner.ran("zfs", "create") == []
    made = deploy(context, Order("app", disk_size=1, network="internal"), dry_run=True)
    assert made.config.networks[0].bridge == "internal"


def test_a_deployment_that_breaks_off_names_what_it_has_made(node: Node) -> None:
    with pytest.raises(OperationFailed, match="app was not finished: tank/vm/app is not mounted") as caught:
        deploy(node.context, Order("app", disk_size=1))
    assert caught.value.hint == "zfs destroy tank/vm/app"
    assert node.runner.ran("zfs", "set") == []
