"""A run as lines of 80 columns."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Final

from . import words

if TYPE_CHECKING:
    from .results import Result, Row, Run

WIDTH: Final = 80
_INDENT: Final = "  "


def text(run: Run) -> str:
    """Return a run with a paragraph for each benchmark."""
    conditions = f"{run.date}: {run.machine}; {words.versions(run.versions)}."
    return "\n\n".join([fill(conditions, WIDTH), *map(_paragraph, run.results)]) + "\n"


def _paragraph(result: Result) -> str:
    head = f"{result.benchmark.name} ({words.rounds(result.rounds)} of {result.calls:,})"
    ratio = "ratio (middle half)" if result.benchmark.peer else ""
    lines = [
        f"{head:<35}{'median':>14}   {ratio}".rstrip(),
        _indented(result.what),
        *(_line(result, row) for row in result.rows),
        _indented(words.verdict(result)),
    ]
    return "\n".join(line for line in lines if line)


def _indented(sentence: str) -> str:
    return fill(sentence, WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)


def _line(result: Result, row: Row) -> str:
    if row.spread is None:
        return f"{_INDENT}{row.name:<33}{row.absent:>14}"
    value = words.figure(row.spread.median, result.benchmark.unit)
    return f"{_INDENT}{row.name:<33}{value:>14}   {words.ratio(result, row)}".rstrip()
