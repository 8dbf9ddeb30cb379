"""How a call finds its endpoint.

::

    using= -> route -> its targets, for each model that is asked for
           -> held back (circuit open, cooling down): first, since they refuse at once and say why
           -> ready: as the route's strategy orders them
           -> without the model, as far as is known: last

A call tries them in this order, see ``flow``. Names are resolved once, in ``Plan``; what is known
of the places is read anew for each call.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from .breaker import RAMP
from .strategies import Candidate, affine, failover
from .types import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .places import Place
    from .strategies import Draw, Strategy
    from .types import Endpoint


_MOST_MODELS: Final = 256


class Stop(NamedTuple):
    """A target on a route, and what the settings say of it."""

    target: Target
    weight: float
    price: float


class Route:
    """Several targets for one purpose.

    Args:
        targets: in the order of the settings.
        weights: of each target, more than 0; without them, those of the endpoints.
        affinity: whether places that have the model in memory come first; None lets the strategy
            see which do, and decide.
    """

    def __init__(
        self,
        name: str,
        targets: Iterable[Target],
        strategy: Strategy = failover,
        *,
        weights: Sequence[float] = (),
        affinity: bool | None = None,
    ) -> None:
        self.name = name
        self.targets = tuple(targets)
        self.strategy = strategy
        self.affinity = affinity
        own = weights or [target.endpoint.weight for target in self.targets]
        self.stops = tuple(map(_stop, self.targets, own))
        # Calls may name any model; those that are named often are the same few.
        self._stops_for = lru_cache(_MOST_MODELS)(self._stops_with)

    def groups(self, models: Sequence[str]) -> Sequence[Sequence[Stop]]:
        """Return the stops for each model in turn; no models mean each target's own."""
        return [self._stops_for(model) for model in models] if models else (self.stops,)

    def _stops_with(self, model: str) -> Sequence[Stop]:
        """Return each endpoint of the route once, with this model."""
        weights: dict[Endpoint, float] = {}
        for stop in self.stops:
            endpoint = stop.target.endpoint
            weights[endpoint] = weights.get(endpoint, 0.0) + stop.weight
        return [_stop(Target(each, each.name_of(model)), w) for each, w in weights.items()]


def _stop(target: Target, weight: float) -> Stop:
    return Stop(target, weight, target.endpoint.price_of(target.model))


class Plan(NamedTuple):
    """All endpoints, and the routes by name; each endpoint is a route to itself.

    ``default`` is the route of calls that name none. ``named`` has the targets of all routes that
    the settings name, and of endpoints that are on none of them.
    """

    endpoints: tuple[Endpoint, ...]
    routes: Mapping[str, Route]
    default: Route
    named: tuple[Target, ...]

    def route(self, using: str | None) -> Route:
        """Return the route of this name, None for the one of calls that name none."""
        return self.default if using is None else self.routes[using]

    def named_at(self, endpoint: Endpoint) -> Sequence[Target]:
        """Return what is named at an endpoint, its own model first."""
        own = endpoint.name_of(endpoint.model)
        found = [target for target in self.named if target.endpoint is endpoint]
        return sorted(found, key=lambda target: target.model != own)


def plan_of(endpoints: Iterable[Endpoint], routes: Iterable[Route] = (), default: str = "") -> Plan:
    """Return the plan; the default is the first route, else the first endpoint."""
    found = tuple(endpoints)
    named = {
        each.name: Route(each.name, [Target(each, each.name_of(each.model))]) for each in found
    }
    of_several = {route.name: route for route in routes}
    first = default or next(iter(of_several or named))
    every = {**named, **of_several}
    routed = [target for route in of_several.values() for target in route.targets]
    lonely = set(found) - {target.endpoint for target in routed}
    alone = [named[each.name].targets[0] for each in found if each in lonely]
    return Plan(found, every, every[first], tuple(dict.fromkeys([*routed, *alone])))


class Standing(NamedTuple):
    """The targets of a call as they are at this moment."""

    held: list[Target]
    ready: list[Candidate]
    missing: list[Target]


def stand(route: Route, stops: Iterable[Stop], places: Mapping[str, Place], now: float) -> Standing:
    """Look, under the lock, at each of these."""
    held: list[Target] = []
    ready: list[Candidate] = []
    missing: list[Target] = []
    is_blind = route.affinity is False
    long_ago = now - RAMP
    for target, weight, price in stops:
        place = places[target.endpoint.name]
        of_model = place.models.get(target.model)
        circuit = place.breaker
        if of_model is None:  # never called: nothing is known but of its endpoint
            load, is_warm, of_this = 0, False, circuit
        elif of_model.missing_until > now:
            missing.append(target)
            continue
        else:
            load, is_warm, of_this = of_model.limiter.load, of_model.is_warm, of_model.breaker
        # Most are closed, and have been for long: this is done for each place with each call.
        is_closed = circuit.passes and of_this.passes and place.cooldown.passes
        if not is_closed and not place.is_ready(of_model, now):
            held.append(target)
            continue
        ramp = 1.0
        if circuit.closed_at > long_ago or of_this.closed_at > long_ago:
            ramp = min(circuit.ramp(now), of_this.ramp(now))
        is_warm = is_warm or is_blind or place.endpoint.is_cloud
        ready.append(Candidate(target, weight, ramp, load, is_warm, price))
    return Standing(held, ready, missing)


def order(route: Route, found: Standing, draw: Draw) -> list[Target]:
    """Return the targets in the order in which they are tried. Without the lock: others' code.

    Raises:
        Exception: whatever a strategy raises, which a site may write itself.
        TypeError, AttributeError: it returned something else than candidates.
    """
    ready: Sequence[Candidate] = found.ready
    if len(ready) > 1:
        ready = route.strategy(ready, draw)
    targets = [each.target for each in (affine(ready) if route.affinity else ready)]
    if found.ready and not targets:
        raise TypeError("a strategy must return its candidates")
    return [*found.held, *targets]


def as_listed(found: Standing) -> list[Target]:
    """Return the targets in the order of the settings, which needs no strategy."""
    return [*found.held, *(each.target for each in found.ready)]
