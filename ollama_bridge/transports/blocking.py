"""Performs what a flow asks for, with requests; it decides nothing."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from ..core.actions import Emit, Open, Read, Send, Sleep, Sync, TransportFault, Wait
from ..core.types import Response
from .sockets import Exchange

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..core.actions import Action, Flow
    from ..core.routing import Home
    from ..core.types import Delta
    from .pool import BlockingTransport, Opened

T = TypeVar("T")


class Conversation:
    """Performs the actions of one flow. Whatever is open is closed with ``close``."""

    def __init__(self, transport: BlockingTransport, home: Home) -> None:
        self._transport = transport
        self._home = home
        self._opened: Opened | None = None

    def perform(self, action: Action) -> Any:
        """Do what an action asks for and return its result.

        Raises:
            TransportFault: the network failed.
        """
        match action:
            case Send():
                return self._send(action)
            case Open():
                return self._open(action).head
            case Read():
                return self._read(action)
            case Sleep():
                time.sleep(action.seconds)
            case Wait():
                return _wait(action)
            case Sync():
                self._home.exchange()
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


def drive(steps: Flow[T], conversation: Conversation) -> Generator[Delta, None, T]:
    """Perform a flow to its end; yield what it emits, return what it returns.

    Raises:
        OllamaBridgeError: what the flow raises. It is closed in any case, also by ``close()``.
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


def _wait(action: Wait) -> bool:
    # No Event: the collector may give a slot to this very thread inside its lock, and Event.set
    # would wait for that lock for ever. A SimpleQueue's put may interrupt its own get.
    woken: SimpleQueue[None] = SimpleQueue()
    action.ticket.wake = partial(woken.put, None)
    if action.ticket.waits:
        with suppress(Empty):
            woken.get(timeout=max(0.0, action.until - time.monotonic()))
    return action.ticket.granted
