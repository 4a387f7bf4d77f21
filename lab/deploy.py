"""Puts a version of hoster on to a node, compiled; nothing is done when the node has it already."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from lab.node import Node

__all__ = ["Package", "deploy", "pack"]

_TARGET = "/usr/local/lib/hoster-src"

# Files keep their times, so that only what has changed is compiled. `sync` because a power cut may follow.
# Debian 12's Python knows no extraction filters and passes over the attribute; Debian 13's asks for one.
_UNPACK = f"""
import compileall, os, pathlib, sys, tarfile
target = pathlib.Path("{_TARGET}")
target.mkdir(exist_ok=True)
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    archive.extraction_filter = lambda member, path: member
    archive.extractall(target)
    kept = {{target / name for name in archive.getnames()}}
for path in sorted(target.rglob("*"), reverse=True):
    if "__pycache__" not in path.parts and path not in kept:
        path.unlink() if not path.is_dir() else None
compileall.compile_dir(target, quiet=2)
os.sync()
"""


class Package:
    """A Python package as an archive, named by what is in it."""

    __slots__ = ("archive", "digest")

    def __init__(self, archive: bytes, digest: str) -> None:
        self.archive = archive
        self.digest = digest


def pack(directory: Path) -> Package:
    """The package in `directory` (src/hoster), without what Python compiled here."""
    content = io.BytesIO()
    digest = hashlib.sha256()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in sorted(directory.rglob("*")):
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            name = f"{directory.name}/{path.relative_to(directory).as_posix()}"
            archive.add(path, name, filter=_owned_by_root)
            digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return Package(content.getvalue(), digest.hexdigest())


def deploy(package: Package, node: Node) -> None:
    """Make `hoster` on the node this package, compiled."""
    mark = f"{_TARGET}.digest"
    if node.run(f"cat {mark}", check=False).stdout.strip() == package.digest:
        return
    node.run(f"rm -f {mark}")
    node.run(["python3", "-I", "-c", _UNPACK], input=package.archive, timeout_s=120)
    node.write(mark, package.digest)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = int(member.mtime)
    return member
