"""Performs what a flow asks for, with requests; it decides nothing."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from ..core.actions import (
    Cancelled,
    Emit,
    Finish,
    Open,
    Read,
    Send,
    Sleep,
    TransportFault,
    Wait,
)
from ..core.types import Response
from .sockets import Exchange

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..core.actions import Action, Flow
    from ..core.types import Delta
    from .pool import BlockingTransport, Opened

T = TypeVar("T")


class Conversation:
    """Performs the actions of one flow. Whatever is open is closed with ``close``."""

    def __init__(self, transport: BlockingTransport) -> None:
        self._transport = transport
        self._opened: Opened | None = None
        self._exchange: Exchange | None = None
        self._alarm: SimpleQueue[None] | None = None
        self._cancelled = False

    def perform(self, action: Action) -> Any:
        """Do what an action asks for and return its result.

        Raises:
            TransportFault: the network failed.
            Cancelled: by ``cancel``.
        """
        try:
            value = self._perform(action)
        except TransportFault:
            self._heed()
            raise
        self._heed()
        return value

    def cancel(self) -> None:
        """From any thread, let the thread that performs end at once, whatever it waits for.

        Only the system's search for the address of a name comes to its own end first.
        """
        self._cancelled = True
        if self._alarm is not None:
            self._alarm.put(None)
        if self._exchange is not None:
            self._exchange.abort()

    def _heed(self) -> None:
        if self._cancelled:
            raise Cancelled

    def _perform(self, action: Action) -> Any:
        match action:
            case Read():
                return self._read(action)
            case Send():
                return self._send(action)
            case Open():
                return self._open(action).head
            case Finish():
                self._finish(action.until)
            case Sleep():
                self._wait(action.seconds)
            case Wait():
                return self._wait_for(action)
            case Emit():
                raise TypeError("what is emitted goes to the caller, see drive()")
            case _:
                assert_never(action)
        return None

    def close(self) -> None:
        """Close the open exchange, which tells the server that nobody listens any more."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _open(self, action: Send | Open) -> Opened:
        self.close()
        endpoint = action.endpoint
        exchange = Exchange(action.until, endpoint.connect_timeout, fresh=action.fresh)
        self._exchange = exchange
        self._heed()  # a cancel looks for the exchange after it has said so
        self._opened = self._transport.line(endpoint).send(action.request, exchange)
        return self._opened

    def _send(self, action: Send) -> Response:
        opened = self._open(action)
        body = opened.whole(action.endpoint.max_response_bytes)
        return Response(opened.head.status, opened.head.headers, body)

    def _read(self, action: Read) -> bytes:
        if self._opened is None:
            raise TypeError("Read without Open")
        return self._opened.read(action.until)

    def _finish(self, until: float) -> None:
        opened = self._opened
        if opened is not None and until > time.monotonic():
            with suppress(TransportFault):  # nobody needs this connection any more
                opened.read(until)
        self.close()

    def _wait(self, seconds: float) -> None:
        self._wait_on(SimpleQueue(), seconds)

    def _wait_for(self, action: Wait) -> bool:
        # No Event: the collector may give a slot to this very thread inside its lock, and Event.set
        # would wait for that lock for ever. A SimpleQueue's put may interrupt its own get.
        alarm: SimpleQueue[None] = SimpleQueue()
        action.ticket.wake = partial(alarm.put, None)
        if action.ticket.waits:
            self._wait_on(alarm, max(0.0, action.until - time.monotonic()))
        return action.ticket.granted

    def _wait_on(self, alarm: SimpleQueue[None], seconds: float) -> None:
        self._alarm = alarm
        self._heed()  # a cancel looks for the alarm after it has said so
        with suppress(Empty):
            alarm.get(timeout=seconds)
        self._alarm = None


def drive(steps: Flow[T], conversation: Conversation) -> Generator[Delta, None, T]:
    """Perform a flow to its end; yield what it emits, return what it returns.

    Raises:
        OllamaBridgeError: what the flow raises. It is closed in any case, also by ``close()``.
        Cancelled: by ``cancel()`` of the conversation.
    """
    resume, value = steps.send, None
    try:
        while True:
            try:
                action = resume(value)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            resume, value = steps.send, None
            if isinstance(action, Emit):
                yield action.delta
                continue
            try:
                value = conversation.perform(action)
            except TransportFault as fault:
                conversation.close()  # the server need not go on while the flow waits
                resume, value = steps.throw, fault
    finally:
        try:
            conversation.close()  # before the slot is given back
        finally:
            steps.close()


def finish(deltas: Generator[Delta, None, T]) -> T:
    """Run a driven flow that emits nothing, and return its result."""
    try:
        next(deltas)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise TypeError("this flow streams: iterate over drive() instead")
