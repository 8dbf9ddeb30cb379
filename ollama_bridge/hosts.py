"""Addresses of servers: the rule for URLs, ``OLLAMA_HOST``, and which host is this machine."""

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from .rules import InvalidError, Rule

OLLAMA_PORT = 11434
PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Url(Rule[str]):
    """An http(s) URL without query. Its value is never shown: it may hold a password."""

    example: str
    credentials: bool = False  # proxies take them in the URL, servers do not

    def clean(self, value: object) -> str:
        if not isinstance(value, str):
            raise InvalidError(f"must be a URL, not {type(value).__name__}", self._hint)
        parts = self._split(value)
        if "@" in parts.netloc and not self.credentials:
            raise InvalidError(
                "must not contain a user name or password",
                hint="Remove them, and with an https:// address type "
                '"HEADERS": {"Authorization": "…"}, or "API_KEY": "…" for a key.',
            )
        if "?" in value or "#" in value:
            raise InvalidError("must not contain a query or fragment", self._hint)
        return f"{parts.scheme}://{parts.netloc.rstrip(':')}{parts.path.rstrip('/')}"

    def _split(self, value: str) -> SplitResult:
        try:
            parts = urlsplit(value)
            port_is_valid = parts.port != 0
            if "[" in parts.netloc:
                ipaddress.IPv6Address(parts.hostname or "")
        except ValueError:
            raise InvalidError("has an invalid host or port", self._hint) from None
        if parts.scheme not in {"http", "https"}:
            raise InvalidError("must begin with http:// or https://", self._hint)
        readable = value.isprintable() and not set(value) & set(' "<>\\^`{|}')
        if not (parts.hostname and port_is_valid and readable):
            raise InvalidError("has an invalid host or port", self._hint)
        return parts

    @property
    def _hint(self) -> str:
        return f'Type for example "{self.example}".'


def read_ollama_host(text: str) -> str:
    """Return the URL that the official Python client makes of ``OLLAMA_HOST``.

    Its oddities are kept, because both must find the same server: without a scheme the port is
    11434, with one it is the scheme's; credentials and query are dropped; blanks and quotes stay.
    """
    scheme, _, rest = text.partition("://")
    port = PORTS.get(scheme, OLLAMA_PORT)
    if not rest:
        scheme, rest, port = "http", text, OLLAMA_PORT
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        port = parts.port or port
    except ValueError:
        raise InvalidError(
            "has an invalid host or port",
            hint="Type for example OLLAMA_HOST=127.0.0.1:11434, or OLLAMA_HOST=[::1] for IPv6.",
        ) from None
    host = parts.hostname or "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{port}/{parts.path.strip('/')}".rstrip("/")


def server_of(url: str) -> tuple[str, int]:
    """Return the host and the port of a URL that obeys the rule."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or PORTS[parts.scheme]


def is_loopback(url: str) -> bool:
    """Tell whether the URL's host is surely this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
