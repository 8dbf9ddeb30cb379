"""What the process knows about the places where calls go: circuits, cooldowns, budgets, slots.

The router's lock guards all of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import CircuitOpen, OllamaBridgeError, QuotaExhausted, RateLimited
from .breaker import Breaker
from .limiter import Limiter
from .retry import RetryBudget

if TYPE_CHECKING:
    from collections.abc import Callable

    from .events import Event
    from .types import Endpoint, Target

_MOST_MODELS = 256
_PAUSING = (429, 503)  # the statuses that may ask the whole endpoint for a pause


class ModelPlace:
    """What the process knows about one model at one endpoint."""

    __slots__ = ("breaker", "limiter")

    def __init__(self, breaker: Breaker, limiter: Limiter) -> None:
        self.breaker = breaker
        self.limiter = limiter

    @property
    def is_idle(self) -> bool:
        """Whether little is lost with it."""
        limiter = self.limiter
        return self.breaker.is_quiet and not limiter.in_flight and not limiter.waiting


class Place:
    """What the process knows about one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        random: Callable[[], float],
        report: Callable[[Event], None],
        moved: Callable[[Breaker], None],
    ) -> None:
        self.endpoint = endpoint
        self.breaker = Breaker(endpoint.name, endpoint.breaker, random, report, moved)
        self.models: dict[str, ModelPlace] = {}
        self.budget = RetryBudget()
        self.cooldown_until = 0.0
        self._cooldown_error: type[RateLimited] = RateLimited
        self._random = random
        self._report = report
        self._moved = moved

    def model(self, name: str) -> ModelPlace:
        """Return what is known about a model; beginning with nothing."""
        return self.models.get(name) or self.begin(name)

    def begin(self, name: str) -> ModelPlace:
        """Begin to know a model; the oldest idle ones may be forgotten for it."""
        self._forget_models()
        circuit = f"{self.endpoint.name}/{name}"
        breaker = Breaker(circuit, self.endpoint.breaker, self._random, self._report, self._moved)
        breaker.begin_in(self.breaker.mode)
        self.models[name] = found = ModelPlace(breaker, self._limiter())
        return found

    def cool_down(self, error: OllamaBridgeError, now: float) -> None:
        """Heed a 429 or 503 that asks for a pause; a later, shorter one does not shorten it."""
        if error.status not in _PAUSING or not error.retry_after:
            return
        if now + error.retry_after > self.cooldown_until:
            self.cooldown_until = now + error.retry_after
            quota = isinstance(error, QuotaExhausted)
            self._cooldown_error = QuotaExhausted if quota else RateLimited

    def refuse_cooling(self, target: Target, now: float) -> None:
        """Refuse a call while the endpoint cools down.

        Raises:
            RateLimited, QuotaExhausted: with the seconds until a try makes sense.
        """
        left = self.cooldown_until - now
        if left > 0:
            raise self._cooldown_error(
                f"The server at {self.endpoint.base_url} asked for a pause. "
                f"Next try in {math.ceil(left)} s",
                endpoint=target.endpoint.name,
                model=target.model,
                retry_after=left,
            )

    def after_fork(self) -> None:
        """In a forked child nothing is in flight, and a probe is the parent's."""
        self.breaker.forget_probe()
        for found in self.models.values():
            found.breaker.forget_probe()
            found.limiter = self._limiter()

    def _limiter(self) -> Limiter:
        return Limiter(self.endpoint.max_concurrency, self.endpoint.max_waiting)

    def _forget_models(self) -> None:
        """Bound the memory of names that may come from visitors: drop the oldest idle circuits."""
        if len(self.models) >= _MOST_MODELS:
            idle = [
                name
                for name, found in self.models.items()
                if found.is_idle
                and found.breaker.mode is self.breaker.mode
                and name != self.endpoint.model
            ]
            for name in idle[: _MOST_MODELS // 2]:
                del self.models[name]


def refuse_open(target: Target, circuits: tuple[Breaker, Breaker], now: float) -> None:
    """Refuse a call where a circuit does not admit it.

    Raises:
        CircuitOpen: with the longest of the waits, None where an operator forced it open.
    """
    waits = [found.retry_after(now) for found in circuits if not found.admits(now)]
    if not waits:
        return
    known = [wait for wait in waits if wait is not None]
    after = max(known) if len(known) == len(waits) else None
    raise CircuitOpen(
        refusal_sentence(after),
        endpoint=target.endpoint.name,
        model=target.model,
        retry_after=after,
    )


def refusal_sentence(seconds: float | None) -> str:
    """Say that a circuit is open; ``seconds`` until the next try, None for an operator's will."""
    when = "An operator has opened it" if seconds is None else f"Next try in {math.ceil(seconds)} s"
    return f"Circuit breaker is OPEN - service unavailable. {when}"
