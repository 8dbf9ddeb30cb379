"""Server-sent events as bytes, and how they come of a stream.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from rest_framework.renderers import BaseRenderer, JSONRenderer

from .errors import interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..core.types import ChatReply, Delta
    from .errors import Problem

HEARTBEAT: Final = b": waiting\n\n"
"""A comment, which clients ignore. Proxies see that the connection lives; we, that it does not."""

HEARTBEAT_EVERY: float = 15.0
"""Seconds of silence after which there is a heartbeat."""

FIRST_HEARTBEAT: float = 1.0
"""Seconds from one heartbeat to another under WSGI: what a client closed, fails at the second write
only, for the first one makes it say so. Then there is quiet for ``HEARTBEAT_EVERY``."""

LEASE: float = 10.0
"""Seconds in which somebody must begin to read a stream, or it is left: Django drops a response
unclosed if middleware fails after the view, or if under ASGI the client leaves then. Middleware
takes milliseconds on its way out, a few seconds at worst (SQLite waits 5 for a lock); to cut off a
reader who is late would be worse than a seat that stays taken for so long."""

MOST_QUEUED: Final = 16
"""Events that wait for a slow reader; after them its upstream waits."""

MEDIA_TYPE: Final = "text/event-stream"

HEADERS: Final[Mapping[str, str]] = {
    # Said here, so that GZipMiddleware leaves it alone: it would hold events back.
    "Content-Encoding": "identity",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx
}

# Of the response whose body the last event would else be: it knows dates, and lazy translations.
_encode: Callable[[object], str] = JSONRenderer.encoder_class(
    ensure_ascii=False, allow_nan=False, separators=(", ", ": ")
).encode

logger = logging.getLogger(__name__)


class EventStreamRenderer(BaseRenderer):
    """Makes ``Accept: text/event-stream`` negotiable. What it renders is an error, as JSON."""

    media_type = MEDIA_TYPE
    format = "sse"


class Ended(Protocol):
    """Says what the last event of a stream is, from its reply or its error."""

    def answered(self, reply: ChatReply) -> dict[str, Any]:
        """Return the body of a whole answer."""

    def failed(self, error: Exception) -> Problem | None:
        """Return what an error means for the client, None where it is a bug of the server's."""

    def told(self, problem: Problem) -> dict[str, Any]:
        """Return the body that tells of a problem."""


def of_delta(delta: Delta) -> bytes:
    """Return the events of a piece: none, one, or thinking and text."""
    found = _event("thinking", {"text": delta.thinking}) if delta.thinking else b""
    return found + _event("delta", {"text": delta.text}) if delta else found


def of_reply(ended: Ended, reply: ChatReply) -> bytes:
    return _event("done", ended.answered(reply))


def of_error(ended: Ended, error: Exception) -> bytes:
    """Return the event of an error that is too late for a status; a bug is logged."""
    problem = ended.failed(error)
    if problem is None:
        logger.error("A stream failed", exc_info=error)
        problem = interrupted()
    return _event("error", ended.told(problem))


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {_encode(data)}\n\n".encode()
