"""VMs as one node sees them. Pure values."""

from __future__ import annotations

from msgspec import Struct

from hoster.model.machines import MachineConfig
from hoster.model.storage import Dataset, Role


class Vm(Struct, frozen=True):
    """One copy of a VM. ``config`` is None where it cannot be read here (a replica is not mounted, a key is
    not loaded, the file is malformed); ``problem`` then says why, and is empty where that is as it should be.

    ``role`` is the local mark, or follows from ``parent_host`` where there is none; ``parent`` is the node
    whose VM this is.
    """

    name: str
    dataset: Dataset
    descendants: tuple[Dataset, ...]
    role: Role
    parent: str
    production: bool
    config: MachineConfig | None = None
    problem: str = ""

    @property
    def is_primary(self) -> bool:
        return self.role is Role.PRIMARY

    @property
    def everything(self) -> tuple[Dataset, ...]:
        """The VM's own dataset first, then all below it: what is snapshotted together."""
        return (self.dataset, *self.descendants)

    @property
    def written(self) -> int:
        """Bytes written since the newest snapshot, over all of its datasets."""
        return sum(dataset.written for dataset in self.everything)
