"""Reads, replaces and creates small files so that nothing hangs and nothing is left half done.

Reading accepts regular files up to a size and nothing else: no FIFO is waited for, no device is opened,
no symbolic link is followed unless the caller allows it. Writing goes through a scratch file in the same
folder, so a process killed at any moment leaves the old file or the new one. The scratch file has a fixed
name and is locked by its writer: what a crash leaves behind goes with the next write, not piled up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from hoster.errors import Busy, ConfigurationError, OperationFailed

MAX_BYTES = 1024 * 1024
"""Larger files are refused: a configuration has a few kilobytes."""

_READ_ATTEMPTS = 3
_SCRATCH_ATTEMPTS = 10
_OPEN_SAFELY = os.O_NONBLOCK | os.O_CLOEXEC


class FileMissing(ConfigurationError):
    """There is no file of that name; everything else that can be wrong with it is something else."""


class SmallFile(Struct, frozen=True):
    """What a file held and its permission bits, seen at one moment."""

    data: bytes
    mode: int


class DiskCalls:
    """The calls that reach the disk, one by one; tests pass one that fails, dies or is disturbed at any."""

    def read(self, descriptor: int, limit: int) -> bytes:
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            opened.seek(0)
            return opened.read(limit)

    def write(self, descriptor: int, data: bytes) -> int:
        return os.write(descriptor, data)

    def chown(self, descriptor: int, owner: int, group: int) -> None:
        os.fchown(descriptor, owner, group)

    def chmod(self, descriptor: int, mode: int) -> None:
        os.fchmod(descriptor, mode)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def rename(self, old: str, new: str, folder: int) -> None:
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)

    def link(self, old: str, new: str, folder: int) -> None:
        os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)

    def unlink(self, name: str, folder: int) -> None:
        os.unlink(name, dir_fd=folder)


def read_small_file(path: Path, *, follow_symlink: bool = False, calls: DiskCalls | None = None) -> SmallFile:
    """The content of the regular file ``path``, not torn by a writer that was at work meanwhile.

    FileMissing if it is not there; ConfigurationError for anything that is not a regular file, is larger
    than MAX_BYTES, cannot be opened or keeps changing.
    """
    try:
        with _folder(path) as folder:
            _refuse_irregular(os.stat(path.name, dir_fd=folder, follow_symlinks=follow_symlink), path)
            flags = os.O_RDONLY | _OPEN_SAFELY | (0 if follow_symlink else os.O_NOFOLLOW)
            descriptor = _opened_unnoticed(path.name, flags, folder)
        with _closing(descriptor):
            return _content(descriptor, path, calls or DiskCalls())
    except FileNotFoundError:
        raise FileMissing(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error


def replace_file(path: Path, data: bytes, *, mode_if_new: int, calls: DiskCalls | None = None) -> None:
    """Makes ``data`` the content of ``path``, which keeps its owner and mode if it is there already.

    ConfigurationError if something other than a regular file is there, Busy if another process is writing
    it, OperationFailed if the disk refuses (the old content is still there then, unless only the last step,
    making the rename durable, failed).
    """
    calls = calls or DiskCalls()
    with _writing(path), _folder(path) as folder, _scratch(folder, path, calls) as (descriptor, scratch):
        old = _present(folder, path)
        _fill(descriptor, data, calls)
        if old is None:
            calls.chmod(descriptor, mode_if_new)
        else:
            _dress_like(old, descriptor, calls)
        calls.fsync(descriptor)
        calls.rename(scratch, path.name, folder)
        calls.fsync(folder)


def create_file(path: Path, data: bytes, *, mode: int, calls: DiskCalls | None = None) -> None:
    """Makes a new file ``path`` that holds ``data``. ConfigurationError if anything has that name already."""
    calls = calls or DiskCalls()
    with _writing(path), _folder(path) as folder, _scratch(folder, path, calls) as (descriptor, scratch):
        _fill(descriptor, data, calls)
        calls.chmod(descriptor, mode)
        calls.fsync(descriptor)
        try:
            calls.link(scratch, path.name, folder)
        except FileExistsError:
            raise ConfigurationError(f"{path}: is there already, and is not overwritten") from None
        calls.unlink(scratch, folder)
        calls.fsync(folder)


def _opened_unnoticed(name: str, flags: int, folder: int) -> int:
    """Opens for reading without a new access time where the system allows that (Linux, for the owner).

    An access time is a write: on ZFS a look at a VM's configuration would make the VM count as changed.
    """
    try:
        return os.open(name, flags | getattr(os, "O_NOATIME", 0), dir_fd=folder)
    except PermissionError:
        return os.open(name, flags, dir_fd=folder)


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    """The folder of ``path``, held open so that every step happens in the same one."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with _closing(descriptor):
        yield descriptor


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OperationFailed(f"{path}: cannot be written: {error.strerror}") from error


def _content(descriptor: int, path: Path, calls: DiskCalls) -> SmallFile:
    """What an open file holds; read again if its size or time changed while it was being read."""
    for _ in range(_READ_ATTEMPTS):
        before = os.fstat(descriptor)
        _refuse_irregular(before, path)
        data = calls.read(descriptor, MAX_BYTES + 1)
        size = max(before.st_size, len(data))
        if size > MAX_BYTES:
            raise ConfigurationError(f"{path}: found {size} bytes, expected {MAX_BYTES} at the most")
        after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            return SmallFile(data, stat.S_IMODE(after.st_mode))
    raise ConfigurationError(f"{path}: keeps changing while it is being read", hint="try again later")


def _refuse_irregular(seen: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(seen.st_mode):
        raise ConfigurationError(f"{path}: found {_kind(seen.st_mode)}, expected a regular file")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a character device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


@contextlib.contextmanager
def _scratch(folder: int, path: Path, calls: DiskCalls) -> Iterator[tuple[int, str]]:
    """A new scratch file beside ``path``, locked, and taken away again if the block fails."""
    name = f".{path.name}.new"
    descriptor = _locked_scratch(folder, name, path)
    with _closing(descriptor):
        try:
            yield descriptor, name
        except BaseException:
            with contextlib.suppress(OSError):
                if _is_named(descriptor, name, folder):
                    calls.unlink(name, folder)
            raise


def _locked_scratch(folder: int, name: str, path: Path) -> int:
    """Makes the scratch file and locks it; Busy if another process has it.

    One that nobody has locked was left by a crash. Its name is taken away and it is never written into: a
    writer killed inside create_file leaves the scratch name on the finished file.
    """
    for _ in range(_SCRATCH_ATTEMPTS):
        try:
            descriptor, is_new = _opened_scratch(folder, name)
        except FileNotFoundError:
            continue  # there, and renamed by its writer before it was opened here
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(descriptor, name, folder):
                if is_new:
                    return descriptor
                os.unlink(name, dir_fd=folder)
        except BlockingIOError:
            os.close(descriptor)
            break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise Busy(f"{path} is being written by another process", hint="try again later")


def _opened_scratch(folder: int, name: str) -> tuple[int, bool]:
    """The scratch file, open, and whether it was made just now."""
    try:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN_SAFELY, 0o600, dir_fd=folder), True
    except FileExistsError:
        return os.open(name, os.O_RDWR | os.O_NOFOLLOW | _OPEN_SAFELY, dir_fd=folder), False


def _is_named(descriptor: int, name: str, folder: int) -> bool:
    """Whether the open file is still the one that ``name`` stands for."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _present(folder: int, path: Path) -> os.stat_result | None:
    """The regular file that is to be replaced, or None if there is none."""
    try:
        seen = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    _refuse_irregular(seen, path)
    return seen


def _fill(descriptor: int, data: bytes, calls: DiskCalls) -> None:
    while data:
        data = data[calls.write(descriptor, data) :]


def _dress_like(old: os.stat_result, descriptor: int, calls: DiskCalls) -> None:
    """Gives the new file the owner and the mode of the old one; the mode last, since chown(2) may cut it."""
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        calls.chown(descriptor, old.st_uid, old.st_gid)
    calls.chmod(descriptor, stat.S_IMODE(old.st_mode))
