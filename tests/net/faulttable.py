"""Every way in which a server can fail a chat, and what the bridge makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ollama_bridge import errors
from ollama_bridge.testing import faults

if TYPE_CHECKING:
    from ollama_bridge.testing.faults import Fault

Blamed = Literal["endpoint", "model", "answered", "nobody"]

ATTEMPTS = 4
REPLAYED = ATTEMPTS + 1
SHORT = {"timeout": 0.3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the caller gets, what the server sees, and whom the circuits hold it against."""

    error: type[errors.OllamaBridgeError]
    says: str
    """The operator's sentence; {url} is the server's."""
    status: int | None = None
    requests: int = 1
    blames: Blamed = "nobody"
    retryable: bool | None = None
    """None: as its class has it."""
    retry_after: float | None = None
    phase: str | None = None
    partial: bool = False
    """Whether the beginning of an answer comes with it."""


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    fault: Fault
    verdict: Verdict
    settings: dict[str, Any] = field(default_factory=dict)
    streamed: Verdict | None = None
    """What a stream makes of it, where that is another thing."""

    def verdict_on(self, *, streams: bool) -> Verdict:
        return self.streamed if streams and self.streamed is not None else self.verdict


@dataclass(frozen=True, slots=True)
class Face:
    """What an error's class says to programs and visitors."""

    code: str
    public_message: str
    retryable: bool


_LATER = "Please try again later."
FACES: dict[type[errors.OllamaBridgeError], Face] = {
    errors.ConnectionFailed: Face(
        "connection_failed", f"The AI service cannot be reached right now. {_LATER}", retryable=True
    ),
    errors.Timeout: Face(
        "timeout", "The AI service took too long to answer. Please try again.", retryable=True
    ),
    errors.ServerFailed: Face(
        "upstream_failed", f"The AI service reported a problem. {_LATER}", retryable=True
    ),
    errors.ModelNotFound: Face(
        "model_not_found", "The AI model is not available right now.", retryable=False
    ),
    errors.RequestRejected: Face(
        "request_rejected", "The AI service could not process this request.", retryable=False
    ),
    errors.AuthenticationFailed: Face(
        "upstream_auth",
        "The AI service is not set up correctly. Please tell the site's operator.",
        retryable=False,
    ),
    errors.RateLimited: Face(
        "rate_limited", "The AI service is busy. Please try again in a moment.", retryable=True
    ),
    errors.QuotaExhausted: Face(
        "quota_exhausted", f"The AI service has reached its usage limit. {_LATER}", retryable=False
    ),
    errors.CircuitOpen: Face(
        "circuit_open", f"The AI service is temporarily unavailable. {_LATER}", retryable=True
    ),
    errors.Overloaded: Face(
        "overloaded", "The AI service is very busy. Please try again in a moment.", retryable=True
    ),
    errors.StreamInterrupted: Face(
        "stream_interrupted", "The answer was interrupted. Please try again.", retryable=True
    ),
    errors.InvalidReply: Face(
        "invalid_reply",
        "The AI service gave an answer that could not be read.",
        retryable=False,
    ),
    errors.ContextTooLong: Face(
        "context_too_long",
        "The message is too long for the AI model. Please shorten it.",
        retryable=False,
    ),
}

_NOT_FOUND = Verdict(
    error=errors.ModelNotFound,
    says="Model llama3.2 not found. Run: ollama pull llama3.2",
    status=404,
    blames="answered",
)
_NO_API = Verdict(
    error=errors.RequestRejected,
    says="There is no Ollama API at {url}. Check BASE_URL, and the server: ollama --version",
    status=404,
    blames="answered",
)
_REJECTED = Verdict(
    error=errors.RequestRejected,
    says="The server at {url} rejected the request (HTTP 400). See its log",
    status=400,
    blames="answered",
)
_NO_KEY = Verdict(
    error=errors.AuthenticationFailed,
    says="The server at {url} does not accept the key. Set OLLAMA_API_KEY",
    status=401,
    blames="answered",
)
_BUSY = Verdict(
    error=errors.Overloaded,
    says="The server at {url} is busy. Send fewer calls at once, or raise OLLAMA_MAX_QUEUE there",
    status=503,
    requests=ATTEMPTS,
)
_LIMITED = Verdict(
    error=errors.RateLimited,
    says="The server at {url} asks for fewer requests",
    status=429,
    requests=ATTEMPTS,
)
_DROPPED = Verdict(
    error=errors.ConnectionFailed,
    says="The server at {url} closed the connection without a reply. See its log",
    requests=REPLAYED,
    blames="endpoint",
)
_CUT = Verdict(
    error=errors.ConnectionFailed,
    says="The connection to {url} broke inside the reply. See the server's log",
    requests=ATTEMPTS,
    blames="model",
)
_INTERRUPTED = replace(_CUT, error=errors.StreamInterrupted, status=200, requests=1, partial=True)
_SILENT = Verdict(
    error=errors.Timeout,
    says="Response timeout - Ollama may be overloaded, or the model is still loading. "
    "Load it once by hand: ollama run llama3.2",
    blames="endpoint",
    phase="total",
)
_NO_FIRST_TOKEN = replace(_SILENT, phase="first_token")
_SLOW = Verdict(
    error=errors.Timeout,
    says="Response timeout - the reply of {url} began but did not end in time. "
    "Raise TIMEOUT, or lower max_tokens",
    blames="model",
    phase="total",
)
_SLOW_FIRST_TOKEN = replace(_NO_FIRST_TOKEN, blames="model")
_CRASHED = Verdict(
    error=errors.ServerFailed,
    says="The model's runner crashed. See the log of the Ollama server",
    status=500,
    requests=ATTEMPTS,
    blames="model",
)
_FAILED = Verdict(
    error=errors.ServerFailed,
    says="Ollama at {url} answered with HTTP 500. See the server's log",
    status=500,
    requests=ATTEMPTS,
    blames="model",
)
_UNAVAILABLE = Verdict(
    error=errors.ServerFailed,
    says="Ollama at {url} answered with HTTP 503. See the server's log",
    status=503,
    requests=ATTEMPTS,
    blames="endpoint",
)
_NO_MEMORY = Verdict(
    error=errors.ServerFailed,
    says="The model does not fit in memory. Use a smaller or quantised model, or a smaller num_ctx",
    status=500,
    requests=ATTEMPTS,
    blames="model",
)
_TOO_LARGE = Verdict(
    error=errors.InvalidReply,
    says="The reply of {url} is larger than MAX_RESPONSE_BYTES (16777216)",
    blames="model",
)
_CONTEXT = Verdict(
    error=errors.ContextTooLong,
    says="The prompt does not fit into the context of llama3.2. Shorten it, or raise num_ctx",
    status=400,
    blames="answered",
)


def _gateway(status: int) -> Verdict:
    return Verdict(
        error=errors.ServerFailed,
        says=f"A proxy did not reach Ollama at {{url}} (HTTP {status}). See its log",
        status=status,
        requests=ATTEMPTS,
        blames="endpoint",
    )


def _no_reply(what: str) -> Verdict:
    return Verdict(
        error=errors.InvalidReply,
        says=f"{{url}} answered with {what} that is no reply of Ollama's. Check BASE_URL",
        status=200,
        blames="model",
    )


_NOT_DONE = Verdict(
    error=errors.InvalidReply,
    says="The server ended its answer without saying that it is done. See its log",
    status=200,
    blames="model",
)

CASES = [
    # The connection.
    Case("reset before the status line", faults.Reset(), _DROPPED),
    Case("dropped before the status line", faults.Drop(), _DROPPED),
    Case("cut body", faults.CutBody(), _CUT, streamed=_INTERRUPTED),
    Case("black hole", faults.BlackHole(), _SILENT, SHORT, _NO_FIRST_TOKEN),
    Case("drip in status line", faults.Drip("status"), _SLOW, SHORT, _SLOW_FIRST_TOKEN),
    Case("drip in headers", faults.Drip("headers"), _SLOW, SHORT, _SLOW_FIRST_TOKEN),
    Case("drip in body", faults.Drip("body"), _SLOW, SHORT, _SLOW_FIRST_TOKEN),
    Case(
        "not HTTP",
        faults.Garbage(),
        Verdict(
            error=errors.InvalidReply,
            says="{url} answered with something that is not HTTP. Check BASE_URL",
            blames="endpoint",
        ),
    ),
    # The request is to blame, or the set-up.
    Case("404 of chat", faults.model_missing("model 'llama3.2' not found"), _NOT_FOUND),
    Case("404 of show", faults.model_missing("model 'llama3.2:latest' not found"), _NOT_FOUND),
    Case(
        "404 of embed",
        faults.model_missing('model "llama3.2" not found, try pulling it first'),
        _NOT_FOUND,
    ),
    Case("404 of the cloud", faults.model_missing('model "llama3.2" not found'), _NOT_FOUND),
    Case("404 of a page", faults.page_not_found(), _NO_API),
    Case("404 of a path", faults.model_missing('path "/api/chat" not found'), _NO_API),
    Case("400", faults.Status(400, b'{"error":"unexpected EOF"}', "application/json"), _REJECTED),
    Case("400 without a body", faults.Status(400), _REJECTED),
    Case(
        "400 for the context",
        faults.Status(400, b'{"error":"the input length exceeds the context length"}'),
        _CONTEXT,
    ),
    Case(
        "400 for thinking",
        faults.Status(400, b'{"error":"\\"llama3.2\\" does not support thinking"}'),
        Verdict(
            error=errors.RequestRejected,
            says="Model llama3.2 does not support thinking. Choose another model: ollama list",
            status=400,
            blames="answered",
        ),
    ),
    Case("401 plain text", faults.unauthorized(), _NO_KEY),
    Case(
        "403 empty",
        faults.forbidden(),
        Verdict(
            error=errors.AuthenticationFailed,
            says="The server at {url} refuses this host name. "
            "Set OLLAMA_HOST there, or let the proxy send Host: localhost:11434",
            status=403,
            blames="answered",
        ),
    ),
    Case(
        "403 with a text",
        faults.Status(403, b'{"error":"this model requires a subscription, upgrade for access"}'),
        Verdict(
            error=errors.AuthenticationFailed,
            says="Model llama3.2 needs a subscription at {url}. Choose another model or upgrade",
            status=403,
            blames="answered",
        ),
    ),
    Case(
        "413 in HTML",
        faults.Status(413, b"<html>413 Request Entity Too Large</html>", "text/html"),
        Verdict(
            error=errors.RequestRejected,
            says="The request is too large for a proxy before {url}. Raise its limit for bodies",
            status=413,
            blames="answered",
        ),
    ),
    Case(
        "500 that blames the request",
        faults.bad_option(),
        Verdict(
            error=errors.RequestRejected,
            says="Option temperature must be of type float32. Correct it in OPTIONS or in options=",
            status=500,
            blames="answered",
        ),
    ),
    Case(
        "500 for the format",
        faults.server_error('invalid format: "\\"x\\""; expected "json" or a valid JSON Schema'),
        Verdict(
            error=errors.RequestRejected,
            says='The server does not accept the format. Use "json" or a valid JSON schema',
            status=500,
            blames="answered",
        ),
    ),
    # The server has too much to do.
    Case("429", faults.rate_limited(), _LIMITED),
    Case(
        "429 with Retry-After",
        faults.rate_limited(retry_after=120),
        Verdict(error=_LIMITED.error, says=_LIMITED.says, status=429, retry_after=120),
    ),
    Case(
        "429 for the quota",
        faults.usage_limit(),
        Verdict(
            error=errors.QuotaExhausted,
            says="The account at {url} has used up its allowance. "
            "Wait for its next period or upgrade",
            status=429,
            retry_after=600,
        ),
    ),
    Case("503 busy", faults.busy(), _BUSY),
    # The server fails.
    Case("500", faults.server_error("boom"), _FAILED),
    Case("500 without a body", faults.Status(500), _FAILED),
    Case("500 with nested JSON", faults.nested_error(), _FAILED),
    Case("500 of a killed runner", faults.server_error(), _CRASHED),
    Case("500 out of memory", faults.out_of_memory(), _NO_MEMORY),
    Case("502 in HTML", faults.bad_gateway(), _gateway(502)),
    Case("503", faults.unavailable(), _UNAVAILABLE),
    Case(
        "503 with Retry-After",
        faults.unavailable(retry_after=120),
        Verdict(
            error=errors.ServerFailed,
            says=_UNAVAILABLE.says,
            status=503,
            retry_after=120,
            blames="endpoint",
        ),
    ),
    Case("504 in HTML", faults.gateway_timeout(), _gateway(504)),
    # A 200 that is none.
    Case(
        "200 with an error",
        faults.ErrorInOK(),
        Verdict(
            error=errors.ServerFailed,
            says="Ollama at {url} reported an error inside its reply. See the server's log",
            status=200,
            blames="model",
        ),
    ),
    Case(
        "done: false",
        faults.NotDone(),
        replace(_NOT_DONE, partial=True),
        streamed=replace(_NOT_DONE, error=errors.StreamInterrupted, partial=True),
    ),
    Case(
        "truncated JSON",
        faults.TruncatedJSON(),
        _no_reply("application/json"),
        streamed=replace(
            _no_reply("application/x-ndjson"), error=errors.StreamInterrupted, partial=True
        ),
    ),
    Case("wrong content type", faults.WrongType(), _no_reply("text/html")),
    Case("empty body", faults.Status(200), _no_reply("something"), streamed=_NOT_DONE),
    Case(
        "other JSON", faults.Status(200, b"[]", "application/json"), _no_reply("application/json")
    ),
    Case("100 MB, declared", faults.HugeBody(declared=True), _TOO_LARGE),
    Case("100 MB, chunked", faults.HugeBody(declared=False), _TOO_LARGE),
    Case(
        "redirect",
        faults.redirect("http://127.0.0.1:1/"),
        Verdict(
            error=errors.InvalidReply,
            says="{url} answered with HTTP 307, a redirect perhaps. Check BASE_URL",
            status=307,
            blames="model",
        ),
    ),
]
