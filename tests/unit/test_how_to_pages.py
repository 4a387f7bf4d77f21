"""The how-tos and the runbook: what is in their blocks is typed in the lab, or says that it cannot be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [*sorted((DOCS / "how-to").glob("*.md")), DOCS / "runbook.md"]
ANCHOR = re.compile(r"[^\w\- ]")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_one_that_the_lab_types_or_text(page: Path) -> None:
    opened = re.findall(r"^```(\w*)\n.*?^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert set(opened) <= {"sh", "text"}
    assert "sh" in opened


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            assert anchor in {ANCHOR.sub("", head.lower()).replace(" ", "-") for head in headings}, link
