"""Lets cron or systemd run the scheduled jobs, and takes that back; says what is installed.

Only files that begin with hoster's sign are ever replaced or removed. The same call again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from hoster.config.files import FileMissing, read_small_file, replace_file
from hoster.config.settings import Settings
from hoster.errors import ConfigurationError, OperationFailed, Refused
from hoster.host.systemd import Systemd
from hoster.model.schedules import ScheduledJob, all_jobs
from hoster.planning.installation import SIGN, Program, cron_file, cron_lines, unit_files

_MODE = 0o644
_ENDINGS = (".service", ".timer")


class Kind(StrEnum):
    """What runs the jobs."""

    CRON = "cron"
    SYSTEMD = "systemd"


class Places(Struct, frozen=True):
    """Where cron and systemd look."""

    cron: Path = Path("/etc/cron.d/hoster")
    units: Path = Path("/etc/systemd/system")


class Change(Struct, frozen=True):
    """A file that is written, with its text, or removed: its text is None then."""

    path: Path
    text: str | None = None


class Installed(Struct, frozen=True):
    """hoster's own files that are there: the text of cron's, and those of the units by their names."""

    cron: str | None
    units: Mapping[str, str]

    def of(self, job: ScheduledJob, program: Program) -> str:
        """What runs that job: ``cron``, ``systemd``, ``none``, or ``out of date`` where it is not as the
        settings have it."""
        lines = () if self.cron is None else self.cron.splitlines()
        found = {
            name: self.units[name] for name in (job.unit + end for end in _ENDINGS) if name in self.units
        }
        if self.cron is None and not found:
            return "none"
        if self.cron is not None and not found and set(cron_lines(job, program)) <= set(lines):
            return Kind.CRON.value
        if self.cron is None and found == unit_files(job, program):
            return Kind.SYSTEMD.value
        return "out of date"

    def has_more(self, jobs: Sequence[ScheduledJob], program: Program) -> bool:
        """Whether more is installed than these jobs: of one that was in a schedule once."""
        wanted = {line for job in jobs for line in cron_lines(job, program)}
        lines = () if self.cron is None else self.cron.splitlines()
        units = {f"{job.unit}{end}" for job in jobs for end in _ENDINGS}
        return any(" root " in line and line not in wanted for line in lines) or bool(
            self.units.keys() - units
        )


def installed(places: Places) -> Installed:
    """What of hoster's is there."""
    cron = _text(places.cron)
    files = (path for end in _ENDINGS for path in sorted(places.units.glob(f"hoster-*{end}")))
    units = {path.name: text for path in files if (text := _text(path)) is not None and _is_ours(text)}
    return Installed(cron if cron is not None and _is_ours(cron) else None, units)


def install(
    settings: Settings, kind: Kind, program: Program, systemd: Systemd, places: Places, *, dry_run: bool
) -> tuple[Change, ...]:
    """Installs the jobs of all schedules, and removes those of before; the changes that are, or would be,
    made.

    ConfigurationError where there is no schedule; Refused where a file that hoster did not write is in the
    way; OperationFailed where there is no such cron or systemd, or where it fails.
    """
    jobs = all_jobs(settings.schedules)
    if not jobs:
        raise ConfigurationError(
            f"{settings.read_from}: there is no schedule in it", hint="docs/reference.md shows [schedules]"
        )
    before = installed(places)
    if kind is Kind.CRON:
        _expect_cron(places)
        wanted = {places.cron: cron_file(jobs, program)}
    else:
        _expect_systemd(systemd)
        wanted = {places.units / n: text for job in jobs for n, text in unit_files(job, program).items()}
    present = _present(before, places)
    for path in wanted.keys() - present.keys():
        if _text(path) is not None:
            raise Refused(f"{path} is there, and hoster did not write it", hint=f"mv {path} {path}.old")
    changes = [Change(path, text) for path, text in wanted.items() if present.get(path) != text]
    changes += [Change(path) for path in present if path not in wanted]
    if not dry_run:
        _carry_out(changes, systemd)
        if kind is Kind.SYSTEMD:
            _let_run(wanted, changes, present, systemd)
    return tuple(changes)


def remove(systemd: Systemd, places: Places, *, dry_run: bool) -> tuple[Change, ...]:
    """Removes what was installed; the changes that are, or would be, made."""
    changes = tuple(Change(path) for path in _present(installed(places), places))
    if not dry_run:
        _carry_out(changes, systemd)
    return changes


def _carry_out(changes: Sequence[Change], systemd: Systemd) -> None:
    """Removes last, so that a job is rather there twice than not at all."""
    for change in changes:
        if change.text is not None:
            replace_file(change.path, change.text.encode(), mode_if_new=_MODE)
            change.path.chmod(_MODE)
    gone = [change.path for change in changes if change.text is None]
    timers = _timers(gone)
    if timers and systemd.is_there:
        systemd.stop(timers)
    for path in gone:
        path.unlink(missing_ok=True)
    if systemd.is_there and any(change.path.suffix in _ENDINGS for change in changes):
        systemd.reload()


def _let_run(
    wanted: Mapping[Path, str], changes: Sequence[Change], present: Mapping[Path, str], systemd: Systemd
) -> None:
    systemd.start(_timers(wanted))
    changed = _timers(change.path for change in changes if change.path in present and change.path in wanted)
    if changed:
        systemd.restart(changed)


def _timers(paths: Iterable[Path]) -> list[str]:
    return [path.name for path in paths if path.suffix == ".timer"]


def _present(before: Installed, places: Places) -> dict[Path, str]:
    units = {places.units / name: text for name, text in before.units.items()}
    return units if before.cron is None else {places.cron: before.cron, **units}


def _expect_cron(places: Places) -> None:
    if not places.cron.parent.is_dir():
        raise OperationFailed(
            f"there is no {places.cron.parent}, in which cron would look", hint="is cron installed?"
        )


def _expect_systemd(systemd: Systemd) -> None:
    if not systemd.is_there:
        raise OperationFailed("systemd does not run on this system", hint="hoster schedule install --cron")


def _is_ours(text: str) -> bool:
    return text.startswith(SIGN)


def _text(path: Path) -> str | None:
    """What is in the file, or None where there is none."""
    try:
        return read_small_file(path, follow_symlink=True).data.decode(errors="replace")
    except FileMissing:
        return None
