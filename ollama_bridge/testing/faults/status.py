"""Faults with an HTTP status, in the words of real servers and of what stands before them."""

from dataclasses import dataclass, replace

from .. import gojson
from ..exchange import Exchange
from ..outgoing import JSON, TEXT, Reply, plain

_HTML = "text/html"
KILLED = "an error was encountered while running the model: unexpected EOF"
"""What a killed runner leaves."""
_QUOTA = (
    "you (user) have reached your {} usage limit, upgrade for higher limits: "
    "https://ollama.com/upgrade (ref: 5e0fc1a2-9d1f-4a43-8d0a-3c1f5a5b7e10)"
)
_HOURLY = "you've reached your hourly usage limit, please wait or upgrade to continue"


@dataclass(frozen=True, slots=True)
class Status:
    """Any status with any body; the connection stays open."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    async def reply(self, exchange: Exchange) -> None:
        parts = (self.body,) if self.body else ()
        await exchange.send(Reply(self.status, parts, self.content_type, self.headers))


def _error(status: int, text: str, retry_after: int | str | None = None) -> Status:
    headers = () if retry_after is None else (("Retry-After", str(retry_after)),)
    return Status(status, gojson.dump({"error": text}), JSON, headers)


def busy() -> Status:
    """503 of a server whose queue for loading models is full."""
    return _error(503, "server busy, please try again.  maximum pending requests exceeded")


def unavailable(retry_after: int | str | None = None) -> Status:
    """503 of the cloud or of a proxy."""
    return _error(503, "Service Temporarily Unavailable", retry_after)


def rate_limited(retry_after: int | str | None = None) -> Status:
    """429 of the cloud: too many calls at the same time. `retry_after`: seconds or a date."""
    return _error(429, "too many concurrent requests", retry_after)


def usage_limit(retry_after: int | str | None = None, *, window: str = "session") -> Status:
    """429 of the cloud: a quota is used up.

    Args:
        retry_after: Seconds or a date; the cloud itself sends none.
        window: "session", "weekly", or "hourly" in the words of older days.
    """
    return _error(429, _HOURLY if window == "hourly" else _QUOTA.format(window), retry_after)


def unauthorized() -> Status:
    """401 of the cloud: no key or a wrong one; plain text."""
    return Status(401, b"unauthorized\n", "text/plain; charset=utf-8")


def forbidden() -> Status:
    """403 of a local server that does not like Host or Origin: no body at all."""
    return Status(403)


def model_missing(text: str = "model 'llama3.2' not found") -> Status:
    """404 in JSON: the model is not pulled."""
    return _error(404, text)


def page_not_found() -> Status:
    """404 in plain text: wrong path, or a server too old for it."""
    return Status(404, b"404 page not found", TEXT)


def server_error(text: str = KILLED) -> Status:
    """500 with a text."""
    return _error(500, text)


def nested_error() -> Status:
    """500 whose text is itself JSON, handed through from llama-server."""
    inner = {"error": {"code": 500, "message": "Compute error.", "type": "server_error"}}
    return _error(500, gojson.dump(inner).decode())


def bad_option() -> Status:
    """500 although the request is to blame."""
    return _error(500, 'option "temperature" must be of type float32')


def out_of_memory() -> Status:
    """500: the model does not fit."""
    return _error(500, "model requires more system memory (12.1 GiB) than is available (7.6 GiB)")


def bad_gateway() -> Status:
    """502 of a proxy, in HTML."""
    return Status(502, _page("502 Bad Gateway"), _HTML)


def gateway_timeout() -> Status:
    """504 of a proxy, in HTML."""
    return Status(504, _page("504 Gateway Time-out"), _HTML)


def redirect(location: str) -> Status:
    """307 to `location`, which a client must not follow with a key."""
    return Status(307, b"", None, (("Location", location),))


def _page(title: str) -> bytes:
    html = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center>"
    return f"{html}<hr><center>nginx</center></body></html>\r\n".encode()


@dataclass(frozen=True, slots=True)
class WithHeaders:
    """The honest answer, with headers that a gateway has added."""

    headers: tuple[tuple[str, str], ...]

    async def reply(self, exchange: Exchange) -> None:
        honest = exchange.honest()
        await exchange.send(replace(honest, headers=(*honest.headers, *self.headers)))


@dataclass(frozen=True, slots=True)
class ErrorInOK:
    """200 that says `{"error": text}`."""

    text: str = "something went wrong"

    async def reply(self, exchange: Exchange) -> None:
        await exchange.send(plain(200, gojson.dump({"error": self.text}), JSON))


@dataclass(frozen=True, slots=True)
class WrongType:
    """200 with a page in HTML: a captive portal, a login page, another service."""

    async def reply(self, exchange: Exchange) -> None:
        await exchange.send(plain(200, _page("Welcome"), _HTML))
