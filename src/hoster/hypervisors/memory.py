"""A hypervisor that runs nothing: its machines are entries in a table. For tests; it keeps the contract."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct, field

from hoster.errors import OperationFailed
from hoster.hypervisors.protocol import Guest, GuestRef, Plan, Running, StillRuns

_FIRST_PID = 4_194_304  # above the highest that Linux gives (proc(5), pid_max)


class InMemory(Struct):
    """``deaf`` machines ignore their power button; ``broken`` ones do not start, for the reason given."""

    machines: dict[str, Running] = field(default_factory=dict)
    deaf: frozenset[str] = frozenset()
    broken: Mapping[str, str] = field(default_factory=dict)
    starts: list[str] = field(default_factory=list)
    """The names of the machines that were started, in order."""

    @property
    def name(self) -> str:
        return "memory"

    def running(self, ref: GuestRef) -> Running | None:
        return self.machines.get(ref.name)

    def plan(self, guest: Guest) -> Plan:
        return Plan(("run", guest.name, *(str(drive.path) for drive in guest.drives)))

    def start(self, guest: Guest) -> Running:
        if guest.name in self.machines:
            raise OperationFailed(f"{guest.name} runs already")
        if guest.name in self.broken:
            raise OperationFailed(f"{guest.name}: {self.broken[guest.name]}")
        self.starts.append(guest.name)
        now = datetime.now(UTC)
        self.machines[guest.name] = Running(_FIRST_PID + len(self.starts), now)
        return self.machines[guest.name]

    def stop(self, ref: GuestRef, *, force: bool, limit_s: float) -> bool:
        if ref.name in self.machines and ref.name in self.deaf and not force:
            time.sleep(limit_s)
            raise StillRuns(
                f"{ref.name} was asked to power down, and still runs after {limit_s:g} seconds",
                hint=f"hoster vm stop {ref.name} --force",
            )
        return self.machines.pop(ref.name, None) is not None

    def crash(self, name: str) -> None:
        """The machine's process ends by itself."""
        del self.machines[name]
