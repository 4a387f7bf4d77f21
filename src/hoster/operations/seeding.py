"""Puts a new cloud-init set into a VM's folder, so that a kill at any moment leaves a VM that starts.

The set is three things that belong together: the VM's configuration (which has the MAC address), ``seed.iso``
(which tells it to the guest) and ``cloud-init-files`` (the same for people). A file system replaces one file
at a time, so the configuration is what decides: it says which CD is meant.

1. ``cloud-init-files.new`` and ``seed.iso.new`` are written beside the old ones, and synced.
2. The new configuration takes the old one's place, with ``seed.iso.new`` as the CD. Until here the old set
   counts, untouched; from here the new one.
3. The new files move into ``cloud-init-files``, and ``seed.iso`` becomes another name of ``seed.iso.new``.
4. The configuration takes its final form, with ``seed.iso``; then ``seed.iso.new`` goes.

Between any two steps the configuration names a CD that is there and belongs to it. :func:`settle` finishes
what was cut after step 2, and throws away what was cut before.

A VM that does not have ``seed.iso`` among its disks shows its guest none of this: its files are put in their
place first, and its configuration, in its final form, comes last.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from hoster.config.files import DiskCalls, replace_file
from hoster.config.machine_file import MACHINE_FILE_NAME, MachineFile, with_changes, write_machine_file
from hoster.errors import ConfigurationError, HosterError, OperationFailed
from hoster.model.machines import MachineConfig

SEED = "seed.iso"
FILES = "cloud-init-files"
NEW_SEED = f"{SEED}.new"
NEW_FILES = f"{FILES}.new"

_PRIVATE = 0o600
_PRIVATE_FOLDER = 0o700


class FolderCalls(DiskCalls):
    """The calls of :class:`DiskCalls`, and those that make and remove folders."""

    def mkdir(self, name: str, mode: int, folder: int) -> None:
        os.mkdir(name, mode, dir_fd=folder)

    def rmdir(self, name: str, folder: int) -> None:
        os.rmdir(name, dir_fd=folder)


class SeedSet(Struct, frozen=True):
    """What is to be put into the folder: the configuration in its final form, the CD's image, the files."""

    config: MachineFile
    image: bytes
    files: Mapping[str, bytes]


def shows_seed(config: MachineConfig) -> bool:
    """Whether the VM has the seed among its disks, so that its guest sees it."""
    return any(disk.is_internal and disk.image in {SEED, NEW_SEED} for disk in config.disks)


def is_settled(folder: Path, config: MachineConfig) -> bool:
    """Whether there is nothing that an earlier run has left half done."""
    return not (_names_new_seed(config) or _there(folder / NEW_SEED) or _there(folder / NEW_FILES))


def with_seed_named(file: MachineFile, name: str) -> MachineFile:
    """The configuration with ``name`` as the VM's seed, where it has one among its disks."""
    disks = tuple(
        replace(disk, image=name) if disk.is_internal and disk.image in {SEED, NEW_SEED} else disk
        for disk in file.config.disks
    )
    return file if disks == file.config.disks else with_changes(file, disks=disks)


def refuse_strange_places(folder: Path, names: Sequence[str]) -> None:
    """ConfigurationError where something else than what hoster puts there is in the way of the set.

    ``names`` are those of the files to come.
    """
    folders = (FILES, NEW_FILES)
    for name in (*folders, SEED, NEW_SEED, *(f"{FILES}/{name}" for name in names)):
        with contextlib.suppress(FileNotFoundError):
            mode = (folder / name).lstat().st_mode
            is_folder = name in folders
            if not (stat.S_ISDIR(mode) if is_folder else stat.S_ISREG(mode)):
                expected = "a folder" if is_folder else "a regular file"
                raise ConfigurationError(f"{folder / name}: found something else, expected {expected}")


def settle(folder: Path, file: MachineFile, *, calls: FolderCalls | None = None) -> MachineFile:
    """Ends what an earlier run has left half done; the VM's configuration as it is then.

    OperationFailed if the disk refuses.
    """
    calls = calls or FolderCalls()
    with _opened(folder) as descriptor:
        if _names_new_seed(file.config):
            return _finish(folder, descriptor, file, calls)
        _throw_away(folder, descriptor, calls)
    return file


def put_in_place(folder: Path, new: SeedSet, *, calls: FolderCalls | None = None) -> None:
    """Makes ``new`` the VM's set. The folder must be settled and have passed :func:`refuse_strange_places`.

    OperationFailed, ConfigurationError or Busy if it cannot be written. The VM has the old set or the new one
    then, each whole; what else lies there is for :func:`settle`.
    """
    calls = calls or FolderCalls()
    with _opened(folder) as descriptor:
        try:
            _write_beside(folder, descriptor, new, calls)
        except (HosterError, OSError):
            with contextlib.suppress(OSError):
                _throw_away(folder, descriptor, calls)
            raise
        _make_private(folder / MACHINE_FILE_NAME, calls)
        if shows_seed(new.config.config):
            decided = with_seed_named(new.config, NEW_SEED)
            write_machine_file(folder / MACHINE_FILE_NAME, decided, calls=calls)
            _finish(folder, descriptor, decided, calls)
            return
        _move_files(folder, descriptor, calls)
        calls.rename(NEW_SEED, SEED, descriptor)
        calls.fsync(descriptor)
        write_machine_file(folder / MACHINE_FILE_NAME, new.config, calls=calls)


def _names_new_seed(config: MachineConfig) -> bool:
    return any(disk.is_internal and disk.image == NEW_SEED for disk in config.disks)


def _write_beside(folder: Path, descriptor: int, new: SeedSet, calls: FolderCalls) -> None:
    calls.mkdir(NEW_FILES, _PRIVATE_FOLDER, descriptor)
    for name, data in new.files.items():
        replace_file(folder / NEW_FILES / name, data, mode_if_new=_PRIVATE, calls=calls)
    replace_file(folder / NEW_SEED, new.image, mode_if_new=_PRIVATE, calls=calls)


def _make_private(path: Path, calls: FolderCalls) -> None:
    """The VNC password in it is nobody else's business; Hoster makes it readable by all."""
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        calls.chmod(opened, _PRIVATE)
    finally:
        os.close(opened)


def _finish(folder: Path, descriptor: int, decided: MachineFile, calls: FolderCalls) -> MachineFile:
    """Steps 3 and 4; each may have been done before."""
    _move_files(folder, descriptor, calls)
    if _there(folder / NEW_SEED):
        if _there(folder / SEED):
            calls.unlink(SEED, descriptor)
        calls.link(NEW_SEED, SEED, descriptor)
        calls.fsync(descriptor)
    final = with_seed_named(decided, SEED)
    write_machine_file(folder / MACHINE_FILE_NAME, final, calls=calls)
    _throw_away(folder, descriptor, calls)
    return final


def _move_files(folder: Path, descriptor: int, calls: FolderCalls) -> None:
    """Moves the new files over the old ones; others that are there stay."""
    if not _there(folder / NEW_FILES):
        return
    if not _there(folder / FILES):
        calls.mkdir(FILES, _PRIVATE_FOLDER, descriptor)
    for name in sorted(os.listdir(folder / NEW_FILES)):
        calls.rename(f"{NEW_FILES}/{name}", f"{FILES}/{name}", descriptor)
    with _opened(folder / FILES) as files:
        calls.fsync(files)
    calls.rmdir(NEW_FILES, descriptor)
    calls.fsync(descriptor)


def _throw_away(folder: Path, descriptor: int, calls: FolderCalls) -> None:
    """Removes what lies beside the set and does not count."""
    left = _there(folder / NEW_SEED), _there(folder / NEW_FILES)
    if left[0]:
        calls.unlink(NEW_SEED, descriptor)
    if left[1]:
        for name in os.listdir(folder / NEW_FILES):
            calls.unlink(f"{NEW_FILES}/{name}", descriptor)
        calls.rmdir(NEW_FILES, descriptor)
    if any(left):
        calls.fsync(descriptor)


def _there(path: Path) -> bool:
    return os.path.lexists(path)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """The folder, held open; an error of the disk within the block as OperationFailed."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise OperationFailed(f"{folder}: cannot be opened: {error.strerror}") from error
    try:
        yield descriptor
    except OSError as error:
        raise OperationFailed(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        os.close(descriptor)
