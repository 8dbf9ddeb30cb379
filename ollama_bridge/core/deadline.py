"""Time as the core sees it: clocks are handed in, and a call has one end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import Phase


@dataclass(frozen=True, slots=True)
class Clock:
    """The two clocks, in seconds: ``monotonic`` measures, ``wall`` only reads HTTP dates."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


class Deadline(NamedTuple):
    """The moment, on the monotonic clock, at which a whole call ends.

    ``seconds`` is what the caller granted, ``usual`` what the settings grant, and ``phase`` what
    running out of it is called.
    """

    end: float
    seconds: float
    usual: float
    phase: Phase = "total"

    @classmethod
    def after(cls, seconds: float, *, now: float, usual: float, phase: Phase = "total") -> Deadline:
        return cls(now + seconds, seconds, usual, phase)

    @property
    def is_usual(self) -> bool:
        """Whether it is no shorter than usual: else running out of it is nobody else's fault."""
        return self.seconds >= self.usual

    def left(self, now: float) -> float:
        """Return the seconds left, never below 0."""
        return max(self.end - now, 0.0)
