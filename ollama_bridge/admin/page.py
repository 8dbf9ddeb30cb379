"""What the page of endpoints says, gathered from the client, the table and the admin's log."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, transaction
from django.utils import timezone

from .. import keeping
from ..client import ollama_client
from ..errors import QuotaExhausted
from ..models import EndpointState, Mode, database
from . import wording

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..circuits import CircuitBreaker, EndpointFacts
    from ..core.health import EndpointHealth
    from ..core.quota import Quota

CHECKED: Final = "Checked"
DONE: Final = {
    Mode.AUTO: "Endpoint {}: circuits are closed and work by themselves, and no cooldown is left.",
    Mode.FORCED_OPEN: "Endpoint {}: all calls are refused until you reset it.",
    Mode.DISABLED: "Endpoint {}: all calls go through and nothing is counted, until you reset it.",
}
_DID: Final = {
    Mode.AUTO: "Reset endpoint {}",
    Mode.FORCED_OPEN: "Forced endpoint {} open",
    Mode.DISABLED: "Disabled the circuits of endpoint {}",
}
_STATES: Final = {"closed": "Closed", "half_open": "Half-open", "open": "Open"}
_UNMIGRATED: Final = (
    "Run: manage.py migrate ollama_bridge. "
    "Until then, modes and cooldowns are of this process alone, and end with it."
)
_UNREADABLE: Final = (
    "The table of modes cannot be read ({}). Run: manage.py migrate, or see the database's log. "
    "Until then, this process goes on with the modes that it knows, and none can be changed."
)


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """One line of the table: a circuit, and what was counted under it, as text."""

    name: str
    state: str
    label: str
    failures: int
    next_try: str
    last_error: str
    meaning: str
    calls: str
    success_rate: str
    average: str
    p95: str


@dataclass(frozen=True, kw_only=True)
class Cooldown:
    """Why an endpoint is left alone; ``until`` is None where its time is over.

    ``is_of_quota`` where one call tries first whether an allowance is back, ``is_kept`` where it
    survives this process.
    """

    why: str
    left: str
    until: datetime | None
    is_of_quota: bool
    is_kept: bool


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """How much is used: as a sentence, and as a share from 0 to 1."""

    used: str
    share: str
    resets: datetime | None


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route of the settings, and where it leads."""

    name: str
    strategy: str
    way: str
    is_default: bool


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One endpoint of the settings.

    ``differs`` is the mode of this process, where it is not the stored one. ``state`` is what an
    operator has stored, ``by`` who that was, where the admin's log knows. ``routes`` are the names
    of those that lead here.
    """

    name: str
    url: str
    model: str
    mode: str
    mode_label: str
    differs: str
    state: EndpointState | None
    by: LogEntry | None
    is_cloud: bool
    cooldown: Cooldown | None
    allowance: Allowance | None
    routes: tuple[str, ...]
    circuits: tuple[Circuit, ...]

    @property
    def worst(self) -> Circuit:
        """The circuit that decides about calls which name no model."""
        deciding = [each for each in self.circuits if each.name in {"", self.model}]
        return max(deciding, key=lambda each: list(_STATES).index(each.state))


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything; ``problem`` says why there are no endpoints, ``lacking`` why no stored modes."""

    process: int
    since: datetime | None
    now: datetime
    problem: str = ""
    lacking: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    routes: tuple[Route, ...] = ()


def look() -> Page:
    """Return the page as it is now. Asks no Ollama server."""
    now, process = timezone.now(), os.getpid()
    try:
        ollama_client.hear()
        facts = ollama_client.endpoints
    except ImproperlyConfigured as error:
        return Page(process=process, since=None, now=now, problem=str(error))
    states, lacking = _stored()
    return Page(
        process=process,
        since=_as_the_project_has_it(ollama_client.running_since),
        now=now,
        lacking=lacking,
        endpoints=tuple(_endpoints(facts, states, is_stored=not lacking)),
        routes=tuple(_routes()),
    )


def _as_the_project_has_it(moment: datetime | None) -> datetime | None:
    """Return a moment as templates expect it: without a zone where the project has none."""
    if moment is None or settings.USE_TZ:
        return moment
    return timezone.make_naive(moment)


def names() -> list[str]:
    """Return the names of all endpoints, none if the settings are wrong."""
    try:
        return list(ollama_client.endpoints)
    except ImproperlyConfigured:
        return []


def changed(name: str, mode: Mode, reason: str) -> str:
    """Return the line of the admin's log about a change."""
    done = _DID[mode].format(name)
    return f"{done}: {reason}" if reason else done


def checked(health: EndpointHealth) -> str:
    """Return the line of the admin's log about a check."""
    return f"{CHECKED} endpoint {health.endpoint}: {health.status}"


def _stored() -> tuple[dict[str, EndpointState], str]:
    """Return the stored states by endpoint, and what stands in the way of them, or ""."""
    try:
        if not keeping.is_migrated():
            return {}, _UNMIGRATED
        with transaction.atomic(using=database()):
            rows = EndpointState.objects.using(database()).in_bulk()
        return {state.name: state for state in rows.values()}, ""
    except DatabaseError as error:
        return {}, _UNREADABLE.format(type(error).__name__)


def _endpoints(
    facts: Mapping[str, EndpointFacts], states: Mapping[str, EndpointState], *, is_stored: bool
) -> Iterator[Endpoint]:
    breakers, stats = ollama_client.circuit_breakers, ollama_client.get_stats()["endpoints"]
    leading = _routes_by_endpoint()
    for name, found in facts.items():
        state, live = states.get(name), Mode(breakers[name].mode)
        stored = _stored_mode(state, live) if is_stored else live
        changed = state if state is not None and state.revision else None
        yield Endpoint(
            name=name,
            url=found.url,
            model=found.model,
            mode=stored.value,
            mode_label=state.get_mode_display() if state else stored.label,
            differs="" if live is stored else live.label,
            state=changed,
            by=_author(changed),
            is_cloud=found.is_cloud,
            cooldown=_cooldown(found, state),
            allowance=None if found.quota is None else _allowance(found.quota),
            routes=tuple(leading.get(name, ())),
            circuits=tuple(_circuits(name, breakers, stats.get(name, {}))),
        )


def _cooldown(found: EndpointFacts, state: EndpointState | None) -> Cooldown | None:
    if not found.cooldown_code:
        return None
    until = datetime.now(UTC) + timedelta(seconds=found.cooldown) if found.cooldown else None
    return Cooldown(
        why=wording.pause(found.cooldown_code),
        left=wording.span(found.cooldown),
        until=_as_the_project_has_it(until),
        is_of_quota=found.cooldown_code == QuotaExhausted.code,
        is_kept=state is not None
        and state.cooldown_until is not None
        and state.cooldown_server == found.identity,
    )


def _allowance(quota: Quota) -> Allowance:
    ends = quota.resets_at
    return Allowance(
        used=wording.used(quota),
        share=f"{min(quota.used, 1.0):.2f}",
        resets=_as_the_project_has_it(None if ends is None else datetime.fromtimestamp(ends, UTC)),
    )


def _routes() -> Iterator[Route]:
    for route in ollama_client.routes.values():
        yield Route(
            name=route.name,
            strategy=route.strategy,
            way=wording.way(route),
            is_default=route.is_default,
        )


def _routes_by_endpoint() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for route in ollama_client.routes.values():
        for name in dict.fromkeys(target.partition("/")[0] for target in route.targets):
            found.setdefault(name, []).append(route.name)
    return found


def _stored_mode(state: EndpointState | None, live: Mode) -> Mode:
    """Return the mode of a row; what a newer version wrote there says nothing to this one."""
    if state is None:
        return Mode.AUTO
    return Mode(state.mode) if state.mode in Mode.values else live


def _circuits(
    of: str, breakers: Mapping[str, CircuitBreaker], stats: Mapping[str, Any]
) -> Iterator[Circuit]:
    models = stats.get("models", {})
    for name, breaker in breakers.items():
        endpoint, _, model = name.partition("/")
        if endpoint == of:
            counted = models.get(model, {}) if model else stats
            yield _circuit(model, breaker, counted)


def _circuit(model: str, breaker: CircuitBreaker, stats: Mapping[str, Any]) -> Circuit:
    state = breaker.state
    return Circuit(
        name=model,
        state=state,
        label=_STATES[state],
        failures=breaker.failures,
        next_try=wording.next_try(breaker, Mode.FORCED_OPEN),
        last_error=breaker.last_error,
        meaning=wording.meaning(breaker.last_error),
        calls=wording.calls(stats.get("total_requests", 0), stats.get("refused_requests", 0)),
        success_rate=wording.rate(stats.get("success_rate")),
        average=wording.duration(stats.get("avg_latency_ms")),
        p95=wording.duration(stats.get("p95_latency_ms")),
    )


def _author(state: EndpointState | None) -> LogEntry | None:
    """Return the log's entry of the change that made this state, if the admin made it."""
    if state is None:
        return None
    entries = LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(EndpointState),
        object_id=state.name,
        action_time__gte=state.changed_at,
    )
    changes = entries.exclude(change_message__startswith=CHECKED).select_related("user")
    return changes.order_by("action_time").first()
