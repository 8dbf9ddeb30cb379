"""From the settings of endpoints and routes to the plan by which calls go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core.names import MAIN
from .core.routing import Plan, Route, plan_of
from .core.types import Target
from .endpoints import endpoints_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .conf import Settings
    from .core.strategies import Strategy
    from .core.types import Endpoint
    from .tables import RouteSettings


def plan_for(settings: Settings) -> Plan:
    """Return the plan that the settings describe.

    Raises:
        ImproperlyConfigured: a strategy of the site's own cannot be imported.
    """
    endpoints = endpoints_of(settings)
    strategies = settings.strategies()
    routes = [
        _route(name, route, strategies[name], endpoints) for name, route in settings.ROUTES.items()
    ]
    return plan_of(endpoints.values(), routes, MAIN)


def _route(
    name: str, settings: RouteSettings, strategy: Strategy, endpoints: Mapping[str, Endpoint]
) -> Route:
    weights: dict[Target, float] = {}
    for written, (endpoint, model) in zip(settings.TARGETS, settings.pairs, strict=True):
        # Two ways to write the same one, by MODELS or with a suffix, are one.
        weights.setdefault(_target(endpoints[endpoint], model), settings.WEIGHTS[written])
    return Route(name, weights, strategy, weights=[*weights.values()], affinity=settings.AFFINITY)


def _target(endpoint: Endpoint, model: str) -> Target:
    return Target(endpoint, endpoint.name_of(model or endpoint.model))
