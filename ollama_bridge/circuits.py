"""Circuit breakers as an operator's code sees and moves them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from .core.breaker import Mode
from .core.deadline import Deadline
from .core.outcome import Blame
from .core.visit import Visit, riding
from .errors import OllamaBridgeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from .core.routing import CircuitFacts, Router
    from .core.types import Target

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFacts:
    """An endpoint of the settings, without its key.

    Attributes:
        name: as in ``circuit_breakers``.
        url: its address; settings allow no user name and no password there.
        model: the model that is asked unless a call names another.
        cooldown: seconds for which the server asked to be left alone, 0 where it did not.
    """

    name: str
    url: str
    model: str
    cooldown: float


class CircuitBreaker:
    """A circuit by its name, or without a name the worse of a target's two. Reading never moves it.

    Attributes:
        state: "closed", "open" or "half_open"; an open circuit stays so until a call probes it.
        mode: "auto", "forced_open" or "disabled".
        failures: failed visits in a row.
        retry_after: seconds until a call makes sense, None where it does now or nobody knows.
        generation: counts transitions, resets and changes of mode.
        last_error: code of the last failure, "" if there was none.
    """

    def __init__(self, router: Callable[[], Router], target: Target, name: str = "") -> None:
        self._current = router
        self._target = target
        self._name = name

    def __repr__(self) -> str:
        facts = self._facts()
        return f"<CircuitBreaker {facts.name} {facts.state} ({facts.mode})>"

    @property
    def state(self) -> str:
        return self._facts().state.value

    @property
    def mode(self) -> str:
        return self._facts().mode.value

    @property
    def failures(self) -> int:
        return self._facts().failures

    @property
    def retry_after(self) -> float | None:
        return self._facts().retry_after

    @property
    def generation(self) -> int:
        return self._facts().generation

    @property
    def last_error(self) -> str:
        return self._facts().last_error

    def reset(self) -> None:
        """Close the circuit and return to "auto"; an endpoint's takes its models' along."""
        self._router.reset(self._moved)

    def force_open(self) -> None:
        """Refuse all calls until ``reset``."""
        self._router.set_mode(self._moved, Mode.FORCED_OPEN)

    def disable(self) -> None:
        """Let all calls through and record nothing, until ``reset``."""
        self._router.set_mode(self._moved, Mode.DISABLED)

    def call(self, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function of your own under this circuit.

        Any ``Exception`` of it is a failure, but errors of the bridge count as they do in a call,
        and calls of the bridge inside the function count with it, not twice. ``chat()`` has the
        circuit built in and needs no ``call``.

        Raises:
            CircuitOpen: the function was not called.
        """
        with self._riding() as visit:
            try:
                return func(*args, **kwargs)
            except Exception as exc:
                self._count(visit, exc)
                raise

    async def acall(self, func: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do as ``call`` does, with an async function."""
        with self._riding() as visit:
            try:
                return await func(*args, **kwargs)
            except Exception as exc:
                self._count(visit, exc)
                raise

    @contextmanager
    def _riding(self) -> Iterator[Visit]:
        now = self._router.clock.monotonic()
        deadline = Deadline.after(self._target.endpoint.timeout, now=now, usual=0)
        with Visit(self._router, self._target, deadline, slotted=False) as visit:
            token = riding.set(visit)
            try:
                yield visit
            finally:
                riding.reset(token)

    def _count(self, visit: Visit, error: Exception) -> None:
        if not isinstance(error, OllamaBridgeError):
            whom = Blame.MODEL if "/" in self._name else Blame.ENDPOINT
            visit.fail(whom, type(error).__name__)

    def _facts(self) -> CircuitFacts:
        return self._router.facts(self._name) if self._name else self._router.worse(self._target)

    @property
    def _moved(self) -> str:
        return self._name or self._target.endpoint.name

    @property
    def _router(self) -> Router:
        """The router of now: a change of settings makes another."""
        return self._current()


def breaker_of(router: Callable[[], Router]) -> CircuitBreaker:
    """Return the circuit breaker of the default target: the worse of its two circuits."""
    return CircuitBreaker(router, router().default)


def breakers_of(router: Callable[[], Router]) -> dict[str, CircuitBreaker]:
    """Return all circuit breakers by name: "endpoint" and, once called, "endpoint/model"."""
    named = router().named()
    return {name: CircuitBreaker(router, target, name) for name, target in named.items()}


def endpoints_of(router: Router) -> dict[str, EndpointFacts]:
    """Return all endpoints by name, in the order of the settings."""
    return {
        name: EndpointFacts(
            name=name,
            url=target.endpoint.base_url,
            model=target.model,
            cooldown=router.cooldown(target.endpoint),
        )
        for name, target in router.named().items()
        if "/" not in name
    }
