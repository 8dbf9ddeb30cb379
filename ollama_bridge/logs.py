"""Events of the core as log lines, stable enough to search and to alarm on.

Every line carries ``endpoint``, ``model``, ``code`` and ``request_id`` as ``extra`` fields. No line
holds a prompt, an answer or a key: events have none.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .core.breaker import Mode
from .core.events import (
    AttemptRepeated,
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallRefused,
    CallStarted,
    CircuitClosed,
    CircuitFollowed,
    CircuitOpened,
    CircuitProbing,
)
from .errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from .core.events import Event
    from .errors import OllamaBridgeError

calls = logging.getLogger("ollama_bridge.client")
circuits = logging.getLogger("ollama_bridge.circuit")


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
    line = "Circuit breaker: Opening circuit after %d failures"
    circuits.error(line, event.failures, extra=_facts_of_circuit(event.circuit, event.last_error))


def _log_probe(event: CircuitProbing) -> None:
    line = "Circuit breaker: Attempting recovery (half-open state)"
    circuits.info(line, extra=_facts_of_circuit(event.circuit))


def _log_closing(event: CircuitClosed) -> None:
    line = "Circuit breaker: recovered to CLOSED state"
    circuits.info(line, extra=_facts_of_circuit(event.circuit))


def _log_followed(event: CircuitFollowed) -> None:
    state = event.state if event.mode is Mode.AUTO else event.mode
    line = "Circuit breaker: %s, as another process has told"
    circuits.info(line, state.value, extra=_facts_of_circuit(event.circuit))


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
    AttemptRepeated: _log_repeat,
    CallFailed: _log_failure,
    CallRefused: _log_refusal,
    CallCancelled: _log_cancel,
    CircuitOpened: _log_opening,
    CircuitProbing: _log_probe,
    CircuitClosed: _log_closing,
    CircuitFollowed: _log_followed,
}


def log(event: Event) -> None:
    """Write the line of an event."""
    _LINES[type(event)](event)
