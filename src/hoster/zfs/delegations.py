"""What ``zfs allow`` shows of a dataset, as the command lines that allow the same on another.

Pure. The form is that of zfs-allow(8), seen on OpenZFS 2.3.9: a heading for each dataset, since what is
allowed above is shown as well, and below it sections of indented lines.
"""

from __future__ import annotations

from collections.abc import Iterator

_SECTIONS = {
    "Permission sets:": ("-s",),
    "Create time permissions:": ("-c",),
    "Local permissions:": ("-l",),
    "Descendent permissions:": ("-d",),
    "Local+Descendent permissions:": (),
}


def delegations(name: str, shown: str) -> Iterator[tuple[str, ...]]:
    """The arguments of ``zfs allow``, but for the dataset, that give what ``name`` itself gives."""
    ours = False
    flags: tuple[str, ...] = ()
    for line in shown.splitlines():
        if line.startswith("----"):
            ours = line.rstrip("-") == f"---- Permissions on {name} "
        elif line in _SECTIONS:
            flags = _SECTIONS[line]
        elif ours and line.startswith("\t"):
            match line.split():
                case ["everyone", permissions]:
                    yield (*flags, "-e", permissions)
                case ["user", who, permissions]:
                    yield (*flags, "-u", who, permissions)
                case ["group", who, permissions]:
                    yield (*flags, "-g", who, permissions)
                case [who, permissions] if who.startswith("@"):
                    yield (*flags, who, permissions)
                case [permissions] if flags == ("-c",):
                    yield (*flags, permissions)
                case _:
                    continue
