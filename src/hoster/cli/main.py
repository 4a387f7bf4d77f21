"""The ``hoster`` command: finds the subcommand, turns errors into messages and exit codes.

Subcommands are imported when they are called, so that none pays for the others.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import NoReturn

import click

from hoster import __version__
from hoster.cli.messages import show_error
from hoster.errors import ExitCode, HosterError, OperationFailed
from hoster.records.log_format import FORMAT_VARIABLE, LogFormat

TERMINATED = 128 + signal.SIGTERM


class Unread(Exception):
    """Nobody reads what is printed; click would leave with 1 for a BrokenPipeError."""


class LazyGroup(click.Group):
    """A group whose subcommands are named as ``module:attribute`` and imported on use."""

    def __init__(self, *args: object, lazy: Mapping[str, str] | None = None, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._lazy = dict(lazy or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without a subcommand the help is the answer, with 0 (releases of click differ in that)."""
        if not args and not ctx.resilient_parsing and not self.invoke_without_command:
            click.echo(ctx.get_help())
            ctx.exit(ExitCode.DONE)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise Unread from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near:
                raise
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {near[0]!r}?", ctx) from error


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    cls=LazyGroup,
    context_settings=_SETTINGS,
    invoke_without_command=True,
    lazy={
        "change": "hoster.cli.parent:change",
        "completion": "hoster.cli.completion:completion",
        "config": "hoster.cli.config:config",
        "dataset": "hoster.cli.host:dataset",
        "history": "hoster.cli.history:history",
        "host": "hoster.cli.host:host",
        "init": "hoster.cli.init:init",
        "jobs": "hoster.cli.jobs:jobs",
        "metrics": "hoster.cli.metrics:metrics",
        "node_exporter": "hoster.cli.metrics:node_exporter",
        "schedule": "hoster.cli.schedule:schedule",
        "scheduler": "hoster.cli.scheduler:scheduler",
        "set": "hoster.cli.parent:set_",
        "snapshot": "hoster.cli.snapshot:snapshot",
        "status": "hoster.cli.status:status",
        "version": "hoster.cli.init:version",
        "vm": "hoster.cli.vm:vm",
    },
)
@click.version_option(__version__, "-V", "--version", message="%(version)s")
@click.option(
    "--log-format",
    type=click.Choice([form.value for form in LogFormat]),
    envvar=FORMAT_VARIABLE,
    help="What standard error gets: words for people, or JSON, one object for each event and message.",
)
@click.pass_context
def hoster(context: click.Context, log_format: str | None) -> None:
    """Snapshots, replication and disaster recovery of virtual machines on OpenZFS.

    Without a command: this node at a glance.

    Every command exits with 0 if it did what it was asked, 2 for a usage or configuration error,
    3 if something failed, 10 if it refused, 11 if it would have had to wait, 12 if the other node
    cannot be reached, and 130 if it was interrupted.
    """
    if log_format is not None:
        os.environ[FORMAT_VARIABLE] = log_format
    if context.invoked_subcommand is None:
        from hoster.cli.overview import show_overview

        show_overview()


def main() -> NoReturn:
    """Runs the command line and exits with the code from the table in docs/reference.md."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error has it: no locale stops a run
    code = int(ExitCode.DONE)
    try:
        # Outside its standalone mode click returns the code that a command left with.
        left_with = hoster.main(standalone_mode=False, prog_name="hoster")
        code = left_with if isinstance(left_with, int) else code
        sys.stdout.flush()
    except click.ClickException as error:
        code = ExitCode.USAGE
        _tell(error.show)
    except HosterError as error:
        code = error.exit_code
        _tell(partial(show_error, error))
    except (KeyboardInterrupt, click.Abort):
        code = ExitCode.INTERRUPTED
        _tell(partial(click.echo, "interrupted", err=True))
    except (BrokenPipeError, Unread):
        _silence_output()  # the reader of our output has gone (| head): nothing to say, and no one to
    except OSError as error:
        what = error.filename or "the output cannot be written"
        code = ExitCode.FAILED
        _tell(partial(show_error, OperationFailed(f"{what}: {error.strerror}")))
        _silence_output()
    sys.exit(code)


def _tell(say: Callable[[], None]) -> None:
    """Says why a command ends; where nobody can be told, the exit code still does."""
    try:
        say()
    except OSError:
        _silence_output()


def _silence_output() -> None:
    """Lets what is still buffered go nowhere, so that Python does not complain of it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """A request to end unwinds the stack, so that what was started is ended too."""
    sys.exit(TERMINATED)
