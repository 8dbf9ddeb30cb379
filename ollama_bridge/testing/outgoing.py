"""What goes out: replies as values, and their bytes as Go's net/http writes them."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from . import gojson

JSON = "application/json; charset=utf-8"
BARE_JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"

# Go holds back this many bytes: a reply that fits gets a Content-Length, a longer one is chunked.
GO_BUFFER = 2048


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply."""

    status: int = 200
    parts: Iterable[bytes] = ()
    """The body in the pieces that the server flushes: the lines of a stream, else one."""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    chunked: bool = False
    length: int | None = None
    """Content-Length where it is not the sum of the parts."""
    wait: float = 0.0
    """Seconds before the first byte: queueing, loading, reading the prompt."""
    pace: float = 0.0
    """Seconds between two parts."""

    @property
    def size(self) -> int:
        """Bytes of the body as declared."""
        return sum(map(len, self.parts)) if self.length is None else self.length


def plain(status: int, body: bytes, content_type: str | None = TEXT) -> Reply:
    """Return a reply of one piece with a Content-Length."""
    return Reply(status, (body,) if body else (), content_type)


def json_reply(value: object, status: int = 200, wait: float = 0.0) -> Reply:
    """Return `value` as the server writes JSON that is not a stream."""
    body = gojson.dump(value)
    return Reply(status, (body,), JSON, chunked=len(body) > GO_BUFFER, wait=wait)


def error_reply(status: int, text: str) -> Reply:
    """Return the server's usual `{"error": text}`."""
    return json_reply({"error": text}, status)


BAD_REQUEST = plain(400, b"400 Bad Request", "text/plain; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Framing:
    """How replies are framed for one request."""

    http10: bool = False
    bodiless: bool = False
    """The request was a HEAD."""
    close: bool = False

    def closes(self, reply: Reply) -> bool:
        """Whether the connection ends with this reply."""
        return self.close or (self.http10 and reply.chunked)

    def head(self, reply: Reply) -> bytes:
        """Return status line and headers, in the server's own order."""
        own = list(reply.headers)
        if reply.content_type is not None:
            own.append(("Content-Type", reply.content_type))
        own.sort()
        own.append(("Date", http_date(int(time.time()))))
        own.extend(self._framing_headers(reply))
        version = "HTTP/1.0" if self.http10 else "HTTP/1.1"
        lines = "".join([f"{name}: {value}\r\n" for name, value in own])
        return f"{version} {reply.status} {reason(reply.status)}\r\n{lines}\r\n".encode("latin-1")

    def _framing_headers(self, reply: Reply) -> Iterable[tuple[str, str]]:
        if not reply.chunked:
            yield "Content-Length", str(reply.size)
        if self.close and not self.http10:
            yield "Connection", "close"
        if reply.chunked and not self.http10:
            yield "Transfer-Encoding", "chunked"

    def part(self, reply: Reply, data: bytes) -> bytes:
        """Return one piece of the body, framed."""
        if self.bodiless or not data:
            return b""
        if not reply.chunked or self.http10:
            return data
        return b"%x\r\n%b\r\n" % (len(data), data)

    def end(self, reply: Reply) -> bytes:
        """Return what follows the last piece."""
        return b"0\r\n\r\n" if reply.chunked and not (self.http10 or self.bodiless) else b""

    def body(self, reply: Reply) -> bytes:
        """Return everything after the head."""
        return b"".join([*(self.part(reply, part) for part in reply.parts), self.end(reply)])

    def whole(self, reply: Reply) -> bytes:
        """Return the reply's bytes from the first to the last."""
        return self.head(reply) + self.body(reply)


@lru_cache(maxsize=2)
def http_date(second: int) -> str:
    """Return the Date header for a second since the epoch."""
    return formatdate(second, usegmt=True)


@lru_cache
def reason(status: int) -> str:
    """Return the reason phrase that Go writes."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status code {status}"
