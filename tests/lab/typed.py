"""The shell blocks of the how-tos, typed on a node as somebody would; and waiting for what they cause."""

from __future__ import annotations

import re
import time
from pathlib import Path

from lab.node import Node

HOW_TO = Path(__file__).parents[2] / "docs/how-to"


def blocks(text: str) -> list[str]:
    """The blocks of a page that are marked `sh`, in their order."""
    return re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def block_with(page: str, words: str) -> str:
    """The one block of that how-to in which these words are."""
    (found,) = (block for block in blocks((HOW_TO / page).read_text()) if words in block)
    return found


def type_block(node: Node, block: str, *, timeout_s: float = 120.0) -> str:
    """Types a block on the node, and stops at the first line that fails; what it printed."""
    return node.run(["bash", "-euc", f"set -o pipefail\n{block}"], timeout_s=timeout_s).stdout


def until(node: Node, command: str, *, within_s: float) -> None:
    """Waits until a shell command succeeds on the node; an assertion fails if it does not in that time."""
    deadline = time.monotonic() + within_s
    while (done := node.run(command, check=False)).returncode != 0:
        assert time.monotonic() < deadline, f"not within {within_s} s: {command}\n{done.stdout}{done.stderr}"
        time.sleep(0.5)
