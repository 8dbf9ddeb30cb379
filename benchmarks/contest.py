"""A benchmark as a value: who takes part, what a figure is, and the goal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from .figures import Goal


class CannotRunError(Exception):
    """A benchmark cannot be run here; the message says why."""


class Unit(StrEnum):
    SECONDS = "seconds"
    BYTES = "bytes"
    DESCRIPTORS = "descriptors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One who takes part. ``turn`` returns a figure; without it, ``absent`` says why."""

    key: str
    name: str
    turn: Callable[[], float] | None = None
    absent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What is measured.

    Attributes:
        name: what it is called by on the command line.
        what: one line that says what a figure is, and under which conditions; it may have the
            place ``{calls}``.
        unit: of the figures.
        rounds: in which each contestant has one turn.
        calls: that make one turn.
        gather: returns the contestants, ready for turns of so many calls.
        peer: key of the contestant to whom the others' ratios are taken, "" for none.
        goal: what shall be reached, None where the figures are for information only.
        warm_up: whether a first round is played and thrown away.
    """

    name: str
    what: str
    unit: Unit
    rounds: int
    calls: int
    gather: Callable[[int], AbstractContextManager[Sequence[Contestant]]]
    peer: str = ""
    goal: Goal | None = None
    warm_up: bool = True
