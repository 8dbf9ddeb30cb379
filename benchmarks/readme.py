"""A run as Markdown, and the place of it in a README."""

from __future__ import annotations

import re
from textwrap import fill
from typing import TYPE_CHECKING, Final

from . import words

if TYPE_CHECKING:
    from .results import Result, Row, Run

BEGIN: Final = "<!-- benchmarks -->"
END: Final = "<!-- /benchmarks -->"
_BLOCK: Final = re.compile(f"{BEGIN}\n.*?{END}", re.DOTALL)
_WIDTH: Final = 116
_HEAD: Final = ("| Benchmark | Who | Median | Ratio (middle half) |", "|---|---|---|---|")


def markdown(run: Run) -> str:
    """Return a run as one table, with a note on each benchmark."""
    conditions = f"Measured on {run.date[:10]}: {run.machine}; {words.versions(run.versions)}."
    table = [*_HEAD, *(row for result in run.results for row in _rows(result))]
    notes = [_note(result) for result in run.results]
    return "\n\n".join([fill(conditions, _WIDTH), "\n".join(table), "\n".join(notes)]) + "\n"


def has_block(readme: str) -> bool:
    """Tell whether a README has the two markers, each on a line of its own."""
    return _BLOCK.search(readme) is not None


def with_block(readme: str, block: str) -> str:
    """Return a README with another text between its markers."""
    return _BLOCK.sub(lambda _: f"{BEGIN}\n{block}{END}", readme, count=1)


def _rows(result: Result) -> list[str]:
    names = [f"`{result.benchmark.name}`", *[""] * (len(result.rows) - 1)]
    pairs = zip(names, result.rows, strict=True)
    return [f"| {name} | {row.name} | {_cells(result, row)} |" for name, row in pairs]


def _cells(result: Result, row: Row) -> str:
    if row.spread is None:
        return f"{row.absent} | "
    value = words.figure(row.spread.median, result.benchmark.unit)
    return f"{value} | {words.ratio(result, row)}"


def _note(result: Result) -> str:
    note = f"- `{result.benchmark.name}`: {result.what} {words.verdict(result)}".rstrip()
    return fill(note, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
