"""Who keeps a folder or a device in use: real processes, and a tree as the kernel shows it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hoster.host.holders import Holder, holders, written_by_kernel

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")


@contextmanager
def process(script: str, *arguments: object, cwd: Path | None = None) -> Iterator[int]:
    """A process that has run ``script`` and waits."""
    command = [sys.executable, "-c", f"import sys\n{script}\nprint('x', flush=True)\nsys.stdin.read()"]
    words = [*command, *map(str, arguments)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == "x\n"
        yield it.pid
        it.kill()


@linux
@pytest.mark.parametrize(
    "script",
    [
        "f = open(sys.argv[1])",
        "import mmap, os; d = os.open(sys.argv[1], 0); m = mmap.mmap(d, 1, 1, 1); os.close(d)",
    ],
)
def test_a_process_that_has_a_file_open_or_mapped_is_found(tmp_path: Path, script: str) -> None:
    used, beside = tmp_path / "web", tmp_path / "web2"
    for folder in (used, beside):
        folder.mkdir()
        (folder / "disk0.img").write_bytes(b"x")
    with process(script, used / "disk0.img") as pid:
        (found,) = holders([str(used)], [])
        assert (found.pid, found.path) == (pid, str(used / "disk0.img"))
        assert found.command
        assert holders([str(beside)], []) == ()
    assert holders([str(used)], []) == ()


@linux
def test_a_process_that_stands_in_a_folder_is_found(tmp_path: Path) -> None:
    with process("", cwd=tmp_path) as pid:
        assert [holder.pid for holder in holders([f"{tmp_path}/"], [])] == [pid]


@linux
def test_a_process_that_has_a_device_open_is_found_by_the_link_to_it(tmp_path: Path) -> None:
    device, link = tmp_path / "zd0", tmp_path / "link"
    device.touch()
    link.symlink_to(device)
    with process("f = open(sys.argv[1])", device) as pid:
        (found,) = holders([], [str(link)])
        assert (found.pid, found.path) == (pid, str(link))


def kernel(root: Path, **files: str) -> Path:
    """A tree with these files; dots in the names stand for slashes."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            {"proc__self__mounts": "/dev/zd0p1 /mnt/guest ext4 rw 0 0\n"},
            Holder(0, "a mount at /mnt/guest", "/dev/zd0"),
        ),
        ({"proc__self__mounts": "/dev/zd01 /mnt ext4 rw 0 0\ntank/vm /tank/vm zfs rw 0 0\n"}, None),
        (
            {"sys__block__loop3__loop__backing_file": "/tank/vm/web/disk0.img\n"},
            Holder(0, "/dev/loop3", "/tank/vm/web/disk0.img"),
        ),
        ({"sys__block__loop3__loop__backing_file": "/tank/vm/web2/disk0.img\n"}, None),
        ({"sys__block__zd0__holders__dm-1": ""}, Holder(0, "/dev/dm-1", "/dev/zd0")),
        ({"sys__block__zd16__holders__dm-1": ""}, None),
        ({}, None),
    ],
)
def test_what_the_kernel_itself_uses_is_found(
    tmp_path: Path, files: dict[str, str], found: Holder | None
) -> None:
    root = kernel(tmp_path, **files)
    assert holders(["/tank/vm/web"], ["/dev/zd0"], root) == (() if found is None else (found,))


@pytest.mark.parametrize(
    ("files", "writes"),
    [
        ({"proc__self__mounts": "/dev/zd0p1 /mnt ext4 rw,relatime 0 0\n"}, True),
        ({"proc__self__mounts": "/dev/zd0p1 /mnt ext4 ro,relatime 0 0\n"}, False),
        ({"sys__block__loop3__loop__backing_file": "/tank/vm/web/disk0.img\n"}, True),
        (
            {
                "sys__block__loop3__loop__backing_file": "/tank/vm/web/disk0.img\n",
                "sys__block__loop3__ro": "1\n",
            },
            False,
        ),
        ({"sys__block__zd0__holders__dm-1": ""}, False),
    ],
)
def test_what_the_kernel_may_write_to_is_told_from_what_it_only_reads(
    tmp_path: Path, files: dict[str, str], writes: bool
) -> None:
    found = written_by_kernel(["/tank/vm/web/disk0.img"], ["/dev/zd0"], kernel(tmp_path, **files))
    assert len(found) == writes


def test_a_process_that_ended_meanwhile_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "proc/17/fd").mkdir(parents=True)
    (tmp_path / "proc/18").mkdir()
    (tmp_path / "proc/18/cwd").symlink_to("/tank/vm/web")
    assert holders(["/tank/vm/web"], [], tmp_path) == (Holder(18, "a process", "/tank/vm/web"),)


def test_nothing_asked_for_is_used_by_nobody(tmp_path: Path) -> None:
    assert holders([], [], tmp_path) == ()


def test_a_holder_reads_as_a_sentence() -> None:
    assert str(Holder(7, "bash", "/tank/vm/web")) == "bash (process 7) uses /tank/vm/web"
    assert str(Holder(0, "/dev/loop3", "/tank/vm/web/d")) == "/dev/loop3 uses /tank/vm/web/d"
