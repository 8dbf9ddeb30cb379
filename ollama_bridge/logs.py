"""Events of the core as log lines, stable enough to search and to alarm on.

Every line carries ``endpoint``, ``model``, ``code`` and ``request_id`` as ``extra`` fields. No line
holds a prompt, an answer or a key: events have none.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .core.breaker import Mode
from .core.diagnosis import CLOUD_MODELS
from .core.events import (
    AttemptRepeated,
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallFailedOver,
    CallRefused,
    CallRemembered,
    CallStarted,
    CircuitClosed,
    CircuitFollowed,
    CircuitOpened,
    CircuitProbing,
    CooldownBegan,
    CooldownEnded,
    CooldownProbed,
    ModelSkipped,
    QuotaLow,
    StrategyFailed,
)
from .core.names import MAIN
from .errors import ModelNotFound, Overloaded, QuotaExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

    from .core.events import Event
    from .errors import OllamaBridgeError

calls = logging.getLogger("ollama_bridge.client")
circuits = logging.getLogger("ollama_bridge.circuit")
failovers = logging.getLogger("ollama_bridge.failover")
quotas = logging.getLogger("ollama_bridge.quota")


def _log_start(event: CallStarted) -> None:
    if calls.isEnabledFor(logging.INFO):
        line = "Generating response for prompt (length: %d)"
        calls.info(
            line, event.prompt_length, extra=_facts(event.endpoint, event.model, event.request_id)
        )


def _log_answer(event: CallAnswered) -> None:
    if calls.isEnabledFor(logging.INFO):
        extra = _facts(event.endpoint, event.model, event.request_id)
        calls.info("Response generated successfully in %.2fs", event.seconds, extra=extra)


def _log_remembered(event: CallRemembered) -> None:
    if calls.isEnabledFor(logging.INFO):
        extra = _facts(event.endpoint, event.model, event.request_id)
        calls.info("Response taken from the cache in %.2fs", event.seconds, extra=extra)


def _log_repeat(event: AttemptRepeated) -> None:
    calls.warning(
        "Ollama call failed (attempt %d/%d). Retrying in %.2fs",
        event.number,
        event.most,
        event.delay,
        extra=_facts_of(event.error, event.request_id),
    )


def _log_failure(event: CallFailed) -> None:
    line = "Ollama call failed after %d retries: %s"
    extra = _facts_of(event.error, event.request_id)
    calls.error(line, event.repeats, event.error, extra=extra)


def _log_refusal(event: CallRefused) -> None:
    # Of an open circuit, one line for each would drown the circuit's own, which says why.
    level = logging.WARNING if isinstance(event.error, Overloaded) else logging.DEBUG
    if calls.isEnabledFor(level):
        extra = _facts_of(event.error, event.request_id)
        calls.log(level, "Ollama call refused: %s", event.error, extra=extra)


def _log_cancel(event: CallCancelled) -> None:
    extra = _facts(event.endpoint, event.model, event.request_id)
    calls.info("Ollama call cancelled after %.2fs", event.seconds, extra=extra)


def _log_opening(event: CircuitOpened) -> None:
    line = "Circuit breaker: Opening circuit after %d failures%s"
    extra = _facts_of_circuit(event.circuit, event.last_error)
    circuits.error(line, event.failures, _which(event.circuit), extra=extra)


def _log_probe(event: CircuitProbing) -> None:
    line = "Circuit breaker: Attempting recovery (half-open state)%s"
    circuits.info(line, _which(event.circuit), extra=_facts_of_circuit(event.circuit))


def _log_closing(event: CircuitClosed) -> None:
    line = "Circuit breaker: recovered to CLOSED state%s"
    circuits.info(line, _which(event.circuit), extra=_facts_of_circuit(event.circuit))


def _log_followed(event: CircuitFollowed) -> None:
    state = event.state if event.mode is Mode.AUTO else event.mode
    line = "Circuit breaker: %s, as another process has told%s"
    extra = _facts_of_circuit(event.circuit)
    circuits.info(line, state.value, _which(event.circuit), extra=extra)


def _log_cooldown(event: CooldownBegan) -> None:
    why = "usage limit reached" if event.code == QuotaExhausted.code else "the server asked for it"
    line = "Cooldown: leaving endpoint %s alone for %.0f s, %s"
    # Each process that is told would say again what the first has said.
    level = logging.INFO if event.is_told else logging.WARNING
    extra = _facts(event.endpoint, "", code=event.code)
    circuits.log(level, line, event.endpoint, event.seconds, why, extra=extra)


def _log_cooldown_probe(event: CooldownProbed) -> None:
    line = "Cooldown: over, trying whether endpoint %s answers again"
    circuits.info(line, event.endpoint, extra=_facts(event.endpoint, ""))


def _log_cooldown_end(event: CooldownEnded) -> None:
    line = "Cooldown: ended for endpoint %s"
    circuits.info(line, event.endpoint, extra=_facts(event.endpoint, ""))


def _log_skip(event: ModelSkipped) -> None:
    line = "Model %s is not on endpoint %s, which is skipped. %s"
    remedy = CLOUD_MODELS if event.is_cloud else f"Run there: ollama pull {event.model}"
    extra = _facts(event.endpoint, event.model, code=ModelNotFound.code)
    failovers.warning(line, event.model, event.endpoint, remedy, extra=extra)


def _log_strategy(event: StrategyFailed) -> None:
    line = "The strategy of route %s failed (%s). Its targets are tried as the settings list them"
    failovers.error(line, event.route, event.error, extra=_facts("", ""))


def _log_low_quota(event: QuotaLow) -> None:
    window = f"{event.window} allowance" if event.window else "allowance"
    back = ""
    if event.resets_at is not None:
        moment = datetime.fromtimestamp(event.resets_at, UTC)
        back = f", which comes back at {moment:%Y-%m-%d %H:%M} UTC"
    line = "Quota: endpoint %s has used %d %% of its %s%s"
    percent = event.used * 100 + 1e-9  # %d cuts off what it is less than a whole number
    quotas.warning(line, event.endpoint, percent, window, back, extra=_facts(event.endpoint, ""))


def _log_failover(event: CallFailedOver) -> None:
    # While an endpoint is held back every call goes elsewhere, which would drown all other lines.
    level = logging.WARNING if event.was_sent else logging.INFO
    if failovers.isEnabledFor(level):
        error, there = event.error, event.to.name
        extra = _facts_of(error, event.request_id) | {"to": there}
        here = f"{error.endpoint}/{error.model}"
        failovers.log(level, "llm_failover from %s to %s: %s", here, there, error, extra=extra)


def _which(circuit: str) -> str:
    """Say which circuit a line is of, but for the one server of the top level: it has no other."""
    return "" if circuit.partition("/")[0] == MAIN else f" ({circuit})"


def _facts_of_circuit(name: str, code: str = "") -> dict[str, str]:
    endpoint, _, model = name.partition("/")
    return _facts(endpoint, model, code=code)


def _facts_of(error: OllamaBridgeError, request_id: str) -> dict[str, str]:
    return _facts(error.endpoint, error.model, request_id, code=error.code)


def _facts(endpoint: str, model: str, request_id: str = "", *, code: str = "") -> dict[str, str]:
    return {"endpoint": endpoint, "model": model, "code": code, "request_id": request_id}


_LINES: dict[type[Event], Callable[[Any], None]] = {
    CallStarted: _log_start,
    CallAnswered: _log_answer,
    CallRemembered: _log_remembered,
    AttemptRepeated: _log_repeat,
    CallFailed: _log_failure,
    CallRefused: _log_refusal,
    CallCancelled: _log_cancel,
    CircuitOpened: _log_opening,
    CircuitProbing: _log_probe,
    CooldownBegan: _log_cooldown,
    CooldownProbed: _log_cooldown_probe,
    CooldownEnded: _log_cooldown_end,
    ModelSkipped: _log_skip,
    StrategyFailed: _log_strategy,
    QuotaLow: _log_low_quota,
    CallFailedOver: _log_failover,
    CircuitClosed: _log_closing,
    CircuitFollowed: _log_followed,
}


def log(event: Event) -> None:
    """Write the line of an event."""
    _LINES[type(event)](event)
