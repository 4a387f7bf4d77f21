"""What a replication is asked to do, and who is told how it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct, field

from hoster.host.ssh import SshOptions
from hoster.model.names import SnapshotType
from hoster.model.plan import VmReport
from hoster.planning.refusals import Terms


class Observer(Protocol):
    """Is told how a run goes, for a progress display; sizes in bytes."""

    def begin(self, sizes: Mapping[str, int]) -> None:
        """The VMs that will be sent, with the estimated size of each."""

    def advance(self, vm: str, amount: int) -> None:
        """So much more of a VM has gone."""

    def finish(self, report: VmReport) -> None:
        """A VM is through."""


class ReplicationRequest(Struct, frozen=True):
    """What to replicate, and where to.

    ``names`` None means every production VM that is no replica; otherwise exactly these. ``target_dataset``
    None means the same path as here. ``speed_limit`` is in bytes per second for
    the whole run (None: none); ``parallel`` VMs are sent at a time.
    """

    ssh: SshOptions
    names: tuple[str, ...] | None = None
    include_non_production: bool = False
    target_dataset: str | None = None
    speed_limit: float | None = None
    job: str | None = None
    wait_s: float = 0.0
    create_parent: bool = False
    dry_run: bool = False
    target_keep: Mapping[SnapshotType, int] = field(default_factory=dict)
    terms: Terms = Terms()
    final: bool = False
    """Take a snapshot even where nothing seems to have been written: its last bytes matter."""
    parallel: int = 1

    @property
    def node(self) -> str:
        return str(self.ssh.endpoint)

    @property
    def job_name(self) -> str:
        """The name of this job: ``--script-name``, or one made of the endpoint."""
        return self.job or f"to_{self.node}"
