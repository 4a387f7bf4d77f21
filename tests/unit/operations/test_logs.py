"""What a VM's process and its guest have said is shown, each by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoster.errors import OperationFailed
from hoster.operations.guests import last_lines


def test_the_end_of_a_log_is_shown(tmp_path: Path) -> None:
    (tmp_path / "web.log").write_text("".join(f"line {n}\n" for n in range(100)))
    assert last_lines("web", 2, folder=tmp_path) == "line 98\nline 99\n"
    with pytest.raises(OperationFailed, match="web has no log here"):
        last_lines("web", 2, console=True, folder=tmp_path)


def test_what_a_guest_said_is_in_no_other_vms_log(tmp_path: Path) -> None:
    for name in ("web", "web.console", "web.log"):
        (tmp_path / f"{name}.log").write_text(f"the log of {name}\n")
    (tmp_path / "web.console").write_text("what web said\n")
    assert last_lines("web", 1, console=True, folder=tmp_path) == "what web said\n"
    assert last_lines("web.console", 1, folder=tmp_path) == "the log of web.console\n"
