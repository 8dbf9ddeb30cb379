"""Whom an error is held against: the table of the circuit breaker's accounting, in one place."""

from __future__ import annotations

from enum import Enum, auto

from ..errors import (
    AuthenticationFailed,
    CircuitOpen,
    ConnectionFailed,
    ContextTooLong,
    InvalidReply,
    ModelNotFound,
    OllamaBridgeError,
    Overloaded,
    RateLimited,
    RequestRejected,
    ServerFailed,
    StreamInterrupted,
    Timeout,
)

GATEWAY_STATUSES = frozenset({502, 503, 504})


class Blame(Enum):
    NOBODY = auto()  # says nothing: our refusals, 429, "server busy", an impatient caller
    ANSWERED = auto()  # the endpoint is alive; the model was not put to the test
    ENDPOINT = auto()  # the endpoint failed
    MODEL = auto()  # the endpoint is alive, but this model failed on it


def blame(error: OllamaBridgeError, *, patient: bool) -> Blame:
    """Tell whom an error is held against.

    ``patient`` says whether the limit that elapsed is one that the settings grant; an endpoint is
    not to blame for a caller who grants less.
    """
    match error:
        case Timeout() if not patient:
            return Blame.NOBODY
        case Timeout() | ConnectionFailed() | InvalidReply():
            return Blame.MODEL if _had_begun(error) else Blame.ENDPOINT
        case StreamInterrupted():
            return Blame.MODEL
        case ServerFailed():
            return Blame.ENDPOINT if error.status in GATEWAY_STATUSES else Blame.MODEL
        case RequestRejected() | ModelNotFound() | AuthenticationFailed() | ContextTooLong():
            return Blame.ANSWERED
        case _:
            return Blame.NOBODY


def _had_begun(error: OllamaBridgeError) -> bool:
    """Tell whether the server had begun to answer, so that it is there and more was at fault."""
    is_idle = isinstance(error, Timeout) and error.phase == "idle"
    return error.begun or error.status is not None or is_idle


def is_refusal(error: OllamaBridgeError) -> bool:
    """Tell whether a call was refused here, without a request."""
    return error.status is None and isinstance(error, CircuitOpen | Overloaded | RateLimited)
