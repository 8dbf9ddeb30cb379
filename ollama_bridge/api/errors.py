"""From an exception to the answer that says so: one table of statuses, one shape of body."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured, PermissionDenied, RequestDataTooBig
from django.http import Http404, UnreadablePostError
from rest_framework import exceptions
from rest_framework.settings import api_settings

from ..errors import OllamaBridgeError, StreamInterrupted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STATUSES: Final[Mapping[str, int]] = {
    "connection_failed": 503,
    "timeout": 504,
    "upstream_failed": 502,
    "model_not_found": 503,
    "request_rejected": 502,  # 400 where the client chose what was rejected
    "upstream_auth": 502,
    "rate_limited": 503,
    "quota_exhausted": 503,
    "circuit_open": 503,
    "overloaded": 503,
    "stream_interrupted": 502,
    "invalid_reply": 502,
    "output_invalid": 502,
    "context_too_long": 400,
    "all_endpoints_failed": 503,
    "deferred": 202,
    "misconfigured": 500,
    "invalid": 400,
    "too_large": 413,
    "not_authenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "unsupported_media_type": 415,
    "throttled": 429,
}
"""The status of each code of the API."""

WITHOUT_HINT: Final = 30
"""Seconds to wait before the next try where nothing better is known."""

_SENTENCES: Final[Mapping[str, str]] = {
    "too_large": "The request is too large. Send a shorter message or history.",
    "not_authenticated": "You are not logged in. Log in and try again.",
    "forbidden": "You may not do this. Ask the site's operator for permission.",
    "not_found": "There is nothing at this address. Check it.",
    "method_not_allowed": "This address does not take such a request. See the header Allow.",
    "not_acceptable": (
        "Answers come as JSON, or from a chat as text/event-stream. "
        "Send the header Accept: application/json."
    ),
    "unsupported_media_type": (
        "The body must be JSON. Send it with the header Content-Type: application/json."
    ),
    "throttled": "You are sending too many requests. Please wait a moment.",
    "misconfigured": "The AI service is not set up correctly. Please tell the site's operator.",
    "unreadable": "The request broke off. Send it again.",
}

_CODES: Final[tuple[tuple[type[exceptions.APIException], str], ...]] = (
    (exceptions.ValidationError, "invalid"),
    (exceptions.ParseError, "invalid"),
    (exceptions.NotAuthenticated, "not_authenticated"),
    (exceptions.AuthenticationFailed, "not_authenticated"),
    (exceptions.PermissionDenied, "forbidden"),
    (exceptions.NotFound, "not_found"),
    (exceptions.MethodNotAllowed, "method_not_allowed"),
    (exceptions.NotAcceptable, "not_acceptable"),
    (exceptions.UnsupportedMediaType, "unsupported_media_type"),
    (exceptions.Throttled, "throttled"),
)
"""The codes of Django REST framework's exceptions; of any other, its own code and status hold."""

_SPEAKING: Final = frozenset({"invalid", "not_authenticated", "forbidden"})
"""Where an exception's own sentence is worth more than ours: it comes from a parser, say."""


class TooLarge(exceptions.APIException):
    """The body exceeds ``MAX_BODY_BYTES``."""

    status_code = STATUSES["too_large"]
    default_code = "too_large"
    default_detail = _SENTENCES["too_large"]


class TooManyCalls(exceptions.Throttled):
    """As many calls of this user are under way as ``MAX_CALLS_PER_USER`` allows."""

    public_message = "Your earlier questions are still being answered. Please wait for one of them."
    wait: float | None  # as REST framework sets it, in whole seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why there is no answer.

    Attributes:
        error: sentence for a visitor.
        retry_after: whole seconds until the next try makes sense, None where that is not known.
        detail: sentence for the operator, which only staff may see.
        fields: path of each wrong field, with what is wrong with it.
    """

    code: str
    status: int
    error: str
    retry_after: int | None = None
    detail: str = ""
    fields: Mapping[str, list[str]] = field(default_factory=dict)

    def body(self, request_id: str, *, staff: bool) -> dict[str, Any]:
        """Return the body of the answer, with the detail if it is for staff."""
        body: dict[str, Any] = {"success": False, "error": self.error, "code": self.code}
        if self.retry_after is not None:
            body["retry_after"] = self.retry_after
        body["request_id"] = request_id
        if staff and self.detail:
            body["detail"] = self.detail
        if self.fields:
            body["fields"] = self.fields
        return body

    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def problem_of(exc: Exception, *, chosen: bool = False) -> Problem | None:
    """Return what an exception means for the client, or None where it is a bug of the server's.

    ``chosen`` tells that the client chose the model or its settings, so that a request which the
    model's server rejects is the client's own.
    """
    if isinstance(exc, OllamaBridgeError):
        return of_bridge(exc, chosen=chosen)
    if isinstance(exc, ImproperlyConfigured):
        code = "misconfigured"
        return Problem(code=code, status=STATUSES[code], error=_SENTENCES[code], detail=str(exc))
    translated = _translated(exc)
    return None if translated is None else _of_rest(translated)


def interrupted() -> Problem:
    """Return what a bug of the server's means for a client who is in the middle of an answer."""
    code = StreamInterrupted.code
    return Problem(code=code, status=STATUSES[code], error=StreamInterrupted.public_message)


def of_bridge(error: OllamaBridgeError, *, chosen: bool = False) -> Problem:
    """Return what an error of the bridge means for the client."""
    rejected = error.code == "request_rejected" and chosen
    status = 400 if rejected else STATUSES.get(error.code, 502)
    return Problem(
        code=error.code,
        status=status,
        error=error.public_message,
        retry_after=wait_for(status, error.retry_after),
        detail=str(error),
    )


def wait_for(status: int, seconds: float | None) -> int | None:
    """Return the whole seconds to wait; 503 and 429 always say some."""
    if seconds is not None and math.isfinite(seconds):
        return max(1, math.ceil(seconds))
    return WITHOUT_HINT if status in {429, 503} else None


def _translated(exc: Exception) -> exceptions.APIException | None:
    """Return the exception of REST framework that means the same as one of Django's."""
    match exc:
        case exceptions.APIException():
            return exc
        case RequestDataTooBig():
            return TooLarge()
        case UnreadablePostError():
            return exceptions.ParseError(_SENTENCES["unreadable"])
        case Http404():
            return exceptions.NotFound()
        case PermissionDenied():
            return exceptions.PermissionDenied(*exc.args)
        case _:
            return None


def _of_rest(exc: exceptions.APIException) -> Problem:
    code = next((code for kind, code in _CODES if isinstance(exc, kind)), exc.default_code)
    status = STATUSES.get(code, exc.status_code)
    fields = _collected(exc.detail) if isinstance(exc.detail, dict | list) else {}
    return Problem(
        code=code,
        status=status,
        error=_first(fields) or _said(exc, code),
        retry_after=wait_for(status, getattr(exc, "wait", None)),
        fields=fields,
    )


def _said(exc: exceptions.APIException, code: str) -> str:
    """Return what a permission or authenticator says itself, else our sentence."""
    if isinstance(exc, TooManyCalls):
        return exc.public_message
    speaks = code in _SPEAKING and exc.detail != exc.default_detail
    return str(exc.detail) if speaks else _SENTENCES.get(code, str(exc.detail))


def _first(fields: Mapping[str, list[str]]) -> str:
    """Return the first complaint as a sentence of its own, with the field's name."""
    for path, sentences in fields.items():
        is_named = path != api_settings.NON_FIELD_ERRORS_KEY
        return f"{path}: {sentences[0]}" if is_named else sentences[0]
    return ""


def _collected(detail: object) -> dict[str, list[str]]:
    """Return nested complaints by path, such as ``history[1].content``."""
    found: dict[str, list[str]] = {}
    for path, sentence in _walk(detail, ""):
        found.setdefault(path or api_settings.NON_FIELD_ERRORS_KEY, []).append(sentence)
    return found


def _walk(detail: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(detail, dict):
        for key, value in detail.items():
            yield from _walk(value, _joined(path, key))
    elif isinstance(detail, list):
        for number, value in enumerate(detail):
            yield from _walk(value, path if isinstance(value, str) else _joined(path, number))
    else:
        yield path, str(detail)


def _joined(path: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    if key == api_settings.NON_FIELD_ERRORS_KEY:
        return path
    return f"{path}.{key}" if path else key
