"""The contract of hypervisors, kept by the one in memory and by QEMU on this machine, with real guests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoster.hypervisors.qemu_command import BINARY
from tests.contracts.grounds import InMemoryGround, QemuGround
from tests.contracts.hypervisors import Ground, HypervisorContract


class TestInMemory(HypervisorContract):
    @pytest.fixture
    def ground(self, tmp_path: Path) -> Ground:
        return InMemoryGround(tmp_path)


@pytest.mark.skipif(shutil.which(BINARY) is None, reason=f"{BINARY} is not installed")
class TestQemu(HypervisorContract):
    @pytest.fixture
    def ground(self, tmp_path: Path) -> Iterator[Ground]:
        ground = QemuGround(tmp_path)
        yield ground
        ground.end()
