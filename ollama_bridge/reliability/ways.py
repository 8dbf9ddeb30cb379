"""Which way calls took from endpoint to endpoint, read off what they say of their attempts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from ..errors import CircuitOpen, Overloaded, QuotaExhausted, RateLimited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.types import Attempt

_REFUSALS: Final = {each.code for each in (CircuitOpen, Overloaded, QuotaExhausted, RateLimited)}


@dataclass(slots=True)
class Ways:
    """Sums over calls; see ``Figures``."""

    retries: int = 0
    hops: int = 0
    passed_by: int = 0

    def add(self, attempts: Sequence[Attempt]) -> None:
        """Add those of one call."""
        places = [(each.endpoint, each.model) for each in attempts if _was_sent(each)]
        if places:  # else nobody took it
            self.passed_by += len(attempts) - len(places)
        self.retries += len(places) - len(set(places))
        self.hops += sum(one[0] != other[0] for one, other in pairwise(places))


def _was_sent(attempt: Attempt) -> bool:
    """Tell whether there was a request; without a status, these are refusals of our own."""
    return attempt.status is not None or attempt.code not in _REFUSALS
