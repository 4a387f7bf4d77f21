"""One micro-VM with real OpenZFS: its power, its commands, its files, its pools, its clock."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.audit import Audit
from lab.errors import LabError
from lab.identity import control_address, data_address, node_name
from lab.image import Image
from lab.network import Links
from lab.qemu import DISKS, Hardware, make_disks, qemu_command
from lab.run import Run

__all__ = ["Completed", "Node", "ssh_command"]

_READY = b"lab-is-ready"
_BOOT_TIMEOUT_S = 180.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended in a node; `returncode` 255 is ssh's for one killed or cut off."""

    stdout: str
    stderr: str
    returncode: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node lives: the run that holds it, the image it boots, its machine."""

    run: Run
    image: Image
    hardware: Hardware


class Node:
    """A node; made by a Lab. Its commands run as root over one shared ssh connection."""

    def __init__(self, number: int, place: Place, links: Links) -> None:
        self.number = number
        self.name = node_name(number)
        self.address = data_address(number)
        self.directory = place.run.directory / self.name
        self.audit = Audit(lambda command: self.run(command).stdout)
        self._place = place
        self._links = links
        self._boots_seen = 0
        self.directory.mkdir()
        make_disks(place.image, self.directory)

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        timeout_s: float = 60.0,
        input: str | bytes | None = None,  # noqa: A002 - the name that subprocess has made usual
    ) -> Completed:
        """Run a shell command, or a list of words as they are, and wait for its end.

        Raises LabError when it fails, unless `check` is false, and when it takes longer than `timeout_s`
        (it may then still run in the node). Output that is no UTF-8 is shown with replacement signs.
        """
        text = command if isinstance(command, str) else shlex.join(command)
        returncode, stdout, stderr = self._exchange(text, _bytes(input), timeout_s)
        done = Completed(stdout.decode(errors="replace"), stderr.decode(errors="replace"), returncode)
        if check and returncode != 0:
            seen = f"{done.stdout}{done.stderr}".rstrip()
            raise LabError(f"{self.name}: status {returncode} of: {text}\n{seen}")
        return done

    def put(self, content: bytes | Path, remote: str, *, mode: str = "644") -> None:
        """Write a file in the node, its directories made as needed; from bytes or from a file here."""
        payload = content if isinstance(content, bytes) else content.read_bytes()
        path = shlex.quote(remote)
        self.run(
            f'mkdir -p "$(dirname {path})" && cat >{path} && chmod {mode} {path}',
            input=payload,
        )

    def write(self, remote: str, text: str, *, mode: str = "644") -> None:
        """Write a text file in the node, as `put` does."""
        self.put(text.encode(), remote, mode=mode)

    def get(self, remote: str) -> bytes:
        """The content of a file in the node. Raises LabError when it cannot be read."""
        returncode, content, stderr = self._exchange(f"cat {shlex.quote(remote)}", b"", 60.0)
        if returncode != 0:
            raise LabError(f"{self.name}: {stderr.decode(errors='replace').strip()}")
        return content

    def reset_pools(self, *, tank: int = 1, **others: int) -> None:
        """Bring the node back to its beginning, with new pools: `tank` and others, each on so many disks.

        Several disks make a mirror; there are three. Also ends processes that came by ssh or cron, removes
        what hoster keeps outside of pools, cron files, faults and audits. A node that is off is started,
        one whose pools cannot be destroyed is started anew.
        """
        pools = {"tank": tank, **others}
        if sum(pools.values()) > len(DISKS):
            raise LabError(f"{pools} needs more than the node's {len(DISKS)} disks")
        command = shlex.join(["lab-reset", *(f"{name}={count}" for name, count in pools.items() if count)])
        self.start()
        try:
            self.run(command)
        except LabError:
            self.power_cut()
            self.start()
            self.run(command)

    @property
    def is_on(self) -> bool:
        """Whether the node's machine runs; it may still be booting."""
        return self._place.run.is_running(self.name)

    def start(self) -> None:
        """Switch the node on and wait until it takes commands; nothing when it does already."""
        if self.is_on:
            return
        self._boots_seen = 0
        console = self.directory / "console"
        console.unlink(missing_ok=True)
        command = qemu_command(self._place.image, self._place.hardware, self.number, self.directory)
        self._place.run.spawn(self.name, command, self.directory / "qemu.log")
        self.await_boot()

    def await_boot(self) -> None:
        """Wait until a boot that began after the last one seen has come to taking commands."""
        self._place.run.kill(self._connection_name)
        console = self.directory / "console"
        gives_up_at = time.monotonic() + _BOOT_TIMEOUT_S
        while not console.exists() or console.read_bytes().count(_READY) <= self._boots_seen:
            if not self.is_on:
                said = (self.directory / "qemu.log").read_text().strip()
                raise LabError(f"{self.name}: QEMU ended: {said}")
            if time.monotonic() > gives_up_at:
                raise LabError(f"{self.name} did not boot in {_BOOT_TIMEOUT_S:.0f} s; {self._console_tail()}")
            time.sleep(_POLL_S)
        self._boots_seen += 1
        self._connect(gives_up_at)
        self._links.node_started(self.name)

    def power_cut(self) -> None:
        """Switch the node off at once, like a power failure: what it had not written to its disks is lost.

        Weaker than the real thing: what the node wrote without flushing it is kept, too.
        """
        self._place.run.kill(self.name)
        self._place.run.kill(self._connection_name)

    def reboot(self) -> None:
        """Restart the node in good order and wait until it takes commands again."""
        self.run("systemctl reboot", check=False)
        self.await_boot()

    def set_clock(self, utc: str) -> None:
        """Set the node's clock to a UTC time such as "2026-01-01 00:00:00"; it runs on from there."""
        self.run(["date", "--utc", "--set", utc])

    def restore_clock(self) -> None:
        """Set the node's clock to this machine's."""
        self.run(["date", "--utc", "--set", f"@{time.time():.3f}"])

    @property
    def _connection_name(self) -> str:
        return f"{self.name}-connection"

    @property
    def _socket(self) -> Path:
        return self.directory / "ssh"

    def _connect(self, gives_up_at: float) -> None:
        log = self.directory / "ssh.log"
        while True:
            self._socket.unlink(missing_ok=True)
            self._place.run.spawn(
                self._connection_name,
                [
                    *("ssh", "-M", "-N", "-S", str(self._socket), "-i", str(self._place.image.key)),
                    *("-F", "none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"),
                    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
                    # A node that restarts by itself answers the next of these with a reset.
                    *("-o", "ServerAliveInterval=2", "-o", "ServerAliveCountMax=60"),
                    f"root@{control_address(self.number)}",
                ],
                log,
            )
            while self._place.run.is_running(self._connection_name):
                if self._socket.exists():
                    return
                time.sleep(_POLL_S)
            if time.monotonic() > gives_up_at:
                seen = log.read_text().strip().splitlines()[-1:]
                raise LabError(f"{self.name} takes no ssh connection: {' '.join(seen)}")
            time.sleep(10 * _POLL_S)

    def _exchange(self, command: str, payload: bytes, timeout_s: float) -> tuple[int, bytes, bytes]:
        try:
            done = subprocess.run(
                [*ssh_command(self.directory), command],
                input=payload,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            seen = (error.stdout or b"") + (error.stderr or b"")
            raise LabError(
                f"{self.name}: no end after {timeout_s:.0f} s: {command}\n{seen.decode(errors='replace')}"
            ) from error
        return done.returncode, done.stdout, done.stderr

    def _console_tail(self) -> str:
        console = self.directory / "console"
        lines = console.read_text(errors="replace").splitlines()[-10:] if console.exists() else []
        return "\n".join(["its console:", *lines])


def ssh_command(directory: Path) -> list[str]:
    """The words that run a command in the node of this directory, through its shared connection."""
    return [
        *("ssh", "-F", "none", "-S", str(directory / "ssh"), "-o", "LogLevel=ERROR"),
        # Without the shared connection there is none: the node's network is not the machine's.
        *("-o", "ProxyCommand=false", f"root@{directory.name}"),
    ]


def _bytes(text: str | bytes | None) -> bytes:
    return text.encode() if isinstance(text, str) else text or b""
