"""What a closed circuit costs a call that succeeds."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Final

from ollama_bridge import OllamaClient
from ollama_bridge.conf import Settings
from ollama_bridge.core.breaker import Breaker, BreakerPolicy
from ollama_bridge.core.deadline import Deadline
from ollama_bridge.core.visit import Visit
from ollama_bridge.engine import Engine

from .. import peers
from ..contest import Benchmark, Contestant, Unit
from ..figures import Goal
from ..peers import invited
from ..rounds import mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ollama_bridge.core.events import Event
    from ollama_bridge.core.router import Router

_PATIENCE: Final = 60.0


@contextmanager
def _gather(calls: int) -> Iterator[Sequence[Contestant]]:
    def turn(call: Callable[[], object]) -> Callable[[], float]:
        return partial(mean, call, calls)

    router = Engine(Settings.build()).router
    with OllamaClient() as client:
        call = partial(client.circuit_breaker.call, _nothing)
        yield [
            Contestant(key="ours", name="ollama_bridge, a visit", turn=turn(_visit(router))),
            Contestant(key="bare", name="… its two circuits alone", turn=turn(_circuits())),
            Contestant(key="call", name="… circuit_breaker.call()", turn=turn(call)),
            invited("pybreaker", "pybreaker", "pybreaker", lambda: turn(_pybreaker())),
            invited("purgatory", "purgatory", "purgatory", lambda: turn(_purgatory())),
        ]


def _nothing() -> None:
    """What is called under a circuit."""


def _ignore(_: Event) -> None:
    """Nobody is told: these circuits stay closed."""


def _visit(router: Router) -> Callable[[], None]:
    """All that a call does around its attempts: cooldown, circuits, slot, budget, outcome."""
    target = router.default
    now = router.clock.monotonic()
    deadline = Deadline.after(_PATIENCE, now=now, usual=_PATIENCE)

    def call() -> None:
        with Visit(router, target, deadline):  # with a free slot come the permits
            _nothing()

    return call


def _circuits() -> Callable[[], None]:
    """The least of it, as a ruler: two circuits without the lock and all the rest."""
    endpoint, model = (Breaker(name, BreakerPolicy(), random, _ignore) for name in ("a", "a/b"))

    def call() -> None:
        now = monotonic()
        of_endpoint, of_model = endpoint.admit(now, _PATIENCE), model.admit(now, _PATIENCE)
        endpoint.succeed(of_endpoint, now)
        model.succeed(of_model, now)

    return call


def _pybreaker() -> Callable[[], object]:
    return partial(peers.load("pybreaker").CircuitBreaker().call, _nothing)


def _purgatory() -> Callable[[], None]:
    """As its documentation has it: the circuit is looked up by its name for each call."""
    factory = peers.load("purgatory").SyncCircuitBreakerFactory()

    def call() -> None:
        with factory.get_breaker("ollama"):
            _nothing()

    return call


BENCHMARK: Final = Benchmark(
    name="breaker",
    what=(
        "A closed circuit: admission and outcome of a call that does nothing. A visit also holds "
        "a slot, a retry budget and the circuits of endpoint and model."
    ),
    unit=Unit.SECONDS,
    rounds=20,
    calls=3000,
    gather=_gather,
    peer="pybreaker",
    goal=Goal(of="ours", limit=3e-6),
)
