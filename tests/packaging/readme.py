"""The README, taken apart: its blocks of code, and its tables."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\w+\.py)\n")
_CODE = re.compile(r"`([^`]+)`")


def blocks(language: str) -> list[str]:
    return [code for found, code in _BLOCK.findall(TEXT) if found == language]


def files() -> dict[str, str]:
    """Return the blocks that say in their first line which file they are."""
    return {name[1]: code for code in blocks("python") if (name := _FILE.match(code)) is not None}


def snippets() -> list[str]:
    """Return the other blocks of Python, which follow upon each other."""
    return [code for code in blocks("python") if not _FILE.match(code)]


def section(title: str) -> str:
    """Return the text below a heading, to the next heading of any level."""
    return re.split(r"^#+ ", TEXT.split(f"# {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def table(head: str) -> list[list[str]]:
    """Return the rows of the table whose first line this is, as cells."""
    rows = TEXT.split(f"\n{head}\n")[1].split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def codes(cell: str) -> list[str]:
    """Return what a cell has between backticks."""
    return _CODE.findall(cell)
