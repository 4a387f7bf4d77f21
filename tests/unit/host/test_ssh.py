"""The shared connection, with a fake ``ssh`` in PATH: what is run, what failures mean, what is left."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hoster.errors import ExitCode, NoAnswer, Unreachable
from hoster.host.origin import own_origin
from hoster.host.process import SystemRunner
from hoster.host.ssh import SshOptions, SshSession
from hoster.model.names import Endpoint

RECORDED = json.loads((Path(__file__).parents[2] / "recorded" / "ssh-failures.json").read_text())
CONNECTS = (
    'echo "$@" >>"$0.argv"; echo "Welcome!"; printf "hoster-connected:the machine\\n"; exec cat >/dev/null'
)


class FakeSsh:
    """An ``ssh`` that is a shell script, found first in PATH."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "ssh"
        self.run_dir = folder / "run"

    def does(self, script: str) -> None:
        self.program.write_text(f"#!/bin/sh\n{script}\n")
        self.program.chmod(0o755)

    def session(self, options: SshOptions | None = None) -> SshSession:
        return SshSession(options or SshOptions(Endpoint("backup1")), SystemRunner(), self.run_dir)

    @property
    def was_given(self) -> list[str]:
        return Path(f"{self.program}.argv").read_text().splitlines()

    @property
    def left(self) -> list[str]:
        return [entry.name for entry in self.run_dir.iterdir()] if self.run_dir.exists() else []


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSsh:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return FakeSsh(tmp_path)


def failure(ssh: FakeSsh, said: str, options: SshOptions | None = None) -> Unreachable:
    ssh.does(f"cat >&2 <<'END'\n{said}\nEND\nexit 255")
    with pytest.raises(Unreachable) as caught, ssh.session(options):
        pass
    return caught.value


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["said"][:50])
def test_what_ssh_said_is_explained_with_the_next_command(ssh: FakeSsh, case: dict[str, str]) -> None:
    error = failure(ssh, case["said"])
    assert error.message.startswith(f"backup1: {case['means']} (ssh: ")
    assert case["said"].splitlines()[-1].removeprefix("ssh: ").strip() in error.message
    assert case["hint"] in error.hint
    assert error.exit_code is ExitCode.UNREACHABLE
    assert ssh.left == []


@pytest.mark.parametrize(
    ("port", "said", "hint"),
    [
        (None, "Host key verification failed.", "accept it: ssh root@backup1"),
        (2222, "Host key verification failed.", "accept it: ssh -p 2222 root@backup1"),
        (
            2222,
            "REMOTE HOST IDENTIFICATION HAS CHANGED!",
            "ssh-keygen -R [backup1]:2222; ssh -p 2222 root@backup1",
        ),
        (22, "REMOTE HOST IDENTIFICATION HAS CHANGED!", "ssh-keygen -R backup1; ssh -p 22 root@backup1"),
        (2222, "Permission denied (publickey).", "ssh-copy-id -p 2222 root@backup1"),
        (None, "WARNING: UNPROTECTED PRIVATE KEY FILE!", "chmod 600"),
    ],
)
def test_the_hint_is_the_command_for_this_endpoint(
    ssh: FakeSsh, port: int | None, said: str, hint: str
) -> None:
    assert hint in failure(ssh, said, SshOptions(Endpoint("backup1", "root"), port)).hint


def test_an_ssh_that_says_nothing_and_ends_is_unreachable(ssh: FakeSsh) -> None:
    ssh.does("exit 255")
    with pytest.raises(NoAnswer, match=r"ssh failed .ssh: no answer in time"), ssh.session():
        pass


@pytest.mark.parametrize("status", [0, 1, 127])
def test_a_node_that_lets_us_in_and_runs_nothing_is_not_taken_for_one_that_is_off(
    ssh: FakeSsh, status: int
) -> None:
    """As with nologin(8) for a shell, or a key with a command of its own."""
    ssh.does(f'echo "This account is currently not available."; exit {status}')
    with pytest.raises(Unreachable, match=rf"runs no command for us .exit status {status}.") as caught:
        ssh.session().__enter__()
    assert not isinstance(caught.value, NoAnswer)
    assert "ssh backup1 true" in caught.value.hint


def test_a_connection_knows_the_machine_past_a_message_of_the_day(ssh: FakeSsh) -> None:
    ssh.does(CONNECTS)
    with ssh.session(SshOptions(Endpoint("backup1", "root"))) as session:
        assert session.machine == "the machine"
        assert session.name == "root@backup1"
        assert len(ssh.left) == 1
    assert ssh.left == []


def test_a_marker_that_is_not_at_the_beginning_of_a_line_is_noise(ssh: FakeSsh) -> None:
    ssh.does('echo "echo hoster-connected:no"; printf "hoster-connected:yes\\n"; exec cat >/dev/null')
    with ssh.session() as session:
        assert session.machine == "yes"


def test_nothing_that_asks_or_decides_is_left_to_the_configuration(ssh: FakeSsh) -> None:
    ssh.does(CONNECTS)
    with ssh.session() as session:
        channel = session.argv(["zfs", "list"])
    for words in (ssh.was_given[0], " ".join(channel)):
        for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ForwardAgent=no", "RequestTTY=no"):
            assert f"-o {option}" in words
        assert " -- backup1 " in words
    assert "-o ControlMaster=yes" in ssh.was_given[0]
    assert "-o ControlMaster=no" in " ".join(channel)
    assert channel[-1].endswith("exec zfs list'")
    assert f"HOSTER_ORIGIN={own_origin()};" in channel[-1]


@pytest.mark.parametrize("port", [None, 2222])
@pytest.mark.parametrize("key", [None, Path("/root/.ssh/id")])
def test_port_and_key_are_passed_on_only_where_they_were_given(
    ssh: FakeSsh, port: int | None, key: Path | None
) -> None:
    ssh.does(CONNECTS)
    with ssh.session(SshOptions(Endpoint("backup1"), port, key)):
        pass
    assert ("-p 2222" in ssh.was_given[0]) is (port is not None)
    assert ("-i /root/.ssh/id" in ssh.was_given[0]) is (key is not None)


def test_the_far_side_ends_with_the_block(ssh: FakeSsh) -> None:
    ssh.does(CONNECTS.replace("exec cat >/dev/null", 'cat >/dev/null; echo gone >"$0.gone"'))
    with ssh.session():
        assert not Path(f"{ssh.program}.gone").exists()
    assert Path(f"{ssh.program}.gone").read_text() == "gone\n"


def test_a_folder_that_a_killed_process_left_is_removed_and_a_live_one_is_not(ssh: FakeSsh) -> None:
    ssh.does(CONNECTS)
    stale = ssh.run_dir / "ssh-stale"
    stale.mkdir(parents=True)
    (stale / "lock").touch()
    with ssh.session(), ssh.session():
        assert "ssh-stale" not in ssh.left
        assert len(ssh.left) == 2


def test_the_socket_is_for_this_user_alone(ssh: FakeSsh) -> None:
    ssh.does(CONNECTS)
    with ssh.session():
        folder = ssh.run_dir / ssh.left[0]
        assert folder.stat().st_mode & 0o077 == 0


def test_a_connection_can_be_closed_twice(ssh: FakeSsh) -> None:
    ssh.does(CONNECTS)
    with ssh.session() as session:
        session.close()


def test_connections_made_at_the_same_moment_do_not_take_each_other_for_left_over(ssh: FakeSsh) -> None:
    """Seen with three nodes asked at once: one removed the folder that another had not locked yet."""
    ssh.does(CONNECTS)

    def connect(_number: int) -> str:
        with ssh.session() as session:
            return session.machine

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(connect, range(80))) == {"the machine"}
    assert ssh.left == []
