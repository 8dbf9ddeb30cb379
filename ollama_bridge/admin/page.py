"""What the page of endpoints says, gathered from the client, the table and the admin's log."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, transaction
from django.utils import timezone

from .. import modes
from ..client import ollama_client
from ..models import EndpointState, Mode, database

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from ..circuits import CircuitBreaker, EndpointFacts
    from ..core.health import HealthReport

CHECKED: Final = "Checked"
DONE: Final = {
    Mode.AUTO: "Endpoint {}: circuits are closed and work by themselves.",
    Mode.FORCED_OPEN: "Endpoint {}: all calls are refused until you reset it.",
    Mode.DISABLED: "Endpoint {}: all calls go through and nothing is counted, until you reset it.",
}
_DID: Final = {
    Mode.AUTO: "Reset endpoint {}",
    Mode.FORCED_OPEN: "Forced endpoint {} open",
    Mode.DISABLED: "Disabled the circuits of endpoint {}",
}
_STATES: Final = {"closed": "Closed", "half_open": "Half-open", "open": "Open"}
_MEANINGS: Final = {
    "connection_failed": "the server was not reached, or hung up",
    "timeout": "the server did not answer in time",
    "upstream_failed": "the server said that it failed; see its log",
    "invalid_reply": "the answer was none of Ollama's; check BASE_URL",
}
_UNMIGRATED: Final = (
    "Run: manage.py migrate ollama_bridge. "
    "Until then, modes are of this process alone, and end with it."
)
_UNREADABLE: Final = (
    "The table of modes cannot be read ({}). Run: manage.py migrate, or see the database's log. "
    "Until then, this process goes on with the modes that it knows, and none can be changed."
)
_NONE: Final = "-"  # as Django's admin shows an empty value
_SECOND: Final = 1000


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
class Endpoint:
    """One endpoint of the settings.

    ``differs`` is the mode of this process, where it is not the stored one. ``by`` is who stored
    that, where the admin's log knows.
    """

    name: str
    url: str
    model: str
    mode: str
    mode_label: str
    differs: str
    state: EndpointState | None
    by: LogEntry | None
    cooldown: str
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


def look() -> Page:
    """Return the page as it is now. Asks no Ollama server."""
    now, process = timezone.now(), os.getpid()
    try:
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


def checked(name: str, report: HealthReport) -> str:
    """Return the line of the admin's log about a check."""
    return f"{CHECKED} endpoint {name}: {report.status}"


def said_of(report: HealthReport) -> str:
    """Return what a check found, as a sentence for the operator."""
    verdict = f"Endpoint {report.endpoint} is {report.status}."
    if not report.reachable:
        return f"{verdict} {report.error}"
    answered = f"The server answered in {_duration(report.latency * _SECOND)}"
    if report.error is not None:
        return f"{verdict} {answered}. {report.error}"
    loaded = "loaded" if report.loaded else "not loaded yet"
    return f"{verdict} {answered}: version {report.version or 'unknown'}, {report.model} {loaded}."


def _stored() -> tuple[dict[str, EndpointState], str]:
    """Return the stored states by endpoint, and what stands in the way of them, or ""."""
    try:
        if not modes.is_migrated():
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
    for name, found in facts.items():
        state, live = states.get(name), Mode(breakers[name].mode)
        stored = _stored_mode(state, live) if is_stored else live
        yield Endpoint(
            name=name,
            url=found.url,
            model=found.model,
            mode=stored.value,
            mode_label=state.get_mode_display() if state else stored.label,
            differs="" if live is stored else live.label,
            state=state,
            by=_author(state),
            cooldown=_seconds(found.cooldown) if found.cooldown else "",
            circuits=tuple(_circuits(name, breakers, stats.get(name, {}))),
        )


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
    rate, state = stats.get("success_rate"), breaker.state
    return Circuit(
        name=model,
        state=state,
        label=_STATES[state],
        failures=breaker.failures,
        next_try=_next_try(breaker),
        last_error=breaker.last_error,
        meaning=_MEANINGS.get(breaker.last_error, ""),
        calls=_calls(stats.get("total_requests", 0), stats.get("refused_requests", 0)),
        success_rate=_NONE if rate is None else f"{rate:.1f} %",
        average=_duration(stats.get("avg_latency_ms")),
        p95=_duration(stats.get("p95_latency_ms")),
    )


def _calls(total: int, refused: int) -> str:
    return f"{total}, {refused} refused" if refused else str(total)


def _next_try(breaker: CircuitBreaker) -> str:
    if breaker.state == "closed":
        return _NONE
    if breaker.mode == Mode.FORCED_OPEN:
        return "after a reset"
    return _seconds(breaker.retry_after) if breaker.retry_after else "with the next call"


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


def _seconds(seconds: float) -> str:
    return f"in {math.ceil(seconds)} s"


def _duration(milliseconds: float | None) -> str:
    if milliseconds is None:
        return _NONE
    if milliseconds < _SECOND:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / _SECOND:.1f} s"
