"""How soon an open circuit says no."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from ollama_bridge import CircuitOpen, ConnectionFailed, OllamaClient

from .. import askers, peers, refused
from ..contest import Benchmark, CannotRunError, Contestant, Unit
from ..figures import Goal
from ..peers import invited
from ..rounds import mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@contextmanager
def _gather(calls: int) -> Iterator[Sequence[Contestant]]:
    with (
        refused.port() as url,
        OllamaClient(
            base_url=url,
            max_retries=0,
            failure_threshold=refused.FAILURES,
            open_seconds=refused.LONG,
            recovery_timeout=refused.LONG,
        ) as client,
    ):
        _open(client)
        ours = partial(mean, _refused(client.chat, CircuitOpen), calls)
        yield [
            Contestant(key="ours", name="ollama_bridge, chat()", turn=ours),
            invited(
                "pybreaker", "pybreaker", "pybreaker", lambda: partial(mean, _pybreaker(), calls)
            ),
            invited("purgatory", "purgatory", "purgatory", lambda: partial(_purgatory, calls)),
        ]


def _open(client: OllamaClient) -> None:
    for _ in range(refused.FAILURES):
        with suppress(ConnectionFailed):
            client.chat(askers.QUESTION)
    if client.circuit_breaker.state != "open":
        raise CannotRunError("the circuit did not open")


def _refused(ask: Callable[[str], object], refusal: type[Exception]) -> Callable[[], None]:
    def call() -> None:
        try:
            ask(askers.QUESTION)
        except refusal:
            return
        raise CannotRunError("the open circuit let a call through")

    return call


def _fail(_: str) -> None:
    raise ConnectionError


def _pybreaker() -> Callable[[], None]:
    module = peers.load("pybreaker")
    breaker = module.CircuitBreaker(fail_max=refused.FAILURES, reset_timeout=refused.LONG)
    for _ in range(refused.FAILURES):
        with suppress(ConnectionError, module.CircuitBreakerError):
            breaker.call(_fail, "")
    return _refused(partial(breaker.call, _fail), module.CircuitBreakerError)


def _purgatory(calls: int) -> float:
    """Play a turn on a new circuit: it raises one exception again and again, which grows."""
    domain = peers.load("purgatory.domain.model")
    factory = peers.load("purgatory").SyncCircuitBreakerFactory(refused.FAILURES, refused.LONG)

    def ask(question: str) -> None:
        with factory.get_breaker("ollama"):
            _fail(question)

    for _ in range(refused.FAILURES):
        with suppress(ConnectionError):
            ask("")
    return mean(_refused(ask, domain.OpenedState), calls)


BENCHMARK: Final = Benchmark(
    name="refusal",
    what=(
        "A call that an open circuit refuses: chat() until CircuitOpen is caught, beside a bare "
        "circuit. Real failures opened it."
    ),
    unit=Unit.SECONDS,
    rounds=20,
    calls=2000,
    gather=_gather,
    peer="pybreaker",
    goal=Goal(of="ours", limit=10e-6),
)
