"""The devices of volumes follow a rename: waited for, and never another one's."""

from __future__ import annotations

import threading
from pathlib import Path

from hoster.host.volumes import await_devices, name_of_device, with_devices

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
    assert await_devices([WEB, DB], 0.0, tmp_path, name_of) == ()
    assert with_devices([WEB, DB, "tank/vm/x"], tmp_path) == {WEB, DB}


def test_a_device_that_is_missing_or_another_ones_is_said(tmp_path: Path) -> None:
    device(tmp_path, WEB, f"{WEB.replace('web', 'web.branch-20240101T120000Z')}")
    assert await_devices([WEB, DB], 0.1, tmp_path, name_of) == (DB, WEB)


def test_a_device_is_waited_for_until_it_is_the_right_one(tmp_path: Path) -> None:
    device(tmp_path, WEB, "another")
    later = threading.Timer(0.1, device, (tmp_path, WEB, WEB))
    later.start()
    try:
        assert await_devices([WEB], 30.0, tmp_path, name_of) == ()
    finally:
        later.join()


def test_what_is_no_volume_has_no_name(tmp_path: Path) -> None:
    device(tmp_path, WEB, "x")
    assert name_of_device(tmp_path / WEB) is None
    assert name_of_device(tmp_path / "missing") is None
