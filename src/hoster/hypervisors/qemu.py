"""The driver for QEMU on Linux: starts machines, finds them again, stops them.

A machine is a QEMU process of its own. It has a PID file that it keeps locked, a QMP socket and one for its
serial line, all in its run directory; it prints into its log. Both the process and its answer on the socket
are asked for before it is said to run (:mod:`hoster.hypervisors.qemu_process`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from hoster.errors import ConfigurationError, OperationFailed
from hoster.host.process import Detached, Runner, spawn
from hoster.hypervisors import bridges, qmp
from hoster.hypervisors.firmware import VARIABLES, find_firmware, own_variables
from hoster.hypervisors.protocol import Guest, GuestRef, Plan, Running, StillRuns, console_path
from hoster.hypervisors.qemu_command import (
    BINARY,
    Placement,
    command,
    memory_kib,
    monitor_socket,
    notes,
    pid_file,
    serial_socket,
    vnc_display,
    wrong,
)
from hoster.hypervisors.qemu_process import Grip, holder, started_at
from hoster.hypervisors.resources import PROC, memory_available_kib, port_problem

ANSWER_LIMIT_S = 10.0
"""How long QEMU may take to answer; it does at once unless it is stuck, or somebody else talks to it."""

START_LIMIT_S = 60.0

LOG_LIMIT = 1024 * 1024
"""Size in bytes at which a log becomes ``….1`` at the next start, replacing the one before."""

_SOCKET_PATH_LIMIT = 107
_LAST_LINES = 5
_POLL_S = 0.05
_KVM = Path("/dev/kvm")
_VHOST = Path("/dev/vhost-net")
_TRIAL = '{"execute":"qmp_capabilities"}{"execute":"quit"}'


class Qemu:
    """QEMU on this node."""

    name = "qemu"

    def __init__(self, runner: Runner, *, interfaces: Path = bridges.INTERFACES, proc: Path = PROC) -> None:
        """``interfaces`` and ``proc`` are where the kernel shows the node's networks and its memory."""
        self._runner = runner
        self._networks = bridges.networks(interfaces)
        self._proc = proc
        self._kvm_works: bool | None = None

    def running(self, ref: GuestRef) -> Running | None:
        """The machine's process, if it is there and answers by the machine's name."""
        pid = holder(pid_file(ref))
        if pid is None:
            return None
        try:
            _identify(ref, pid)
            return Running(pid, started_at(pid))
        except (OperationFailed, OSError):
            if holder(pid_file(ref)) is None:
                return None  # it was just ending
            raise

    def plan(self, guest: Guest) -> Plan:
        """The command, with ``bridge`` in place of the tap devices that :meth:`start` would make."""
        placement = self._placement(guest)
        _check_room(guest, self._proc)
        return Plan(command(guest, placement), tuple(_notes(guest, placement)))

    def start(self, guest: Guest) -> Running:
        """Starts QEMU in a session of its own, and returns when it answers."""
        if self.running(guest.ref) is not None:
            raise OperationFailed(f"{guest.name} runs already", hint=f"hoster vm stop {guest.name}")
        placement = self._placement(guest)
        command(guest, placement)
        _check_room(guest, self._proc)
        if placement.variables is not None:
            own_variables(guest.folder, find_firmware())
        with contextlib.ExitStack() as taps:
            descriptors: list[int] = []
            sources: list[str] = []
            fast = ",vhost=on" if placement.accelerated and _VHOST.exists() else ""
            for source, card in zip(placement.networks, guest.config.networks, strict=True):
                if source == _USER_MODE:
                    sources.append(source)
                else:
                    descriptors.append(taps.enter_context(bridges.tap(card.bridge, self._runner)))
                    sources.append(f"tap,fd={descriptors[-1]}{fast}")
            words = command(guest, replace(placement, networks=tuple(sources)))
            return self._launch(guest, words, descriptors)

    def stop(self, ref: GuestRef, *, force: bool, limit_s: float) -> bool:
        """ACPI's power button and then patience, or SIGKILL."""
        pid = holder(pid_file(ref))
        if pid is None:
            return False
        try:
            grip = Grip(pid)
        except ProcessLookupError:
            return True
        with grip:
            if holder(pid_file(ref)) != pid:
                return True  # it ended before the grip was on it
            if force:
                grip.kill()
            else:
                _press_power_button(ref, pid, grip)
            if grip.ends_within(limit_s):
                return True
        if force:
            raise OperationFailed(
                f"{ref.name}: process {pid} was killed, and is still there after {limit_s:g} s"
            )
        raise StillRuns(
            f"{ref.name} was asked to power down, and still runs after {limit_s:g} seconds",
            hint=f"hoster vm stop {ref.name} --force ends it without asking the guest",
        )

    def _launch(self, guest: Guest, words: Sequence[str], descriptors: Sequence[int]) -> Running:
        ref = guest.ref
        try:
            ref.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in (monitor_socket(ref), serial_socket(ref)):
                left.unlink(missing_ok=True)
            log = _opened_log(guest.log, words)
        except OSError as error:
            raise OperationFailed(f"{error.filename}: {error.strerror}", hint="run hoster as root") from error
        try:
            begin = os.fstat(log).st_size
            process = spawn(words, log, descriptors)
        finally:
            os.close(log)
        try:
            _await_answer(guest, process, begin)
            if guest.config.vnc_port and guest.config.vnc_password:
                secret = {"protocol": "vnc", "password": guest.config.vnc_password}
                qmp.ask(monitor_socket(ref), [("set_password", secret)], limit_s=ANSWER_LIMIT_S)
            return Running(process.pid, started_at(process.pid))
        except BaseException:
            process.kill()
            raise

    def _placement(self, guest: Guest) -> Placement:
        """What this node has for the machine. ConfigurationError for what it does not have."""
        if shutil.which(BINARY) is None:
            raise OperationFailed(f"{BINARY}: command not found", hint="install qemu-system-x86")
        for path in (monitor_socket(guest.ref), serial_socket(guest.ref)):
            if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
                raise ConfigurationError(
                    f"{path}: a socket's path may have {_SOCKET_PATH_LIMIT} bytes, and this is longer",
                    hint="a shorter run-dir in hoster.toml",
                )
        networks = tuple(_network_sources(guest, self._networks))
        match guest.config.loader:
            case "bios":
                return Placement(self._accelerated(), networks)
            case "uefi":
                variables = guest.folder / VARIABLES
                return Placement(self._accelerated(), networks, find_firmware().code, variables)
            case other:
                raise wrong(guest, "loader", other, "uefi or bios")

    def _accelerated(self) -> bool:
        """Whether KVM works, tried out: on some nodes its device opens, and QEMU then fails in it."""
        if self._kvm_works is None:
            self._kvm_works = os.access(_KVM, os.R_OK | os.W_OK) and self._kvm_trial()
        return self._kvm_works

    def _kvm_trial(self) -> bool:
        words = [BINARY, "-S", "-machine", "q35,accel=kvm", "-cpu", "host", "-m", "16", "-nodefaults"]
        words += ["-no-user-config", "-display", "none", "-qmp", "stdio"]
        try:
            return self._runner.run(words, stdin=_TRIAL, timeout_s=20).returncode == 0
        except OperationFailed:
            return False


_USER_MODE = "user"


def _network_sources(guest: Guest, networks: Collection[str]) -> Iterator[str]:
    """Where the packets of each card come from, in QEMU's words.

    A node without any network of hoster's still runs machines, with QEMU's own network behind the node's
    address. On one that has some, a name that is none of them is a mistake.
    """
    for index, card in enumerate(guest.config.networks):
        if card.bridge in networks:
            yield f"bridge,br={bridges.PREFIX}{card.bridge}"
        elif not networks:
            yield _USER_MODE
        else:
            expected = "one of this node's networks: " + ", ".join(sorted(networks))
            raise wrong(guest, f"networks[{index}].network_bridge", card.bridge, expected)


def _notes(guest: Guest, placement: Placement) -> Iterator[str]:
    if not placement.accelerated:
        yield "KVM does not work on this node: QEMU emulates the processor, which is slow"
    if _USER_MODE in placement.networks:
        yield (
            f"this node has no bridge {bridges.PREFIX}NETWORK: the network is QEMU's own; the guest gets out "
            "behind this node's address, and nobody gets in"
        )
    yield from notes(guest.config)


def _check_room(guest: Guest, proc: Path) -> None:
    """OperationFailed where the machine's memory or its VNC port cannot be had."""
    display = vnc_display(guest)
    if display is not None and (problem := port_problem(guest.vnc_address, guest.config.vnc_port)):
        raise OperationFailed(
            f"{guest.name}: VNC cannot listen on {guest.vnc_address} port {guest.config.vnc_port}: {problem}",
            hint=f"ss -ltnp 'sport = :{guest.config.vnc_port}' shows who does; or change vnc_port",
        )
    available, wanted = memory_available_kib(proc), memory_kib(guest)
    if available is not None and available < wanted:
        raise OperationFailed(
            f"{guest.name} needs {wanted // 1024} MiB of memory; this node has {available // 1024} to give",
            hint="stop another VM, or lower its memory",
        )


def _identify(ref: GuestRef, pid: int) -> None:
    """OperationFailed if that process does not answer, or not as this machine."""
    try:
        (answer,) = qmp.ask(monitor_socket(ref), [("query-name", {})], limit_s=ANSWER_LIMIT_S)
    except qmp.NoAnswer as error:
        raise OperationFailed(
            f"{ref.name}: its process {pid} is there, and does not answer: {error.message}",
            hint=f"hoster vm stop {ref.name} --force ends it",
        ) from error
    if answer.get("name") != ref.name:
        raise OperationFailed(
            f"{ref.name}: process {pid}, which has its PID file, answers as {answer.get('name')!r}",
            hint=f"ps {pid} shows what it is",
        )


def _press_power_button(ref: GuestRef, pid: int, grip: Grip) -> None:
    try:
        _identify(ref, pid)
        qmp.ask(monitor_socket(ref), [("system_powerdown", {})], limit_s=ANSWER_LIMIT_S)
    except OperationFailed:
        if not grip.ends_within(0):
            raise


def _await_answer(guest: Guest, process: Detached, begin: int) -> None:
    """Returns when QEMU answers; OperationFailed with what it said last if it ends instead."""
    socket = monitor_socket(guest.ref)
    gives_up_at = time.monotonic() + START_LIMIT_S
    while True:
        if (status := process.ended()) is not None:
            said = _last_lines(guest.log, begin)
            raise OperationFailed(
                f"{guest.name}: QEMU did not come to run (exit status {status}): {said}",
                hint=f"hoster vm show-log {guest.name}",
            )
        with contextlib.suppress(qmp.NoAnswer):
            if socket.exists():
                qmp.ask(socket, [("query-status", {})], limit_s=ANSWER_LIMIT_S)
                return
        if time.monotonic() > gives_up_at:
            raise OperationFailed(
                f"{guest.name}: QEMU did not answer within {START_LIMIT_S:g} seconds, and was ended",
                hint=f"hoster vm show-log {guest.name}",
            )
        time.sleep(_POLL_S)


def _opened_log(path: Path, words: Sequence[str]) -> int:
    """The log, open for adding to it; the console's is turned over with it."""
    import shlex

    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    for log in (path, console_path(path)):
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_name(f"{log.name}.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    os.write(descriptor, f"{time.strftime('%Y-%m-%d %H:%M:%S')} starting: {shlex.join(words)}\n".encode())
    return descriptor


def _last_lines(log: Path, begin: int) -> str:
    """What was printed since ``begin``, in one line."""
    with log.open("rb") as opened:
        opened.seek(begin)
        lines = opened.read(LOG_LIMIT).decode(errors="replace").splitlines()
    said = "; ".join(line.strip() for line in lines[-_LAST_LINES:] if line.strip())
    return said.replace(f"{BINARY}: ", "") or "it said nothing"
