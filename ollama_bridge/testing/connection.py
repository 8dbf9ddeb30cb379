"""One accepted connection: requests in, answers out, one after another."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Protocol, cast

from .exchange import Exchange, Line
from .incoming import BadRequestError, Inbox, Incoming
from .ledger import Ledger
from .outgoing import BAD_REQUEST, Framing, Reply
from .recorded import RecordedRequest

_LARGE = 65536
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Fault(Protocol):
    """A way to misbehave; anything with this method is one."""

    def reply(self, exchange: Exchange) -> Coroutine[None, None, None]:
        """Answer, or do not."""


@dataclass(slots=True)
class Host:
    """What connections need of their server."""

    ledger: Ledger
    fault_for: Callable[[RecordedRequest], Fault | None]
    think: Callable[[RecordedRequest], Reply]
    listening: bool = False
    connections: "set[Connection]" = field(default_factory=set)

    @property
    def busy(self) -> bool:
        return bool(self.connections) or self.ledger.in_flight > 0


class Connection(asyncio.Protocol):
    """The server's side of one connection.

    What fails in a fault, a predicate or an answer reaches the loop's exception handler.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._inbox = Inbox()
        self._turn = 0
        self._request: RecordedRequest | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = Line(cast("asyncio.Transport", transport))
        self._number = self._host.ledger.accepted()
        self._host.connections.add(self)
        if not self._host.listening:
            self.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self._host.connections.discard(self)
        if self._task is not None:
            self._task.cancel()
        else:
            self._finish(left=False)
        self._host.ledger.closed()

    def eof_received(self) -> None:
        if self._task is not None:
            self._line.drop()

    def pause_writing(self) -> None:
        self._line.pause()

    def resume_writing(self) -> None:
        self._line.resume()

    def abort(self) -> None:
        """End the connection as the kernel does for a killed server."""
        self._line.abort()

    def data_received(self, data: bytes) -> None:
        self._inbox.feed(data)
        self._go_on()

    def _go_on(self) -> None:
        """Answer what has come, until a reply takes time or nothing is left."""
        try:
            while self._request is None and (incoming := self._inbox.next()) is not None:
                self._begin(incoming)
        except BadRequestError:
            self._line.write(Framing(close=True).whole(BAD_REQUEST))
            self._line.close()
        if self._inbox.expects_continue:
            self._line.write(_CONTINUE)

    def _begin(self, incoming: Incoming) -> None:
        self._turn += 1
        request = self._request = self._host.ledger.record(incoming, self._number, self._turn)
        framing = Framing(incoming.http10, incoming.method == "HEAD", not incoming.keep_alive)
        exchange = Exchange(self._line, request, framing, self._host.think)
        fault = self._host.fault_for(request)
        if fault is not None:
            self._start(fault.reply(exchange))
            return
        reply = exchange.honest()
        if reply.wait or reply.size > _LARGE:
            self._start(exchange.send(reply))
            return
        # Counted before it is sent: who has the reply must find the counters up to date.
        self._finish(left=False)
        exchange.send_at_once(reply)

    def _start(self, answering: Coroutine[None, None, None]) -> None:
        self._task = asyncio.get_running_loop().create_task(answering)
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._finish(left=task.cancelled() and not self._line.ended)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            task.get_loop().call_exception_handler({"message": "a reply", "exception": error})
            self.abort()
        elif not self._line.closing:
            self._go_on()

    def _finish(self, *, left: bool) -> None:
        if self._request is not None:
            self._host.ledger.finished(self._request, left=left)
            self._request = None
