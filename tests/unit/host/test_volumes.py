"""The devices of volumes follow a rename: waited for, and never another one's."""

from __future__ import annotations

import threading
from pathlib import Path

from hoster.host.volumes import announce, await_devices, device_numbers, name_of_device, volume_said

WEB, DB = "tank/vm/web/d0", "tank/vm/db/d0"


def device(folder: Path, name: str, whose: str) -> None:
    """A device under that name, which says that it is the volume of ``whose``."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(whose)


def name_of(path: Path) -> str | None:
    return path.read_text() or None


def test_a_device_that_is_there_is_not_waited_for(tmp_path: Path) -> None:
    device(tmp_path, WEB, WEB)
    device(tmp_path, DB, "")  # the system does not say
    assert await_devices([WEB, DB], None, 0.0, tmp_path, name_of) == ()
    assert device_numbers([WEB, DB, "tank/vm/x"], tmp_path).keys() == {WEB, DB}


def test_a_device_that_is_missing_or_another_ones_is_said(tmp_path: Path) -> None:
    device(tmp_path, WEB, f"{WEB.replace('web', 'web.branch-20240101T120000Z')}")
    assert await_devices([WEB, DB], None, 0.1, tmp_path, name_of) == (DB, WEB)


def test_a_device_is_waited_for_until_it_is_the_right_one(tmp_path: Path) -> None:
    device(tmp_path, WEB, "another")
    later = threading.Timer(0.1, device, (tmp_path, WEB, WEB))
    later.start()
    try:
        assert await_devices([WEB], None, 30.0, tmp_path, name_of) == ()
    finally:
        later.join()


def test_what_is_no_volume_has_no_name(tmp_path: Path) -> None:
    device(tmp_path, WEB, "x")
    assert name_of_device(tmp_path / WEB) is None
    assert name_of_device(tmp_path / "missing") is None


def test_the_device_that_a_name_led_to_before_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    """The kernel renames a volume's device a moment after its dataset; it says the former name until then."""
    device(tmp_path, WEB, WEB)
    former = device_numbers([WEB], tmp_path)
    assert await_devices([WEB], former, 0.1, tmp_path, name_of) == (WEB,)
    assert await_devices([WEB], {WEB: former[WEB] + 1}, 0.1, tmp_path, name_of) == ()


def test_what_the_kernel_says_ends_at_the_end_of_the_name() -> None:
    """Seen on OpenZFS 2.3.9 after a rename to a shorter name: the rest of the longer one follows."""
    longer = b"tank/vm/web/d0\0\0-20261123T084646Z/d0".ljust(256, b"\0")
    assert volume_said(longer) == "tank/vm/web/d0"


def test_the_device_that_a_name_leads_to_is_announced_with_its_partitions(tmp_path: Path) -> None:
    blocks, links = tmp_path / "block", tmp_path / "zvol"
    for block in ("zd0/zd0p1", "zd16", "sda"):
        (blocks / block).mkdir(parents=True)
    (links / WEB).parent.mkdir(parents=True)
    (links / WEB).symlink_to("/dev/zd0")
    announce([WEB], links, blocks)
    told = sorted(str(path.parent.relative_to(blocks)) for path in blocks.rglob("uevent"))
    assert told == ["zd0", "zd0/zd0p1"]
    assert (blocks / "zd0/uevent").read_text() == "change"
