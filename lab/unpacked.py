"""Programs of Debian that this machine does not have: fetched from its mirror and unpacked, not installed.

They lie beside the images. Only the packages that are named are fetched: a program that needs more than the C
library needs the packages of its libraries named, too.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.mirror import Mirror, codename, machine_mirror
from lab.steps import Steps

__all__ = ["MONITORING", "as_installed", "kept_programs", "move_into_place", "programs", "unpack"]

MONITORING = ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter")
"""Prometheus with promtool, Alertmanager with amtool, and node_exporter."""

_PROGRAMS = "usr/bin"


def programs(cache: Path, packages: Sequence[str]) -> Path:
    """The directory with the programs of these packages of the machine's own release; fetched once.

    Raises LabError where the mirror does not answer.
    """
    kept = _folder(cache, packages)
    if not kept.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, suffix=".unpacking") as work:
            root = Path(work) / "root"
            root.mkdir()
            steps = Steps(Path(work) / "log")
            steps.say(f"fetching {', '.join(packages)}")
            unpack(machine_mirror(), codename(), packages, root, steps)
            move_into_place(root, kept)
    return kept / _PROGRAMS


def kept_programs(cache: Path, packages: Sequence[str]) -> Path | None:
    """The same if they have been fetched before; else, or where this is no Debian, None."""
    try:
        kept = _folder(cache, packages)
    except LabError:
        return None
    return kept / _PROGRAMS if kept.is_dir() else None


def as_installed(program: Path) -> tuple[str, ...]:
    """The beginning of a command line that runs one of them as root.

    It sees /usr/share of its packages in the place of the machine's own: programs look there for their files.
    """
    script = 'mount --bind "$1" /usr/share && shift && exec "$@"'
    return (*("unshare", "--mount", "sh", "-c", script, "sh"), f"{program.parents[1]}/share", str(program))


def unpack(mirror: Mirror, suite: str, packages: Sequence[str], root: Path, steps: Steps) -> None:
    """Unpack these packages of that suite into `root`, which exists; what apt needs is made beside it."""
    work = root.parent
    (work / "sources.list").write_text("\n".join(mirror.sources((suite,))) + "\n")
    for folder in ("lists/partial", "archives/partial", "packages"):
        (work / folder).mkdir(parents=True)
    settings = (
        f'Dir::Etc::SourceList "{work}/sources.list"',
        'Dir::Etc::SourceParts "/dev/null"',
        f'Dir::State::Lists "{work}/lists"',
        f'Dir::Cache "{work}"',
        'Acquire::Languages "none"',
        'APT::Sandbox::User "root"',
        *mirror.options,
    )
    configuration = work / "apt.conf"
    configuration.write_text("".join(f"{setting};\n" for setting in settings))
    apt = ["env", f"APT_CONFIG={configuration}", "apt-get", "-q"]
    steps.run([*apt, "update"])
    steps.run([*apt, "download", *(f"{package}/{suite}" for package in packages)], cwd=work / "packages")
    for package in sorted((work / "packages").glob("*.deb")):
        steps.run(["dpkg-deb", "-x", package, root])
    for unused in ("usr/share/doc", "usr/share/man"):
        shutil.rmtree(root / unused, ignore_errors=True)


def move_into_place(made: Path, place: Path) -> None:
    """Give a directory that is complete its name in the cache, unless somebody else was quicker."""
    try:
        made.rename(place)
    except OSError:
        if not place.exists():
            raise


def _folder(cache: Path, packages: Sequence[str]) -> Path:
    digest = hashlib.sha256("\0".join(packages).encode()).hexdigest()[:12]
    return cache / f"programs-{codename()}-{digest}"
