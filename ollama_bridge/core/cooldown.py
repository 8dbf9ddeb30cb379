"""For how long an endpoint wants to be left alone: a 429, or a 503 that says when to come back.

A cooldown is a circuit that opens at once, for a known time, because the server said so and not
because it failed. So it is shared, probed and reset as circuits are. What differs:

1. It is never shortened, but by a ``reset``.
2. Its end lets everybody in again. But where an allowance was used up it lets in one call, whose
   answer decides for all: the reset of an account is a guess until somebody has tried.
3. Its ``openings`` count how often it has really ended, by a reset or an answer: whoever tells of
   fewer or as many ends did not know of a longer cooldown, which holds then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import QuotaExhausted, RateLimited
from .breaker import Breaker, BreakerPolicy, Mode, State
from .events import CircuitClosed, CooldownBegan, CooldownEnded, CooldownProbed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .breaker import Permit, Snapshot
    from .events import Event

SUFFIX = ":cooldown"  # no endpoint's name and no model's circuit ends so
LONGEST = 31 * 86_400.0
"""Seconds; an allowance comes back within a month, and no typo may park an endpoint for ever."""


_SLACK = 5.0  # seconds by which what others tell may be late
_NEWS = 0.5  # seconds by which a cooldown must grow to be told anew


class Cooldown(Breaker):
    """The cooldown of one endpoint; see ``Breaker``, whose modes it does not have."""

    __slots__ = ("_endpoint", "_tell")

    def __init__(
        self,
        endpoint: str,
        random: Callable[[], float],
        tell: Callable[[Event], None],
        moved: Callable[[Breaker], None],
    ) -> None:
        super().__init__(f"{endpoint}{SUFFIX}", BreakerPolicy(), random, self._translate, moved)
        self._endpoint = endpoint
        self._tell = tell

    @property
    def is_of_quota(self) -> bool:
        return self.last_error == QuotaExhausted.code

    @property
    def error(self) -> type[RateLimited]:
        """The error of calls that are refused for it."""
        return QuotaExhausted if self.is_of_quota else RateLimited

    def begin(self, until: float, code: str, now: float, *, is_told: bool = False) -> bool:
        """Leave the endpoint alone until then, at least; ``code`` is that of the error.

        ``is_told`` where another process has found it out, as the database says.

        Returns:
            Whether that is news.
        """
        until = min(until, now + LONGEST)
        if not self.passes:
            until = max(until, self._until if self._state is State.OPEN else 0.0)
            code = self.last_error if self.is_of_quota else code
        is_known = self._state is State.OPEN and code == self.last_error
        if is_known and until < self._until + _NEWS:
            return False
        self.last_error = code
        self._move(State.OPEN, until)
        self._tell(CooldownBegan(self._endpoint, code, max(0.0, until - now), is_told=is_told))
        return True

    def left(self, now: float) -> float:
        """Return the seconds for which nobody should ask, 0 where somebody may."""
        return self.retry_after(now) or 0.0

    def lapse(self, now: float) -> None:
        """End, where the time is over and nothing is to be tried first."""
        if not self.passes and not self.is_of_quota and now >= self._until:
            self._close(now)
            self._tell(CooldownEnded(self._endpoint))

    def succeed(self, permit: Permit, now: float) -> None:
        was_on, ends = not self.passes, self._openings
        super().succeed(permit, now)
        if was_on and self.passes:
            self._openings = ends + 1

    def reset(self, now: float, *, is_stored: bool = False) -> None:
        was_on, ends = not self.passes, self._openings
        super().reset(now)
        self._openings = ends + 1
        if was_on:
            self._tell(CooldownEnded(self._endpoint, is_stored=is_stored))

    def set_mode(self, mode: Mode) -> None:
        """Have no modes: those of operators are of circuits."""

    def followed(self, now: float) -> Event:
        if self.passes:
            return CooldownEnded(self._endpoint, is_told=True)
        if self._state is State.HALF_OPEN:
            return CooldownProbed(self._endpoint)
        left = max(0.0, self._until - now)
        return CooldownBegan(self._endpoint, self.last_error, left, is_told=True)

    def adopt(self, told: Snapshot, now: float) -> None:
        is_mine = self._state is State.OPEN and self.is_of_quota and told.openings <= self._openings
        until = self._until if is_mine else 0.0
        super().adopt(told._replace(mode=Mode.AUTO), now)
        ends = self._until if self._state is State.OPEN else now
        if until > ends + _SLACK:  # who told this did not know of mine
            self.begin(until, QuotaExhausted.code, now)

    def _translate(self, event: Event) -> None:
        is_end = isinstance(event, CircuitClosed)
        self._tell(CooldownEnded(self._endpoint) if is_end else CooldownProbed(self._endpoint))


def endpoint_of(circuit: str) -> str:
    """Return the endpoint's name in the name of any of its circuits."""
    return circuit.partition("/")[0].removesuffix(SUFFIX)
