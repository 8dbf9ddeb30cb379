"""What comes in: HTTP/1.x requests, parsed as their bytes arrive."""

from dataclasses import dataclass
from urllib.parse import urlsplit

_END_OF_HEAD = b"\r\n\r\n"


class BadRequestError(ValueError):
    """These bytes are no HTTP request."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One whole request."""

    method: str
    target: str
    headers: dict[str, str]
    http10: bool
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path alone, also of the absolute form that is sent to proxies."""
        return urlsplit(self.target).path if "?" in self.target or self.proxied else self.target

    @property
    def proxied(self) -> bool:
        return not self.target.startswith("/")

    @property
    def keep_alive(self) -> bool:
        wish = self.headers.get("connection", "").lower()
        return wish == "keep-alive" if self.http10 else wish != "close"


class Inbox:
    """Collects bytes and hands out whole requests in the order in which they came."""

    __slots__ = ("_buffer", "_head")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Incoming | None = None

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Incoming | None:
        """Return the next whole request, or None until its last byte is here.

        Raises:
            BadRequestError: what came is not HTTP.
        """
        head = self._head = self._head or self._take_head()
        body = None if head is None else self._take_body(head)
        if head is None or body is None:
            return None
        self._head = None
        return Incoming(head.method, head.target, head.headers, head.http10, body)

    @property
    def expects_continue(self) -> bool:
        """Whether a client holds its body back until it is asked for it."""
        return self._head is not None and "expect" in self._head.headers and not self._buffer

    def _take_head(self) -> Incoming | None:
        end = self._buffer.find(_END_OF_HEAD)
        if end < 0:
            return None
        head = parse_head(self._buffer[:end].decode("latin-1"))
        del self._buffer[: end + len(_END_OF_HEAD)]
        return head

    def _take_body(self, head: Incoming) -> bytes | None:
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            return self._take_chunks()
        size = parse_size(head.headers.get("content-length", "0"), 10)
        if len(self._buffer) < size:
            return None
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        return body

    def _take_chunks(self) -> bytes | None:
        pieces: list[bytes] = []
        at = 0
        while (end := self._buffer.find(b"\r\n", at)) >= 0:
            size = parse_size(self._buffer[at:end].partition(b";")[0].decode("latin-1"), 16)
            start, at = end + 2, end + 2 + size + 2
            if len(self._buffer) < at:
                return None
            if size == 0:
                del self._buffer[:at]
                return b"".join(pieces)
            pieces.append(bytes(self._buffer[start : start + size]))
        return None


def parse_head(text: str) -> Incoming:
    """Parse a request line and its header lines.

    Raises:
        BadRequestError: it is not HTTP/1.x.
    """
    first, *lines = text.split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequestError(f"not an HTTP request: {first[:40]!r}")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Incoming(method, target, headers, version == "HTTP/1.0")


def parse_size(text: str, base: int) -> int:
    """Parse a Content-Length (base 10) or a chunk's size (base 16).

    Raises:
        BadRequestError: it is no number.
    """
    try:
        return int(text, base)
    except ValueError:
        raise BadRequestError(f"not a length: {text[:40]!r}") from None
