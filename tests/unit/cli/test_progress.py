"""Progress: bars on a terminal, lines elsewhere; both live through a whole run."""

from __future__ import annotations

import io
import os

import pytest
from rich.console import Console

from hoster.cli.handover import teller
from hoster.cli.progress import BarObserver, LineObserver
from hoster.model.plan import Outcome, VmReport

MIB = 1024 * 1024


def test_lines_say_what_begins_and_how_much_is_expected(capsys: pytest.CaptureFixture[str]) -> None:
    observer = LineObserver()
    observer.begin({"web": 3 * MIB, "db": 2 * MIB})
    observer.advance("web", 65536)
    observer.advance("web", 65536)
    observer.advance("db", 65536)
    observer.finish(VmReport("web", Outcome.DONE))
    assert capsys.readouterr().err.splitlines() == [
        "sending 2 VM(s), about 5M before compression",
        "web: sending about 3M",
        "db: sending about 2M",
    ]


def test_bars_show_each_vm_and_all_and_end_with_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(
        "rich.console.Console", lambda **_: Console(file=shown, force_terminal=True, width=100)
    )
    observer = BarObserver()
    observer.begin({"web": 3 * MIB, "db": 0})
    observer.advance("web", MIB)
    observer.advance("db", 10)
    observer.finish(VmReport("web", Outcome.DONE))
    observer.finish(VmReport("db", Outcome.FAILED))
    observer.finish(VmReport("late", Outcome.FAILED))
    assert "in all" in shown.getvalue()
    assert "web" in shown.getvalue()


@pytest.mark.parametrize("place", ["/dev/full", None], ids=["full", "unread"])
def test_what_a_move_tells_and_nobody_hears_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    """Its VM is stopped here by then, and not started there yet."""
    reading, writing = os.pipe()
    os.close(reading)
    descriptor = writing if place is None else os.open(place, os.O_WRONLY)
    with io.TextIOWrapper(io.FileIO(descriptor, "w"), write_through=True) as unheard:
        monkeypatch.setattr("sys.stdout", unheard)
        teller(as_json=False)("web: stopped here")
        monkeypatch.undo()
    if place is not None:
        os.close(writing)
