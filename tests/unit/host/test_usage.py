"""Which folders have files that some process has open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hoster.host.usage import bhyve_machines, open_below, openers


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_a_file_that_another_process_has_open_marks_its_folder(tmp_path: Path) -> None:
    used, beside = tmp_path / "web", tmp_path / "web2"
    for folder in (used, beside):
        folder.mkdir()
        (folder / "disk0.img").touch()
    script = "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(used / "disk0.img")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert open_below([str(used), str(beside), "/nowhere"]) == {str(used)}
        assert open_below([f"{used}/"]) == {f"{used}/"}
        process.kill()
    assert open_below([str(used)]) == frozenset()
    assert open_below([]) == frozenset()


def test_the_machines_of_bhyve_are_the_names_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "web").touch()
    assert bhyve_machines(tmp_path) == {"web"}
    assert bhyve_machines(tmp_path / "missing") == frozenset()


def test_a_process_may_be_called_whatever_it_likes(tmp_path: Path) -> None:
    disk, process = tmp_path / "disk0.img", tmp_path / "proc/17"
    disk.touch()
    (process / "fd").mkdir(parents=True)
    (process / "fd/3").symlink_to(disk)
    (process / "comm").write_bytes(b"caf\xe9\n")
    (user,) = openers([disk], tmp_path / "proc")
    assert (user.pid, user.path, user.command.startswith("caf")) == (17, disk, True)
