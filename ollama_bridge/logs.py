"""Events of the core as log lines, stable enough to search and to alarm on.

Every line carries ``endpoint``, ``model``, ``code`` and ``request_id`` as ``extra`` fields. No line
holds a prompt, an answer or a key: events have none.
"""

from __future__ import annotations

import logging

from .core.events import (
    AttemptRepeated,
    CallAnswered,
    CallFailed,
    CallRefused,
    CallStarted,
    CircuitClosed,
    CircuitOpened,
    CircuitProbing,
    Event,
)

calls = logging.getLogger("ollama_bridge.client")
circuits = logging.getLogger("ollama_bridge.circuit")


def log(event: Event) -> None:
    """Write the line of an event."""
    if isinstance(event, CircuitOpened | CircuitProbing | CircuitClosed):
        _log_circuit(event)
    else:
        _log_call(event)


def _log_call(
    event: CallStarted | CallAnswered | AttemptRepeated | CallFailed | CallRefused,
) -> None:
    extra = _facts_of(event)
    match event:
        case CallStarted():
            length = event.prompt_length
            calls.info("Generating response for prompt (length: %d)", length, extra=extra)
        case CallAnswered():
            calls.info("Response generated successfully in %.2fs", event.seconds, extra=extra)
        case AttemptRepeated():
            calls.warning(
                "Ollama call failed (attempt %d/%d). Retrying in %.2fs",
                event.number,
                event.most,
                event.delay,
                extra=extra,
            )
        case CallFailed():
            line = "Ollama call failed after %d retries: %s"
            calls.error(line, event.repeats, event.error, extra=extra)
        case CallRefused():
            # One line for each would drown the line that says why: the circuit's own.
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


def _facts_of(
    event: CallStarted | CallAnswered | AttemptRepeated | CallFailed | CallRefused,
) -> dict[str, str]:
    if isinstance(event, CallStarted | CallAnswered):
        return _facts(event.endpoint, event.model, request_id=event.request_id)
    error = event.error
    return _facts(error.endpoint, error.model, code=error.code, request_id=event.request_id)


def _facts(endpoint: str, model: str, *, code: str = "", request_id: str = "") -> dict[str, str]:
    return {"endpoint": endpoint, "model": model, "code": code, "request_id": request_id}
