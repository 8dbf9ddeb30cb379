"""Events of the core as log lines, stable enough to search and to alarm on.

Every line carries ``endpoint``, ``model``, ``code`` and ``request_id`` as ``extra`` fields. No line
holds a prompt, an answer or a key: events have none.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .core.events import (
    AttemptRepeated,
    CallAnswered,
    CallFailed,
    CallRefused,
    CallStarted,
    CircuitClosed,
    CircuitOpened,
    CircuitProbing,
)

if TYPE_CHECKING:
    from .core.events import Event
    from .errors import OllamaBridgeError

calls = logging.getLogger("ollama_bridge.client")
circuits = logging.getLogger("ollama_bridge.circuit")


def log(event: Event) -> None:
    """Write the line of an event."""
    match event:
        case CallStarted():
            _log_start(event)
        case CallAnswered():
            _log_answer(event)
        case AttemptRepeated() | CallFailed() | CallRefused():
            _log_trouble(event)
        case _:
            _log_circuit(event)


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


def _log_trouble(event: AttemptRepeated | CallFailed | CallRefused) -> None:
    match event:
        case AttemptRepeated():
            calls.warning(
                "Ollama call failed (attempt %d/%d). Retrying in %.2fs",
                event.number,
                event.most,
                event.delay,
                extra=_facts_of(event.error, event.request_id),
            )
        case CallFailed():
            line = "Ollama call failed after %d retries: %s"
            extra = _facts_of(event.error, event.request_id)
            calls.error(line, event.repeats, event.error, extra=extra)
        case CallRefused():
            # One line for each would drown the line that says why: the circuit's own.
            if calls.isEnabledFor(logging.DEBUG):
                extra = _facts_of(event.error, event.request_id)
                calls.debug("Ollama call refused: %s", event.error, extra=extra)


def _log_circuit(event: CircuitOpened | CircuitProbing | CircuitClosed) -> None:
    endpoint, _, model = event.circuit.partition("/")
    code = event.last_error if isinstance(event, CircuitOpened) else ""
    extra = _facts(endpoint, model, code=code)
    match event:
        case CircuitOpened():
            line = "Circuit breaker: Opening circuit after %d failures"
            circuits.error(line, event.failures, extra=extra)
        case CircuitProbing():
            circuits.info("Circuit breaker: Attempting recovery (half-open state)", extra=extra)
        case CircuitClosed():
            circuits.info("Circuit breaker: recovered to CLOSED state", extra=extra)


def _facts_of(error: OllamaBridgeError, request_id: str) -> dict[str, str]:
    return _facts(error.endpoint, error.model, request_id, code=error.code)


def _facts(endpoint: str, model: str, request_id: str = "", *, code: str = "") -> dict[str, str]:
    return {"endpoint": endpoint, "model": model, "code": code, "request_id": request_id}
