"""Holds the documentation against the code: what docs/reference.md lists is what there is, no more, no less.

Options stand in tables under a heading for each command; what is compared is the code spans of a table's
first column. Shell lines of the documents are parsed by the command line itself, without running them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import click
import msgspec
import pytest
from msgspec.structs import fields

from hoster.cli import snapshot as snapshot_commands
from hoster.cli import vm as vm_commands
from hoster.cli.main import hoster
from hoster.config.schedules_file import ScheduleTable, TargetTable
from hoster.config.settings import (
    DEFAULT_MARKER_DIR,
    DEFAULT_PLACES,
    DEFAULT_RUN_DIR,
    DEFAULT_STATE_DIR,
    DEFAULT_VNC_ADDRESS,
    ReplicationSettings,
)
from hoster.config.settings_file import Document, HostConfig
from hoster.errors import ExitCode
from hoster.host import ssh
from hoster.model.names import SnapshotType
from hoster.model.plan import Destroyed, Ground, Outcome, VmReport
from hoster.model.promises import DEFAULT_RPO_MINUTES
from hoster.model.storage import Role
from hoster.model.vms import Vm
from hoster.operations.machines import ListedVm
from hoster.operations.snapshots import ListedSnapshot
from hoster.testing import dataset
from hoster.zfs.argv import LISTED_PROPERTIES

if TYPE_CHECKING:
    from hoster.operations.context import Context

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
HELP = {"-h", "--help"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][A-Za-z-]*")


def commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its words; groups only where they have options of their own."""
    if not isinstance(command, click.Group) or spellings(command):
        yield " ".join(words), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*words, name))


def spellings(command: click.Command) -> set[frozenset[str]]:
    """The options of a command, each with all of its spellings."""
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return {frozenset({*option.opts, *option.secondary_opts}) for option in options}


COMMANDS = dict(commands(hoster, ("hoster",)))
each_command = pytest.mark.parametrize("words", COMMANDS)


@cache
def sections() -> dict[str, str]:
    """The text under each heading of the reference, less the headings below it."""
    parts = re.split(r"^#+ (.+)$", (ROOT / "docs/reference.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables under that heading, less their heads."""
    assert heading in sections(), f"docs/reference.md has no section {heading!r}"
    lines = [line for line in sections()[heading].splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if "`" in row[0] or row[0].isdigit()]


def first_words(heading: str) -> list[str]:
    """The code spans of the first columns under that heading."""
    return [word for row in rows(heading) for word in CODE.findall(row[0])]


@each_command
def test_every_command_has_a_section_that_lists_its_options_and_no_others(words: str) -> None:
    documented = [{word for word in CODE.findall(row[0]) if word.startswith("-")} for row in rows(words)]
    assert {frozenset(row) for row in documented} == spellings(COMMANDS[words])
    assert len(documented) == len(spellings(COMMANDS[words])), "an option is listed twice"


def test_every_section_about_a_command_has_a_command_that_exists() -> None:
    assert {heading for heading in sections() if re.match(r"hoster( |$)", heading)} == set(COMMANDS)


@each_command
def test_a_commands_synopsis_names_its_arguments_and_only_options_that_it_has(words: str) -> None:
    command = COMMANDS[words]
    (_, synopsis), *_ = FENCE.findall(sections()[words])
    assert synopsis.startswith(words)
    known = {word for option in spellings(command) for word in option} | HELP
    mentioned = set(OPTION.findall(synopsis))
    assert mentioned <= known
    assert all(option & mentioned for option in spellings(command)), "an option is missing"
    context = click.Context(command)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            assert parameter.make_metavar(context).strip("{}[]") in synopsis


@each_command
def test_what_is_said_of_a_command_mentions_no_option_that_it_does_not_have(words: str) -> None:
    known = {word for option in spellings(COMMANDS[words]) for word in option} | HELP
    spans = CODE.findall(sections()[words])
    foreign = {"--json"} if words.endswith("vm info") else set()
    assert {
        word for span in spans if span.startswith("-") for word in OPTION.findall(span)
    } <= known | foreign


@each_command
def test_the_default_of_an_option_is_the_one_that_it_has(words: str) -> None:
    documented = {CODE.findall(row[0])[0]: CODE.findall(row[1]) for row in rows(words)}
    for option in COMMANDS[words].params:
        if isinstance(option, click.Option):
            usual = option.default
            is_plain = isinstance(usual, str | int | Path) and not isinstance(usual, bool) and usual != ""
            assert documented[option.opts[0]] == ([str(usual)] if is_plain else []), option.opts


@each_command
def test_a_commands_exit_codes_are_those_of_its_help(words: str) -> None:
    stated = re.search(r"Exit codes: (.*?)\.(\n|$)", COMMANDS[words].help or "", re.DOTALL)
    documented = re.search(r"Exit codes: (.*?)\.\n", sections()[words], re.DOTALL)
    assert codes(documented) == codes(stated)
    assert codes(documented) <= {int(code) for code in ExitCode}


def codes(found: re.Match[str] | None) -> set[int]:
    """The numbers that stand where an exit code does."""
    return {int(n) for n in re.findall(r"(?:^|, |,\n\s*)(\d+) ", found[1])} if found else set()


def test_every_exit_code_is_listed_with_its_number() -> None:
    assert {(int(row[0]), row[1]) for row in rows("Exit codes")} == {(int(c), c.name) for c in ExitCode}


def test_every_ground_for_a_refusal_is_explained() -> None:
    assert first_words("Refusals of replication") == [ground.value for ground in Ground]


def test_every_field_and_every_outcome_of_a_report_is_explained() -> None:
    expected = [field.name for field in fields(VmReport)] + [outcome.value for outcome in Outcome]
    assert sorted(first_words("Reports")) == sorted(expected)
    for field in fields(Destroyed):
        assert f"`{field.name}`" in sections()["Reports"]


def test_every_field_of_a_listing_is_explained() -> None:
    web = dataset("tank/vm/web", "h1")
    listed = snapshot_commands._document(ListedSnapshot("web", web.snapshots[0], needed=False))
    assert sorted(first_words("snapshot list and snapshot list-all")) == sorted(listed)
    machine = Vm("web", web, (), Role.PRIMARY, "node1", production=True)
    context = cast("Context", SimpleNamespace(hostname="node1"))
    listed = vm_commands._document(context, ListedVm(machine))
    assert sorted(first_words("vm list and vm info")) == sorted(listed)


def test_every_user_property_is_explained() -> None:
    ours = [name for name in LISTED_PROPERTIES if name.startswith("hoster:")]
    assert sorted(first_words("User properties")) == sorted(ours)


def test_every_key_of_the_settings_is_listed() -> None:
    settings = set(keys(Document)) - {"schedules"}
    assert sorted(first_words("hoster.toml")) == sorted(settings)
    schedule = {*keys(ScheduleTable, "schedules.NAME."), *keys(TargetTable, "schedules.NAME.targets.TARGET.")}
    keep = {key for key in schedule if ".keep." in key}
    above = {"schedules.NAME.targets", *keep}
    assert sorted(first_words("Schedules")) == sorted(
        {*schedule, "schedules.NAME.targets.TARGET.keep"} - above
    )
    assert sorted(first_words("host_config.json")) == sorted(keys(HostConfig))


def keys(schema: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """The keys of a settings file, those of tables with the table's name before them."""
    for field in msgspec.structs.fields(schema):
        name = prefix + field.encode_name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from keys(field.type, f"{name}.")
        else:
            yield name


def test_the_defaults_of_the_settings_are_those_of_the_code() -> None:
    usual = ReplicationSettings()
    expected = {
        "state-dir": str(DEFAULT_STATE_DIR),
        "run-dir": str(DEFAULT_RUN_DIR),
        "marker-dir": str(DEFAULT_MARKER_DIR),
        "promises.rpo": str(DEFAULT_RPO_MINUTES),
        "vnc-address": DEFAULT_VNC_ADDRESS,
        "replication.keep": str(usual.keep),
        "replication.connect-timeout": str(usual.connect_timeout_s),
    }
    expected |= {f"replication.target-keep.{stype}": str(n) for stype, n in usual.target_keep.items()}
    documented = {CODE.findall(row[0])[0]: CODE.findall(row[2]) for row in rows("hoster.toml")}
    assert {key: value for key, (value,) in ((k, v) for k, v in documented.items() if v)} == expected
    for folder in DEFAULT_PLACES:
        assert f"`{folder}`" in sections()["Search order"]


def test_every_snapshot_type_is_named() -> None:
    assert all(f"`{stype}`" in sections()["Common behaviour"] for stype in SnapshotType)


def test_everything_that_can_be_wrong_with_a_connection_is_listed() -> None:
    known = {meaning for _, meaning, _ in ssh._FAILURES} | {"ssh failed", ssh.LETS_US_IN}
    table = [
        line for line in sections()["When the other node cannot be reached"].splitlines() if line[:2] == "| "
    ]
    documented = {message for line in table[1:] for message in line.strip("| ").split(" | ")[0].split("; ")}
    assert documented == known


def shell_lines() -> Iterator[tuple[str, str]]:
    """Lines of shell blocks, and of the crontabs in them, that call hoster."""
    for path in DOCUMENTS:
        for language, text in FENCE.findall(path.read_text()):
            if language == "sh":
                for line in text.splitlines():
                    if called := re.search(r"(?:^|&& |\broot +)(?:/opt/hoster-core/)?(hoster .*)", line):
                        yield str(path.relative_to(ROOT)), called[1].strip()


@pytest.mark.parametrize(("where", "line"), list(shell_lines()))
def test_what_the_documents_tell_to_type_is_understood(where: str, line: str) -> None:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|&;<>()"):
            break
        words.append(word.removeprefix("$"))
    parse(hoster, words[1:])


def parse(command: click.Command, words: list[str], parent: click.Context | None = None) -> None:
    """Parses a command line to its end and runs nothing; UsageError if it is not understood.

    Paths in it are those of a node, and need not be here.
    """
    try:
        context = command.make_context(command.name, words, parent=parent)
    except click.BadParameter as error:
        if not error.message.endswith(" does not exist."):
            raise
        return
    if isinstance(command, click.Group):
        words = [*context._protected_args, *context.args]
        if not words and command.invoke_without_command:
            return
        _, below, rest = command.resolve_command(context, words)
        assert below is not None
        parse(below, rest, context)


def test_there_are_lines_to_type_in_the_readme_and_in_the_tutorial() -> None:
    found = [where for where, _ in shell_lines()]
    assert found.count("README.md") >= 5
    assert found.count("docs/tutorial.md") >= 15


def targets() -> Iterator[tuple[str, str]]:
    """Links of the documents that do not lead out of the project."""
    for path in DOCUMENTS:
        text = FENCE.sub("", path.read_text())
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" not in target:
                yield str(path.relative_to(ROOT)), target


@pytest.mark.parametrize(("where", "target"), list(targets()))
def test_every_link_leads_to_a_file_and_a_heading(where: str, target: str) -> None:
    name, _, anchor = target.partition("#")
    path = (ROOT / where).parent / name if name else ROOT / where
    assert path.exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
