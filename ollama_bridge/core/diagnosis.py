"""From what a server said, or what the network did, to an error whose type says whose fault it is.

A server's own text may quote the prompt, the answer or the key, so it is never shown. It is matched
against the texts that Ollama is known to send, and our sentence for it is shown instead; only parts
that cannot hold prose (names of options, numbers) are taken over.

Sources of the texts: server/, llm/ and api/ of ollama/ollama, and replies recorded from 0.24.0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from ..errors import (
    AuthenticationFailed,
    ConnectionFailed,
    ContextTooLong,
    InvalidReply,
    ModelNotFound,
    OllamaBridgeError,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    RequestRejected,
    ServerFailed,
    Timeout,
)
from .actions import FaultKind, TransportFault
from .names import CLOUD, LOCAL, MAIN
from .protocol import decode_object, error_of
from .retry import parse_retry_after

if TYPE_CHECKING:
    from ..errors import Phase
    from .types import Endpoint, Head, Target

_LONGEST_TEXT = 4096
_MEDIA_TYPES = {
    *("application/json", "application/octet-stream", "application/x-ndjson", "application/xml"),
    *("text/event-stream", "text/html", "text/plain", "text/xml"),
}
OK, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, NOT_ALLOWED, TOO_MANY = 200, 401, 403, 404, 405, 429
CLIENT_ERRORS, SERVER_ERRORS = 400, 500

CLOUD_MODELS: Final = "See https://ollama.com/search?c=cloud"
"""What to do about a model that the cloud does not have: nobody can pull it there."""


class _Meaning(NamedTuple):
    """The error that something means, and the sentence for the operator.

    ``of_request`` tells that no other endpoint would take it.
    """

    error: type[OllamaBridgeError]
    sentence: str
    of_request: bool = False


def _known(
    pattern: str, error: type[OllamaBridgeError], sentence: str, *, of_request: bool = False
) -> tuple[re.Pattern[str], _Meaning]:
    return re.compile(pattern, re.IGNORECASE), _Meaning(error, sentence, of_request)


_OPTIONS = (
    "frequency_penalty|main_gpu|min_p|num_batch|num_ctx|num_gpu|num_keep|num_predict|num_thread"
    "|presence_penalty|repeat_last_n|repeat_penalty|seed|stop|temperature|top_k|top_p|typical_p"
    "|use_mmap"
)
_TEXTS = (
    _known(
        rf'option "(?P<option>{_OPTIONS})" must be of type (?P<type>array|boolean|float32|integer)',
        RequestRejected,
        "Option {option} must be of type {type}. Correct it in OPTIONS or in options=",
        of_request=True,
    ),
    _known(
        r'option ".*" must be of type',
        RequestRejected,
        "An option is of the wrong type. Correct it in OPTIONS or in options=",
        of_request=True,
    ),
    _known(
        r"invalid format:|invalid JSON schema in format",
        RequestRejected,
        'The server does not accept the format. Use "json" or a valid JSON schema',
        of_request=True,
    ),
    _known(
        r"does not support (?P<what>thinking|chat|generate|tools|insert)",
        RequestRejected,
        "Model {model} does not support {what}. Choose another model: ollama list",
    ),
    _known(
        r"exceeds (?:the |maximum )?(?:available )?context (?:size|length)"
        r"|prompt is longer than the context",
        ContextTooLong,
        "The prompt does not fit into the context of {model}. Shorten it, or raise num_ctx",
    ),
    _known(
        r"invalid model name|model is required",
        RequestRejected,
        "The server does not accept {model!r} as a model's name. Set MODEL: ollama list",
    ),
    _known(
        r"time: (?:missing unit|unknown unit|invalid duration)",
        RequestRejected,
        'The server does not accept keep_alive. Use seconds, or a duration such as "5m"',
        of_request=True,
    ),
    _known(
        r"request body too large|failed to read request body",
        RequestRejected,
        "The request is too large for the server. Send less",
    ),
    _known(
        r"out of memory|cudaMalloc failed|failed to allocate|not enough memory|out-of-memory"
        r"|unable to load full model|requires more system memory",
        ServerFailed,
        "The model does not fit in memory. Use a smaller or quantised model, or a smaller num_ctx",
    ),
    _known(
        r"timed out waiting for (?:llama|the)",
        ServerFailed,
        "Model {model} took too long to load. Load it once by hand: ollama run {model}",
    ),
    _known(
        r"runner has unexpectedly stopped|error was encountered while running"
        r"|process (?:has terminated|no longer running)|error starting llama",
        ServerFailed,
        "The model's runner crashed. See the log of the Ollama server",
    ),
    _known(
        r"may be incompatible with your version|exceeds file size",
        ServerFailed,
        "The files of {model} are damaged or of another version. Run: ollama pull {model}",
    ),
    _known(
        r"parsing tool call|invalid tool call arguments",
        ServerFailed,
        "Model {model} wrote a tool call that the server could not read. Try again",
    ),
    _known(
        r"usage limit|plan limit|out of credits",
        QuotaExhausted,
        "The account at {url} has used up its allowance. Wait for its next period or upgrade",
    ),
    _known(
        r"server busy|maximum pending requests|overloaded|no slots available"
        r"|llm server loading model",
        Overloaded,
        "The server at {url} is busy. Send fewer calls at once, or raise OLLAMA_MAX_QUEUE there",
    ),
    _known(
        r"requires a subscription",
        AuthenticationFailed,
        "Model {model} needs a subscription at {url}. Choose another model or upgrade",
    ),
    _known(
        r"cloud is disabled",
        AuthenticationFailed,
        "Cloud models are switched off at {url}. Unset OLLAMA_NO_CLOUD there",
    ),
)

_FAULTS: dict[FaultKind, _Meaning] = {
    FaultKind.UNRESOLVED: _Meaning(
        ConnectionFailed,
        "Cannot connect to Ollama at {url}: no address for {host}. Check {address}",
    ),
    FaultKind.REFUSED: _Meaning(
        ConnectionFailed, "Cannot connect to Ollama at {url}. Start it with: ollama serve"
    ),
    FaultKind.UNREACHABLE: _Meaning(
        ConnectionFailed,
        "Cannot connect to Ollama at {url}: {detail}. Check {address} and the network",
    ),
    FaultKind.CONNECT_TIMEOUT: _Meaning(
        Timeout,
        "Cannot connect to Ollama at {url}: no answer in time. "
        "Check {address}, the network and the firewall",
    ),
    FaultKind.TLS: _Meaning(
        ConnectionFailed,
        "No secure connection to {url}: {detail}. Set VERIFY_SSL to the path of its CA",
    ),
    FaultKind.PROXY: _Meaning(
        ConnectionFailed, "The proxy did not connect to {url}: {detail}. Check PROXY"
    ),
    FaultKind.DROPPED: _Meaning(
        ConnectionFailed, "The server at {url} closed the connection without a reply. See its log"
    ),
    FaultKind.CUT: _Meaning(
        ConnectionFailed, "The connection to {url} broke inside the reply. See the server's log"
    ),
    FaultKind.GARBLED: _Meaning(
        InvalidReply, "{url} answered with something that is not HTTP. Check {address}"
    ),
    FaultKind.SILENT: _Meaning(
        Timeout,
        "Response timeout - Ollama may be overloaded, or the model is still loading. "
        "Load it once by hand: ollama run {model}",
    ),
    FaultKind.SLOW: _Meaning(
        Timeout,
        "Response timeout - the reply of {url} began but did not end in time. "
        "Raise TIMEOUT, or lower max_tokens",
    ),
    FaultKind.TOO_LARGE: _Meaning(
        InvalidReply, "The reply of {url} is larger than MAX_RESPONSE_BYTES ({limit})"
    ),
}

_STALLED = _Meaning(
    Timeout,
    "Response timeout - the reply of {url} stopped in its middle. See the server's log, "
    "or raise CHUNK_TIMEOUT",
)

_BEGUN = {FaultKind.CUT, FaultKind.SLOW, FaultKind.TOO_LARGE}

_STATUSES: dict[int, _Meaning] = {
    401: _Meaning(
        AuthenticationFailed,
        "The server at {url} does not accept the key. Set {key}",
    ),
    403: _Meaning(
        AuthenticationFailed,
        "The server at {url} refuses this client. Check {key} and its plan",
    ),
    404: _Meaning(ModelNotFound, "Model {model} not found. Run: ollama pull {model}"),
    413: _Meaning(
        RequestRejected,
        "The request is too large for a proxy before {url}. Raise its limit for bodies",
    ),
    429: _Meaning(RateLimited, "The server at {url} asks for fewer requests"),
    502: _Meaning(ServerFailed, "A proxy did not reach Ollama at {url} (HTTP 502). See its log"),
    504: _Meaning(ServerFailed, "A proxy did not reach Ollama at {url} (HTTP 504). See its log"),
}
_NOT_IN_CLOUD = _Meaning(ModelNotFound, f"Model {{model}} not found at {{url}}. {CLOUD_MODELS}")
_FOREIGN_HOST = _Meaning(
    AuthenticationFailed,
    "The server at {url} refuses this host name. "
    "Set OLLAMA_HOST there, or let the proxy send Host: localhost:11434",
)
_NO_API = _Meaning(
    RequestRejected,
    "There is no Ollama API at {url}. Check {address}, and the server: ollama --version",
)
_REDIRECT = _Meaning(
    InvalidReply, "{url} answered with HTTP {status}, a redirect perhaps. Check {address}"
)
_REJECTED = _Meaning(
    RequestRejected, "The server at {url} rejected the request (HTTP {status}). See its log"
)
_OF_REQUEST = 400, 422
_KEY = "OLLAMA_API_KEY"
_FAILED = _Meaning(
    ServerFailed, "Ollama at {url} answered with HTTP {status}. See the server's log"
)
_FAILED_INSIDE = _Meaning(
    ServerFailed, "Ollama at {url} reported an error inside its reply. See the server's log"
)
_NOT_A_REPLY = _Meaning(
    InvalidReply, "{url} answered with {what} that is no reply of Ollama's. Check {address}"
)


def from_fault(fault: TransportFault, target: Target, *, phase: Phase) -> OllamaBridgeError:
    """Say what a failure below HTTP means; ``phase`` is the limit that a silence has broken."""
    kind = fault.kind
    if kind is FaultKind.REFUSED and target.endpoint.is_cloud:  # nobody can start it there
        kind = FaultKind.UNREACHABLE
    error = _error(_meaning_of(kind, phase), target, detail=fault.detail)
    if isinstance(error, Timeout):
        error.phase = "connect" if fault.kind is FaultKind.CONNECT_TIMEOUT else phase
    error.begun = fault.kind in _BEGUN
    if fault.kind is FaultKind.TLS:
        error.retryable = False  # a certificate does not become valid by asking again
    return error


def _meaning_of(kind: FaultKind, phase: Phase) -> _Meaning:
    if kind is FaultKind.SLOW and phase == "idle":
        return _STALLED
    if kind is FaultKind.SLOW and phase == "first_token":  # a head came, but not a word
        return _FAULTS[FaultKind.SILENT]
    return _FAULTS[kind]


def from_status(head: Head, body: bytes, target: Target, *, wall: float) -> OllamaBridgeError:
    """Say what a status other than 200 means: by the server's text, else by the status."""
    reply = decode_object(body)
    text = body[:_LONGEST_TEXT].decode(errors="replace") if reply is None else error_of(reply)
    names_model = reply is not None and text is not None and not text.startswith("path ")
    meaning = _by_status(
        head.status,
        names_model=names_model,
        is_empty=not body,
        is_cloud=target.endpoint.is_cloud,
    )
    error = _by_text(text or "", head.status, target) or _error(meaning, target, status=head.status)
    error.status = head.status
    error.retry_after = parse_retry_after(head.headers.get("Retry-After"), wall=wall)
    return error


def from_error(text: str, target: Target) -> OllamaBridgeError:
    """Say what an ``{"error"}`` means that came under status 200."""
    error = _by_text(text, OK, target) or _error(_FAILED_INSIDE, target)
    error.status = OK
    return error


def from_body(head: Head, target: Target) -> OllamaBridgeError:
    """Say that a body under status 200 is not a reply of Ollama's."""
    error = _error(_NOT_A_REPLY, target, what=_media_type(head) or "something")
    error.status = head.status
    return error


def unauthorized(target: Target) -> OllamaBridgeError:
    """Return the error of an endpoint that does not accept the key."""
    return _error(_STATUSES[UNAUTHORIZED], target)


def missing(target: Target) -> OllamaBridgeError:
    """Return the error of an endpoint that does not have the model."""
    is_cloud = target.endpoint.is_cloud
    return _error(_NOT_IN_CLOUD if is_cloud else _STATUSES[NOT_FOUND], target)


def _by_text(text: str, status: int, target: Target) -> OllamaBridgeError | None:
    for pattern, meaning in _TEXTS:
        found = pattern.search(text[:_LONGEST_TEXT])
        if found and _is_plausible(meaning.error, status):
            return _error(meaning, target, **found.groupdict())
    return None


def _is_plausible(error: type[OllamaBridgeError], status: int) -> bool:
    """Tell whether a text may mean this under this status; an answer could quote any of them."""
    if issubclass(error, QuotaExhausted):
        return status in {OK, TOO_MANY}
    if issubclass(error, AuthenticationFailed):
        return status == FORBIDDEN
    if issubclass(error, ServerFailed | Overloaded):
        return status == OK or status >= SERVER_ERRORS
    return status not in {UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY}


def _by_status(status: int, *, names_model: bool, is_empty: bool, is_cloud: bool) -> _Meaning:
    if status == FORBIDDEN and is_empty:
        return _FOREIGN_HOST
    if status == NOT_ALLOWED or (status == NOT_FOUND and not names_model):
        return _NO_API
    if status in _STATUSES:
        return _NOT_IN_CLOUD if status == NOT_FOUND and is_cloud else _STATUSES[status]
    if status >= SERVER_ERRORS:
        return _FAILED
    if status in _OF_REQUEST:
        return _REJECTED._replace(of_request=True)
    return _REJECTED if status >= CLIENT_ERRORS else _REDIRECT


def _error(meaning: _Meaning, target: Target, **parts: object) -> OllamaBridgeError:
    endpoint = target.endpoint
    sentence = meaning.sentence.format(
        url=endpoint.base_url,
        host=urlsplit(endpoint.base_url).hostname,
        address=_address(endpoint),
        model=target.model,
        limit=endpoint.max_response_bytes,
        key=_key(endpoint),
        **parts,
    )
    error = meaning.error(sentence, endpoint=endpoint.name, model=target.model)
    error.of_request = meaning.of_request
    return error


def _address(endpoint: Endpoint) -> str:
    """Return the name of the setting that has the address of an endpoint."""
    if endpoint.name in {MAIN, LOCAL}:  # that is the top level's
        return "BASE_URL"
    address = f"BASE_URL of {endpoint.name}"
    return f"CLOUD_ENDPOINT or {address}" if _may_be_made(endpoint) else address


def _key(endpoint: Endpoint) -> str:
    """Return the name of the setting that has the key of an endpoint."""
    if endpoint.name == MAIN:
        return _KEY
    key = f"API_KEY of {endpoint.name}"
    return f"{_KEY}, or {key}" if _may_be_made(endpoint) else key


def _may_be_made(endpoint: Endpoint) -> bool:
    """Tell whether the key and the model of a cloud made it, or somebody typed it by that name."""
    return endpoint.is_cloud and endpoint.name == CLOUD


def _media_type(head: Head) -> str:
    """Return the media type if it is a usual one; any other text is not for a log."""
    value = head.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return value if value in _MEDIA_TYPES else ""
