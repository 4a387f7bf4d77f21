"""The nodes' disk image: built once a recipe, kept in a cache, never changed by a node.

The cache is ${HOSTER_LAB_CACHE:-${XDG_CACHE_HOME:-~/.cache}/hoster/lab}. An image appears in it by a rename,
so that it is there whole or not at all; two builds at once wait for each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import rootfs
from lab.identity import install_identities, make_identities
from lab.initrd import write_initrd
from lab.machine import check_machine, check_space
from lab.mirror import machine_mirror
from lab.release import DEFAULT, Release
from lab.steps import Steps

__all__ = ["Image", "build_image", "cache_directory", "clean_cache"]

_RECIPE = ("identity.py", "image.py", "initrd.py", "rootfs.py")
_COMPILED_FROM = ("guest/init.c", "guest/shim.c")
_IDENTITIES_FROM = ("identity.py",)
_DISK_SIZE = "3G"
_SPACE_NEEDED_GIB = 4


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image: what a node boots from, and the key that opens every node."""

    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "disk.ext4"

    @property
    def kernel(self) -> Path:
        return self.directory / "kernel"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"

    @property
    def key(self) -> Path:
        return self.directory / "key"


def cache_directory() -> Path:
    """Where images are kept; it need not exist yet."""
    if own := os.environ.get("HOSTER_LAB_CACHE"):
        return Path(own)
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "hoster/lab"


def build_image(release: Release = DEFAULT) -> Image:
    """The image of a release, from the cache or built now, which takes minutes.

    Raises LabError when the machine cannot build it; the log of a failed build is kept and named.
    """
    cache = cache_directory()
    identities = cache / f"identities-{_hash(_IDENTITIES_FROM)}"
    if identities.is_dir():
        image = _image(release, identities)
        if image.directory.is_dir():
            return image
    check_machine()
    cache.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(cache):
        _make_once(identities)
        image = _image(release, identities)
        if not image.directory.is_dir():
            _build(release, identities, image)
    return image


def clean_cache() -> None:
    """Remove all images."""
    directory = cache_directory()
    if directory.is_dir():
        with _one_at_a_time(directory):
            shutil.rmtree(directory)


def _image(release: Release, identities: Path) -> Image:
    """Where the image lies that this recipe makes with these identities, built or not."""
    key = (identities / "key.pub").read_text()
    return Image(identities.parent / f"{release.name}-{_hash(_recipe_files(), repr(release), key)}")


def _make_once(identities: Path) -> None:
    if not identities.is_dir():
        with tempfile.TemporaryDirectory(dir=identities.parent, suffix=".building") as work:
            make_identities(Path(work) / "identities")
            (Path(work) / "identities").rename(identities)


def _build(release: Release, identities: Path, image: Image) -> None:
    cache = image.directory.parent
    for stale in cache.glob("*.building"):
        shutil.rmtree(stale)
    check_space(cache, _SPACE_NEEDED_GIB)
    log = image.directory.with_suffix(".log")
    log.unlink(missing_ok=True)
    steps = Steps(log)
    with tempfile.TemporaryDirectory(dir=cache, suffix=".building") as work:
        unfinished = Image(Path(work) / "image")
        unfinished.directory.mkdir()
        _assemble(release, identities, unfinished, Path(work), steps)
        unfinished.directory.rename(image.directory)
    log.unlink()
    size_mib = image.disk.stat().st_blocks * 512 / 2**20
    steps.say(f"image ready, {size_mib:.0f} MiB: {image.directory}")


def _assemble(release: Release, identities: Path, image: Image, work: Path, steps: Steps) -> None:
    mirror = machine_mirror()
    node = work / "node"
    steps.say(f"fetching Debian {release.suite} and compiling OpenZFS for it (some minutes)")
    with ThreadPoolExecutor(max_workers=2) as pool:
        node_root = pool.submit(rootfs.make_node_root, release, mirror, node, steps)
        built = _compiled(release, work, steps)
        node_root.result()
    kernel = rootfs.kernel_version(node)
    if (built / "kernel").read_text() != kernel:
        # The mirror has moved on to another kernel since the programs were compiled.
        shutil.rmtree(built)
        built = _compiled(release, work, steps)
    steps.say("making it a node")
    rootfs.install_guest(node, built, steps)
    install_identities(identities, node)
    shutil.copy(identities / "key", image.key)
    write_initrd(node, kernel, built / "init", image.initrd)
    shutil.copy(node / "boot" / f"vmlinuz-{kernel}", image.kernel)
    steps.say("writing the disk image")
    options = ("-t", "ext4", "-m", "0", "-J", "size=16", "-E", "lazy_itable_init=1,nodiscard")
    steps.run(["mke2fs", "-q", *options, "-d", node, image.disk, _DISK_SIZE])


def _compiled(release: Release, work: Path, steps: Steps) -> Path:
    """What is compiled for the nodes, from the cache if an earlier image of this release needed the same.

    It is by far the slowest step, and most changes of a recipe do not concern it.
    """
    origin = (release.suite, release.zfs_suite, *rootfs.builder_packages(release))
    digest = _hash(_COMPILED_FROM, rootfs.COMPILATION, *origin)
    kept = work.parent / f"{release.name}-compiled-{digest}"
    if kept.is_dir():
        return kept
    builder = work / "builder"
    rootfs.make_builder_root(release, machine_mirror(), builder, steps)
    steps.say("compiling OpenZFS's kernel modules")
    built = rootfs.compiled(builder, steps)
    (built / "kernel").write_text(rootfs.kernel_version(builder))
    built.rename(kept)
    shutil.rmtree(builder)
    return kept


def _recipe_files() -> tuple[str, ...]:
    own = Path(__file__).parent
    guest = sorted(path.relative_to(own).as_posix() for path in rootfs.GUEST.rglob("*") if path.is_file())
    return (*_RECIPE, *guest)


def _hash(names: tuple[str, ...], *texts: str) -> str:
    digest = hashlib.sha256("\0".join(texts).encode())
    for name in names:
        content = (Path(__file__).parent / name).read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
