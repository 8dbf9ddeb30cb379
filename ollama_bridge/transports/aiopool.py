"""The ways to the endpoints for async code, over pooled connections of aiohttp."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from ..core.actions import FaultKind, TransportFault
from ..core.types import Head
from .aiofaults import fault_of, is_refused
from .aiosessions import Exchange, Lease, LoopSessions, current
from .headers import headers_of

if TYPE_CHECKING:
    from ..core.actions import Open, Send
    from ..core.types import Endpoint
    from .aio import AsyncRun
    from .tls import TlsContexts

FAILURES: Final = (aiohttp.ClientError, HttpProcessingError, OSError)

_LARGE = 2**20  # bytes; aiohttp warns of larger bodies in one piece
_NOTHING = -1  # in place of a count of bytes
_SWITCHING = 101
_NEVER = 1e9  # seconds; aiohttp rounds longer timeouts up to whole seconds


class Opened:
    """A response whose body is being read."""

    __slots__ = (
        *("_alarm", "_alarm_at", "_awaited", "_exchange", "_lease", "_loop", "_response"),
        "head",
    )

    def __init__(self, response: aiohttp.ClientResponse, exchange: Exchange, lease: Lease) -> None:
        self._response = response
        self._exchange = exchange
        self._lease = lease
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._awaited = _NOTHING
        self.head = Head(response.status, response.headers)

    async def read(self, until: float) -> bytes:
        """Return what comes next; b"" at the end.

        Raises:
            TransportFault: nothing comes any more.
        """
        self._exchange.until = until
        content = self._response.content
        try:
            data = content.read_nowait()
            if data or content.at_eof():
                return data
            self._watch()
            return await content.readany()
        except FAILURES as exc:
            if data := _unread(content):
                return data
            fault = fault_of(exc, self._exchange)
        finally:
            self._awaited = _NOTHING
        raise fault

    async def whole(self, limit: int, until: float) -> bytes:
        """Return the whole body, which leaves the connection to others.

        Raises:
            TransportFault: it does not come, or is larger than ``limit`` bytes.
        """
        if (self._response.content_length or 0) > limit:
            raise TransportFault(FaultKind.TOO_LARGE)
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read(until):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise TransportFault(FaultKind.TOO_LARGE)
        return b"".join(pieces)

    def _watch(self) -> None:
        """See to it that a wait ends in time.

        One alarm serves many reads, since nearly all of them end long before it; an
        ``asyncio.timeout`` for each would take longer than all else that is done for a piece.
        """
        left = self._exchange.left()
        self._awaited = self._response.content.total_bytes
        if self._alarm is None or self._exchange.until < self._alarm_at:
            self._set_alarm(left)

    def _set_alarm(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = self._exchange.until
        self._alarm = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._alarm = None
        content = self._response.content
        if content.total_bytes != self._awaited:
            return  # nobody waits, or it came while the loop was busy, and the reader is to go on
        try:
            self._set_alarm(self._exchange.left())
        except TimeoutError as error:
            content.set_exception(error)

    def close(self) -> None:
        """Close the connection, unless the body was read to its end."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._response.connection is None:
            self._lease.end()
        else:
            self.abort()

    def abort(self) -> None:
        """Close the connection in any case."""
        unread = self._response.connection
        self._exchange.abort()
        with suppress(RuntimeError):  # the loop is closed, and the reader waits for ever
            self._response.close()
        if unread is not None:
            unread.close()  # which aiohttp leaves to the collector then, and its warning
        self._lease.end()


def _unread(content: aiohttp.StreamReader) -> bytes:
    """Return what came before the connection broke: aiohttp says at once that it did."""
    broke: Any = content.exception()
    if broke is None:
        return b""
    content.set_exception(cast("Any", None))
    try:
        return content.read_nowait()
    finally:
        content.set_exception(broke)


class AsyncLine:
    """The way to one endpoint: what its requests have in common."""

    def __init__(self, endpoint: Endpoint, tls: TlsContexts) -> None:
        self._base_url = endpoint.base_url
        self._urls: dict[str, URL] = {}
        context = tls.of(endpoint)
        self.common: dict[str, Any] = {
            "headers": CIMultiDict(headers_of(endpoint)),
            "allow_redirects": False,
            "proxy": endpoint.proxy,
            "ssl": True if context is None else context,
            "timeout": aiohttp.ClientTimeout(
                total=None, connect=endpoint.connect_timeout, ceil_threshold=_NEVER
            ),
        }

    def url(self, path: str) -> URL:
        found = self._urls.get(path)
        if found is None:
            found = self._urls[path] = URL(self._base_url + path)
        return found


class AsyncTransport:
    """The sessions of the process and the runs that use them, by loop.

    Thread-safe, forgotten in a forked child.
    """

    def __init__(self, tls: TlsContexts) -> None:
        self._tls = tls
        self._sessions: dict[asyncio.AbstractEventLoop, LoopSessions] = {}
        self._open: set[LoopSessions] = set()  # also those that were retired
        self._runs: dict[asyncio.AbstractEventLoop, set[AsyncRun[Any]]] = {}
        self._lines: dict[str, AsyncLine] = {}
        self._closed = False

    async def open(self, action: Send | Open) -> Opened:
        """Return the response, its body unread.

        Raises:
            TransportFault: there is none.
        """
        line = self._lines.get(action.endpoint.name) or await self._line(action.endpoint)
        sessions = self._sessions.get(asyncio.get_running_loop())
        if sessions is None or sessions.retired:
            sessions = await self._begin()
        exchange = Exchange(action.until, proxied=action.endpoint.proxy is not None)
        lease = Lease(sessions)
        session = sessions.fresh if action.fresh else sessions.pooled
        try:
            async with asyncio.timeout(exchange.left()):
                response = await _request(session, line, action, exchange)
        except FAILURES as exc:
            exchange.abort()
            lease.end()
            fault = fault_of(exc, exchange)
        except BaseException:
            exchange.abort()
            lease.end()
            raise
        else:
            return _checked(Opened(response, exchange, lease))
        raise fault

    def enter(self, run: AsyncRun[Any]) -> None:
        self._runs.setdefault(run.loop, set()).add(run)

    def leave(self, run: AsyncRun[Any]) -> bool:
        """Forget a run; to one caller only, say that it was known."""
        try:
            runs = self._runs[run.loop]
            runs.remove(run)
        except KeyError:
            return False
        if not runs:
            self._runs.pop(run.loop, None)
        return True

    def tidy(self) -> None:
        """From any thread, end what closed loops have left: not all finalise their generators.

        Their runs would keep slots for ever, since what is pending there never goes on.
        """
        for sessions in list(self._open):
            if sessions.loop.is_closed():
                sessions.retire()
        for loop in list(self._runs):
            if loop.is_closed():
                for run in list(self._runs.get(loop, ())):
                    run.close()

    def close(self) -> None:
        """From any thread, have all sessions closed as soon as nobody uses them.

        Calls under way may go on; what they still open is not kept.
        """
        self._closed = True
        for sessions in list(self._open):
            sessions.retire()

    async def aclose(self) -> None:
        """Do so; what this loop has and nobody uses is closed when it returns."""
        self.close()
        loop = asyncio.get_running_loop()
        for sessions in list(self._open):
            if sessions.loop is loop:
                await sessions.aclose()

    def after_fork(self) -> None:
        for sessions in list(self._open):
            sessions.abandon()
        self._open, self._sessions, self._runs = set(), {}, {}

    def forget(self, sessions: LoopSessions) -> None:
        """Forget sessions that were closed."""
        self._open.discard(sessions)
        if self._sessions.get(sessions.loop) is sessions:
            self._sessions.pop(sessions.loop, None)

    def __del__(self) -> None:
        self.close()

    async def _line(self, endpoint: Endpoint) -> AsyncLine:
        # Loading the files of certificate authorities would hold up the loop.
        made = await asyncio.to_thread(AsyncLine, endpoint, self._tls)
        return self._lines.setdefault(endpoint.name, made)

    async def _begin(self) -> LoopSessions:
        self.tidy()
        sessions = await LoopSessions.begin(self)
        self._open.add(sessions)
        self._sessions[sessions.loop] = sessions
        if self._closed:
            sessions.retire()
        return sessions


async def _request(
    session: aiohttp.ClientSession, line: AsyncLine, action: Send | Open, exchange: Exchange
) -> aiohttp.ClientResponse:
    """Send a request, and once more, at once, where its connect was refused."""
    try:
        return await _once(session, line, action, exchange)
    except aiohttp.ClientConnectorError as exc:
        if not is_refused(exc):
            raise
    return await _once(session, line, action, exchange)


async def _once(
    session: aiohttp.ClientSession, line: AsyncLine, action: Send | Open, exchange: Exchange
) -> aiohttp.ClientResponse:
    request = action.request
    body: Any = request.body
    if body is not None and len(body) >= _LARGE:
        body = BytesIO(body)
    token = current.set(exchange)
    try:
        return await session.request(
            request.method, line.url(request.path), data=body, **line.common
        )
    finally:
        with suppress(ValueError):  # the collector ends this, in another context
            current.reset(token)


def _checked(opened: Opened) -> Opened:
    """Refuse a 101: nobody asked for it, and what follows is not HTTP."""
    if opened.head.status != _SWITCHING:
        return opened
    opened.abort()
    raise TransportFault(FaultKind.GARBLED)
