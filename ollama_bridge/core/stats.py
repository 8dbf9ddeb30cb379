"""Figures of the calls of a process: how many, how fast, how many tokens.

Latencies are counted in buckets that grow by 4.4 %, so that memory stays small and percentiles are
true to 2.2 %; minimum, maximum and mean are exact.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

from .events import (
    AttemptRepeated,
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallFailedOver,
    CallRefused,
    CallRemembered,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .events import Event

Where: TypeAlias = tuple[str, str]
"""An endpoint, and a model there."""
Load: TypeAlias = tuple[int, int]
"""Calls in flight, and calls that wait."""

BUCKETS_PER_OCTAVE = 16
PERCENTILES = (50, 95, 99)
OTHER = "(other)"
_MOST_MODELS = 256
_WITH_ERROR = (CallRefused, CallFailed, CallFailedOver, AttemptRepeated)
_PLACED = (CallAnswered, CallRemembered, CallCancelled)
_SHORTEST = 1e-6


class Latencies:
    """Durations in seconds, as a histogram."""

    __slots__ = ("buckets", "count", "longest", "shortest", "total")

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()
        self.count = 0
        self.total = 0.0
        self.shortest = math.inf
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        seconds = max(seconds, _SHORTEST)
        self.buckets[math.floor(math.log2(seconds) * BUCKETS_PER_OCTAVE)] += 1
        self.count += 1
        self.total += seconds
        self.shortest = min(self.shortest, seconds)
        self.longest = max(self.longest, seconds)

    def merge(self, other: Latencies) -> None:
        self.buckets.update(other.buckets)
        self.count += other.count
        self.total += other.total
        self.shortest = min(self.shortest, other.shortest)
        self.longest = max(self.longest, other.longest)

    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    def percentile(self, percent: float) -> float | None:
        """Return the duration that so many percent do not exceed (nearest rank)."""
        rank = math.ceil(self.count * percent / 100)
        passed = 0
        for bucket in sorted(self.buckets):
            passed += self.buckets[bucket]
            if passed >= rank:
                middle = math.exp2((bucket + 0.5) / BUCKETS_PER_OCTAVE)
                return min(max(middle, self.shortest), self.longest)
        return None


class Tally:
    """What came of some calls."""

    __slots__ = (
        "answered",
        "cached",
        "cancelled",
        "completion_tokens",
        "errors",
        "failovers",
        "in_flight",
        "latencies",
        "prompt_tokens",
        "refused",
        "retries",
        "waiting",
    )

    def __init__(self) -> None:
        self.answered = 0
        self.cached = 0
        self.refused = 0
        self.cancelled = 0
        self.retries = 0
        self.failovers = 0
        self.errors: Counter[str] = Counter()
        self.latencies = Latencies()
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.in_flight = 0
        self.waiting = 0

    def note(
        self,
        event: CallAnswered
        | CallRemembered
        | AttemptRepeated
        | CallFailed
        | CallFailedOver
        | CallRefused
        | CallCancelled,
    ) -> None:
        kind = type(event)
        if isinstance(event, CallAnswered):
            self.answered += 1
            self.latencies.add(event.seconds)
            self.prompt_tokens += event.usage.prompt_tokens
            self.completion_tokens += event.usage.completion_tokens
        elif isinstance(event, CallRemembered):
            self.answered += 1
            self.cached += 1
            self.latencies.add(event.seconds)
        elif kind is AttemptRepeated:
            self.retries += 1
        elif isinstance(event, CallFailedOver):
            self.failovers += 1
        elif isinstance(event, CallCancelled):
            self.cancelled += 1
        else:
            self.errors[event.error.code] += 1
            self.refused += kind is CallRefused

    def merge(self, other: Tally) -> None:
        self.answered += other.answered
        self.cached += other.cached
        self.refused += other.refused
        self.cancelled += other.cancelled
        self.retries += other.retries
        self.failovers += other.failovers
        self.errors.update(other.errors)
        self.latencies.merge(other.latencies)
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.in_flight += other.in_flight
        self.waiting += other.waiting

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as ``get_stats()`` has them."""
        failed = self.errors.total()
        total = self.answered + failed
        slowness = self.latencies
        return {
            "total_requests": total,
            "successful_requests": self.answered,
            "cached_requests": self.cached,
            "failed_requests": failed,
            "refused_requests": self.refused,
            "cancelled_requests": self.cancelled,
            "retries": self.retries,
            "failovers": self.failovers,
            "success_rate": 100 * self.answered / total if total else None,
            "avg_latency_ms": _milliseconds(slowness.mean()),
            **{
                f"p{percent}_latency_ms": _milliseconds(slowness.percentile(percent))
                for percent in PERCENTILES
            },
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "errors": dict(self.errors),
            "in_flight": self.in_flight,
            "waiting": self.waiting,
        }


class Stats:
    """Tallies by endpoint and model, fed with events. Thread-safe."""

    def __init__(self) -> None:
        # Reentrant, because the collector may end an abandoned stream while a tally is kept.
        self._lock = threading.RLock()
        self._tallies: dict[Where, Tally] = {}

    def note(self, event: Event) -> None:
        if isinstance(event, _PLACED):
            where = event.endpoint, event.model
        elif isinstance(event, _WITH_ERROR):
            where = event.error.endpoint, event.error.model
        else:
            return
        with self._lock:
            tally = self._tallies.get(where) or self._begin(*where)
            tally.note(event)

    def to_dict(self, load: Mapping[Where, Load]) -> dict[str, Any]:
        """Return all figures, those of each endpoint, and of each model there.

        ``load`` is what goes on at this moment, by endpoint and model.
        """
        with self._lock:
            tallies = {where: _copy(tally) for where, tally in self._tallies.items()}
        for where, (in_flight, waiting) in load.items():
            tally = tallies.setdefault(where, Tally())
            tally.in_flight, tally.waiting = in_flight, waiting
        names = {endpoint for endpoint, _ in tallies if endpoint}
        endpoints = {name: _endpoint(name, tallies) for name in sorted(names)}
        return {**_sum(tallies.values()).to_dict(), "endpoints": endpoints}

    def after_fork(self) -> None:
        """A forked child counts its own calls."""
        self._lock = threading.RLock()
        self._tallies = {}

    def _begin(self, endpoint: str, model: str) -> Tally:
        """Bound the memory of names that may come from visitors: the rest counts as one."""
        if len(self._tallies) >= _MOST_MODELS:
            model = OTHER
        return self._tallies.setdefault((endpoint, model), Tally())


def _endpoint(name: str, tallies: Mapping[Where, Tally]) -> dict[str, Any]:
    models = {model: tally for (endpoint, model), tally in tallies.items() if endpoint == name}
    of_each = {model: tally.to_dict() for model, tally in models.items()}
    return {**_sum(models.values()).to_dict(), "models": of_each}


def _sum(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.merge(tally)
    return total


def _copy(tally: Tally) -> Tally:
    return _sum([tally])


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
