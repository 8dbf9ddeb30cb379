"""Calls that are spread over endpoints by a strategy, in virtual time."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, quantiles
from typing import Any, NamedTuple

from ollama_bridge.core.strategies import STRATEGIES, Candidate, Draw, Strategy
from ollama_bridge.core.types import Target

from .virtual import endpoint

SEED = 20_240_229
KEYS = [f"user-{number}" for number in range(10_000)]


def candidate(name: str, **facts: Any) -> Candidate:
    """Return a place that is idle and warm, if nothing else is said."""
    usual = {"weight": 1.0, "ramp": 1.0, "load": 0, "is_warm": True, "price": 0.0}
    return Candidate(Target(endpoint(name), "m"), **{**usual, **facts})


def three(**facts: Sequence[Any]) -> list[Candidate]:
    """Return the places a, b and c; a fact is given for each of them."""
    each = zip(*facts.values(), strict=True) if facts else [()] * 3
    return [
        candidate(name, **dict(zip(facts, values, strict=True)))
        for name, values in zip("abc", each, strict=True)
    ]


def draw(turn: int = 0, key: str = "", uniform: Callable[[], float] | None = None) -> Draw:
    return Draw(uniform or random.Random(SEED).random, turn, key)


def names(candidates: Iterable[Candidate]) -> str:
    return "".join(found.target.endpoint.name for found in candidates)


def orders(
    strategy: Strategy, candidates: Sequence[Candidate], calls: int, *, keyed: bool = False
) -> list[str]:
    """Return the order of the places in each of so many calls, each with another key if any."""
    uniform = random.Random(SEED).random
    keys = (f"user-{turn}" if keyed else "" for turn in range(calls))
    return [names(strategy(candidates, Draw(uniform, turn, key))) for turn, key in enumerate(keys)]


def shares(found: Iterable[str]) -> Mapping[str, float]:
    """Return in which part of the calls each place was the first."""
    counted = Counter(order[0] for order in found)
    return {name: number / counted.total() for name, number in counted.items()}


def homes(candidates: Sequence[Candidate], keys: Iterable[str] = KEYS) -> Mapping[str, str]:
    """Return the place of each key by the strategy ``weighted``, which leaves none to chance."""
    weighted = STRATEGIES["weighted"]
    return {key: names(weighted(candidates, draw(0, key, _no_chance)))[0] for key in keys}


def _no_chance() -> float:
    raise AssertionError("a key's place is no matter of chance")


class Served(NamedTuple):
    """One call: where it was served, and how many seconds it took with its wait."""

    name: str
    seconds: float


def serve(
    strategy: Strategy,
    candidates: Sequence[Candidate],
    *,
    speeds: Sequence[float],
    rate: float,
    calls: int,
) -> list[Served]:
    """Let calls arrive as a Poisson process at servers that do one at a time, first come first.

    ``rate`` is in calls a second, ``speeds`` in mean calls a second. Arrivals and lengths are the
    same for every strategy. What a strategy is told of the load is true at the moment.
    """
    world, uniform = random.Random(SEED), random.Random(SEED + 1).random
    server_of = {found.target: number for number, found in enumerate(candidates)}
    ends: list[deque[float]] = [deque() for _ in candidates]
    served: list[Served] = []
    now = 0.0
    for turn in range(calls):
        now += world.expovariate(rate)
        work = world.expovariate(1.0)
        for queue in ends:
            while queue and queue[0] <= now:
                queue.popleft()
        ready = [
            found._replace(load=len(queue)) for found, queue in zip(candidates, ends, strict=True)
        ]
        first = strategy(ready, Draw(uniform, turn, ""))[0].target
        server = server_of[first]
        queue = ends[server]
        queue.append((queue[-1] if queue else now) + work / speeds[server])
        served.append(Served(first.endpoint.name, queue[-1] - now))
    return served


def slowness(served: Iterable[Served]) -> tuple[float, float]:
    """Return the mean and the 95th percentile of the seconds."""
    seconds = [call.seconds for call in served]
    return mean(seconds), quantiles(seconds, n=20)[-1]


def fewest_of(served: Sequence[Served], window: int = 500) -> int:
    """Return the fewest calls that any of a, b and c had in any window of so many calls."""
    windows = [served[begin : begin + window] for begin in range(0, len(served), window)]
    counts = [Counter(call.name for call in part) for part in windows]
    return min(count[name] for count in counts for name in "abc")
