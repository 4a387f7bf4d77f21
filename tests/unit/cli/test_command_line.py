"""The command line itself: help of every command, usage errors, exit codes. Nothing behind it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from hoster import __version__
from hoster.cli.main import hoster
from hoster.cli.options import parse_target_keep
from hoster.cli.render import exit_code, human_size
from hoster.errors import ExitCode
from hoster.model.names import SnapshotType
from hoster.model.plan import Outcome, Report, VmReport


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name))


ALL = sorted(commands(hoster))
LEAVES = [path for path in ALL if not any(other[:-1] == path for other in ALL)]


def invoke(*words: str) -> Result:
    return CliRunner().invoke(hoster, words, prog_name="hoster")


@pytest.mark.parametrize("path", ALL, ids=" ".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_explains_itself(path: tuple[str, ...], flag: str) -> None:
    result = invoke(*path, flag)
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: hoster")


@pytest.mark.parametrize("path", [p for p in LEAVES if p[0] not in {"completion", "version"}], ids=" ".join)
def test_every_command_names_its_exit_codes(path: tuple[str, ...]) -> None:
    assert re.search(r"[Ee]xit\s+codes?", invoke(*path, "--help").stdout)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_an_unknown_option_is_a_usage_error_everywhere(path: tuple[str, ...]) -> None:
    result = invoke(*path, "--no-such-option")
    assert result.exit_code == ExitCode.USAGE
    assert "--no-such-option" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("snapsot",), "Did you mean 'snapshot'?"),
        (("vm", "replicat"), "Did you mean 'replicate'?"),
        (("vm", "xyzzy"), "No such command 'xyzzy'"),
        (("snapshot", "new"), "Missing argument 'NAME'"),
        (("snapshot", "new", "web", "--keep", "0"), "0 is not in the range x>=1"),
        (("snapshot", "new", "web", "--keep", "-1"), "-1 is not in the range"),
        (("snapshot", "new", "web", "--keep", "5x"), "'5x' is not a valid integer"),
        (("snapshot", "new", "web", "--stype", "minutely"), "'minutely' is not a snapshot type"),
        (("snapshot", "all", "extra"), "unexpected extra argument"),
        (("vm", "replicate", "web"), "Missing option"),
        (("vm", "replicate", "web", "-e", "-oProxyCommand=x"), "is not an endpoint"),
        (("vm", "replicate", "web", "-e", "h;id"), "is not an endpoint"),
        (("vm", "replicate", "web", "-e", "h", "--port", "0"), "is not in the range"),
        (("vm", "replicate", "web", "-e", "h", "--speed-limit", "0"), "is not in the range"),
        (("vm", "replicate", "web", "-e", "h", "--script-name", "../x"), "cannot name a job"),
        (("vm", "replicate", "web", "-e", "h", "--target-keep", "daily"), "expected TYPE=N"),
        (("vm", "replicate", "web", "-e", "h", "--key", "/nowhere/key"), "does not exist"),
        (("vm", "replicate-all", "-e", "h", "--wait", "-1"), "is not in the range"),
        (("vm", "replicate-all", "-e", "h", "--wait", "nan"), "is no number"),
        (("vm", "replicate", "web", "-e", "h", "--speed-limit", "inf"), "is no number"),
        (("vm", "restore", "web", "--from", "h", "--speed-limit", "nan"), "is no number"),
        (("completion", "tcsh"), "'tcsh' is not one of"),
    ],
)
def test_a_usage_error_says_what_is_wrong(words: tuple[str, ...], said: str) -> None:
    result = invoke(*words)
    assert result.exit_code == ExitCode.USAGE
    assert said in result.stderr


def test_the_version_is_printed_either_way() -> None:
    assert invoke("version").stdout == invoke("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    assert "_HOSTER_COMPLETE" in invoke("completion", shell).stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["version"], 0),
        (["--help"], 0),
        (["xyzzy"], 2),
        (["snapshot", "new"], 2),
        (["vm", "list"], 2),  # there is no configuration
    ],
)
def test_the_process_exits_with_the_code_of_the_table(words: list[str], code: int) -> None:
    command = [sys.executable, "-m", "hoster", *words]
    environment = {"PATH": "/usr/bin:/bin", "HOSTER_CONFIG": "/nowhere/hoster.toml"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


FAILING = """
from hoster.cli.main import hoster, main
from hoster.cli.render import finish
from hoster.model.plan import Outcome, Report, VmReport

@hoster.command()
def failing():
    finish(Report((VmReport("web", Outcome.FAILED, "x" * 100_000),)), as_json=False)

main()
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [(["-c", FAILING, "failing"], 3), (["-m", "hoster", "version"], 0), (["-m", "hoster", "vm", "list"], 2)],
)
@pytest.mark.parametrize("buffered", ["", "1"])
def test_the_exit_code_is_the_same_where_nobody_reads_what_is_said(
    words: list[str], code: int, buffered: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "HOSTER_CONFIG": "/nowhere/hoster.toml", "PYTHONUNBUFFERED": buffered}
    done = subprocess.run(
        [sys.executable, *words], stdout=writing, stderr=writing, env=environment, check=False
    )
    os.close(writing)
    assert done.returncode == code


def test_a_locale_without_the_signs_of_messages_stops_nothing() -> None:
    command = [sys.executable, "-c", FAILING, "failing"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1:strict"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)
    assert r"\U0001f6ab ERROR" in done.stdout


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], ExitCode.DONE),
        ([Outcome.DONE, Outcome.UNCHANGED, Outcome.PLANNED], ExitCode.DONE),
        ([Outcome.DONE, Outcome.BUSY], ExitCode.BUSY),
        ([Outcome.REFUSED, Outcome.BUSY], ExitCode.REFUSED),
        ([Outcome.REFUSED, Outcome.FAILED, Outcome.DONE], ExitCode.FAILED),
    ],
)
def test_the_worst_outcome_decides_the_exit_code(outcomes: list[Outcome], code: ExitCode) -> None:
    assert exit_code(Report(tuple(VmReport("x", outcome) for outcome in outcomes))) is code


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0K"), (1023, "0K"), (1024, "1K"), (1 << 20, "1024K"), (2 << 20, "2M"), (3 << 29, "1.50G")],
)
def test_sizes_are_printed_as_the_original_does(size: int, text: str) -> None:
    assert human_size(size) == text


def test_a_count_for_a_target_is_a_type_and_a_number() -> None:
    assert parse_target_keep("daily=60") == (SnapshotType.DAILY, 60)


@pytest.mark.parametrize(
    "text", ["daily", "daily=", "daily=0", "daily=-1", "daily=5x", "daily=²", "=5", "x=5"]
)
def test_anything_else_is_no_count_for_a_target(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected TYPE=N|is not a snapshot type"):
        parse_target_keep(text)
