"""Options and arguments that several commands share, and what turns their text into types."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hoster.model.anchors import TargetKey
from hoster.model.names import (
    Endpoint,
    SnapshotType,
    dataset_name,
    endpoint,
    existing_snapshot_name,
    existing_vm_name,
    job_name,
    shown,
    snapshot_type,
    vm_name,
)

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # not subscriptable before click 8.4


class _Text(_ParamType):
    """A parameter whose text a model function turns into a value or refuses with a reason."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _SnapshotTypeParam(_Text):
    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        del ctx, param
        words = [stype.value for stype in SnapshotType if stype.value.startswith(incomplete)]
        return [click.shell_completion.CompletionItem(word) for word in words]


def parse_size(text: str) -> int:
    """``10G`` in bytes; ValueError with the reason."""
    from hoster.operations.deploy import size_bytes

    return size_bytes(text)


def parse_target_keep(text: str) -> tuple[SnapshotType, int]:
    """``TYPE=N``; ValueError with the reason."""
    word, equals, count = text.partition("=")
    if not equals or not count.isascii() or not count.isdigit() or int(count) < 1:
        raise ValueError(f"{shown(text)}: expected TYPE=N with N at least 1, such as daily=60")
    return snapshot_type(word), int(count)


def parse_target_guid(text: str) -> TargetKey:
    """A target's GUID as it stands in the names of its anchors; ValueError with the reason."""
    if len(text) != 16 or set(text) - set("0123456789abcdef"):
        raise ValueError(f"{shown(text)}: expected the 16 digits after hoster- in a bookmark's name")
    return TargetKey(int(text, 16))


def parse_names(text: str) -> tuple[str, ...]:
    """Names of VMs, parted by commas; ValueError with the reason, also where there are none."""
    names = tuple(existing_vm_name(name) for word in text.split(",") if (name := word.strip()))
    if not names:
        raise ValueError("names no VM")
    return names


class _Amount(click.FloatRange):
    """A number of which there can be so much: ``nan`` and ``inf`` are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        amount = super().convert(value, param, ctx)
        if not math.isfinite(amount):
            self.fail(f"{value!r} is no number", param, ctx)
        return amount


MIB_PER_S = _Amount(min=0, min_open=True)
SECONDS = _Amount(min=0)
SNAPSHOT_TYPE = _SnapshotTypeParam("TYPE", snapshot_type)
ENDPOINT = _Text("HOST", endpoint)
VM_NAME = _Text("NAME", existing_vm_name)
VM_NAMES = _Text("NAME,NAME…", parse_names)
NEW_VM_NAME = _Text("NAME", lambda text: vm_name(existing_vm_name(text)))
SNAPSHOT_NAME = _Text("SNAPSHOT", existing_snapshot_name)
DATASET = _Text("DATASET", dataset_name)
JOB_NAME = _Text("NAME", job_name)
SIZE = _Text("SIZE", parse_size)
TARGET_GUID = _Text("GUID", parse_target_guid)
TARGET_KEEP = _Text("TYPE=N", parse_target_keep)

__all__ = [
    "DATASET",
    "ENDPOINT",
    "JOB_NAME",
    "MIB_PER_S",
    "SECONDS",
    "SNAPSHOT_NAME",
    "SNAPSHOT_TYPE",
    "TARGET_GUID",
    "TARGET_KEEP",
    "VM_NAME",
    "VM_NAMES",
    "Endpoint",
]


def complete_vm_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[click.shell_completion.CompletionItem]:
    """The VMs of this node that begin so; nothing where they cannot be found out."""
    del ctx, param
    from hoster.errors import HosterError
    from hoster.operations.context import wire
    from hoster.operations.inventory import look_around

    try:
        names = [vm.name for vm in look_around(wire(), mend=False).vms]
    except HosterError:
        return []
    return [click.shell_completion.CompletionItem(name) for name in names if name.startswith(incomplete)]


def vm_argument(function: _F) -> _F:
    """The NAME of a VM."""
    return click.argument("name", type=VM_NAME, metavar="NAME", shell_complete=complete_vm_name)(function)


def json_option(function: _F) -> _F:
    """``--json``: the result for programs."""
    return click.option("-j", "--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def unix_option(function: _F) -> _F:
    """``-u``: a table for pipes."""
    return click.option(
        "-u",
        "--unix",
        "--unix-style",
        "unix",
        is_flag=True,
        help="No borders, no header: one line each, for pipes.",
    )(function)


def dry_run_option(function: _F) -> _F:
    """``--dry-run``: show and change nothing."""
    return click.option(
        "-n", "--dry-run", is_flag=True, help="Show what would be done, and why; change nothing."
    )(function)


def power_options(function: _F) -> _F:
    """``--force-stop`` and ``--force-start``."""
    stop = click.option("--force-stop", is_flag=True, help="Stop the VM first if it runs.")
    start = click.option("--force-start", is_flag=True, help="Start the VM afterwards, in any case.")
    return stop(start(function))


def keep_option(required: bool) -> Callable[[_F], _F]:
    """``--keep N``."""
    text = "Keep the newest N of this type, and destroy older ones that nothing needs."
    if not required:
        text += " Without it nothing is destroyed."
    return click.option("-k", "--keep", type=click.IntRange(min=1), metavar="N", required=required, help=text)


def type_option(default: SnapshotType | None) -> Callable[[_F], _F]:
    """``--stype TYPE``, also spelled ``--type``."""
    return click.option(
        "-t",
        "--stype",
        "--type",
        "stype",
        type=SNAPSHOT_TYPE,
        default=None if default is None else default.value,
        required=default is None,
        show_default=default is not None,
        help=f"Snapshot type: {', '.join(SnapshotType)}.",
    )
