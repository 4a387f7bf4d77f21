"""What the typed content of a vm_config.json says by itself."""

from __future__ import annotations

import pytest

from hoster.model.machines import Disk, DiskType, FailoverStrategy, MachineConfig, failover_strategy


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("cireset", FailoverStrategy.CIRESET),
        ("change_parent", FailoverStrategy.CHANGE_PARENT),
        ("", FailoverStrategy.CHANGE_PARENT),
        ("CIRESET", FailoverStrategy.CHANGE_PARENT),
        ("anything else", FailoverStrategy.CHANGE_PARENT),
    ],
)
def test_a_failover_strategy_is_a_change_of_parent_unless_it_says_cireset(
    text: str, strategy: FailoverStrategy
) -> None:
    assert failover_strategy(text) is strategy


@pytest.mark.parametrize(
    ("location", "is_internal"), [("internal", True), ("external", False), ("", False), ("nfs", False)]
)
def test_a_disk_is_internal_only_if_it_says_so_exactly(location: str, is_internal: bool) -> None:
    assert Disk(location=location).is_internal is is_internal


@pytest.mark.parametrize("image", ["../web2/disk0.img", "/tank/disk0.img", "sub/../../disk0.img", ""])
def test_an_internal_image_that_is_not_below_the_folder_leaves_it(image: str) -> None:
    assert Disk(location="internal", image=image).leaves_folder


@pytest.mark.parametrize(
    "disk",
    [
        Disk(location="internal", image="disk0.img"),
        Disk(location="internal", image="sub/disk0.img"),
        Disk(location="internal", image="..disk0.img"),
        Disk(location="external", image="/dev/zvol/tank/web1"),
    ],
)
def test_other_images_do_not_leave_the_folder(disk: Disk) -> None:
    assert not disk.leaves_folder


def test_a_disk_type_that_nobody_knows_is_kept_as_text() -> None:
    assert Disk(type="ufs-3").type == "ufs-3"
    assert Disk(type="nvme").type == DiskType.NVME


def test_the_vnc_password_does_not_show_when_a_machine_is_printed() -> None:
    assert "hunter2" not in repr(MachineConfig(vnc_password="hunter2"))
