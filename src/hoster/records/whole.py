"""Small files that others read while they are replaced: the old content or the new one, never a part.

For records that may be lost: nothing is waited for until it is on the disk.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, text: str, *, mode: int) -> None:
    """Replaces the content of ``path`` in one step; the file gets ``mode``. OSError where that fails, and the
    old content is still there then.

    The scratch file beside it begins with a dot and does not end like ``path``, so that nobody who collects
    files by their endings takes it for one.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(scratch, flags, mode), "w", encoding="utf-8") as opened:
            os.fchmod(opened.fileno(), mode)
            opened.write(text)
        scratch.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise
