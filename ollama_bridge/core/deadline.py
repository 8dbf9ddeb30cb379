"""Time as the core sees it: clocks are handed in, and a call has one end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Clock:
    """The two clocks, in seconds: ``monotonic`` measures, ``wall`` only reads HTTP dates."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


class Deadline(NamedTuple):
    """The moment, on the monotonic clock, at which a whole call ends.

    ``seconds`` is what the caller granted. ``configured`` says whether that is at least what the
    settings grant: only then may running out of it be held against an endpoint.
    """

    end: float
    seconds: float
    configured: bool

    @classmethod
    def after(cls, seconds: float, *, now: float, configured: float) -> Deadline:
        return cls(now + seconds, seconds, seconds >= configured)

    def left(self, now: float) -> float:
        """Return the seconds left, never below 0."""
        return max(self.end - now, 0.0)
