"""Sockets that keep a deadline byte by byte, under urllib3.

A socket's timeout bounds one ``recv``, so a server that sends a byte now and then outlives any of
them, in the status line, in headers and in the body. Here each read gets what is left of the
exchange instead, and so do the connect, over all addresses of a host together, and the sending.
"""

from __future__ import annotations

import io
import os
import queue
import socket
import ssl
import threading
import time
from collections import deque
from contextlib import suppress
from http.client import (
    CONTINUE,
    OK,
    SWITCHING_PROTOCOLS,
    BadStatusLine,
    HTTPException,
    HTTPResponse,
    parse_headers,
)
from typing import TYPE_CHECKING, Any, cast

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
)
from urllib3.util.timeout import Timeout

if TYPE_CHECKING:
    from typing import Self

    from _typeshed import WriteableBuffer

_BUFFER = 16_384
_LONGEST_WAIT = 1e6  # seconds; the system counts milliseconds in 32 bits


class Exchange:
    """The time of one request and its response, and how far it has come.

    ``until`` is a moment on the monotonic clock, in seconds; whoever reads a stream moves it.
    ``connected`` tells whether there was a connection all the way to the server, through its
    proxy and under TLS; ``received`` counts the bytes that came over it.
    """

    __slots__ = (
        "_aborted",
        "_lock",
        "_process",
        "_sock",
        "connect_timeout",
        "connected",
        "fresh",
        "received",
        "until",
    )

    def __init__(self, until: float, connect_timeout: float, *, fresh: bool) -> None:
        self.until = until
        self.connect_timeout = connect_timeout
        self.fresh = fresh
        self.connected = False
        self.received = 0
        self._aborted = False
        self._lock = threading.RLock()  # the collector may abort whom it interrupts
        self._process = os.getpid()
        self._sock: socket.socket | None = None

    def abort(self) -> None:
        """From any thread, let whoever reads or sends for this exchange fail at once.

        urllib3's ``HTTPResponse.shutdown()`` does so too, but only once there is a response, and
        the longest wait is the one for its first byte.
        """
        if os.getpid() != self._process:
            return  # forked since: the parent still reads here, and may have held the lock
        with self._lock:
            self._aborted = True
            self._shut()

    def use(self, sock: socket.socket) -> None:
        """Take note of the socket that serves the exchange from now on."""
        with self._lock:
            self._sock = getattr(sock, "socket", sock)  # TLS inside TLS is none, but has one
            if self._aborted:
                self._shut()

    def release(self) -> None:
        """Forget the socket, which may serve another exchange from now on."""
        with self._lock:
            self._sock = None

    def _shut(self) -> None:
        if self._sock is not None:
            with suppress(OSError):  # it is closed, or was never connected
                # Not SSLSocket's own, which takes TLS away under whoever is reading.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def left(self) -> float:
        """Return the seconds left.

        Raises:
            TimeoutError: there are none.
        """
        left = self.until - time.monotonic()
        if left <= 0 or self._aborted:
            raise TimeoutError("deadline")
        return min(left, _LONGEST_WAIT)


_serving = threading.local()  # .exchange: what the thread's request is for


class HandshakeSocket(ssl.SSLSocket):
    """Lets an abort end the handshake too: the bare socket is given up before it begins."""

    def do_handshake(self, block: bool = False) -> None:
        _serving.exchange.use(self)
        super().do_handshake(block)


class ExchangeTimeout(Timeout):
    """Carries an exchange through requests and urllib3 to the connection that serves it."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(connect=exchange.connect_timeout)
        self.exchange = exchange

    def clone(self) -> Self:
        return type(self)(self.exchange)


class _DeadlineReader(io.RawIOBase):
    """Reads a socket for the exchange that its connection serves now."""

    def __init__(self, sock: socket.socket, connection: _DeadlineMixin) -> None:
        super().__init__()
        self._sock = sock
        self._connection = connection
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        exchange = self._connection.exchange
        self._sock.settimeout(exchange.left())
        count = self._raw.readinto(buffer)
        exchange.received += count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineSocket:
    """A connected socket that reads and sends within the time of the exchange.

    All else is the socket's own, but that timeouts which others set do not count.
    """

    def __init__(self, sock: socket.socket, connection: _DeadlineMixin) -> None:
        self.bare = sock
        self._connection = connection

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self.bare, self._connection), _BUFFER)

    def sendall(self, data: bytes) -> None:
        """Send all of it: over TLS, a timeout bounds only each of the pieces."""
        rest = memoryview(data)
        while rest:
            self.bare.settimeout(self._connection.exchange.left())
            rest = rest[self.bare.send(rest) :]

    def settimeout(self, _seconds: float | None) -> None:
        """Do nothing: urllib3 would bound the sending by the time for connects."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)


class _Response(HTTPResponse):
    """Passes over every interim response, and is discreet about headers that it cannot parse.

    http.client takes a 103 for the final response. The real one would then be read as the answer to
    whatever is asked next on this connection: somebody else's question.
    """

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # not in stubs
            if status == SWITCHING_PROTOCOLS:
                raise BadStatusLine("101")  # nobody asked for it: what follows is not HTTP
            if not CONTINUE < status < OK:
                return version, status, reason
            parse_headers(self.fp)

    def begin(self) -> None:
        """Read the head. urllib3 would log what could not be parsed of it, word for word."""
        super().begin()
        self.headers.set_payload("")
        self.headers.defects.clear()


class _DeadlineMixin(HTTPConnection):
    """A connection that serves one exchange at a time, within its time."""

    response_class = _Response
    exchange: Exchange
    _gathered: list[bytes] | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send head and body in one piece: two would wake the server twice, once for nothing."""
        gathered: list[bytes] = []
        self._gathered = gathered
        try:
            super().request(*args, **kwargs)
        finally:
            self._gathered = None
        self.send(b"".join(gathered))

    def send(self, data: Any) -> None:
        if self._gathered is None:
            super().send(data)
        else:
            self._gathered.append(data)

    def serve(self, exchange: Exchange) -> None:
        self.exchange = exchange
        if exchange.fresh:
            self.close()
        exchange.connected = not self.is_closed
        if exchange.connected:
            sock: Any = self.sock  # ours, see connect()
            exchange.use(sock.bare)

    def connect(self) -> None:
        """Connect, with tunnel and handshake if need be, within the time for connects."""
        exchange = self.exchange
        until, received = exchange.until, exchange.received
        exchange.until = min(time.monotonic() + exchange.connect_timeout, until)
        try:
            super().connect()
        except TimeoutError as exc:
            raise ConnectTimeoutError(self, "connect timed out") from exc
        finally:
            exchange.until, exchange.received = until, received  # what a proxy said is no reply
        self.sock = self._bounded(self.sock)
        exchange.connected = True

    def _bounded(self, sock: Any) -> socket.socket:
        return cast("socket.socket", _DeadlineSocket(sock, self))

    def _tunnel(self) -> None:
        """Talk to the proxy. Its socket comes back bare, as TLS will need it."""
        bare = self.sock
        self.sock = self._bounded(bare)
        try:
            super()._tunnel()
            bare.settimeout(self.exchange.left())
        except TimeoutError:
            raise
        except (OSError, HTTPException) as exc:
            raise ProxyError("no tunnel", exc) from exc
        finally:
            if self.sock is not None:
                self.sock = bare

    def _new_conn(self) -> socket.socket:
        try:
            addresses = socket.getaddrinfo(self._dns_host, self.port, 0, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            reason = exc if isinstance(exc, socket.gaierror) else socket.gaierror(str(exc))
            raise NameResolutionError(self.host, self, reason) from exc
        try:
            return _connect_any(addresses, self.exchange, self.socket_options or ())
        except TimeoutError as exc:
            raise ConnectTimeoutError(self, "connect timed out") from exc
        except OSError as exc:
            raise NewConnectionError(self, "connect failed") from exc


def _connect_any(addresses: list[Any], exchange: Exchange, options: Any) -> socket.socket:
    """Connect to the first address that answers; each gets a fair share of the time left."""
    failed: OSError = OSError("no address")
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        left = exchange.left()
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            for option in options:
                sock.setsockopt(*option)
            sock.settimeout(left / (len(addresses) - index))
            exchange.use(sock)  # so that an abort ends the connect
            sock.connect(address)
            sock.settimeout(max(0.001, exchange.until - time.monotonic()))
        except OSError as exc:  # the kernel may not even know the family
            if sock is not None:
                sock.close()
            failed = exc
        else:
            return sock
    raise failed


class DeadlineHTTPConnection(_DeadlineMixin):
    pass


class DeadlineHTTPSConnection(_DeadlineMixin, HTTPSConnection):
    pass


class _Stack:
    """The idle connections of a pool: a ``LifoQueue`` that never blocks and has no lock.

    A lock could be held by another thread at the moment of a fork, and would be for ever in the
    child. ``append`` and ``pop`` of a deque are atomic by themselves.
    """

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self.items: deque[Any] = deque()

    def put(self, item: Any, *, block: bool = False) -> None:  # noqa: ARG002  # urllib3's call
        if len(self.items) >= self._maxsize:
            raise queue.Full
        self.items.append(item)

    def get(self, *, block: bool = False, timeout: float | None = None) -> Any:  # noqa: ARG002
        try:
            return self.items.pop()
        except IndexError:
            raise queue.Empty from None


class _DeadlinePoolMixin(HTTPConnectionPool):
    QueueCls: Any = _Stack

    def urlopen(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        # Between here and the connection urllib3 hands on nothing of ours, and for a tunnel it
        # connects before it looks at the timeout; but it stays in this thread.
        _serving.exchange = kwargs["timeout"].exchange
        return super().urlopen(method, url, *args, **kwargs)

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn: Any = super()._get_conn(timeout)
        conn.serve(_serving.exchange)
        return conn

    def _put_conn(self, conn: Any) -> None:
        """Keep a connection, or close it where enough are kept: without urllib3's warning."""
        if conn is not None:
            conn.exchange.release()  # an abort that comes later must not meet the next one's
        stack: Any = self.pool  # None once the pool is closed
        try:
            stack.put(conn)
        except (AttributeError, queue.Full):
            if conn is not None:
                conn.close()

    def close_inherited(self) -> None:
        """Close a forked child's copies of the idle connections."""
        stack: Any = self.pool
        for conn in stack.items if stack else ():
            if conn is not None:
                conn.close()


class DeadlineHTTPPool(_DeadlinePoolMixin):
    ConnectionCls = DeadlineHTTPConnection


class DeadlineHTTPSPool(_DeadlinePoolMixin, HTTPSConnectionPool):
    ConnectionCls = DeadlineHTTPSConnection

    def _validate_conn(self, conn: Any) -> None:
        """Connect. urllib3 would warn at each request without VERIFY_SSL; a check does once."""
        if conn.is_closed:
            conn.connect()


POOLS = {"http": DeadlineHTTPPool, "https": DeadlineHTTPSPool}
