"""Pooled connections: one ``requests.Session`` for all endpoints, an adapter for each.

The adapter is mounted at its endpoint's base URL, with the requests prepared once. No cookies, no
redirects, no netrc, and no proxies from the environment.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util.retry import Retry

from ..core.actions import FaultKind, TransportFault
from ..core.types import Head
from .faults import fault_of
from .headers import headers_of
from .sockets import POOLS, Exchange, ExchangeTimeout
from .tls import TlsContexts

if TYPE_CHECKING:
    from types import TracebackType

    from urllib3 import HTTPResponse
    from urllib3.connectionpool import ConnectionPool

    from ..core.types import Endpoint, Request

_PIECE = 65_536


class RefusedOnce(Retry):
    """Repeats a refused connect once, at once; whatever else fails is for the flow to judge.

    A stock ``Retry`` doubles connect timeouts, loses replies and repeats a POST that timed out.
    """

    def __init__(self, **kwargs: Any) -> None:
        defaults = {"total": None, "connect": 1, "respect_retry_after_header": False}
        super().__init__(**{**defaults, **kwargs})

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if error is not None and not _is_refused(error):
            raise error.with_traceback(_stacktrace)
        return super().increment(method, url, response, error, _pool, _stacktrace)


def _is_refused(error: Exception) -> bool:
    cause = getattr(error, "original_error", error)
    return isinstance(cause, NewConnectionError) and isinstance(
        cause.__cause__, ConnectionRefusedError
    )


def _is_of_others(record: logging.LogRecord) -> bool:
    """Drop urllib3's warning at each refused connect: the flow reports what comes of it."""
    values = record.args if isinstance(record.args, tuple) else ()
    return not any(isinstance(value, RefusedOnce) for value in values)


logging.getLogger("urllib3.connectionpool").addFilter(_is_of_others)


class EndpointAdapter(HTTPAdapter):
    """Connections to one endpoint, all under its own TLS rules and, if it has one, its proxy.

    At most ``most`` of them are kept while they are idle.
    """

    def __init__(self, endpoint: Endpoint, tls: TlsContexts, *, most: int) -> None:
        self._endpoint = endpoint
        proxy = endpoint.proxy
        self._tls = tls.of(endpoint)
        super().__init__(
            pool_connections=1,
            pool_maxsize=most,
            pool_block=False,
            max_retries=RefusedOnce(),
        )
        self.proxies = {"http": proxy, "https": proxy} if proxy else {}
        self._request_urls: dict[str, str] = {}
        manager: Any = self.poolmanager
        if proxy:
            contexts = {"ssl_context": self._tls, "proxy_ssl_context": self._tls}
            manager = self.proxy_manager_for(proxy, **contexts)
        manager.pool_classes_by_scheme = POOLS
        self._pool = manager.connection_from_url(endpoint.base_url)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._tls)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return self._pool

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """Leave it to the TLS context: requests would load the CA file for each connection."""

    def request_url(self, request: Any, proxies: Any) -> str:
        """Return what stands in the request line; requests would parse the URL each time."""
        found = self._request_urls.get(request.url)
        if found is None:
            found = self._request_urls[request.url] = super().request_url(request, proxies)
        return found

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        """Return what those who mock requests look at, without cookies, encoding and headers."""
        response = requests.Response()
        response.request, response.status_code, response.raw = req, resp.status, resp
        return response

    def close(self) -> None:
        """Close the idle connections now: urllib3's manager only forgets its pools."""
        super().close()
        self._pool.close()

    def close_inherited(self) -> None:
        self._pool.close_inherited()


class Opened:
    """A response whose body is being read."""

    def __init__(self, response: HTTPResponse, exchange: Exchange) -> None:
        self._response = response
        self._exchange = exchange
        self.head = Head(response.status, response.headers)

    def read(self, until: float) -> bytes:
        """Return what comes next; b"" at the end.

        Raises:
            TransportFault: nothing comes any more.
        """
        self._exchange.until = until
        try:
            return self._response.read1(_PIECE, decode_content=False)
        except (OSError, HTTPError) as exc:
            fault = fault_of(exc, self._exchange)
        raise fault

    def whole(self, limit: int) -> bytes:
        """Return the rest of the body, which leaves the connection to others.

        Raises:
            TransportFault: it does not come, or is larger than ``limit`` bytes.
        """
        length = self._response.length_remaining
        if length is not None:
            return self._exactly(length, limit)
        body = bytearray()
        while piece := self.read(self._exchange.until):
            body += piece
            if len(body) > limit:
                raise TransportFault(FaultKind.TOO_LARGE)
        return bytes(body)

    def _exactly(self, length: int, limit: int) -> bytes:
        if length > limit:
            raise TransportFault(FaultKind.TOO_LARGE)
        try:
            return self._response.read(decode_content=False)
        except (OSError, HTTPError) as exc:
            fault = fault_of(exc, self._exchange)
        raise fault

    def close(self) -> None:
        """Close the connection, unless the body was read to its end."""
        self._response.close()


class Line:
    """The way to one endpoint: its adapter and its requests, prepared but for the body."""

    def __init__(
        self, session: requests.Session, endpoint: Endpoint, tls: TlsContexts, *, most: int
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._adapter = EndpointAdapter(endpoint, tls, most=most)
        self._prepared: dict[tuple[str, str], requests.PreparedRequest] = {}
        session.mount(endpoint.base_url, self._adapter)

    def send(self, request: Request, exchange: Exchange) -> Opened:
        """Return the response, its body unread.

        Raises:
            TransportFault: there is none.
        """
        prepared = self._prepare(request)
        timeout: Any = ExchangeTimeout(exchange)  # urllib3's class, as the adapter accepts it
        try:
            response = self._adapter.send(
                prepared,
                stream=True,
                timeout=timeout,
                verify=bool(self._endpoint.verify),
                proxies=self._adapter.proxies,
            )
        except (OSError, HTTPError) as exc:
            fault = fault_of(exc, exchange)
        else:
            return Opened(response.raw, exchange)
        raise fault

    def close(self) -> None:
        """Close the idle connections; those in use close when they are given back."""
        self._session.adapters.pop(self._endpoint.base_url, None)
        self._adapter.close()

    def close_inherited(self) -> None:
        self._adapter.close_inherited()

    def _prepare(self, request: Request) -> requests.PreparedRequest:
        key = (request.method, request.path)
        template = self._prepared.get(key)
        if template is None:
            url = self._endpoint.base_url + request.path
            template = requests.Request(request.method, url, headers_of(self._endpoint)).prepare()
            self._prepared[key] = template
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url = template.method, template.url
        headers: Any = template.headers
        if request.body is not None:
            prepared.body = request.body
            headers = {**headers, "Content-Length": str(len(request.body))}
        prepared.headers = headers
        return prepared


class BlockingTransport:
    """The process's session. Made lazily, thread-safe, forgotten in a forked child.

    ``most`` bounds the endpoints whose connections are kept; the oldest give way.
    """

    def __init__(self, most: int, tls: TlsContexts | None = None) -> None:
        self._most = most
        self._tls = tls or TlsContexts()
        self._lock = threading.Lock()
        self._session: requests.Session | None = None
        self._lines: dict[str, Line] = {}
        self._closed = False

    def line(self, endpoint: Endpoint) -> Line:
        found = self._lines.get(endpoint.name)
        return found if found is not None else self._connect(endpoint)

    def close(self) -> None:
        """Close all connections, those in use when they are given back.

        Calls under way may go on; what they still open is not kept.
        """
        with self._lock:
            self._closed = True
            session, self._session, self._lines = self._session, None, {}
        if session is not None:
            session.close()

    def after_fork(self) -> None:
        """In a forked child, forget the parent's connections and start afresh."""
        lines, self._session, self._lines = self._lines, None, {}
        self._lock = threading.Lock()
        for line in lines.values():
            line.close_inherited()

    def _connect(self, endpoint: Endpoint) -> Line:
        with self._lock:
            if self._session is None:
                self._session = requests.Session()
            if endpoint.name not in self._lines:
                while len(self._lines) >= self._most:
                    self._lines.pop(next(iter(self._lines))).close()
                most = 0 if self._closed else endpoint.pool_maxsize
                self._lines[endpoint.name] = Line(self._session, endpoint, self._tls, most=most)
            return self._lines[endpoint.name]
