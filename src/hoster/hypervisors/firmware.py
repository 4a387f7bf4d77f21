"""The UEFI firmware that a machine boots from, and the machine's own copy of what UEFI remembers."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from hoster.errors import ConfigurationError, OperationFailed

VARIABLES = "uefi-vars.fd"
"""In the machine's folder: the boot entries of the guest are backed up with it."""


class Firmware(Struct, frozen=True):
    """A firmware's code, and what its variables are at first; the two must be of one size class."""

    code: Path
    variables: Path


_KNOWN = tuple(
    Firmware(Path(code), Path(code).with_name(variables))
    for code, variables in (
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),  # Debian, Ubuntu
        ("/usr/share/OVMF/OVMF_CODE.fd", "OVMF_VARS.fd"),
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "OVMF_VARS.fd"),  # Fedora and its kin
        ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "OVMF_VARS.4m.fd"),  # Arch
        ("/usr/share/qemu/ovmf-x86_64-code.bin", "ovmf-x86_64-vars.bin"),  # SUSE
        ("/usr/share/qemu/edk2-x86_64-code.fd", "edk2-i386-vars.fd"),  # as QEMU itself brings it
    )
)


def find_firmware(known: Sequence[Firmware] = _KNOWN) -> Firmware:
    """The first UEFI firmware that is installed here. ConfigurationError if none is."""
    for firmware in known:
        if firmware.code.exists() and firmware.variables.exists():
            return firmware
    raise ConfigurationError(
        "there is no UEFI firmware for QEMU on this node", hint='install ovmf, or set "loader": "bios"'
    )


def own_variables(folder: Path, firmware: Firmware) -> Path:
    """The machine's own copy of the variables, made if it has none. Killed midway, it leaves none."""
    copy = folder / VARIABLES
    if copy.is_symlink():
        raise ConfigurationError(f"{copy}: found a symbolic link, expected a file", hint=f"rm {copy}")
    if copy.exists():
        return copy
    scratch = folder / f".{VARIABLES}.new"
    try:
        scratch.unlink(missing_ok=True)
        shutil.copyfile(firmware.variables, scratch)
        scratch.chmod(0o600)
        scratch.replace(copy)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise OperationFailed(f"{copy}: cannot be made: {error.strerror}") from error
    return copy
