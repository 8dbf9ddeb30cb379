"""What the process knows about the places where calls go: circuits, cooldowns, budgets, slots.

The router's lock guards all of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import CircuitOpen, OllamaBridgeError, QuotaExhausted
from .breaker import Breaker
from .cooldown import Cooldown
from .limiter import Limiter
from .quota import Allowance
from .retry import RetryBudget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..errors import RateLimited
    from .events import Event
    from .types import Endpoint, Target

_MOST_MODELS = 256
A_DAY = 86_400.0
TOO_MANY, UNAVAILABLE = 429, 503
PAUSING = TOO_MANY, UNAVAILABLE  # the statuses that may ask the whole endpoint for a pause


class ModelPlace:
    """What the process knows about one model at one endpoint.

    Attributes:
        is_warm: whether it is in the server's memory: as the server said, or as it must be since it
            was asked for.
        missing_until: until then it is taken not to be there, on the monotonic clock.
    """

    __slots__ = ("breaker", "is_warm", "limiter", "missing_until", "was_told")

    def __init__(self, breaker: Breaker, limiter: Limiter) -> None:
        self.breaker = breaker
        self.limiter = limiter
        self.is_warm = False
        self.missing_until = 0.0
        self.was_told = False  # that it is missing

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
        self.cooldown = Cooldown(endpoint.name, random, report, moved)
        self.models: dict[str, ModelPlace] = {}
        self.budget = RetryBudget()
        self.allowance = Allowance(endpoint.quota.warning)
        self.refused_until = 0.0  # since it did not accept the key
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

    def circuits(self, found: ModelPlace) -> tuple[Breaker, ...]:
        """Return what a visit needs permits of: the endpoint's, the model's, and a cooldown's."""
        if self.cooldown.passes:
            return self.breaker, found.breaker
        return self.breaker, found.breaker, self.cooldown

    def is_ready(self, found: ModelPlace | None, now: float) -> bool:
        """Tell whether a visit would be admitted now; None is a model that was never called."""
        return (
            (self.breaker.passes or self.breaker.admits(now))
            and (self.cooldown.passes or self.cooldown.admits(now))
            and (found is None or found.breaker.passes or found.breaker.admits(now))
        )

    def pause_after(self, error: OllamaBridgeError, wall: float) -> float:
        """Return for how many seconds to leave the endpoint alone for this error, mostly 0."""
        if isinstance(error, QuotaExhausted):
            return error.retry_after or self._until_reset(wall) or self.endpoint.cooldown_seconds
        if error.status not in PAUSING:
            return 0.0
        seconds = error.retry_after or 0.0
        # A server that fails may be well sooner than it thinks; one that limits us knows, but more
        # than a day is no throttling any more.
        longest = self.endpoint.breaker.recovery_timeout
        return min(seconds, A_DAY if error.status == TOO_MANY else longest)

    def _until_reset(self, wall: float) -> float:
        known = self.allowance.current(wall)
        if known is None or known.resets_at is None or not known.is_used_up:
            return 0.0  # it must be another allowance that is used up
        return max(0.0, known.resets_at - wall)

    def refuse_cooling(self, target: Target, now: float) -> None:
        """Refuse a call while the endpoint cools down.

        Raises:
            RateLimited, QuotaExhausted: with the seconds until a try makes sense.
        """
        self.cooldown.lapse(now)
        if not self.cooldown.admits(now):
            raise self.refusal(target, self.cooldown.left(now))

    def refusal(self, target: Target, seconds: float) -> RateLimited:
        """Return the error of calls that come while the endpoint cools down."""
        return self.cooldown.error(
            cooling_sentence(self.endpoint, seconds, is_of_quota=self.cooldown.is_of_quota),
            endpoint=target.endpoint.name,
            model=target.model,
            retry_after=seconds,
        )

    def after_fork(self) -> None:
        """In a forked child nothing is in flight, and a probe is the parent's."""
        self.breaker.forget_probe()
        self.cooldown.forget_probe()
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
                and name != self.endpoint.name_of(self.endpoint.model)
            ]
            for name in idle[: _MOST_MODELS // 2]:
                del self.models[name]


def refuse_open(target: Target, circuits: Sequence[Breaker], now: float) -> None:
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


def cooling_sentence(endpoint: Endpoint, seconds: float, *, is_of_quota: bool) -> str:
    """Say why an endpoint is left alone, and for how many seconds."""
    why = "has used up its allowance" if is_of_quota else "asked for a pause"
    who = "The account at" if is_of_quota else "The server at"
    return f"{who} {endpoint.base_url} {why}. Next try in {math.ceil(seconds)} s"


def refusal_sentence(seconds: float | None) -> str:
    """Say that a circuit is open; ``seconds`` until the next try, None for an operator's will."""
    when = "An operator has opened it" if seconds is None else f"Next try in {math.ceil(seconds)} s"
    return f"Circuit breaker is OPEN - service unavailable. {when}"
