"""A guest in 512 bytes: it counts on its disk, and says so on its serial line.

Each round it reads the disk's second sector, adds one to the number in its first four bytes, writes the
sector back, prints ``count`` and the number in hexadecimal on the first serial port, and waits about a
second with the processor halted. One kind powers down at the power button, as a well-behaved guest does;
the other knows nothing of it, as one that hangs. Both are for QEMU's q35 with SeaBIOS.
"""

from __future__ import annotations

import struct

SECTOR = 512
DISK_SIZE = 1024 * 1024


def _word(value: int) -> bytes:
    return struct.pack("<H", value)


# Where things are in memory: the firmware puts the sector at 7C00h. The "disk address packet" is that of its
# extended disk services (INT 13h, functions 42h read and 43h write).
_ORIGIN = 0x7C00
_PACKET = _word(_ORIGIN + 0x180)
_TEXT = _word(_ORIGIN + 0x1A0)
_DRIVE = _word(_ORIGIN + 0x1F0)
_BUFFER = _word(0x7E00)
_TICKS = _word(0x046C)
_CALL_PRINT = b"\xe8@@"  # call print; how far it is gets filled in

_START = (
    b"\xfa"  # cli
    b"\x31\xc0"  # xor ax, ax
    b"\x8e\xd8"  # mov ds, ax
    b"\x8e\xc0"  # mov es, ax
    b"\x8e\xd0"  # mov ss, ax
    b"\xbc\x00\x7c"  # mov sp, 7C00h
    b"\xfb"  # sti
    b"\x88\x16" + _DRIVE  # mov [drive], dl
)
# ACPI's registers (PM1a) are at 600h: status, 602h: what is enabled, 604h: control. Bit 8 is the power
# button; 2000h to control is soft off. The button is asked about, so its interrupt, which would not end, is
# masked.
_ENABLE_BUTTON = (
    b"\xe4\xa1"  # in al, 0A1h
    b"\x0c\x02"  # or al, 2
    b"\xe6\xa1"  # out 0A1h, al
    b"\xba\x02\x06"  # mov dx, 602h
    b"\xb8\x00\x01"  # mov ax, 100h
    b"\xef"  # out dx, ax
)
_OBEY_BUTTON = (
    b"\xba\x00\x06"  # mov dx, 600h
    b"\xed"  # in ax, dx
    b"\xf6\xc4\x01"  # test ah, 1
    b"\x74\x07"  # jz +7
    b"\xba\x04\x06"  # mov dx, 604h
    b"\xb8\x00\x20"  # mov ax, 2000h
    b"\xef"  # out dx, ax
)
_ASK_DISK = b"\x8a\x16" + _DRIVE + b"\xbe" + _PACKET + b"\xcd\x13"  # mov dl, [drive]; mov si, packet; int 13h
_COUNT = (
    b"\xb4\x42" + _ASK_DISK  # mov ah, 42h                              read
    + b"\x66\xff\x06" + _BUFFER  # inc dword [buffer]
    + b"\xb8\x00\x43" + _ASK_DISK  # mov ax, 4300h                      write
)  # fmt: skip
_SAY = (
    b"\xbe" + _TEXT  # mov si, text
    + b"\xac"  # lodsb                                                  next letter
    b"\x84\xc0"  # test al, al
    b"\x74\x05"  # jz +5
    + _CALL_PRINT
    + b"\xeb\xf6"  # jmp -10
    b"\x66\x8b\x1e" + _BUFFER  # mov ebx, [buffer]
    + b"\xb9\x08\x00"  # mov cx, 8
    b"\x66\xc1\xc3\x04"  # rol ebx, 4                                   next digit
    b"\x88\xd8"  # mov al, bl
    b"\x24\x0f"  # and al, 0Fh
    b"\x04\x30"  # add al, '0'
    b"\x3c\x39"  # cmp al, '9'
    b"\x76\x02"  # jbe +2
    b"\x04\x27"  # add al, 'a' - '9' - 1
    + _CALL_PRINT
    + b"\xe2\xeb"  # loop -21
    b"\xb0\x0d" + _CALL_PRINT  # mov al, CR
    + b"\xb0\x0a" + _CALL_PRINT  # mov al, LF
)  # fmt: skip
# Ticks may be skipped on a busy machine, so the difference is looked at.
_WAIT = (
    b"\x8b\x1e" + _TICKS  # mov bx, [ticks]                             18.2 of them in a second
    + b"\xf4"  # hlt
    b"\xa1" + _TICKS  # mov ax, [ticks]
    + b"\x29\xd8"  # sub ax, bx
    b"\x83\xf8\x12"  # cmp ax, 18
    b"\x72\xf5"  # jb -11
)  # fmt: skip
_PRINT = (
    b"\x50"  # push ax
    b"\xba\xfd\x03"  # mov dx, 3FDh                                     line status
    b"\xec"  # in al, dx
    b"\xa8\x20"  # test al, 20h
    b"\x74\xfb"  # jz -5                                                until the last one has gone
    b"\x58"  # pop ax
    b"\xba\xf8\x03"  # mov dx, 3F8h
    b"\xee"  # out dx, al
    b"\xc3"  # ret
)


def boot_sector(*, obeys: bool = True) -> bytes:
    """The guest's code, as the first sector of its disk; ``obeys`` the power button."""
    start = _START + (_ENABLE_BUTTON if obeys else b"")
    code = start + _COUNT + _SAY + _WAIT + (_OBEY_BUTTON if obeys else b"")
    code += b"\xe9" + struct.pack("<h", len(start) - len(code) - 3)  # jmp to counting
    code = _with_calls(code, len(code)) + _PRINT
    assert len(code) <= 0x180
    sector = bytearray(SECTOR)
    sector[: len(code)] = code
    sector[0x180:0x190] = struct.pack("<BBHHHQ", 16, 0, 1, 0x7E00, 0, 1)  # one sector, the second
    sector[0x1A0:0x1A7] = b"count \0"
    sector[0x1FE:] = b"\x55\xaa"
    return bytes(sector)


def disk_image(count: int = 0, *, obeys: bool = True) -> bytes:
    """The guest's disk: its code, then the number that it has come to."""
    return (boot_sector(obeys=obeys) + struct.pack("<I", count)).ljust(DISK_SIZE, b"\0")


def counted(disk: bytes) -> int:
    """The number on a disk of which the first two sectors are given."""
    return int(struct.unpack_from("<I", disk, SECTOR)[0])


def _with_calls(code: bytes, target: int) -> bytes:
    """Fills in how far each call is from ``target``."""
    while (place := code.find(_CALL_PRINT)) >= 0:
        code = code[: place + 1] + struct.pack("<h", target - place - 3) + code[place + 3 :]
    return code
