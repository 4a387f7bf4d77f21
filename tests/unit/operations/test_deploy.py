"""Making a VM: what of an image is taken, and what is said where it breaks off."""

from __future__ import annotations

import json
import resource
import struct
from pathlib import Path
from typing import Any

import pytest

from hoster.errors import Interrupted, OperationFailed, UsageError
from hoster.operations import deploy as module
from hoster.operations.deploy import Order, deploy, size_bytes
from tests.unit.operations.nodes import Nodes

MIB = 1024 * 1024


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    """Where a dataset app would be mounted there is a folder."""
    nodes = Nodes(tmp_path)
    (tmp_path / "a" / "app").mkdir()
    return nodes


def qcow2(path: Path, size: int, backing: str = "", features: int = 0) -> Path:
    """An image of that size, as far as its head goes (QEMU's docs/interop/qcow2.rst)."""
    name = backing.encode()
    head = struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 104 if name else 0, len(name), 16, size)
    path.write_bytes(head.ljust(72, b"\0") + struct.pack(">Q", features).ljust(32, b"\0") + name)
    return path


def test_a_qcow2_image_is_copied_as_it_is(nodes: Nodes, tmp_path: Path) -> None:
    image = qcow2(tmp_path / "small.qcow2", 10 * MIB)
    deploy(nodes.contexts["a"], Order("app", image=image, disk_size=10 * MIB))
    assert (tmp_path / "a/app/disk0.qcow2").read_bytes() == image.read_bytes()


@pytest.mark.parametrize(
    ("image", "size", "said"),
    [
        (("small.qcow2", 10 * MIB, "", 0), 20 * MIB, "holds a disk of 10485760 bytes"),
        (("top.qcow2", MIB, "/srv/base.qcow2", 0), 0, "'/srv/base.qcow2', which would not be copied"),
        (("top.qcow2", MIB, "", 4), 0, "'an external data file', which would not be copied"),
        (("cloud.img", MIB, "", 0), 0, "is a qcow2 image, and its name does not end in .qcow2"),
    ],
)
def test_an_image_that_would_be_another_disk_than_meant_is_not_taken(
    nodes: Nodes, tmp_path: Path, image: tuple[str, int, str, int], size: int, said: str
) -> None:
    path = qcow2(tmp_path / image[0], *image[1:])
    with pytest.raises(UsageError) as caught:
        deploy(nodes.contexts["a"], Order("app", image=path, disk_size=size))
    assert said in caught.value.message
    assert "tank/vm/app" not in nodes.cluster.nodes["a"].datasets


def test_a_file_that_is_only_called_qcow2_is_not_taken(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "raw.qcow2").write_bytes(b"\0" * 512)
    with pytest.raises(UsageError, match="is no qcow2 image, though"):
        deploy(nodes.contexts["a"], Order("app", image=tmp_path / "raw.qcow2"))


@pytest.mark.parametrize("size", ["8388608T", "999999999t"])
def test_no_disk_is_larger_than_a_file_can_be(size: str) -> None:
    assert size_bytes("8388607T") < 2**63
    with pytest.raises(ValueError, match="expected a size such as"):
        size_bytes(size)


def test_a_disk_that_has_no_room_is_said_with_its_file(nodes: Nodes, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, limit[1]))
    try:
        with pytest.raises(OperationFailed) as caught:
            deploy(nodes.contexts["a"], Order("app", disk_size=2 * MIB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert caught.value.message == f"app was not finished: {tmp_path}/a/app/disk0.img: File too large"
    assert caught.value.hint == "zfs destroy tank/vm/app"


def test_a_deployment_that_is_interrupted_names_what_it_has_made(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hoster.operations.deploy.os.fsync", interrupted)
    with pytest.raises(Interrupted, match="interrupted; app was not finished") as caught:
        deploy(nodes.contexts["a"], Order("app", disk_size=1))
    assert caught.value.hint == "zfs destroy tank/vm/app"


def test_vms_that_are_made_at_the_same_time_get_ports_of_their_own(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = nodes.contexts["a"]
    (tmp_path / "a" / "other").mkdir()
    copy = module._copy
    ports = []

    def copying(*words: Any) -> None:
        monkeypatch.setattr(module, "_copy", copy)
        ports.append(deploy(context, Order("other", disk_size=1)).config.vnc_port)
        copy(*words)

    monkeypatch.setattr(module, "_copy", copying)
    ports.append(deploy(context, Order("app", disk_size=1)).config.vnc_port)
    assert ports == [5900, 5901]
    written = json.loads((tmp_path / "a/app/vm_config.json").read_text())
    assert written["vnc_port"] == 5901
