"""A process is waited for as long as somebody wishes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hoster.hypervisors.qemu_process import Grip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pidfd_open(2) is of Linux")


@pytest.mark.parametrize("limit_s", [10, 10_000_000, 10**12])
def test_the_end_of_a_process_may_be_waited_for_very_long(limit_s: float) -> None:
    with subprocess.Popen(["sleep", "0.1"]) as process, Grip(process.pid) as grip:
        assert grip.ends_within(limit_s)
