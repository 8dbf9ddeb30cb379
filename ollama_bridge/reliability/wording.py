"""Numbers and text for people, in 80 columns."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 80

Tone = Literal["title", "head", "good", "odd", "bad"]
Paint: TypeAlias = Callable[[Tone, str], str]
"""Colours a text, or returns it as it is."""

_SENTENCE = re.compile(r"(?<=\.) (?=[A-Z])")
# What would be rounded up to the limit has fewer decimals already.
_OF_SECONDS = ((9.9995, 3), (99.995, 2), (999.95, 1))
_OF_RATES = ((9.995, 2), (99.95, 1))


def seconds(number: float | None) -> str:
    """Return a time in seconds, without the unit; a dash for None."""
    return _short(number, _OF_SECONDS)


def rate(number: float | None) -> str:
    return _short(number, _OF_RATES)


def _short(number: float | None, decimals: Sequence[tuple[float, int]]) -> str:
    if number is None:
        return "-"
    digits = next((digits for limit, digits in decimals if number < limit), 0)
    return f"{number:.{digits}f}"


def share(percent: float | None) -> str:
    """Return a share, cut and not rounded: only the whole says 100 %."""
    if percent is None:
        return "-"
    tenths = math.floor(percent * 10)
    return f"{tenths / 10:g} %"


def counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def wrapped(text: str, *, first: str = "") -> list[str]:
    """Break a text into lines, the others below the first.

    What does not fit is broken between sentences at first, so that a command to type stays whole.
    A word that is longer than a line, an address say, stays whole too.
    """
    if len(first) + len(text) <= WIDTH:
        return [first + text]
    rest = " " * len(first)
    folded = [line for each in _SENTENCE.split(text) for line in _folded(each, WIDTH - len(first))]
    return [(rest if number else first) + line for number, line in enumerate(folded)]


def _folded(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def labelled(rows: Sequence[tuple[str, str, Tone, Sequence[str]]], paint: Paint) -> list[str]:
    """Return rows of a name, a painted label, and sentences that are folded beside them."""
    names = max(len(name) for name, *_ in rows)
    labels = max(len(label) for _, label, *_ in rows)
    folded: list[str] = []
    for name, label, tone, sentences in rows:
        head = f"{name:{names}}  {label:{labels}}  "
        painted = head.replace(f"  {label}", f"  {paint(tone, label)}", 1)
        beside = [line for each in sentences for line in wrapped(each, first=" " * len(head))]
        top = beside[0][len(head) :] if beside else ""
        folded += [(painted + top).rstrip(), *beside[1:]]
    return folded


Fact: TypeAlias = tuple[str, str, Tone | None]
"""A name, a text, and how the text is painted."""


def facts(rows: Sequence[Fact], paint: Paint) -> list[str]:
    """Return rows of a name and a text that is folded beside it."""
    width = max(len(name) for name, *_ in rows)
    folded: list[str] = []
    for name, text, tone in rows:
        head = f"{name:{width}}  "
        for number, line in enumerate(wrapped(text, first=" " * len(head))):
            part = line[len(head) :]
            folded.append(
                (" " * len(head) if number else head) + (paint(tone, part) if tone else part)
            )
    return folded
