"""A disk that is called internal is all in the VM's folder: what a qcow2 image leans on as well."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from hoster.errors import ConfigurationError
from hoster.hypervisors.qcow2 import Qcow2, qcow2_head
from hoster.operations.guests import guest_of
from hoster.operations.inventory import look_around
from tests.unit.operations.nodes import CONFIG, Nodes
from tests.unit.operations.test_deploy import MIB, qcow2


class Home:
    """The folder of a VM whose disk is top.qcow2."""

    def __init__(self, folder: Path) -> None:
        self.nodes = Nodes(folder)
        self.folder = folder / "a" / "web"
        disk = {"disk_type": "nvme", "disk_location": "internal", "disk_image": "top.qcow2"}
        (self.folder / "vm_config.json").write_text(json.dumps(CONFIG | {"disks": [disk]}))

    def disks(self) -> list[str]:
        """The disks with which it would be started."""
        context = self.nodes.contexts["a"]
        return [drive.path.name for drive in guest_of(context, look_around(context).named("web")).drives]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.parametrize(
    "leans_on", ["/srv/base.qcow2", "../base.qcow2", "nbd://host/base", "json:{}", "link"]
)
def test_a_vm_a_part_of_whose_disk_is_elsewhere_is_not_started(home: Home, leans_on: str) -> None:
    qcow2(home.folder / "top.qcow2", MIB, leans_on)
    (home.folder / "link").symlink_to("/srv/base.qcow2")
    with pytest.raises(ConfigurationError) as caught:
        home.disks()
    assert f"and a part of it is in {leans_on!r}, outside of the VM" in caught.value.message


def test_so_it_is_where_only_the_next_image_leans_on_one_that_is_elsewhere(home: Home) -> None:
    qcow2(home.folder / "top.qcow2", MIB, "base.qcow2")
    qcow2(home.folder / "base.qcow2", MIB, "/srv/base.qcow2")
    with pytest.raises(ConfigurationError, match="outside of the VM"):
        home.disks()


def test_images_in_the_folder_may_lean_on_each_other(home: Home) -> None:
    qcow2(home.folder / "top.qcow2", MIB, "base.qcow2")
    with pytest.raises(ConfigurationError, match=r"base\.qcow2: No such file"):
        home.disks()
    qcow2(home.folder / "base.qcow2", MIB, "top.qcow2")
    assert home.disks() == ["top.qcow2"]


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="there is no qemu-img here")
def test_the_heads_of_qemus_own_images_are_understood(tmp_path: Path) -> None:
    def made(name: str, size: str, *words: str) -> Qcow2 | None:
        options = ["-q", "-f", "qcow2", *words]
        subprocess.run(["qemu-img", "create", *options, str(tmp_path / name), size], check=True)
        with (tmp_path / name).open("rb") as image:
            return qcow2_head(image)

    data, base = str(tmp_path / "data"), str(tmp_path / "whole")
    assert made("whole", "1M") == Qcow2(MIB)
    assert made("old", "1M", "-o", "compat=0.10") == Qcow2(MIB)
    assert made("top", "1M", "-F", "qcow2", "-b", base) == Qcow2(MIB, (base,))
    assert made("split", "1M", "-o", f"data_file={data}") == Qcow2(MIB, (data,))
