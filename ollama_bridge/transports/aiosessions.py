"""aiohttp sessions, made and closed with the event loop that they serve.

No cookies, no netrc, no proxies from the environment, nothing decompressed.
"""

from __future__ import annotations

import asyncio
import socket
import time
import weakref
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

import aiohttp
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_KEPT_FOR = 30.0  # seconds that an idle connection is kept
_LONGEST_LINE = 65536  # bytes, of a head; as http.client has it


class Exchange:
    """How far one request has come: see ``sockets.Exchange``, which says the same of a thread's."""

    __slots__ = ("_before", "_protocol", "_transport", "proxied", "until")

    def __init__(self, until: float, *, proxied: bool) -> None:
        self.until = until
        self.proxied = proxied
        self._protocol: _CountingHandler | None = None
        self._transport: asyncio.Transport | None = None
        self._before = 0

    @property
    def connected(self) -> bool:
        """Whether there was a connection all the way to the server."""
        return self._protocol is not None

    @property
    def received(self) -> int:
        """How many bytes came over it."""
        return 0 if self._protocol is None else self._protocol.received - self._before

    def use(self, protocol: _CountingHandler) -> None:
        self._protocol, self._before = protocol, protocol.received
        transport: Any = protocol.transport
        self._transport = transport

    def left(self) -> float:
        """Return the seconds left.

        Raises:
            TimeoutError: there are none.
        """
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("deadline")
        return left

    def abort(self) -> None:
        """End the connection, if there is one, without waiting for what is still to be sent.

        aiohttp would close it only after that, which a server that does not read never lets happen.
        """
        if self._transport is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._transport.abort()


current: ContextVar[Exchange] = ContextVar("ollama_bridge.exchange")
"""The exchange for which a session is asked for a connection: aiohttp hands on nothing of ours."""


class _CountingHandler(ResponseHandler):
    """Counts what comes: aiohttp does not tell a silent server from one that drips its head."""

    received = 0

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        super().data_received(data)


class _Connector(aiohttp.TCPConnector):
    """As many connections as calls need; their sockets are known, for a fork."""

    def __init__(self, *, force_close: bool) -> None:
        self.sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        kept: dict[str, Any] = {} if force_close else {"keepalive_timeout": _KEPT_FOR}
        super().__init__(limit=0, force_close=force_close, socket_factory=self._new_socket, **kept)
        factory: Any = partial(_CountingHandler, loop=self._loop)
        self._factory = factory

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        protocol: Any = connection.protocol
        current.get().use(protocol)
        return connection

    def abandon(self) -> None:
        """Close the sockets alone; what else there is belongs to a loop that runs no more."""
        self._closed = True
        for each in list(self.sockets):
            each.close()

    def _new_socket(self, address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self.sockets.add(made)
        return made


class Owner(Protocol):
    """Who has sessions, and forgets those that were closed."""

    def forget(self, sessions: LoopSessions) -> None: ...


class Lease:
    """One use of a loop's sessions, which are not closed before its end."""

    __slots__ = ("_sessions",)

    def __init__(self, sessions: LoopSessions) -> None:
        self._sessions: LoopSessions | None = sessions
        sessions.users += 1

    def end(self) -> None:
        sessions, self._sessions = self._sessions, None
        if sessions is not None:
            sessions.users -= 1
            if sessions.retired:
                sessions.retire()


class LoopSessions:
    """The sessions of one loop: one that keeps connections, one that makes a new one each time.

    An asynchronous generator of the loop holds them open, since ``asyncio.run`` and asgiref's
    ``async_to_sync`` finalise those: whatever the caller does, they are closed with the loop.
    """

    pooled: aiohttp.ClientSession
    fresh: aiohttp.ClientSession

    def __init__(self, owner: Owner) -> None:
        self.loop = asyncio.get_running_loop()
        self.users = 0
        self.retired = False
        self._owner = weakref.ref(owner)
        self._closing: asyncio.Task[None] | None = None
        self._holder = self._hold()

    @classmethod
    async def begin(cls, owner: Owner) -> Self:
        sessions = cls(owner)
        await anext(sessions._holder)
        _living.add(sessions)
        return sessions

    def retire(self) -> None:
        """From any thread, have them closed as soon as nobody uses them."""
        self.retired = True
        try:
            self.loop.call_soon_threadsafe(self._close_if_unused)
        except RuntimeError:  # the loop is closed, and not all loops finalise their generators
            self.abandon()
            self._end()

    async def aclose(self) -> None:
        """On their own loop, close them now, or as soon as nobody uses them."""
        self.retired = True
        self._close_if_unused()
        if self._closing is not None:
            await asyncio.wait([self._closing])  # others may wait for it too

    def abandon(self) -> None:
        """Close what a loop that runs no more has left open, without a word to anybody."""
        self.retired = True
        for session in (self.pooled, self.fresh):
            connector: Any = session.connector
            if connector is not None:
                session.detach()
                connector.abandon()

    def _close_if_unused(self) -> None:
        if not self.users and self._closing is None:
            self._closing = self.loop.create_task(self._close())

    async def _close(self) -> None:
        await self._holder.aclose()

    async def _hold(self) -> AsyncGenerator[None, None]:
        try:
            async with _session(force_close=False) as keeping, _session(force_close=True) as fresh:
                self.pooled, self.fresh = keeping, fresh
                try:
                    yield
                finally:
                    self.retired = True
        finally:
            self._end()

    def _end(self) -> None:
        _living.discard(self)
        if (owner := self._owner()) is not None:
            owner.forget(self)


# Those of all transports: the collector may have a transport that nobody closed, but not what is
# still to be closed on its loop. In a forked child it may never have what was the parent's, whose
# loop shares a selector and a way to be woken with the child's copy.
_living: set[LoopSessions] = set()


def _session(*, force_close: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=_Connector(force_close=force_close),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        raise_for_status=False,
        trust_env=False,
        max_line_size=_LONGEST_LINE,
        max_field_size=_LONGEST_LINE,
    )
