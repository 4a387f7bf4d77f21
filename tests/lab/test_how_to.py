"""The how-tos and the runbook are typed on nodes, every shell block of them, and must succeed.

A block whose first line is `# on node2` is typed there, others on node1; those for where Prometheus runs are
typed on this machine, in a copy of contrib/.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.image import cache_directory
from lab.lab import Lab
from lab.unpacked import MONITORING, programs
from tests.lab.test_machines import make_machine
from tests.lab.typed import HOW_TO, blocks, type_block
from tests.lab.world import everything, hoster, prepare

pytestmark = pytest.mark.lab

DISASTERS = ("restore.md", "start-on-another-node.md")
EVERYDAY = tuple(sorted(path.name for path in HOW_TO.glob("*.md") if path.name not in DISASTERS))
RUNBOOK = HOW_TO.parent / "runbook.md"
CONTRIB = Path(__file__).parents[2] / "contrib"
ABOVE: dict[tuple[str, str], Callable[[Lab], None]] = {
    ("start-on-another-node.md", "node1 is dead"): lambda lab: lab.link.cut("node1"),
    ("start-on-another-node.md", "When node1 comes back"): Lab.restore_links,
}
"""What happens before the blocks of a section are typed, by page and heading."""


@pytest.fixture
def ready_lab(lab: Lab) -> Iterator[Lab]:
    """What the tutorial ends with: a VM on node1, web1, that was replicated to node2; and a pool for a disk.

    Nothing runs by the clock meanwhile.
    """
    lab.reset(tank=1, usb=1)
    prepare(lab)
    node = lab.node1
    node.run("systemctl stop cron")
    make_machine(node, "web1")
    hoster(node, "vm replicate-all --endpoint node2 --script-name to_node2")
    yield lab
    node.run(
        "hoster schedule remove; systemctl disable --now hoster_exporter;"
        " rm -rf /etc/systemd/system/hoster_exporter.service /var/lib/prometheus /root/replication_*.sh;"
        " systemctl daemon-reload; systemctl start cron"
    )


def sections(page: str) -> list[tuple[str, list[str]]]:
    """The headings of a how-to, each with the blocks below it."""
    first, *parts = re.split(r"^##+ (.*)$", (HOW_TO / page).read_text(), flags=re.MULTILINE)
    assert blocks(first) == []
    return [(heading, blocks(text)) for heading, text in zip(parts[::2], parts[1::2], strict=True)]


def type_in_contrib(block: str, folder: Path) -> None:
    """Types a block of the machine where Prometheus runs, its tools being there."""
    shutil.copytree(CONTRIB, folder / "contrib")
    path = f"{programs(cache_directory(), MONITORING)}:{os.environ['PATH']}"
    subprocess.run(["bash", "-euc", block], cwd=folder, env={**os.environ, "PATH": path}, check=True)


def type_page(lab: Lab, page: str, folder: Path) -> None:
    """Types all blocks of a how-to, in their order."""
    typed = 0
    for heading, found in sections(page):
        if (page, heading) in ABOVE:
            ABOVE[page, heading](lab)
        for block in found:
            if block.startswith("# where Prometheus runs\n"):
                type_in_contrib(block, folder)
            else:
                node = lab.node2 if block.startswith("# on node2\n") else lab.node1
                type_block(node, block, timeout_s=300)
            typed += 1
    assert typed, page


def test_all_that_the_how_tos_of_every_day_and_the_runbook_say_can_be_typed(
    ready_lab: Lab, tmp_path: Path
) -> None:
    """What the runbook lets one type changes nothing. Each page begins with the same configuration."""
    node = ready_lab.node1
    node.run("mkdir /tmp/textfiles; sed -i '1i textfile-dir = \"/tmp/textfiles\"' /etc/hoster/hoster.toml")
    before = everything(node)
    for block in blocks(RUNBOOK.read_text()):
        type_block(node, block)
    assert everything(node) == before
    node.run("sed -i 1d /etc/hoster/hoster.toml; cp /etc/hoster/hoster.toml /tmp/before.toml")
    for page in EVERYDAY:
        type_page(ready_lab, page, tmp_path)
        node.run("hoster schedule remove; cp /tmp/before.toml /etc/hoster/hoster.toml")


@pytest.mark.parametrize("page", DISASTERS)
def test_all_that_the_how_tos_of_bad_days_say_can_be_typed(ready_lab: Lab, page: str, tmp_path: Path) -> None:
    type_page(ready_lab, page, tmp_path)
