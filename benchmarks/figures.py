"""The arithmetic: who plays when, what many rounds come to, whether that is good enough."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


def order(items: Sequence[T], number: int) -> list[T]:
    """Return who plays after whom in a round of this number.

    Each pair of rounds begins with another one, so that no place is an advantage, and the second
    of a pair goes backwards, so that nobody always comes after the same one.
    """
    start = number // 2 % len(items) if items else 0
    forwards = [*items[start:], *items[:start]]
    return forwards[::-1] if number % 2 else forwards


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some figures, the bounds of their middle half, and the least of them."""

    median: float
    low: float
    high: float
    least: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Self:
        """Return the spread of at least one figure."""
        if len(figures) == 1:  # Python before 3.13 has no quartiles of that
            return cls(*figures, *figures, *figures, *figures)
        low, _, high = quantiles(figures, method="inclusive")
        return cls(median(figures), low, high, min(figures))


def ratios(figures: Sequence[float], peer: Sequence[float]) -> Spread:
    """Return the spread of the ratios round by round: what slowed a whole round cancels out."""
    return Spread.of([each / other for each, other in zip(figures, peer, strict=True)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the contestant ``of`` shall stay below, in its unit or as a ratio to the peer."""

    of: str
    limit: float
    is_ratio: bool = False
    may_equal: bool = False

    @property
    def sign(self) -> str:
        return "<=" if self.may_equal else "<"

    def is_reached_by(self, measured: float) -> bool:
        return measured < self.limit or (self.may_equal and measured == self.limit)
