"""Checks what an administrator has written: the settings, the networks, and the configuration of each VM.

Looks and changes nothing. The settings are read to the first thing that is wrong with them; all else is said
at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from hoster.config.files import FileMissing
from hoster.config.networks import find_networks_file, read_networks
from hoster.config.settings import Settings, read_settings
from hoster.errors import ConfigurationError, HosterError
from hoster.model.schedules import Schedule, all_jobs
from hoster.operations.context import Context
from hoster.operations.inventory import Inventory, config_path, look_around
from hoster.operations.schedules import chosen_by


class Problem(Struct, frozen=True):
    """What is wrong: the file, the key and what was found there; and how to mend it, where that is known."""

    problem: str
    hint: str = ""


class Checked(Struct, frozen=True):
    """The files that were looked into, what is wrong in them, and what is worth knowing."""

    files: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()


def check_settings(path: Path) -> Settings | Problem:
    """The settings in that file, or what is wrong with them."""
    try:
        return read_settings(path)
    except ConfigurationError as error:
        return Problem(error.message, error.hint)


def check_node(context: Context) -> Checked:
    """Checks all that goes with the settings of ``context``, which are good by themselves."""
    settings = context.settings
    files, problems, notes = [str(settings.read_from)], list[Problem](), list[str]()
    try:
        networks = find_networks_file(settings.read_from)
        files.append(str(networks))
        read_networks(networks)
    except FileMissing:
        pass  # it is needed by `vm cireset` only
    except ConfigurationError as error:
        problems.append(Problem(error.message, error.hint))
    try:
        stock = look_around(context, mend=False)
    except HosterError as error:
        problems.append(Problem(f"{settings.read_from}: datasets: {error.message}", error.hint))
        return Checked(tuple(files), tuple(problems), tuple(notes))
    paths = (config_path(vm.dataset) for vm in stock.vms)
    files += [str(path) for path in paths if path is not None and path.exists()]
    problems += [Problem(vm.problem) for vm in stock.vms if vm.problem]
    problems += [Problem(f"{one.dataset}: {one.problem}", one.hint) for one in stock.broken]
    for schedule in settings.schedules:
        problems += _of_schedule(settings, schedule, stock)
    for job in all_jobs(settings.schedules):
        left_to = chosen_by(context, stock, job).left_to
        notes += [f"{job.name} leaves {vm} to the schedule {earlier}" for vm, earlier in left_to.items()]
    return Checked(tuple(files), tuple(problems), tuple(notes))


def _of_schedule(settings: Settings, schedule: Schedule, stock: Inventory) -> Iterator[Problem]:
    where = f"{settings.read_from}: schedules.{schedule.name}"
    here = {vm.name for vm in stock.vms} | {one.name for one in stock.unusable}
    for vm in schedule.selection.vms:
        if vm not in here:
            none = f"there is no VM {vm!r} on this node{stock.unless_missing}"
            yield Problem(f"{where}.vms: {none}", "hoster vm list")
    for target in schedule.targets:
        if target.key is not None and not Path(target.key).is_file():
            yield Problem(f"{where}.targets.{target.name}.key: there is no file {target.key}")
