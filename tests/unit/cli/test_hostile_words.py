"""Words that could mean something to ssh, to zfs or to a shell are usage errors before anything is looked at.

Nothing behind the command line is there: a command that got through would say that there is no configuration.
"""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from hoster.cli.main import hoster
from hoster.errors import ConfigurationError, ExitCode

HOSTILE = [
    "-oProxyCommand=touch /tmp/hostile",
    "--",
    "a;touch /tmp/hostile",
    "a&b",
    "a|b",
    "a>b",
    "$(touch /tmp/hostile)",
    "`touch /tmp/hostile`",
    "${IFS}",
    "a'b",
    'a"b',
    "a\\b",
    "a\nb",
    "a\rb",
    "a\tb",
    "a\x1b[2Jb",
    "a\u2028b",
    "ä",
    "a*b",
    "a?b",
    "a%b",
    "a@b@c",
    "a#b",
    "a,b c=d",
    "../x",
    "/no/such/file",
    "..",
    "",
    " ",
    "a" * 256,
    "a" * 100_000,
]
"""What must not be taken, in any place."""

PLACES = {
    "NAME": ("vm", "replicate", "-e", "node2", "--", "{}"),
    "NAME of a snapshot": ("snapshot", "new", "-t", "daily", "--", "{}"),
    "NAME of branches": ("vm", "branches", "list", "--", "{}"),
    "NAME of a branch": ("vm", "branches", "destroy", "-y", "--", "{}"),
    "SNAPSHOT": ("snapshot", "destroy", "--", "web", "{}"),
    "-f": ("vm", "replicate-all", "-e", "node2", "--filter={}"),
    "-e": ("vm", "replicate-all", "--endpoint={}"),
    "--script-name": ("vm", "replicate-all", "-e", "node2", "--script-name={}"),
    "--target-dataset": ("vm", "replicate-all", "-e", "node2", "--target-dataset={}"),
    "--vm": ("change", "parent", "--vm={}"),
    "NAME of set": ("set", "parent", "--", "{}"),
    "NAME of demote": ("vm", "demote", "--", "{}"),
    "NAME of migrate": ("vm", "migrate", "-e", "node2", "--", "{}"),
    "NAME of restore": ("vm", "restore", "--from", "node2", "--", "{}"),
    "--from": ("vm", "restore", "web", "--from={}"),
    "--from-dataset": ("vm", "restore", "web", "--from", "node2", "--from-dataset={}"),
    "--snapshot": ("vm", "restore", "web", "--from", "node2", "--snapshot={}"),
    "--as": ("vm", "restore", "web", "--from", "node2", "--as={}"),
    "--key": ("vm", "replicate-all", "-e", "node2", "--key={}"),
    "--target-keep": ("vm", "replicate-all", "-e", "node2", "--target-keep={}"),
}
NOT_EVEN_A_JOB = [word for word in HOSTILE if "/" in word or "$" in word or "\n" in word or len(word) > 200]


def answer(place: tuple[str, ...], word: str) -> Result:
    result = CliRunner().invoke(hoster, [part.replace("{}", word) for part in place], prog_name="hoster")
    assert result.exit_code == ExitCode.USAGE, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert len(result.stderr) < 1000 or "--key={}" in place, "a message, not the text again"
    assert "\x1b" not in result.stderr
    return result


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("word", HOSTILE, ids=lambda word: repr(word)[:20])
def test_hostile_words_are_usage_errors_that_say_what_is_wrong(place: str, word: str) -> None:
    said = answer(PLACES[place], word).stderr
    assert "Invalid value for" in said, said


@pytest.mark.parametrize("word", NOT_EVEN_A_JOB, ids=lambda word: repr(word)[:20])
def test_a_tag_that_cannot_be_part_of_a_file_name_needs_the_name_of_a_job(word: str) -> None:
    said = answer(("scheduler", "replicate-by-tag", "-e", "node2", "--", "{}"), word).stderr
    assert "add --script-name" in said, said


@pytest.mark.parametrize("word", ["web", "my web", "web.branch-20240101T000000Z", "a..b", "x" * 255, ":x"])
def test_names_that_zfs_has_get_through_to_the_configuration(word: str) -> None:
    result = CliRunner(env={"HOSTER_CONFIG": "/nowhere/hoster.toml"}).invoke(
        hoster, [part.replace("{}", word) for part in PLACES["NAME of branches"]]
    )
    assert isinstance(result.exception, ConfigurationError)
