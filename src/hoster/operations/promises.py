"""What was promised of a replica: by the schedule that takes the VM there, or else by the node's promises."""

from __future__ import annotations

from msgspec import Struct

from hoster.config.settings import Settings
from hoster.model.schedules import Windows
from hoster.model.vms import Vm
from hoster.planning.schedules import late_at, targets_of


class Promise(Struct, frozen=True):
    """By how much the data on a target may be older than those here, in seconds of its windows."""

    rpo_s: float
    windows: Windows = ()

    def late_at(self, data_at: float | None) -> float | None:
        """When data of that moment become late, in Unix seconds; None where there are none."""
        return None if data_at is None else late_at(data_at, self.rpo_s, self.windows)


def promise_of(settings: Settings, name: str, vm: Vm | None, node: str, dataset: str) -> Promise:
    """The promise for the replica in ``dataset`` of ``node``; ``vm`` is None where it could not be looked at,
    so that no schedule is known to take it."""
    tags = () if vm is None or vm.config is None else vm.config.tags
    usual = settings.promises.rpo_s(name, tags)
    target = None if vm is None else targets_of(settings.schedules, vm).get((node, dataset))
    if target is None:
        return Promise(usual)
    return Promise(usual if target.rpo_minutes is None else target.rpo_minutes * 60, target.windows)
