"""The README's figures are those of the command, and of all benchmarks."""

from __future__ import annotations

import re

import pytest

from benchmarks import peers, readme
from benchmarks.cases import ALL
from benchmarks.children import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = TEXT.partition(f"{readme.BEGIN}\n")[2].partition(readme.END)[0]


def test_the_readme_has_the_markers_once_below_their_heading() -> None:
    assert readme.has_block(TEXT)
    assert TEXT.count(readme.BEGIN) == TEXT.count(readme.END) == 1
    assert re.findall(r"^## (.+)$", TEXT.partition(readme.BEGIN)[0], re.MULTILINE)[-1] == "Figures"


@pytest.mark.parametrize("name", ALL)
def test_every_benchmark_has_its_rows_and_its_note(name: str) -> None:
    rows = re.search(rf"^\| `{name}` \| .+\|\n(\|  \| .+\|\n)+", BLOCK, re.MULTILINE)

    assert rows is not None
    assert re.search(r"\| \d\S* (us|ms|s|KiB|descriptors) \|", rows[0])
    assert f"\n- `{name}`: " in BLOCK


def test_every_goal_is_told_with_what_was_measured() -> None:
    notes = " ".join(BLOCK.split())
    goals = [benchmark for benchmark in ALL.values() if benchmark.goal is not None]

    assert len(re.findall(r"Goal: .+?: (?:reached|missed), \S", notes)) == len(goals)


def test_it_says_when_and_with_what_it_was_measured() -> None:
    where = BLOCK.partition("\n\n")[0]

    assert re.match(r"Measured on \d{4}-\d\d-\d\d: \d+ CPUs", where)
    assert all(f" {name} " in where.replace("\n", " ") for name in ("Python", *peers.GROUP))
