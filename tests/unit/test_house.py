"""What the house promises of its own text: sizes that stay readable, and nothing that must not be in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE_LINES = 400
FUNCTION_LINES = 60


def modules() -> Iterator[Path]:
    for folder in ("src", "lab", "tests"):
        yield from sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", list(modules()), ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MODULE_LINES, f"{path}: two ideas in one module?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno
            assert length <= FUNCTION_LINES, f"{path}:{node.lineno} {node.name}: {length} lines"


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda p: p.name)
def test_no_receive_is_forced_and_no_host_key_is_waved_through(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"[\"']-F[\"']|rollback[\"'], [\"']-[rR]|shell=True", text)
    assert not re.search(r"StrictHostKeyChecking\W+(no|accept)", text)
