"""A VM is not started while the kernel of its node may write to a disk of it: what no process has open."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoster.errors import Refused
from hoster.operations import power
from hoster.operations.guests import guest_of
from hoster.operations.inventory import look_around
from tests.unit.operations.test_power import DISK, Node


def looped(root: Path, image: Path) -> Path:
    """A /sys in which there is a loop device on that file."""
    backing = root / "sys/block/loop3/loop/backing_file"
    backing.parent.mkdir(parents=True)
    backing.write_text(f"{image}\n")
    return root


def test_a_vm_with_a_loop_device_on_its_disk_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    home = node.vm("web")
    root = looped(tmp_path / "root", home / "disk0.img")
    monkeypatch.setattr(power.kernel_users_of, "__defaults__", (root,))
    with pytest.raises(Refused) as caught:
        node.start("web")
    assert caught.value.message == f"web: /dev/loop3 uses {home}/disk0.img"
    assert caught.value.hint == "losetup --detach /dev/loop3"
    assert node.machines.starts == []


def test_one_on_a_cd_is_in_nobodys_way(tmp_path: Path) -> None:
    node = Node(tmp_path)
    home = node.vm("web", disks=[DISK | {"disk_type": "ahci-cd"}])
    guest = guest_of(node.context, look_around(node.context).named("web"))
    assert power.kernel_users_of(guest, looped(tmp_path / "root", home / "disk0.img")) == ()
