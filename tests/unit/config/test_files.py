"""Reading and replacing files: nothing hangs, nothing is followed, and a kill leaves the old or the new."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hoster.config.files import MAX_BYTES, DiskCalls, FileMissing, create_file, read_small_file, replace_file
from hoster.config.machine_file import (
    machine_file_bytes,
    parse_machine_file,
    read_machine_file,
    with_changes,
    write_machine_file,
)
from hoster.errors import Busy, ConfigurationError, HosterError, OperationFailed

OLD = b'{"memory": "2G", "x_old": true}'
NEW = parse_machine_file(b'{"memory": "4G", "x_new": true}', "new")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "web1"
    folder.mkdir()
    return folder / "vm_config.json"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def symlink_to_a_good_file(path: Path) -> None:
    target = path.with_name("elsewhere.json")
    target.write_bytes(OLD)
    path.symlink_to(target)


def dangling_symlink(path: Path) -> None:
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.symlink_to(path)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path.name)  # in the current folder: a socket's path has about a hundred characters


def sparse_200_mb(path: Path) -> None:
    path.touch()
    os.truncate(path, 200 * 1024 * 1024)


def one_byte_too_many(path: Path) -> None:
    path.write_bytes(b" " * (MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (symlink_to_a_good_file, ["found a symbolic link", "expected a regular file"]),
        (dangling_symlink, ["found a symbolic link", "expected a regular file"]),
        (loop, ["found a symbolic link"]),
        (os.mkfifo, ["found a FIFO", "expected a regular file"]),
        (os.mkdir, ["found a directory", "expected a regular file"]),
        (bound_socket, ["found a socket"]),
        (sparse_200_mb, ["found 209715200 bytes", "expected 1048576 at the most"]),
        (one_byte_too_many, ["found 1048577 bytes", "expected 1048576 at the most"]),
        (Path.touch, ["found an empty file", "expected a JSON object"]),
    ],
)
def test_what_is_not_a_small_regular_file_is_a_named_error(
    path: Path, make: Callable[[Path], None], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    make(path)

    with pytest.raises(ConfigurationError) as caught:
        read_machine_file(path)

    assert caught.value.message.startswith(f"{path}: ")
    assert [word for word in words if word not in caught.value.message] == []


def test_a_device_is_not_opened() -> None:
    with pytest.raises(ConfigurationError, match="/dev/zero: found a character device"):
        read_machine_file(Path("/dev/zero"))


def test_a_missing_file_is_told_from_a_bad_one_and_names_the_command_that_makes_it(path: Path) -> None:
    with pytest.raises(FileMissing) as caught:
        read_machine_file(path)

    assert caught.value.message == f"{path}: there is no such file"
    assert "hoster vm adopt web1" in caught.value.hint


def test_a_missing_folder_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        read_machine_file(tmp_path / "web9" / "vm_config.json")


def test_a_folder_that_is_a_file_is_a_named_error(path: Path) -> None:
    path.write_bytes(OLD)

    with pytest.raises(ConfigurationError, match="cannot be read: Not a directory"):
        read_machine_file(path / "vm_config.json")


def test_a_broken_file_points_at_its_earlier_states(path: Path) -> None:
    path.write_bytes(b'{"memory"')

    with pytest.raises(ConfigurationError) as caught:
        read_machine_file(path)

    assert caught.value.hint == f"earlier states of it are in {path.parent}/.zfs/snapshot/*/vm_config.json"


def test_a_file_of_just_the_allowed_size_is_read(path: Path) -> None:
    path.write_bytes(OLD + b" " * (MAX_BYTES - len(OLD)))

    assert read_machine_file(path).config.memory == "2G"


def test_a_symlink_is_followed_only_where_the_caller_allows_it(path: Path) -> None:
    symlink_to_a_good_file(path)

    assert read_small_file(path, follow_symlink=True).data == OLD


class Disturbed(DiskCalls):
    """Runs something just after each of the first few reads, as another process might."""

    def __init__(self, *happenings: Callable[[], object]) -> None:
        self._happenings = iter(happenings)

    def read(self, descriptor: int, limit: int) -> bytes:
        data = super().read(descriptor, limit)
        next(self._happenings, int)()
        return data


def test_a_file_that_is_seen_half_rewritten_is_read_again(path: Path) -> None:
    path.write_bytes(b"")

    assert read_small_file(path, calls=Disturbed(lambda: path.write_bytes(OLD))).data == OLD


def test_a_file_that_never_rests_is_a_named_error(path: Path) -> None:
    path.write_bytes(b"")

    with pytest.raises(ConfigurationError, match="keeps changing while it is being read"):
        read_small_file(path, calls=Disturbed(*[lambda n=n: path.write_bytes(b"x" * n) for n in range(1, 9)]))


def test_the_mode_of_the_file_is_reported(path: Path) -> None:
    path.write_bytes(OLD)
    path.chmod(0o640)

    assert read_machine_file(path).mode == 0o640


def test_a_new_file_can_be_read_by_its_owner_only(path: Path) -> None:
    write_machine_file(path, NEW)

    assert mode_of(path) == 0o600
    assert path.read_bytes() == machine_file_bytes(NEW)
    assert names_in(path.parent) == ["vm_config.json"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o400])
def test_a_rewritten_file_keeps_its_mode_whatever_the_umask(path: Path, mode: int) -> None:
    path.write_bytes(OLD)
    path.chmod(mode)
    before = os.umask(0o077)
    try:
        write_machine_file(path, NEW)
    finally:
        os.umask(before)

    assert mode_of(path) == mode
    assert path.read_bytes() == machine_file_bytes(NEW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_rewritten_file_keeps_its_owner(path: Path) -> None:
    path.write_bytes(OLD)
    os.chown(path, 4711, 4712)
    path.chmod(0o640)

    write_machine_file(path, NEW)

    assert (path.stat().st_uid, path.stat().st_gid, mode_of(path)) == (4711, 4712, 0o640)


@pytest.mark.parametrize("make", [symlink_to_a_good_file, os.mkfifo, os.mkdir])
def test_only_a_regular_file_is_replaced(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    before = names_in(path.parent)

    with pytest.raises(ConfigurationError, match="expected a regular file"):
        write_machine_file(path, NEW)

    assert names_in(path.parent) == before


def test_a_file_that_would_be_too_large_to_read_again_is_not_written(path: Path) -> None:
    path.write_bytes(OLD)
    big = with_changes(NEW, description="x" * MAX_BYTES)

    with pytest.raises(ConfigurationError, match=r"would have 10\d+ bytes, expected 1048576 at the most"):
        write_machine_file(path, big)

    assert path.read_bytes() == OLD


def test_while_another_process_writes_the_file_it_is_busy(path: Path) -> None:
    path.write_bytes(OLD)
    with (path.parent / ".vm_config.json.new").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        with pytest.raises(Busy, match="is being written by another process"):
            write_machine_file(path, NEW)

        assert other.name in map(str, path.parent.iterdir())
    assert path.read_bytes() == OLD


def test_of_many_writers_at_once_each_writes_a_whole_file_or_is_told_that_it_is_busy(path: Path) -> None:
    contents = [bytes([65 + number]) * 5000 for number in range(4)]

    def write_again_and_again(content: bytes) -> set[str]:
        answers = set()
        for _ in range(100):
            try:
                replace_file(path, content, mode_if_new=0o600)
                answers.add("written" if read_small_file(path).data in contents else "torn")
            except HosterError as error:
                answers.add(type(error).__name__)
        return answers

    with ThreadPoolExecutor(len(contents)) as pool:
        answers = set().union(*pool.map(write_again_and_again, contents))

    assert "written" in answers
    assert answers <= {"written", "Busy"}
    assert names_in(path.parent) == ["vm_config.json"]


def test_a_scratch_file_that_a_crash_left_is_replaced_and_never_written_into(path: Path) -> None:
    path.write_bytes(OLD)
    scratch = path.parent / ".vm_config.json.new"
    precious = path.parent / "precious"
    precious.write_bytes(b"precious")
    scratch.hardlink_to(precious)

    write_machine_file(path, NEW)

    assert precious.read_bytes() == b"precious"
    assert path.read_bytes() == machine_file_bytes(NEW)
    assert not scratch.exists()


class Failing(DiskCalls):
    """Lets one call fail as a full or a broken disk does."""

    def __init__(self, call: str, nth: int = 1) -> None:
        self._call, self._nth = call, nth

    def _maybe(self, call: str) -> None:
        if call == self._call:
            self._nth -= 1
            if self._nth == 0:
                raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, descriptor: int, data: bytes) -> int:
        self._maybe("write")
        return super().write(descriptor, data[: len(data) // 2 + 1])

    def chmod(self, descriptor: int, mode: int) -> None:
        self._maybe("chmod")
        super().chmod(descriptor, mode)

    def fsync(self, descriptor: int) -> None:
        self._maybe("fsync")
        super().fsync(descriptor)

    def rename(self, old: str, new: str, folder: int) -> None:
        self._maybe("rename")
        super().rename(old, new, folder)


@pytest.mark.parametrize(
    "calls", [Failing("write"), Failing("write", 3), Failing("chmod"), Failing("fsync"), Failing("rename")]
)
def test_a_disk_that_refuses_leaves_the_old_file_and_no_rubbish(path: Path, calls: DiskCalls) -> None:
    path.write_bytes(OLD)

    with pytest.raises(OperationFailed, match="cannot be written: No space left on device"):
        write_machine_file(path, NEW, calls=calls)

    assert path.read_bytes() == OLD
    assert names_in(path.parent) == ["vm_config.json"]


def test_a_folder_that_cannot_be_made_durable_is_reported_and_leaves_a_whole_file(path: Path) -> None:
    path.write_bytes(OLD)

    with pytest.raises(OperationFailed):
        write_machine_file(path, NEW, calls=Failing("fsync", 2))

    assert path.read_bytes() == machine_file_bytes(NEW)


def test_the_content_is_made_durable_before_it_gets_the_name_and_the_name_afterwards(path: Path) -> None:
    steps: list[str] = []

    class Recording(DiskCalls):
        def write(self, descriptor: int, data: bytes) -> int:
            steps.append("write")
            return super().write(descriptor, data)

        def fsync(self, descriptor: int) -> None:
            what = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
            steps.append(f"fsync {what}")
            super().fsync(descriptor)

        def rename(self, old: str, new: str, folder: int) -> None:
            steps.append("rename")
            super().rename(old, new, folder)

    write_machine_file(path, NEW, calls=Recording())

    assert steps == ["write", "fsync file", "rename", "fsync folder"]


def test_replacing_a_file_whose_creation_was_cut_short_does_not_write_through_the_second_name(
    path: Path,
) -> None:
    path.write_bytes(OLD)
    (path.parent / ".vm_config.json.new").hardlink_to(path)

    with pytest.raises(OperationFailed):
        replace_file(path, b"new", mode_if_new=0o600, calls=Failing("write", 2))

    assert path.read_bytes() == OLD


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, os.mkdir, dangling_symlink])
def test_a_file_is_not_created_where_anything_is_already(path: Path, make: Callable[[Path], None]) -> None:
    make(path)

    with pytest.raises(ConfigurationError, match="is there already, and is not overwritten"):
        create_file(path, b"new", mode=0o644)

    assert names_in(path.parent) == ["vm_config.json"]
