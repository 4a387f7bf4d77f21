"""What cron and systemd are told so that they run the scheduled jobs: the texts of their files.

Pure. Every file begins with :data:`SIGN`, by which hoster knows its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from msgspec import Struct

from hoster.model.schedules import ScheduledJob, Target
from hoster.planning.schedules import calendar_expression, cron_expression, times_of

SIGN = "# Written by hoster schedule install."

_HEAD = """\
{sign} What is changed here is lost.
# Change [schedules] in {settings}, and run it again.
# hoster schedule remove takes this file away.
"""

_CRON = """\
{head}
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
{environment}
"""

# Nothing here gives the service a mount namespace of its own, as ProtectSystem=, PrivateTmp= and most of what
# else hardens would (systemd.exec(5)): what is mounted in it would be hidden from the host. ProtectClock= and
# PrivateDevices= would take /dev/zfs away.
_SERVICE = """\
{head}
[Unit]
Description=hoster: {description}
After=zfs.target network-online.target
Wants=network-online.target

[Service]
Type=oneshot
ExecStart={command}
{environment}# Another run of the same job is at work.
SuccessExitStatus=11
TimeoutStartSec=infinity
# hoster ends what it has started by itself.
KillMode=mixed
Nice=10
IOSchedulingClass=best-effort
IOSchedulingPriority=7
NoNewPrivileges=true
LockPersonality=true
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
SystemCallArchitectures=native
"""

_TIMER = """\
{head}
[Unit]
Description=hoster: when to run {description}

[Timer]
{calendar}
# What was due while the node was off is made up for, once.
Persistent=true
# The same for this node at every run, and another for each node: they do not all begin at once.
RandomizedDelaySec=30
FixedRandomDelay=true
AccuracySec=1s

[Install]
WantedBy=timers.target
"""


class Program(Struct, frozen=True):
    """How hoster is called: its full path, and its settings. ``named`` says that these are found only because
    HOSTER_CONFIG names them."""

    path: str
    settings: str
    named: bool = False

    def command(self, job: ScheduledJob) -> tuple[str, ...]:
        """The words that run that job."""
        option = "--replicate" if isinstance(job.what, Target) else "--snapshots"
        return (self.path, "schedule", "run", job.schedule.name, option, job.subject)


def cron_lines(job: ScheduledJob, program: Program) -> tuple[str, ...]:
    """The lines of crontab(5), as in /etc/cron.d, that run a job.

    What a good run says goes nowhere; a bad one speaks on standard error, which cron sends by mail.
    """
    # To cron a % ends the command, wherever it stands.
    command = shlex.join(program.command(job)).replace("%", r"\%")
    return tuple(f"{cron_expression(times)} root {command} >/dev/null" for times in times_of(job))


def cron_file(jobs: Iterable[ScheduledJob], program: Program) -> str:
    """The file in /etc/cron.d."""
    environment = f"HOSTER_CONFIG={program.settings}\n" if program.named else ""
    lines = "".join(f"{line}\n" for job in jobs for line in cron_lines(job, program))
    return _CRON.format(head=_head(program), environment=environment) + lines


def unit_files(job: ScheduledJob, program: Program) -> Mapping[str, str]:
    """The service and the timer of a job, by the names of their files."""
    head, description = _head(program), _described(job)
    environment = f"Environment={_quoted(f'HOSTER_CONFIG={program.settings}')}\n" if program.named else ""
    command = " ".join(map(_quoted, program.command(job)))
    calendar = "\n".join(f"OnCalendar={calendar_expression(times)}" for times in times_of(job))
    return {
        f"{job.unit}.service": _SERVICE.format(
            head=head, description=description, command=command, environment=environment
        ),
        f"{job.unit}.timer": _TIMER.format(head=head, description=description, calendar=calendar),
    }


def _head(program: Program) -> str:
    return _HEAD.format(sign=SIGN, settings=program.settings)


def _described(job: ScheduledJob) -> str:
    if isinstance(job.what, Target):
        return f"replication to {job.what.name} of the schedule {job.schedule.name}"
    return f"{job.what.value} snapshots of the schedule {job.schedule.name}"


def _quoted(word: str) -> str:
    """A word for a unit file: its quotes are C's, and % begins a specifier. A $ means nothing in the path of
    a program, nor in Environment= (systemd.service(5), systemd.exec(5))."""
    word = word.replace("%", "%%")
    if word and not set(word) & set(" \t\"'\\;"):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
