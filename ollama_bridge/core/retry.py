"""When to repeat, how long to wait, and when the repeats of all calls together are enough."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal

from ..errors import (
    ConnectionFailed,
    ContextTooLong,
    OllamaBridgeError,
    QuotaExhausted,
    RequestRejected,
    Timeout,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# An allowance comes back within a month, and no typo may park an endpoint for ever.
LONGEST_RETRY_AFTER = 31 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how fast a call is repeated at one endpoint. Times are in seconds.

    Where a call may go elsewhere too, it does so after ``retries_before_failover`` of them.
    """

    max_retries: int = 3
    retries_before_failover: int = 0
    backoff: Literal["exponential", "fixed"] = "exponential"
    initial_delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 8.0
    jitter: Literal["full", "none"] = "full"
    fixed_delay: float = 10.0
    statuses: frozenset[int] = frozenset({429, 500, 502, 503, 504})

    @property
    def at_once(self) -> int:
        """Repeats at an endpoint before a call goes elsewhere."""
        return min(self.retries_before_failover, self.max_retries)

    def delay(self, retry: int, uniform: Callable[[float, float], float]) -> float:
        """Return the wait before the ``retry``-th repeat (from 1): random within [0, max_delay].

        Exponential backoff with full jitter: Marc Brooker, "Exponential Backoff And Jitter",
        AWS Architecture Blog, 2015. A fixed delay is meant literally and has no jitter.
        """
        if self.backoff == "fixed":
            return self.fixed_delay
        try:
            grown = self.initial_delay * self.factor ** (retry - 1)
        except OverflowError:
            grown = self.max_delay
        cap = min(self.max_delay, grown)
        return uniform(0.0, cap) if self.jitter == "full" else cap

    def repeats(self, error: OllamaBridgeError) -> bool:
        """Tell whether this failure is worth another request to the same endpoint.

        A generation that timed out is not: the server may still be at work on it.
        """
        match error:
            case RequestRejected() | QuotaExhausted() | ContextTooLong():
                return False
            case ConnectionFailed():
                return error.retryable
            case Timeout():
                return error.phase == "connect"
            case _:
                return error.status in self.statuses


class RetryBudget:
    """Tokens that bound the repeats of all calls to one endpoint together.

    Each first attempt earns ``EARNED``, each repeat costs 1, and a call that succeeds in the end
    gives back what its repeats cost. So without success, repeats <= ``CAPACITY`` + ``EARNED`` x
    first attempts, and a dead server is not hammered (token bucket as in gRPC A6 and Finagle).
    """

    CAPACITY = 100.0
    EARNED = 0.2

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = self.CAPACITY

    def earn(self) -> None:
        if self.tokens < self.CAPACITY:
            self._add(self.EARNED)

    def spend(self) -> bool:
        """Take a token for one repeat; False where none is left."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    def refund(self, repeats: int) -> None:
        self._add(repeats)

    def _add(self, tokens: float) -> None:
        self.tokens = min(self.CAPACITY, self.tokens + tokens)


def parse_retry_after(value: str | None, *, wall: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, or None where it makes no sense.

    Both forms of RFC 9110, section 10.2.3: seconds, or an HTTP date compared with ``wall``.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:  # the old forms name no zone, and mean UTC
            moment = moment.replace(tzinfo=UTC)
        return min(max(0.0, moment.timestamp() - wall), LONGEST_RETRY_AFTER)
    except (ValueError, OverflowError):
        return None
