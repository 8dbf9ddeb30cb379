"""What an error must say of itself, and what it must cost the circuits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ollama_bridge import OllamaClient, ServerFailed
from tests.net.faulttable import FACES, Blamed

if TYPE_CHECKING:
    from ollama_bridge import OllamaBridgeError

# Failures of (endpoint, model) after a fault, where each had one before.
COUNTS: dict[Blamed, tuple[int, int]] = {
    "endpoint": (2, 1),
    "model": (0, 2),
    "answered": (0, 1),
    "nobody": (1, 1),
}


def fail_once_each(client: OllamaClient) -> None:
    """Count one failure against the model, and then one against the endpoint."""
    for status in (500, 502):
        failure = ServerFailed("an earlier one", status=status)

        def fail(failure: ServerFailed = failure) -> None:
            raise failure

        with pytest.raises(ServerFailed):
            client.circuit_breaker.call(fail)
    assert failures(client) == (1, 1)


def failures(client: OllamaClient) -> tuple[int, int]:
    circuits = client.circuit_breakers
    return circuits["default"].failures, circuits["default/llama3.2"].failures


def is_consistent(error: OllamaBridgeError) -> None:
    """Compare what belongs to the class, and what every error carries."""
    face = FACES[type(error)]
    assert (error.code, error.public_message) == (face.code, face.public_message)
    assert (error.endpoint, error.model) == ("default", "llama3.2")
    assert error.attempts[-1].code == error.code
    assert error.attempts[-1].status == error.status
    assert all(attempt.seconds >= 0 for attempt in error.attempts)
