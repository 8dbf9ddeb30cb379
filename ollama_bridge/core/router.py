"""Where calls go, and what people want of circuits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .breaker import Breaker, Mode, State
from .events import CircuitFollowed, CircuitOpened, CooldownBegan, ModelSkipped, StrategyFailed
from .knowledge import Knowledge
from .routing import as_listed, order, stand
from .sharing import wanted
from .strategies import Draw
from .types import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .cooldown import Cooldown
    from .deadline import Clock
    from .events import Event, Observer
    from .places import ModelPlace
    from .routing import Plan, Route, Standing, Stop
    from .sharing import Home
    from .trip import Call

_QUIET = 60.0  # seconds between two complaints of one strategy
_SEVERITY = (State.CLOSED, State.HALF_OPEN, State.OPEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitFacts:
    """A circuit as it was when asked. ``retry_after`` is in seconds, None where not known."""

    name: str
    state: State
    mode: Mode
    failures: int
    generation: int
    retry_after: float | None
    last_error: str


class Router(Knowledge):
    """All endpoints of the process, the routes to them, and their circuits. Thread-safe.

    Attributes:
        scout: is called with the name of each route that is taken, without the lock; or None.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        clock: Clock,
        random: Callable[[], float],
        observe: Observer,
        home: Home,
    ) -> None:
        super().__init__(plan, clock=clock, random=random, observe=observe, home=home)
        self._turns = dict.fromkeys(plan.routes, 0)
        self._told_again: dict[str, float] = {}  # when a route's strategy may be complained of
        self.scout: Callable[[str], None] | None = None

    @property
    def default(self) -> Target:
        """Where a call goes that asks for nothing else."""
        return self.plan.default.targets[0]

    def targets(self, call: Call) -> Sequence[Target]:
        """Return the targets of a call, in the order in which they are tried."""
        route = self.plan.route(call.using)
        if self.scout is not None:
            self.scout(route.name)
        groups = route.groups(call.models)
        if len(groups) == 1 and len(groups[0]) == 1:
            return (groups[0][0].target,)
        with self.lock:
            turn = self._turns[route.name]
            self._turns[route.name] = turn + 1
        draw = Draw(self.random, turn, call.sticky_key)
        tried: list[Target] = []
        missing: list[Target] = []  # of all models, or the second would wait for the first
        for stops in groups:
            found = self._standing(route, stops)
            tried += self._ordered(route, found, draw)
            missing += found.missing
        every = tried + missing
        return [*dict.fromkeys(every)] if len(groups) > 1 else every

    def _ordered(self, route: Route, found: Standing, draw: Draw) -> Sequence[Target]:
        try:
            return order(route, found, draw)
        except Exception as error:  # noqa: BLE001  # a site's own: who is first is worth no answer
            now = self.clock.monotonic()
            if now >= self._told_again.get(route.name, -math.inf):
                self._told_again[route.name] = now + _QUIET
                self.observe(StrategyFailed(route.name, _told(error)))
            return as_listed(found)

    def _standing(self, route: Route, stops: Sequence[Stop]) -> Standing:
        with self.lock:
            found = stand(route, stops, self._places, self.clock.monotonic())
            for target in found.missing:
                self._skip(target)
        if found.missing:
            self.report()
        return found

    def _skip(self, target: Target) -> None:
        found = self.place(target.endpoint).model(target.model)
        if not found.was_told:
            found.was_told = True
            self.tell(ModelSkipped(target.endpoint.name, target.model, target.endpoint.is_cloud))

    def named(self) -> Mapping[str, Target]:
        """Return the name of every circuit, with a target that must pass it.

        The names are "endpoint" and, once a model was asked for, "endpoint/model".
        """
        with self.lock:
            targets: dict[str, Target] = {}
            for name, place in self._places.items():
                endpoint = place.endpoint
                targets[name] = Target(endpoint, endpoint.name_of(endpoint.model))
                for model in place.models:
                    targets[f"{name}/{model}"] = Target(endpoint, model)
            return targets

    def load(self) -> Mapping[tuple[str, str], tuple[int, int]]:
        """Return the calls in flight, and those that wait, by endpoint and model."""
        self.report()
        with self.lock:
            return {
                (name, model): (found.limiter.in_flight, found.limiter.waiting)
                for name, place in self._places.items()
                for model, found in place.models.items()
            }

    def facts(self, name: str) -> CircuitFacts:
        """Return how the circuit of this name is.

        Raises:
            KeyError: there is no such endpoint.
        """
        with self.lock:
            return _facts(self._under(name)[0], self.clock.monotonic())

    def worse(self, target: Target) -> CircuitFacts:
        """Return how the worse of a target's two circuits is, with the generations of both."""
        with self.lock:
            now = self.clock.monotonic()
            place = self.place(target.endpoint)
            both = place.breaker, place.model(target.model).breaker
            generation = sum(found.generation for found in both)
            return replace(_facts(max(both, key=_severity), now), generation=generation)

    def reset(self, name: str) -> None:
        """Return a circuit to ``auto`` and closed.

        An endpoint's takes those of its models along, and ends a cooldown.

        Raises:
            KeyError: there is no such endpoint.
        """
        with self.lock:
            if name in self._places:
                self._reset_cooldown(self._places[name].cooldown)
            self._want(name, Mode.AUTO)
        self.report()

    def set_mode(self, name: str, mode: Mode) -> None:
        """Lay a mode over a circuit; an endpoint's applies to those of its models too.

        Raises:
            KeyError: there is no such endpoint.
        """
        with self.lock:
            self._want(name, mode)
            if mode is Mode.FORCED_OPEN:
                self._send_away(name)
        self.report()

    def _react(self, event: Event) -> None:
        if isinstance(event, CircuitOpened | CircuitFollowed):
            self._send_away(event.circuit)
        elif isinstance(event, CooldownBegan):
            self._send_away(event.endpoint)

    def _send_away(self, circuit: str) -> None:
        """Let all who wait under a circuit look for themselves whether it still admits them."""
        for found in self._models_under(circuit):
            for ticket in found.limiter.dismiss():
                self.wake(ticket)

    def _models_under(self, name: str) -> Sequence[ModelPlace]:
        endpoint, slash, model = name.partition("/")
        place = self._places[endpoint]
        return [place.model(model)] if slash else [*place.models.values()]

    def _want(self, name: str, mode: Mode) -> None:
        will = wanted(mode, self.clock.monotonic())
        for found in self._under(name):
            self._do(will, found)

    def _reset_cooldown(self, cooldown: Cooldown) -> None:
        # Another process may have begun one that is not known here yet.
        if self.home.is_shared or not cooldown.passes:
            self._do(wanted(Mode.AUTO, self.clock.monotonic()), cooldown)

    def _do(self, will: Callable[[Breaker], None], found: Breaker) -> None:
        will(found)
        self.sharing.insist(found, will)

    def _under(self, name: str) -> Sequence[Breaker]:
        of_models = [found.breaker for found in self._models_under(name)]
        return of_models if "/" in name else [self._places[name].breaker, *of_models]


def _severity(found: Breaker) -> tuple[int, int]:
    return _SEVERITY.index(found.state), found.failures


def _told(error: Exception) -> str:
    """Say what failed and where, and not with which words: they may hold a caller's key."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = "" if frame is None else f" in {frame.tb_frame.f_code.co_name}, line {frame.tb_lineno}"
    return f"{type(error).__name__}{where}"


def _facts(found: Breaker, now: float) -> CircuitFacts:
    return CircuitFacts(
        name=found.name,
        state=found.state,
        mode=found.mode,
        failures=found.failures,
        generation=found.generation,
        retry_after=found.retry_after(now),
        last_error=found.last_error,
    )
