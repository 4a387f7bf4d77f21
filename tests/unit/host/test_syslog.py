"""The datagrams of syslog and of systemd's journal, on a real socket; whether a process has a terminal."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from hoster.host.syslog import send_to_journal

HAS = "from hoster.host.syslog import has_terminal; raise SystemExit(7 if has_terminal() else 8)"


def test_a_value_with_newlines_is_sent_with_its_length(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        send_to_journal(path, {"MESSAGE": "one\ntwo", "PRIORITY": "6"})
        sent = listening.recv(4096)
    expected = b"MESSAGE\n" + (7).to_bytes(8, "little") + b"one\ntwo\nPRIORITY=6\n"
    assert sent == expected + b"SYSLOG_IDENTIFIER=hoster\nSYSLOG_FACILITY=3\n"


def test_a_process_in_a_session_of_its_own_has_no_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", HAS], start_new_session=True, check=False)
    assert done.returncode == 8


def test_a_process_on_a_terminal_has_one_even_if_all_it_says_goes_elsewhere() -> None:
    master, slave = os.openpty()
    # The first terminal that the leader of a session opens is its own from then on.
    takes = f"import os; os.open({os.ttyname(slave)!r}, os.O_RDWR); {HAS}"
    nowhere = subprocess.DEVNULL
    done = subprocess.run(
        [sys.executable, "-c", takes],
        start_new_session=True,
        stdin=nowhere,
        stdout=nowhere,
        stderr=nowhere,
        check=False,
    )
    os.close(slave)
    os.close(master)
    assert done.returncode == 7
