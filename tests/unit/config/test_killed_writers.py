"""A process killed in the middle of writing leaves the old file or the new one, never anything else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hoster.config.files import create_file
from hoster.errors import HosterError

OLD = b'{"memory": "2G", "x_old": true}'
NEW = b'{"memory": "4G", "x_new": true}'
FIRST = b"datasets = ['tank/vms']\n"

DYING_WRITER = """
import os, signal, sys
from pathlib import Path
from hoster.config.files import DiskCalls, create_file, replace_file

verb, path, data, left = sys.argv[1], Path(sys.argv[2]), sys.argv[3].encode(), int(sys.argv[4])

def step():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

class Dying(DiskCalls):
    def write(self, descriptor, data):
        step()
        return super().write(descriptor, data[: len(data) // 2 + 1])

def dying(name):
    whole = getattr(DiskCalls, name)
    def call(self, *args):
        step()
        whole(self, *args)
        step()
    return call

for name in ("chown", "chmod", "fsync", "rename", "link", "unlink"):
    setattr(Dying, name, dying(name))

if verb == "replace":
    replace_file(path, data, mode_if_new=0o600, calls=Dying())
else:
    create_file(path, data, mode=0o644, calls=Dying())
"""


def died_after(verb: str, path: Path, data: bytes, steps: int) -> bool:
    """Whether a writer in a process of its own was killed at its step number ``steps``."""
    process = subprocess.run(
        [sys.executable, "-c", DYING_WRITER, verb, str(path), data.decode(), str(steps)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode != 0


@pytest.mark.parametrize("old", [OLD, None])
def test_a_writer_killed_at_any_step_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, old: bytes | None
) -> None:
    path = tmp_path / "vm_config.json"
    seen: list[bytes | None] = []
    for steps in range(100):
        path.unlink(missing_ok=True)
        if old is not None:
            path.write_bytes(old)
        died = died_after("replace", path, NEW, steps)
        seen.append(path.read_bytes() if path.exists() else None)
        if not died:
            break

    assert set(seen) == {old, NEW}
    assert seen == sorted(seen, key=[old, NEW].index)
    assert len(seen) > 8
    assert [entry.name for entry in tmp_path.iterdir()] == ["vm_config.json"]


def test_a_first_writer_killed_at_any_step_leaves_nothing_or_the_whole_file(tmp_path: Path) -> None:
    seen: list[bytes | None] = []
    for steps in range(100):
        path = tmp_path / f"{steps}" / "hoster.toml"
        path.parent.mkdir()
        died = died_after("create", path, FIRST, steps)
        seen.append(path.read_bytes() if path.exists() else None)
        after_a_crash_another_try_is_answered_truly(path)
        if not died:
            break

    assert set(seen) == {None, FIRST}


def after_a_crash_another_try_is_answered_truly(path: Path) -> None:
    existed = path.exists()
    try:
        create_file(path, b"second", mode=0o644)
    except HosterError:
        assert existed
        assert path.read_bytes() == FIRST
    else:
        assert not existed
        assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["hoster.toml"]
