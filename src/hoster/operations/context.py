"""What every use case works with: this node's settings, ZFS, locks and clock, put together once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from hoster.config.settings import Settings, find_settings_file, read_settings
from hoster.host.locks import Locks
from hoster.host.process import Runner, SystemRunner
from hoster.host.reach import LocalHost
from hoster.host.ssh import SshOptions, SshSession
from hoster.planning.refusals import LOCAL
from hoster.records.event_log import EventLog, event_log
from hoster.zfs.store import ZfsStore

if TYPE_CHECKING:
    from hoster.hypervisors.protocol import Hypervisor


_COMMAND_LENGTH = 300


class Context(Struct, frozen=True):
    """A node as its use cases see it. ``now`` gives local time, which is what snapshot names carry.

    ``driver`` takes the place of the hypervisor that the settings and the system choose.
    """

    settings: Settings
    hostname: str
    runner: Runner
    zfs: ZfsStore
    locks: Locks
    now: Callable[[], datetime] = datetime.now
    driver: Hypervisor | None = None
    log: EventLog = field(default_factory=EventLog)
    """Where what runs is logged, beside the journal of runs."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """The active datasets, in the order in which they are searched; the first is the default."""
        return self.settings.datasets

    @property
    def hypervisor(self) -> Hypervisor:
        """What runs VMs on this node; ConfigurationError where hoster has no driver for it."""
        if self.driver is not None:
            return self.driver
        from hoster.hypervisors.registry import hypervisor

        return hypervisor(self.settings.hypervisor, self.runner)

    @contextmanager
    def reach(self, options: SshOptions) -> Iterator[Callable[[], ZfsStore]]:
        """Begins at once to connect to another node, and ends the connection with the block.

        Calling what it yields waits for the connection and gives ZFS on that node (Unreachable if it cannot
        be had), so that this node can be looked at meanwhile. The endpoint ``local`` is this node itself.
        """
        if options.endpoint.host == LOCAL:
            yield lambda: self.zfs
            return
        from concurrent.futures import ThreadPoolExecutor

        session = SshSession(options, SystemRunner(), self.settings.run_dir)
        with ThreadPoolExecutor(1, "connect") as pool:
            connecting = pool.submit(session.__enter__)
            try:
                yield lambda: ZfsStore(connecting.result(), self.runner)
            finally:
                if not connecting.cancel():
                    connecting.exception()
                session.close()


def wire(environment: Mapping[str, str] = os.environ) -> Context:
    """The context of this machine, from its configuration (ConfigurationError if there is none)."""
    settings = read_settings(find_settings_file(environment))
    runner = SystemRunner()
    return Context(
        settings=settings,
        hostname=settings.hostname or os.uname().nodename,
        runner=runner,
        zfs=ZfsStore(LocalHost(), runner),
        locks=Locks(Path(settings.run_dir) / "locks", _own_command(), _progress_in(settings)),
        log=event_log(environment),
    )


def _own_command() -> str:
    """What this process was started as, on one line and not too long."""
    import shlex

    words = " ".join(shlex.join(["hoster", *sys.argv[1:]]).split())
    return words if len(words) <= _COMMAND_LENGTH else f"{words[:_COMMAND_LENGTH]}…"


def _progress_in(settings: Settings) -> Callable[[int], str]:
    def progress(pid: int) -> str:
        from hoster.records.job_states import jobs_in, progress_of

        return progress_of(jobs_in(settings.run_dir), pid)

    return progress
