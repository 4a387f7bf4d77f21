"""What this machine can do for the lab: its tools, its memory, and whether hardware virtualisation works."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from lab.errors import LabError

__all__ = ["check_machine", "check_memory", "check_space", "kvm_works", "tool_environment"]

_TOOLS = (
    *("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs", "chroot"),
    *("ip", "tc", "nft", "ssh", "ssh-keygen", "setpriv", "unshare"),
)
_KVM_PROBE_S = 10.0


def check_machine() -> None:
    """Raise LabError unless this is root, on x86-64, with the host tools and network namespaces."""
    if os.geteuid() != 0:
        raise LabError("the lab makes bridges, taps and namespaces: it needs root", hint="run it as root")
    if os.uname().machine != "x86_64":
        raise LabError(f"the lab's nodes are x86-64, this machine is {os.uname().machine}")
    environment = tool_environment()
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=environment["PATH"]) is None]
    if missing:
        raise LabError(f"not on this machine: {', '.join(missing)}", hint="lab/install-host-tools")
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "ip", "link", "add", "lab-try", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if tried.returncode != 0:
        raise LabError(
            f"no bridge can be made in a network namespace here: {tried.stderr.strip()}",
            hint="in a container: give it CAP_SYS_ADMIN and CAP_NET_ADMIN (--privileged) and /dev/net/tun",
        )


def check_memory(needed_mib: int) -> None:
    """Raise LabError unless that much memory is available."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available_mib = int(line.split()[1]) // 1024
            if available_mib < needed_mib:
                raise LabError(
                    f"{available_mib} MiB of memory available, the nodes need {needed_mib}",
                    hint="end other programs, or start fewer nodes",
                )


def check_space(directory: Path, needed_gib: float) -> None:
    """Raise LabError unless the directory, which exists, has that much free."""
    free_gib = shutil.disk_usage(directory).free / 2**30
    if free_gib < needed_gib:
        raise LabError(
            f"{directory} has {free_gib:.1f} GiB free, the lab needs {needed_gib}",
            hint="free some; images lie in HOSTER_LAB_CACHE, disks of running nodes in TMPDIR",
        )


def tool_environment() -> dict[str, str]:
    """The environment in which all of the host's tools are found.

    The sbin directories are not on everybody's path, root's through sudo or cron included.
    """
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    return {**os.environ, "PATH": path}


def kvm_works(kernel: Path, initrd: Path, cache: Path) -> bool:
    """Whether a stock kernel truly boots under KVM here; the answer is kept until the machine restarts.

    /dev/kvm may exist and still not run one, on machines that are guests themselves.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    answer = cache / f"kvm-{boot}"
    if not answer.exists():
        works = os.access("/dev/kvm", os.R_OK | os.W_OK) and _boots_under_kvm(kernel, initrd)
        for stale in cache.glob("kvm-*"):
            stale.unlink(missing_ok=True)
        answer.write_text("yes" if works else "no")
    return answer.read_text() == "yes"


def _boots_under_kvm(kernel: Path, initrd: Path) -> bool:
    with tempfile.TemporaryDirectory(prefix="hoster-lab-kvm-") as work:
        console = Path(work) / "console"
        console.touch()
        qemu = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"),
                *("-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-no-user-config"),
                *("-display", "none", "-no-reboot", "-kernel", kernel, "-initrd", initrd),
                *("-append", "console=ttyS0", "-serial", f"file:{console}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            gives_up_at = time.monotonic() + _KVM_PROBE_S
            while time.monotonic() < gives_up_at and qemu.poll() is None:
                if b"lab: kernel is up" in console.read_bytes():
                    return True
                time.sleep(0.05)
            return b"lab: kernel is up" in console.read_bytes()
        finally:
            qemu.kill()
            qemu.wait()
