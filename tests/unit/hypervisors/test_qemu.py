"""What keeps QEMU from starting a machine is said, and nothing is left of it; what it runs is found."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hoster.errors import ConfigurationError, HosterError, OperationFailed
from hoster.host.process import SystemRunner
from hoster.hypervisors import qmp
from hoster.hypervisors.firmware import VARIABLES, Firmware, find_firmware, own_variables
from hoster.hypervisors.protocol import Guest, GuestRef
from hoster.hypervisors.qemu import Qemu
from hoster.hypervisors.qemu_command import BINARY, monitor_socket, pid_file
from hoster.hypervisors.qemu_process import holder, started_at
from hoster.hypervisors.registry import hypervisor
from hoster.hypervisors.resources import memory_available_kib, port_problem
from hoster.model.machines import MachineConfig, NetworkCard
from hoster.testing import ScriptedRunner

needs_qemu = pytest.mark.skipif(shutil.which(BINARY) is None, reason=f"{BINARY} is not installed")


def guest(folder: Path, **config: Any) -> Guest:
    home = folder / "web"
    home.mkdir(exist_ok=True)
    given = MachineConfig(**{"memory": "32M", "loader": "bios", **config})
    return Guest(GuestRef("web", folder / "run"), home, given, (), folder / "log" / "web.log")


@pytest.fixture
def driver() -> Qemu:
    return Qemu(SystemRunner())


@pytest.fixture
def started(tmp_path: Path, driver: Qemu) -> Iterator[Guest]:
    """A machine that runs, without a disk."""
    machine = guest(tmp_path)
    driver.start(machine)
    yield machine
    pid = holder(pid_file(machine.ref))
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_driver_is_the_systems_or_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hypervisor("qemu", ScriptedRunner()).name == "qemu"
    with pytest.raises(ConfigurationError, match="no driver for bhyve yet"):
        hypervisor("bhyve", ScriptedRunner())
    with pytest.raises(ConfigurationError, match="found 'xen', expected qemu"):
        hypervisor("xen", ScriptedRunner())
    monkeypatch.setattr("sys.platform", "freebsd14")
    with pytest.raises(ConfigurationError, match="bhyve"):
        hypervisor(None, ScriptedRunner())


@needs_qemu
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"loader": "uboot"}, "loader: found 'uboot', expected uefi or bios"),
        ({"memory": "much"}, "memory: found 'much'"),
        (
            {"networks": (NetworkCard("virtio-net", "dmz"),)},
            "network_bridge: found 'dmz', expected one of this",
        ),
        ({"memory": "900T"}, "needs 943718400 MiB of memory"),
    ],
)
def test_what_the_node_cannot_give_is_an_error_before_anything_is_written(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    (tmp_path / "net/vm-internal/bridge").mkdir(parents=True)
    machine = guest(tmp_path, **config)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(HosterError) as caught:
        Qemu(SystemRunner(), interfaces=tmp_path / "net").start(machine)
    assert said in caught.value.message
    assert caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


@needs_qemu
def test_a_vnc_port_that_somebody_has_is_named(tmp_path: Path, driver: Qemu) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OperationFailed, match=f"VNC cannot listen on 127.0.0.1 port {port}: Address already"
        ):
            driver.start(guest(tmp_path, vnc_port=port))
    assert port_problem("127.0.0.1", port) == ""
    assert not (tmp_path / "run").exists()


@needs_qemu
def test_qemu_that_ends_at_once_is_quoted(tmp_path: Path, driver: Qemu) -> None:
    machine = guest(tmp_path, custom_options=("-device no-such-device",))
    with pytest.raises(
        OperationFailed, match=r"did not come to run \(exit status 1\): .*no-such-device"
    ) as caught:
        driver.start(machine)
    assert caught.value.hint == "hoster vm show-log web"
    assert driver.running(machine.ref) is None
    assert "starting: qemu-system-x86_64" in machine.log.read_text()


@needs_qemu
def test_without_networks_of_its_own_a_node_lends_its_address(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    driver = Qemu(SystemRunner(), interfaces=tmp_path / "none")
    plan = driver.plan(guest(tmp_path, networks=(NetworkCard("virtio-net", "internal"),)))
    assert "user,id=net0" in plan.command
    assert any("no bridge vm-NETWORK" in note for note in plan.notes)


@needs_qemu
def test_the_password_of_the_screen_is_set_once_it_runs(tmp_path: Path, driver: Qemu) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    machine = guest(tmp_path, vnc_port=port, vnc_password="hush")
    driver.start(machine)
    try:
        (answer,) = qmp.ask(monitor_socket(machine.ref), [("query-vnc", {})], limit_s=10)
        assert (answer["enabled"], answer["auth"], answer["host"]) == (True, "vnc", "127.0.0.1")
        with socket.create_connection(("127.0.0.1", port)) as screen:
            screen.recv(12)
            screen.sendall(b"RFB 003.008\n")
            assert screen.recv(2) == b"\x01\x02", "the one way in is a password"
    finally:
        driver.stop(machine.ref, force=True, limit_s=30)


@needs_qemu
def test_a_process_that_says_nothing_is_neither_running_nor_stopped(
    started: Guest, driver: Qemu, tmp_path: Path
) -> None:
    monitor_socket(started.ref).rename(tmp_path / "elsewhere")
    with pytest.raises(OperationFailed, match="is there, and does not answer") as caught:
        driver.running(started.ref)
    assert caught.value.hint == "hoster vm stop web --force ends it"
    with pytest.raises(OperationFailed, match="does not answer"):
        driver.stop(started.ref, force=False, limit_s=1)
    assert driver.stop(started.ref, force=True, limit_s=30)
    assert driver.running(started.ref) is None


@needs_qemu
def test_a_process_that_answers_as_another_machine_is_not_taken_for_this_one(
    started: Guest, driver: Qemu
) -> None:
    other = GuestRef("other", started.ref.run_dir)
    with pytest.raises(OperationFailed, match="answers as 'web'"):
        driver.running(other)
    with pytest.raises(OperationFailed, match="answers as 'web'"):
        driver.stop(other, force=False, limit_s=1)
    assert driver.running(started.ref) is not None


def test_what_a_machine_left_that_has_ended_means_nothing(tmp_path: Path, driver: Qemu) -> None:
    ref = guest(tmp_path).ref
    ref.run_dir.mkdir()
    # The number of a process that lives, and a socket that nobody listens on.
    pid_file(ref).write_text(f"{os.getpid()}\n")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(monitor_socket(ref)))
    assert driver.running(ref) is None
    assert driver.stop(ref, force=True, limit_s=1) is False


def test_a_run_directory_that_is_too_long_for_a_socket_is_named(tmp_path: Path, driver: Qemu) -> None:
    machine = guest(tmp_path)
    far = Guest(GuestRef("web", tmp_path / ("x" * 120)), machine.folder, machine.config, (), machine.log)
    if shutil.which(BINARY) is not None:
        with pytest.raises(ConfigurationError, match="may have 107 bytes"):
            driver.plan(far)


def test_a_processs_start_is_its_own() -> None:
    pid = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")
    try:
        assert abs(started_at(pid) - datetime.now(UTC)) < timedelta(seconds=5)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with pytest.raises(OSError, match="No such"):
        started_at(pid)


def test_memory_that_zfs_would_give_back_counts(tmp_path: Path) -> None:
    assert memory_available_kib(tmp_path) is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   1000 kB\n")
    assert memory_available_kib(tmp_path) == 1000
    (tmp_path / "spl/kstat/zfs").mkdir(parents=True)
    (tmp_path / "spl/kstat/zfs/arcstats").write_text("name type data\nc_min 4 1024\nsize 4 3072\n")
    assert memory_available_kib(tmp_path) == 1002


def test_a_machine_keeps_its_own_copy_of_the_firmwares_variables(tmp_path: Path) -> None:
    firmware = Firmware(tmp_path / "code", tmp_path / "vars")
    with pytest.raises(ConfigurationError, match="no UEFI firmware"):
        find_firmware([firmware])
    firmware.code.write_bytes(b"code")
    firmware.variables.write_bytes(b"fresh")
    assert find_firmware([firmware]) == firmware
    copy = own_variables(tmp_path, firmware)
    copy.write_bytes(b"mine")
    assert own_variables(tmp_path, firmware).read_bytes() == b"mine"
    copy.unlink()
    (tmp_path / VARIABLES).symlink_to("/etc/passwd")
    with pytest.raises(ConfigurationError, match="symbolic link"):
        own_variables(tmp_path, firmware)


def test_nobody_on_the_socket_is_no_answer_and_a_command_that_is_rejected_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(qmp.NoAnswer, match="does not answer"):
        qmp.ask(tmp_path / "qmp", [("query-name", {})], limit_s=5)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(qmp.NoAnswer, match=r"within 0\.5 seconds"):
            qmp.ask(tmp_path / "silent", [("query-name", {})], limit_s=0.5)
        assert time.monotonic() - began < 5


@needs_qemu
def test_a_command_that_qemu_rejects_is_quoted(started: Guest) -> None:
    with pytest.raises(OperationFailed, match=r"QEMU does not do it: .*nonsense"):
        qmp.ask(monitor_socket(started.ref), [("nonsense", {})], limit_s=10)
