"""Every error that the bridge raises at run time; the type says whose fault it is.

::

    OllamaBridgeError
    ├── ConnectionFailed      nobody listens, the name does not resolve, the connection broke
    ├── Timeout               a time limit elapsed (.phase: connect, first_token, idle, total;
    │                         .partial is what had come)
    ├── ServerFailed          the server answered, and said that it failed (5xx)
    ├── ModelNotFound         the model is not on the server: pull it
    ├── RequestRejected       the server refused the request itself (4xx): change the request
    ├── AuthenticationFailed  the key is missing or wrong, or the server refuses this client
    ├── RateLimited           too many requests just now: wait .retry_after seconds
    │   └── QuotaExhausted    the plan's allowance is used up: waiting a little does not help
    ├── CircuitOpen           refused here, without a request: the endpoint failed too often
    ├── Overloaded            too many calls wait already, here or at the server ("server busy")
    ├── StreamInterrupted     the answer broke off after it had begun (.partial is what came)
    ├── InvalidReply          the answer is not what the Ollama API promises (.partial if any)
    ├── OutputInvalid         the model's output does not fit the schema (.raw, .errors)
    ├── ContextTooLong        the prompt does not fit into the model's context
    ├── AllEndpointsFailed    several endpoints failed in different ways (see .attempts)
    └── RequestDeferred       not answered now, kept safely: .deferred_id, .expires_at

Configuration errors are Django's ``ImproperlyConfigured`` and wrong arguments are ``TypeError`` or
``ValueError``: a ``except OllamaBridgeError`` must not swallow them.

``str(error)`` speaks to the operator (log, command, admin) and says what to type next;
``error.public_message`` is a fixed sentence for a visitor. Neither, nor ``repr``, ever holds a
prompt, an answer or a key. All errors pickle and copy, with everything but their ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

if TYPE_CHECKING:
    from datetime import datetime

    from .core.types import Attempt

Phase = Literal["connect", "first_token", "idle", "total"]


E = TypeVar("E", bound=BaseException)


class OllamaBridgeError(Exception):
    """Base of every error that the bridge raises at run time.

    Attributes:
        code: stable machine-readable name, the same in logs, metrics and the HTTP API.
        retryable: whether the same call may succeed if it is repeated later.
        retry_after: seconds until a repeat makes sense, where that is known.
        endpoint: name of the endpoint concerned ("" if none).
        model: model name as it was sent ("" if none).
        status: HTTP status of the upstream's reply, if there was one.
        of_request: whether the request itself is at fault, so that no other endpoint would take it.
        begun: whether a reply had begun when the connection broke or the time was over.
        attempts: everything that was tried, oldest first.
    """

    code: ClassVar[str] = "error"
    public_message: ClassVar[str] = "Something went wrong. Please try again later."
    retryable: bool = False
    of_request: bool = False
    begun: bool = False

    def __init__(
        self,
        message: str = "",
        *,
        endpoint: str = "",
        model: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.model = model
        self.status = status
        self.retry_after = retry_after
        self.attempts = attempts


class ConnectionFailed(OllamaBridgeError):
    """The server could not be reached, or the connection broke before the answer was whole."""

    code = "connection_failed"
    public_message = "The AI service cannot be reached right now. Please try again later."
    retryable = True


class _PartialError(OllamaBridgeError):
    """An error that may come with the beginning of an answer, in ``partial`` only."""

    partial: str = ""


class Timeout(_PartialError):
    """A time limit elapsed; ``phase`` says which."""

    code = "timeout"
    public_message = "The AI service took too long to answer. Please try again."
    retryable = True

    def __init__(
        self,
        message: str = "",
        *,
        phase: Phase = "total",
        endpoint: str = "",
        model: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(
            message,
            endpoint=endpoint,
            model=model,
            status=status,
            retry_after=retry_after,
            attempts=attempts,
        )
        self.phase: Phase = phase


class ServerFailed(OllamaBridgeError):
    """The server answered that it failed (5xx, or an error inside a 200)."""

    code = "upstream_failed"
    public_message = "The AI service reported a problem. Please try again later."
    retryable = True


class ModelNotFound(OllamaBridgeError):
    """The server does not have the model."""

    code = "model_not_found"
    public_message = "The AI model is not available right now."


class RequestRejected(OllamaBridgeError):
    """The server refused the request: repeating it unchanged cannot help."""

    code = "request_rejected"
    public_message = "The AI service could not process this request."


class AuthenticationFailed(OllamaBridgeError):
    """The server does not accept the key, or refuses this client."""

    code = "upstream_auth"
    public_message = "The AI service is not set up correctly. Please tell the site's operator."


class RateLimited(OllamaBridgeError):
    """The server asks for fewer requests; the circuit does not count this as a failure."""

    code = "rate_limited"
    public_message = "The AI service is busy. Please try again in a moment."
    retryable = True


class QuotaExhausted(RateLimited):
    """The account's allowance is used up until its next period."""

    code = "quota_exhausted"
    public_message = "The AI service has reached its usage limit. Please try again later."
    retryable = False


class CircuitOpen(OllamaBridgeError):
    """Refused without a request, because the endpoint failed too often just now."""

    code = "circuit_open"
    public_message = "The AI service is temporarily unavailable. Please try again later."
    retryable = True


class Overloaded(OllamaBridgeError):
    """Refused, here or by the server, because more calls wait than can be answered in time."""

    code = "overloaded"
    public_message = "The AI service is very busy. Please try again in a moment."
    retryable = True


class StreamInterrupted(_PartialError):
    """The answer broke off after it had begun; what came is in ``partial``."""

    code = "stream_interrupted"
    public_message = "The answer was interrupted. Please try again."
    retryable = True


class InvalidReply(_PartialError):
    """The server's answer is not what the Ollama API promises."""

    code = "invalid_reply"
    public_message = "The AI service gave an answer that could not be read."


class OutputInvalid(OllamaBridgeError):
    """The model's output does not fit what was asked for; see ``raw`` and ``errors``."""

    code = "output_invalid"
    public_message = "The AI service gave an answer of the wrong form."
    raw: str = ""
    errors: tuple[str, ...] = ()


class ContextTooLong(OllamaBridgeError):
    """The prompt does not fit into the model's context."""

    code = "context_too_long"
    public_message = "The message is too long for the AI model. Please shorten it."


class AllEndpointsFailed(OllamaBridgeError):
    """Several endpoints were tried and failed in different ways; see ``attempts``."""

    code = "all_endpoints_failed"
    public_message = "The AI service is temporarily unavailable. Please try again later."
    retryable = True


class RequestDeferred(OllamaBridgeError):
    """The call was not answered, but kept: it will be, until ``expires_at``."""

    code = "deferred"
    public_message = "The AI service is unavailable. Your request is kept and answered later."
    deferred_id: str = ""
    expires_at: datetime | None = None


def without_frames(error: E) -> E:
    """Cut the tracebacks off an error and its causes.

    Their frames hold prompt and answer as local variables, which error reporters send away. The
    error that is then raised shows the line that called the bridge, and its own words.
    """
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__
    return error
