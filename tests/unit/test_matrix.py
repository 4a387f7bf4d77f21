"""The matrix of releases: its table tells the truth, also of what did not come to run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import matrix

_TESTS = """
import pytest

@pytest.fixture(autouse=True)
def told(request):
    request.node.user_properties.append(("openzfs", "2.3.9/2.1.11"))

@pytest.fixture
def broken():
    yield
    raise ValueError

def test_passes(): pass
def test_fails(): assert False
def test_fails_at_its_end(broken): pass
@pytest.mark.skip(reason="lacking")
def test_is_skipped(): pass
"""


def test_a_report_is_read_with_its_versions_and_what_failed_at_any_stage(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(_TESTS)
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    assert (
        subprocess.run([*command, "test_some.py"], cwd=tmp_path, capture_output=True, check=False).returncode
        == 1
    )
    versions, outcomes = matrix.read_report(report)
    assert versions == "2.3.9/2.1.11"
    assert outcomes == {"passed": 1, "failed": 2, "skipped": 1}


def test_an_entry_that_cannot_run_stops_no_other_and_fails_the_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert matrix.main(["slink", "potato"]) == 1
    table = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split()[:3] for line in table] == [["slink", "-", "0"], ["potato", "-", "0"]]
    assert all("did not run" in line for line in table)
