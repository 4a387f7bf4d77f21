"""Where the contract of hypervisors is tried: in memory, and with QEMU, which runs real guests."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from hoster.host.process import SystemRunner
from hoster.hypervisors.memory import InMemory
from hoster.hypervisors.protocol import Drive, Guest, GuestRef, Hypervisor, console_path
from hoster.hypervisors.qemu import Qemu
from hoster.model.machines import DiskType, MachineConfig
from lab.counting_guest import counted, disk_image


def guest_in(folder: Path, name: str, *, obeys: bool, broken: bool) -> Guest:
    """The machine of that name, with its disk as it is if it is there already."""
    home = folder / name
    home.mkdir(exist_ok=True)
    disk = home / "disk0.img"
    if not disk.exists():
        disk.write_bytes(disk_image(obeys=obeys))
    config = MachineConfig(memory="32M", loader="bios", custom_options=("-device nosuch",) if broken else ())
    drives = (Drive(DiskType.NVME, disk),)
    return Guest(GuestRef(name, folder / "run" / name), home, config, drives, folder / "log" / f"{name}.log")


class InMemoryGround:
    limit_s = 1.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._one = InMemory()

    def driver(self) -> Hypervisor:
        return self._one

    def guest(self, name: str, *, obeys: bool = True, broken: bool = False) -> Guest:
        self._one.deaf |= frozenset() if obeys else {name}
        self._one.broken = {name: "no device nosuch"} if broken else {}
        return guest_in(self._folder, name, obeys=obeys, broken=broken)

    def crash(self, guest: Guest) -> None:
        self._one.crash(guest.name)

    def seen_working(self, guest: Guest) -> bool:
        return self._one.running(guest.ref) is not None


class QemuGround:
    """QEMU on this machine, emulated or not. What is left running is ended with the test."""

    limit_s = 30.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guests: dict[str, Guest] = {}

    def driver(self) -> Hypervisor:
        return Qemu(SystemRunner())

    def guest(self, name: str, *, obeys: bool = True, broken: bool = False) -> Guest:
        self._guests[name] = guest_in(self._folder, name, obeys=obeys, broken=broken)
        return self._guests[name]

    def crash(self, guest: Guest) -> None:
        running = self.driver().running(guest.ref)
        assert running is not None
        os.kill(running.pid, signal.SIGKILL)
        os.waitpid(running.pid, 0)

    def seen_working(self, guest: Guest) -> bool:
        """It has counted on its disk, twice, and said so."""
        disk, before = guest.drives[0].path, counted(guest.drives[0].path.read_bytes())
        gives_up_at = time.monotonic() + 60
        while time.monotonic() < gives_up_at:
            now = counted(disk.read_bytes())
            if now >= before + 2:
                return f"count {now - 1:08x}" in console_path(guest.log).read_text()
            time.sleep(0.1)
        return False

    def end(self) -> None:
        for guest in self._guests.values():
            self.driver().stop(guest.ref, force=True, limit_s=30)
