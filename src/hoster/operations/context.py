"""What every use case works with: this node's settings, ZFS, locks and clock, put together once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from hoster.config.settings import Settings, find_settings_file, read_settings
from hoster.host.locks import Locks
from hoster.host.process import Runner, SystemRunner
from hoster.host.reach import LocalHost
from hoster.host.ssh import SshOptions, SshSession
from hoster.zfs.store import ZfsStore


@dataclass(frozen=True, slots=True)
class Context:
    """A node as its use cases see it. ``now`` gives local time, which is what snapshot names carry."""

    settings: Settings
    hostname: str
    runner: Runner
    zfs: ZfsStore
    locks: Locks
    now: Callable[[], datetime] = field(default=datetime.now)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The active datasets, in the order in which they are searched; the first is the default."""
        return self.settings.datasets

    @contextmanager
    def reach(self, options: SshOptions) -> Iterator[ZfsStore]:
        """ZFS on another node, over one connection that ends with the block; Unreachable if there is none."""
        with SshSession(options, SystemRunner(), self.settings.run_dir) as session:
            yield ZfsStore(session, self.runner)


def wire(environment: Mapping[str, str] = os.environ) -> Context:
    """The context of this machine, from its configuration (ConfigurationError if there is none)."""
    settings = read_settings(find_settings_file(environment))
    runner = SystemRunner()
    return Context(
        settings=settings,
        hostname=settings.hostname or os.uname().nodename,
        runner=runner,
        zfs=ZfsStore(LocalHost(), runner),
        locks=Locks(Path(settings.run_dir) / "locks"),
    )
