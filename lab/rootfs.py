"""Makes root file systems from the machine's own Debian mirror: one for nodes, one that compiles for them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.mirror import Mirror
from lab.release import Release
from lab.steps import Steps

__all__ = [
    "COMPILATION",
    "GUEST",
    "builder_packages",
    "compiled",
    "install_guest",
    "kernel_version",
    "make_builder_root",
    "make_node_root",
]

GUEST = Path(__file__).parent / "guest"

_NODE_PACKAGES = (
    "cloud-init",  # for its own check of what VMs are told; it does nothing by itself here
    "cron",
    "iproute2",
    "iputils-ping",
    "kmod",
    "openssh-server",
    "ovmf",
    "procps",
    "psmisc",
    "python3",
    "qemu-system-x86",
    "qemu-utils",
    "seabios",
    "systemd-sysv",
    "tmux",
    "udev",
)
_BUILDER_PACKAGES = ("file", "gcc", "libc6-dev", "make")
# Tools and libraries are of one version, and some of them have the same name in every release.
_ZFS_PIN = r"Package: src:zfs-linux\nPin: release n={}\nPin-Priority: 990\n"
_AUDITED = {"zfs": "/usr/sbin/zfs", "zpool": "/usr/sbin/zpool", "ssh": "/usr/bin/ssh"}

# Neither debug information nor BTF changes the module's code; without them its configure step, which compiles
# hundreds of probes, takes two thirds of the time.
COMPILATION = """
cd /usr/src/zfs-*
kernel=$(basename /lib/modules/*)
export CC=gcc KCFLAGS=-g0
rm -f /usr/src/linux-headers-*/vmlinux
./configure -q --disable-dependency-tracking --with-config=kernel \
    --with-linux="$(readlink -f /lib/modules/$kernel/source || echo /lib/modules/$kernel/build)" \
    --with-linux-obj="$(readlink -f /lib/modules/$kernel/build)"
make -s -j"$(nproc)"
mkdir -p /out/modules
for module in module/*.ko module/*/*.ko; do
    [ ! -e "$module" ] || { strip --strip-debug "$module"; cp "$module" /out/modules/; }
done
"""

_TRIM = """
mkdir -p /etc/systemd/system-generators
for generator in /usr/lib/systemd/system-generators/*; do
    ln -sf /dev/null "/etc/systemd/system-generators/${generator##*/}"
done
for unit in $(cat /etc/lab/idle-units); do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done
systemctl enable --quiet lab-identity.service lab-ready.service ssh.service cron.service \
    zfs-import-cache.service zfs-mount.service zfs-import.target zfs.target
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\\nStorage=volatile\\nRuntimeMaxUse=16M\\n' >/etc/systemd/journald.conf.d/lab.conf
ln -sf /usr/share/zoneinfo/UTC /etc/localtime
echo UTC >/etc/timezone
echo unnamed >/etc/hostname
rm -f /etc/hostid
: >/etc/fstab
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/* /usr/share/doc/* \
    /usr/share/man/* /usr/share/locale/* /usr/share/info/* /boot/initrd* /var/lib/systemd/random-seed
mkdir -p /var/log/journal /var/lib/apt/lists/partial /var/cache/apt/archives/partial
rmdir /var/log/journal
depmod "$(basename /lib/modules/*)"
python3 -m compileall -q /usr/local/lib || true
"""


def make_node_root(release: Release, mirror: Mirror, root: Path, steps: Steps) -> None:
    """Debian with kernel, OpenZFS's tools and what hoster and tests need; not yet made into a node."""
    packages = (*_NODE_PACKAGES, release.kernel_package, release.zfs_package, *release.packages)
    _bootstrap(release, mirror, root, packages, steps)
    _install_wheels(release, root, steps)


def builder_packages(release: Release) -> tuple[str, ...]:
    """What a builder root is made of; the last one is the module's source."""
    return (*_BUILDER_PACKAGES, release.headers_package, release.zfs_source_package)


def make_builder_root(release: Release, mirror: Mirror, root: Path, steps: Steps) -> None:
    """A C compiler, the kernel's headers and the source of OpenZFS's module, unpacked in /usr/src."""
    *packages, source = builder_packages(release)
    # DKMS itself is left out: it would compile the same source the same way, but keep a copy of everything.
    fetch_source = (
        f'cd "$1/tmp" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -q download {source} && '
        'for package in *.deb; do dpkg-deb -x "$package" "$1"; done'
    )
    _bootstrap(release, mirror, root, packages, steps, f"--customize-hook={fetch_source}")


def compiled(root: Path, steps: Steps) -> Path:
    """Compile everything that a node needs in a builder root; the directory in it that holds the results.

    It holds modules/*.ko, init (the initrd's first process) and zfs, zpool, ssh (the audit shims).
    """
    for source in GUEST.glob("*.c"):
        shutil.copy(source, root / "tmp")
    programs = "\n".join(
        f"gcc -O2 -static -s -Wall -Wextra -DNAME='\"{name}\"' -DREAL='\"/usr/libexec/lab/{name}\"' "
        f"-o /out/{name} /tmp/shim.c"
        for name in _AUDITED
    )
    steps.run_in(
        root,
        f"{COMPILATION}\ngcc -O2 -static -s -Wall -Wextra -o /out/init /tmp/init.c\n{programs}",
    )
    return root / "out"


def install_guest(root: Path, built: Path, steps: Steps) -> None:
    """Turn Debian into a node: kernel modules, audit shims, the lab's own files, everything idle off."""
    modules = root / "lib/modules" / kernel_version(root) / "updates"
    modules.mkdir()
    for module in (built / "modules").glob("*.ko"):
        shutil.copy(module, modules)
    real = root / "usr/libexec/lab"
    real.mkdir(parents=True)
    for name, path in _AUDITED.items():
        shutil.move(root / path[1:], real / name)
        shutil.copy(built / name, root / path[1:])
    shutil.copytree(GUEST / "root", root, dirs_exist_ok=True)
    shutil.copytree(root / "etc/cron.d", root / "etc/lab/cron.d", dirs_exist_ok=True)
    steps.run_in(root, _TRIM)


def kernel_version(root: Path) -> str:
    """The one kernel whose modules a root file system holds; LabError when there are none or several."""
    match sorted(path.name for path in (root / "lib/modules").iterdir()):
        case [version]:
            return version
        case versions:
            raise LabError(f"one kernel expected in {root}, found {versions or 'none'}")


def _bootstrap(
    release: Release,
    mirror: Mirror,
    root: Path,
    packages: Sequence[str],
    steps: Steps,
    *options: str,
) -> None:
    steps.run(
        [
            *("mmdebstrap", "--verbose", "--mode=root", "--variant=minbase", "--format=directory"),
            f"--keyring={mirror.keyring}",
            *(f"--aptopt={option}" for option in (*mirror.options, 'Apt::Install-Recommends "0"')),
            "--dpkgopt=force-unsafe-io",
            # Dropping documentation while it is unpacked is quicker than removing it.
            *("--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*"),
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            f"--include={','.join(packages)}",
            f"--setup-hook=printf '{_ZFS_PIN.format(release.zfs_suite)}' >\"$1/etc/apt/preferences\"",
            *options,
            release.suite,
            root,
            *mirror.sources(release.suites),
        ]
    )


def _install_wheels(release: Release, root: Path, steps: Steps) -> None:
    target = root / f"usr/local/lib/python{release.python}/dist-packages"
    target.mkdir(parents=True, exist_ok=True)
    if not release.wheels:
        return
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode != 0:
        pip = ["python3", "-m", "pip"]
    for_node = ["--only-binary=:all:", "--no-deps", "--python-version", release.python]
    steps.run([*pip, "install", "--quiet", "--target", target, *for_node, *release.wheels])
