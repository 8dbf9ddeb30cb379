"""The sentences and figures of the page, as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ..core.diagnosis import CLOUD_MODELS
from ..core.names import canonical
from ..errors import QuotaExhausted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..circuits import CircuitBreaker, RouteFacts
    from ..core.health import EndpointHealth
    from ..core.quota import Quota
    from ..models import Mode

NONE: Final = "-"  # as Django's admin shows an empty value

_SECOND: Final = 1000
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_MEANINGS: Final = {
    "connection_failed": "the server was not reached, or hung up",
    "timeout": "the server did not answer in time",
    "upstream_failed": "the server said that it failed; see its log",
    "invalid_reply": "the answer was none of Ollama's; check its address",
}
_SOURCES: Final = {
    "headers": "says the server",
    "balance": "says /api/balance",
    "counted": "by our own count of answered calls",
}
_IN_ORDER: Final = frozenset({"failover", "round_robin"})


def meaning(code: str) -> str:
    """Return what the code of an error means for an operator, "" where it says so itself."""
    return _MEANINGS.get(code, "")


def next_try(breaker: CircuitBreaker, forced: Mode) -> str:
    """Say when a call is let through; ``forced`` is the mode of an operator who lets none."""
    if breaker.state == "closed":
        return NONE
    if breaker.mode == forced:
        return "after a reset"
    return f"in {span(breaker.retry_after)}" if breaker.retry_after else "with the next call"


def pause(code: str) -> str:
    """Say why an endpoint is left alone."""
    if code == QuotaExhausted.code:
        return "The usage limit is reached"
    return "The server asked for a pause"


def used(quota: Quota) -> str:
    """Say how much of an allowance is used, and who says so."""
    window = f"{quota.window} " if quota.window else ""
    share = f"{quota.used * 100:.0f} % of the {window}allowance used"
    if quota.limit is not None:
        amounts = [_amount(quota.used * quota.limit, quota.unit), _amount(quota.limit, quota.unit)]
        share += f", {' of '.join(amounts)} {quota.unit}"
    if quota.bought:
        share += f", {_amount(quota.bought, 'USD')} USD bought besides"
    return f"{share}, {_SOURCES[quota.source]}"


def way(route: RouteFacts) -> str:
    """Say where a route leads, in the order of the settings, with weights that differ."""
    names = list(route.targets)
    if len(set(route.weights)) > 1:
        names = [f"{name} ({weight:g})" for name, weight in zip(names, route.weights, strict=True)]
    return (" → " if route.strategy in _IN_ORDER else ", ").join(names)


def found(health: EndpointHealth) -> str:
    """Say what a check of an endpoint has found."""
    verdict = f"Endpoint {health.endpoint} is {health.status}."
    if not health.reachable:
        return f"{verdict} {health.error}"
    answered = f"The server answered in {duration(health.latency * _SECOND)}"
    if health.error is not None:
        return f"{verdict} {answered}. {health.error}"
    loaded = "loaded" if canonical(health.model) in health.loaded else "not loaded yet"
    missing = [model for model, is_there in health.models.items() if is_there is False]
    pull = f" {_remedy(missing, is_cloud=health.is_cloud)}" if missing else ""
    version = health.version or "unknown"
    return f"{verdict} {answered}: version {version}, {health.model} {loaded}.{pull}"


def _remedy(missing: Sequence[str], *, is_cloud: bool) -> str:
    named = " ".join(missing)
    return f"Not there: {named}. {CLOUD_MODELS}" if is_cloud else f"Run there: ollama pull {named}"


def calls(total: int, refused: int) -> str:
    return f"{total}, {refused} refused" if refused else str(total)


def rate(percent: float | None) -> str:
    return NONE if percent is None else f"{percent:.1f} %"


def duration(milliseconds: float | None) -> str:
    if milliseconds is None:
        return NONE
    if milliseconds < _SECOND:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / _SECOND:.1f} s"


def span(seconds: float) -> str:
    """Return a time to wait, as exact as people need it, and never too short."""
    whole = math.ceil(seconds)
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    minutes = math.ceil(whole / _MINUTE)
    if whole < 2 * _HOUR:
        return f"{minutes} min"
    hours = math.ceil(whole / _HOUR)
    return f"{hours} h" if whole < 2 * _DAY else f"{math.ceil(whole / _DAY)} days"


def _amount(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == "USD" else f"{value:.0f}"
