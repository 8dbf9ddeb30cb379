"""Circuits, cooldowns and routes, as an operator's code and the admin see and move them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from .core.breaker import Mode
from .core.cooldown import SUFFIX, Cooldown
from .core.deadline import Deadline
from .core.outcome import Blame
from .core.strategies import STRATEGIES
from .core.visit import Visit, riding
from .errors import OllamaBridgeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from .core.events import Observer
    from .core.quota import Quota
    from .core.router import CircuitFacts, Router
    from .core.routing import Route
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
        cooldown: seconds for which it is still left alone, 0 where it is not.
        cooldown_code: why: "quota_exhausted", or "rate_limited" and others where the server asked
            for a pause; "" where there is no cooldown. After an allowance was used up it stays
            until a call has tried whether it is back, also where ``cooldown`` is 0.
        quota: how much of its allowance is used up, None where nobody says.
        weight: its share of the calls of a route that goes by weights.
        is_cloud: whether it is Ollama's cloud.
        identity: a digest of the server and the account there.
    """

    name: str
    url: str
    model: str
    cooldown: float
    cooldown_code: str
    quota: Quota | None
    weight: float
    is_cloud: bool
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteFacts:
    """A route of the settings.

    Attributes:
        name: what ``using=`` names.
        strategy: as ``STRATEGY`` has it.
        targets: as "endpoint/model", with the endpoint's own name of the model.
        weights: of each target, in the same order.
        is_default: whether it serves calls that name none.
    """

    name: str
    strategy: str
    targets: tuple[str, ...]
    weights: tuple[float, ...]
    is_default: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CooldownFacts:
    """A cooldown as it was when asked.

    Attributes:
        seconds: until its end; 0 where it is over, or there is none.
        code: of the error that began it, "" where there is none.
        generation: counts what happened to it, in all processes that share it.
    """

    seconds: float
    code: str
    generation: int


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
            CircuitOpen, RateLimited, QuotaExhausted: the function was not called.
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
    quotas = router.quotas()
    facts: dict[str, EndpointFacts] = {}
    for found in router.plan.endpoints:
        cooldown = cooldown_of(router, found.name)
        facts[found.name] = EndpointFacts(
            name=found.name,
            url=found.base_url,
            model=found.name_of(found.model),
            cooldown=cooldown.seconds,
            cooldown_code=cooldown.code,
            quota=quotas[found.name],
            weight=found.weight,
            is_cloud=found.is_cloud,
            identity=found.identity,
        )
    return facts


def routes_of(router: Router) -> dict[str, RouteFacts]:
    """Return the routes of the settings by name; those of an endpoint to itself are none."""
    plan = router.plan
    names = {found.name for found in plan.endpoints}
    return {
        name: RouteFacts(
            name=name,
            strategy=_strategy_of(route),
            targets=tuple(target.name for target in route.targets),
            weights=tuple(stop.weight for stop in route.stops),
            is_default=route is plan.default,
        )
        for name, route in plan.routes.items()
        if name not in names or [target.endpoint.name for target in route.targets] != [name]
    }


def _strategy_of(route: Route) -> str:
    for name, strategy in STRATEGIES.items():
        if strategy is route.strategy:
            return name
    own = route.strategy
    return f"{own.__module__}.{getattr(own, '__qualname__', type(own).__qualname__)}"


def cooldown_of(router: Router, name: str) -> CooldownFacts:
    """Return how the cooldown of an endpoint is."""
    with router.lock:
        found = _cooldown(router, name)
        left = found.left(router.clock.monotonic())
        code = "" if found.passes else found.last_error
        return CooldownFacts(seconds=left, code=code, generation=found.generation)


def _cooldown(router: Router, name: str) -> Cooldown:
    """Return the cooldown of an endpoint, under the lock."""
    found = router.circuit(name + SUFFIX)
    if not isinstance(found, Cooldown):
        raise KeyError(name)
    return found


class Governed:
    """The endpoints of one running client, for what moves them besides its own calls.

    Nothing of it waits for anything, but ``wait``.

    Attributes:
        limits: the ``QUOTA_LIMIT`` of each endpoint that has one.
    """

    def __init__(
        self, router: Router, listeners: list[Observer], wait: Callable[[float], None]
    ) -> None:
        self._router = router
        self._listeners = listeners
        self.wait = wait  # so many seconds at most, until it is known what other processes know
        self.limits: Mapping[str, int] = {
            found.name: found.quota.limit
            for found in router.plan.endpoints
            if found.quota.limit is not None
        }

    def circuits(self) -> Mapping[str, CircuitBreaker]:
        """Return all circuit breakers by name."""
        return breakers_of(lambda: self._router)

    def endpoints(self) -> Mapping[str, EndpointFacts]:
        """Return all endpoints by name."""
        return endpoints_of(self._router)

    def cooldown(self, name: str) -> CooldownFacts:
        """Return how the cooldown of an endpoint is."""
        return cooldown_of(self._router, name)

    def cool_down(self, name: str, seconds: float, code: str) -> None:
        """Leave an endpoint alone, as the database tells."""
        self._router.cool_down(name, seconds, code)

    def end_cooldown(self, name: str) -> None:
        """End a cooldown, and leave the circuits as they are."""
        self._router.end_cooldown(name)

    def learn_quota(self, name: str, quota: Quota) -> None:
        """Take note of an endpoint's allowance."""
        self._router.learn_quota(name, quota)

    def listen(self, listener: Observer) -> None:
        """Tell a listener of every event from now on, in whatever thread it happens.

        It may be inside the collector, or under any lock: a listener only takes note.
        """
        self._listeners.append(listener)

    def ignore(self, listener: Observer) -> None:
        """Tell a listener nothing any more."""
        if listener in self._listeners:
            self._listeners.remove(listener)
