"""A new cloud-init set is put in place so that a kill at any moment leaves a VM with one whole set."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hoster.config.machine_file import MachineFile, read_machine_file
from hoster.errors import ConfigurationError, OperationFailed
from hoster.operations.seeding import (
    FILES,
    NEW_FILES,
    NEW_SEED,
    SEED,
    FolderCalls,
    SeedSet,
    is_settled,
    put_in_place,
    refuse_strange_places,
    settle,
)

CONFIG = "vm_config.json"
OLD_FILES = {"user-data": b"old users", "meta-data": b"old instance", "network-config": b"old network"}
NEW_ONES = {"user-data": b"new users", "meta-data": b"new instance", "network-config": b"new network"}
OLD_IMAGE, NEW_IMAGE = b"old image", b"new image" * 3000
NOTE = b"somebody's own"
CD = {"disk_type": "ahci-cd", "disk_location": "internal", "disk_image": SEED, "x_slot": 3}
DISK = {"disk_type": "nvme", "disk_location": "internal", "disk_image": "disk0.img"}

SWEEP = """
import itertools, json, os, shutil, signal, sys
from pathlib import Path
from hoster.config.machine_file import read_machine_file, with_changes
from hoster.operations.seeding import FolderCalls, SeedSet, put_in_place, settle

class Dying(FolderCalls):
    left = 0

    def step(self):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def write(self, descriptor, data):
        self.step()
        return super().write(descriptor, data[: len(data) // 2 + 1])

    def fsync(self, descriptor):
        self.step()  # what a process wrote outlives its kill without

def dying(name):
    whole = getattr(FolderCalls, name)
    def call(self, *args):
        self.step()
        whole(self, *args)
        self.step()
    return call

for name in ("chown", "chmod", "rename", "link", "unlink", "mkdir", "rmdir"):
    setattr(Dying, name, dying(name))

def run(verb, folder, calls):
    before = read_machine_file(folder / "vm_config.json")
    if verb == "settle":
        settle(folder, before, calls=calls)
        return
    new = json.loads(Path(sys.argv[3]).read_text())
    config = with_changes(before, memory="new", parent_host="here")
    files = {name: text.encode() for name, text in new["files"].items()}
    put_in_place(folder, SeedSet(config, new["image"].encode(), files), calls=calls)

for start in map(Path, sys.argv[4:]):
    for left in itertools.count():
        folder = Path(sys.argv[2]) / f"{start.name}-{left}"
        shutil.copytree(start, folder, symlinks=True)
        pid = os.fork()
        if pid == 0:
            calls = Dying()
            calls.left = left
            status = 1
            try:
                run(sys.argv[1], folder, calls)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, folder
            break
        assert os.WTERMSIG(status) == signal.SIGKILL, status
"""


def vm_folder(folder: Path, *disks: dict[str, Any], first_time: bool = False) -> Path:
    """A VM's folder with its old set, or with none."""
    folder.mkdir(parents=True)
    config = {"memory": "old", "disks": list(disks), "x_unknown": [1.50]}
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / CONFIG).chmod(0o644)
    (folder / "disk0.img").write_bytes(b"a disk")
    if not first_time:
        (folder / SEED).write_bytes(OLD_IMAGE)
        (folder / FILES).mkdir()
        (folder / FILES / "notes").write_bytes(NOTE)
        for name, data in OLD_FILES.items():
            (folder / FILES / name).write_bytes(data)
    return folder


def killed(verb: str, into: Path, *starts: Path) -> list[Path]:
    """For each of the folders: what is left of it by a process killed at its first step, its second, and
    so on up to one that ended by itself."""
    into.mkdir()
    new = into.with_suffix(".json")
    new.write_text(
        json.dumps({"image": NEW_IMAGE.decode(), "files": {k: v.decode() for k, v in NEW_ONES.items()}})
    )
    subprocess.run(
        [sys.executable, "-c", SWEEP, verb, str(into), str(new), *map(str, starts)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
    )
    return sorted(into.iterdir(), key=lambda path: [int(n) for n in path.name.split("-") if n.isdigit()])


def which_set(folder: Path) -> str:
    """Whether the VM, as it would be started now, has its old set or its new one; it must be one of them."""
    config = read_machine_file(folder / CONFIG)
    assert json.loads((folder / CONFIG).read_text())["x_unknown"] == [1.5]
    memory = config.config.memory
    for disk in config.config.disks:
        assert (folder / disk.image).is_file(), f"{folder.name}: {disk.image} is not there"
        if disk.image.startswith(SEED):
            expected = {"old": OLD_IMAGE, "new": NEW_IMAGE}[memory]
            assert (folder / disk.image).read_bytes() == expected, folder.name
    return memory


def content(folder: Path) -> frozenset[tuple[Path, bytes]]:
    """All files below the folder, with what is in them."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return frozenset((path.relative_to(folder), path.read_bytes()) for path in files)


class Unsynced(FolderCalls):
    """Does all but wait for the disk."""

    def fsync(self, descriptor: int) -> None:
        pass


def settled(folder: Path) -> MachineFile:
    """What the next run makes of it."""
    return settle(folder, read_machine_file(folder / CONFIG), calls=Unsynced())


def assert_settled(folder: Path, config: MachineFile) -> None:
    """Nothing lies about, and the files for people are those of the CD."""
    which = which_set(folder)
    assert config.document == read_machine_file(folder / CONFIG).document
    assert is_settled(folder, config.config)
    assert not {NEW_SEED, NEW_FILES} & {path.name for path in folder.iterdir()}
    assert (folder / FILES / "notes").read_bytes() == NOTE
    if any(disk.image == SEED for disk in config.config.disks):
        held = {path.name: path.read_bytes() for path in (folder / FILES).iterdir()}
        assert held == {"notes": NOTE} | {"old": OLD_FILES, "new": NEW_ONES}[which]


def test_killed_at_any_step_it_leaves_one_whole_set_and_the_next_run_clears_up(tmp_path: Path) -> None:
    start = vm_folder(tmp_path / "web1", DISK, CD)

    left = killed("put", tmp_path / "left", start)

    found = [which_set(folder) for folder in left]
    assert found == sorted(found, reverse=True)
    assert set(found) == {"old", "new"}
    assert len(found) > 40
    unsettled = [f for f in left if not is_settled(f, read_machine_file(f / CONFIG).config)]
    different = {content(folder): folder for folder in unsettled}
    assert len(different) > 10
    again = killed("settle", tmp_path / "again", *different.values())
    for folder in (*left, *again):
        which = which_set(folder)
        assert_settled(folder, settled(folder))
        assert which_set(folder) == which, folder.name
        shutil.rmtree(folder)


def test_a_vm_that_does_not_show_its_seed_can_be_started_at_any_step(tmp_path: Path) -> None:
    start = vm_folder(tmp_path / "web1", DISK)

    left = killed("put", tmp_path / "left", start)

    found = [which_set(folder) for folder in left]
    assert found == sorted(found, reverse=True)
    assert set(found) == {"old", "new"}
    for folder in left:
        assert_settled(folder, settled(folder))
    assert (left[-1] / SEED).read_bytes() == NEW_IMAGE


def new_set(folder: Path) -> SeedSet:
    return SeedSet(read_machine_file(folder / CONFIG), NEW_IMAGE, NEW_ONES)


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mode & 0o777
        for path in folder.rglob("*")
        if path.name not in {"disk0.img", "notes"}
    }


@pytest.mark.parametrize("disks", [(DISK, CD), (DISK,)])
def test_all_that_holds_a_password_is_for_root_alone_afterwards(
    tmp_path: Path, disks: tuple[dict[str, Any], ...]
) -> None:
    folder = vm_folder(tmp_path / "web1", *disks, first_time=True)
    (folder / SEED).write_bytes(OLD_IMAGE)

    put_in_place(folder, new_set(folder))

    assert modes(folder) == {
        CONFIG: 0o600,
        SEED: 0o600,
        FILES: 0o700,
        **{f"{FILES}/{name}": 0o600 for name in NEW_ONES},
    }
    assert {path.name: path.read_bytes() for path in (folder / FILES).iterdir()} == NEW_ONES


def test_a_cd_that_is_missing_is_made(tmp_path: Path) -> None:
    folder = vm_folder(tmp_path / "web1", DISK, CD, first_time=True)

    put_in_place(folder, new_set(folder))

    assert (folder / SEED).read_bytes() == NEW_IMAGE
    assert read_machine_file(folder / CONFIG).document["disks"] == [
        DISK | {"comment": ""},
        CD | {"comment": ""},
    ]


class Full(FolderCalls):
    """A disk that is full after so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, descriptor: int, data: bytes) -> int:
        if len(data) > self.room:
            raise OSError(28, "No space left on device")
        self.room -= len(data)
        return super().write(descriptor, data)


@pytest.mark.parametrize("room", [0, 15, 5000])
def test_a_full_disk_is_said_and_leaves_the_old_set_and_nothing_else(tmp_path: Path, room: int) -> None:
    folder = vm_folder(tmp_path / "web1", DISK, CD)
    before = content(folder)

    with pytest.raises(OperationFailed, match="No space left"):
        put_in_place(folder, new_set(folder), calls=Full(room))

    assert content(folder) == before
    assert is_settled(folder, read_machine_file(folder / CONFIG).config)


@pytest.mark.parametrize("name", [SEED, NEW_SEED, f"{FILES}/user-data"])
def test_a_folder_or_a_link_where_a_file_belongs_is_refused(tmp_path: Path, name: str) -> None:
    folder = vm_folder(tmp_path / "web1", DISK, CD)
    refuse_strange_places(folder, tuple(NEW_ONES))
    place = folder / name
    place.unlink(missing_ok=True)
    place.symlink_to("/etc/passwd")
    with pytest.raises(ConfigurationError, match=f"{name}: .*expected a regular file"):
        refuse_strange_places(folder, tuple(NEW_ONES))


@pytest.mark.parametrize("name", [FILES, NEW_FILES])
def test_a_link_where_a_folder_belongs_is_refused(tmp_path: Path, name: str) -> None:
    folder = vm_folder(tmp_path / "web1", DISK, CD, first_time=True)
    (folder / name).symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match=f"{name}: .*expected a folder"):
        refuse_strange_places(folder, tuple(NEW_ONES))


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    folder = vm_folder(tmp_path / "web1", DISK, CD)
    config = read_machine_file(folder / CONFIG)
    shutil.rmtree(folder)
    with pytest.raises(OperationFailed, match="cannot be opened"):
        settle(folder, config)
