"""What zfs says on standard error, and the error that it becomes: recorded, each with its release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hoster import errors
from hoster.errors import (
    DatasetMissing,
    ExitCode,
    HosterError,
    NoSpace,
    NotPermitted,
    OperationFailed,
    Unreachable,
    ZfsError,
)
from hoster.host.process import Completed
from hoster.zfs.failures import is_missing_only, zfs_error

RECORDED = json.loads((Path(__file__).parents[2] / "recorded" / "zfs-failures.json").read_text())


def failed(stderr: str, *, code: int = 1, stdout: str = "") -> OperationFailed | Unreachable:
    return zfs_error("backup1", "listing", Completed(("zfs",), code, stdout, stderr))


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["said"][:60])
def test_what_zfs_said_becomes_the_error_that_it_means(case: dict[str, str]) -> None:
    error = failed(case["said"] + "\n")
    assert type(error) is getattr(errors, case["error"])
    assert error.message == f"backup1: listing: {' '.join(case['said'].split())}"
    assert error.exit_code is ExitCode.FAILED


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["said"][:60])
def test_every_recording_names_its_release_and_command(case: dict[str, str]) -> None:
    assert case["release"].startswith("OpenZFS ")
    assert case["seen"] in {"recorded", "documented", "source"}
    assert case["command"].partition(" ")[0] in {"zfs", "zpool"}


@pytest.mark.parametrize(
    ("stderr", "stdout", "said"),
    [("", "", "exit status 7"), ("", "help text\n", "help text"), ("a\n  b\n", "x", "a b")],
)
def test_its_own_words_are_kept_wherever_they_were_said(stderr: str, stdout: str, said: str) -> None:
    assert failed(stderr, code=7, stdout=stdout).message == f"backup1: listing: {said}"


@pytest.mark.parametrize(
    ("said", "kind", "hint"),
    [
        ("cannot receive: out of space", NoSpace, "zpool list"),
        ("cannot mount: permission denied", NotPermitted, "as root"),
        ("cannot open 'x': dataset does not exist", DatasetMissing, ""),
    ],
)
def test_where_there_is_a_next_step_it_is_named(said: str, kind: type[ZfsError], hint: str) -> None:
    error = failed(said)
    assert isinstance(error, kind)
    assert hint in error.hint
    assert bool(error.hint) is bool(hint)


@pytest.mark.parametrize(
    "said",
    [
        "mux_client_request_session: read from master failed: Broken pipe",
        "Control socket connect(/run/hoster/ssh-x/s): No such file or directory",
        "Connection closed by 10.0.0.2 port 22",
        "client_loop: send disconnect: Broken pipe",
    ],
)
def test_a_connection_that_has_gone_is_not_zfs_failing(said: str) -> None:
    error = failed(said, code=255)
    assert isinstance(error, Unreachable)
    assert error.message.startswith("backup1: the connection was lost while listing (")
    assert error.hint == "run it again"
    assert isinstance(failed(said, code=1), ZfsError)


@pytest.mark.parametrize(
    ("stderr", "only"),
    [
        ("cannot open 'a': dataset does not exist\n", True),
        ("cannot open 'a': dataset does not exist\ncannot open 'b': dataset does not exist\n", True),
        ("setlocale: LC_ALL: cannot change locale\ncannot open 'a': dataset does not exist\n", True),
        ("", False),
        ("bash: warning: setlocale\n", False),
        ("cannot open 'a': dataset does not exist\ncannot open 'b': permission denied\n", False),
        ("cannot open 'a': no such pool\n", False),
        (
            "cannot open 'a': dataset does not exist\ncannot open 'b': pool I/O is currently suspended\n",
            False,
        ),
        ("internal error: out of memory\ncannot open 'a': dataset does not exist\n", False),
        ("sh: zfs: not found\n", False),
    ],
)
def test_only_where_nothing_else_is_wrong_is_a_missing_dataset_just_missing(stderr: str, only: bool) -> None:
    assert is_missing_only(stderr) is only


def test_every_error_has_the_exit_code_of_the_table() -> None:
    codes = {
        errors.HosterError: 1,
        errors.UsageError: 2,
        errors.ConfigurationError: 2,
        errors.OperationFailed: 3,
        errors.TargetModified: 3,
        errors.Refused: 10,
        errors.Busy: 11,
        errors.Unreachable: 12,
    }
    assert {kind: kind("x", hint="y").exit_code for kind in codes} == codes
    assert str(HosterError("what happened")) == "what happened"
