"""Performs what a flow asks for, with aiohttp; it decides nothing."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, assert_never

from ..core.actions import Emit, Finish, Open, Read, Send, Sleep, TransportFault, Wait
from ..core.types import Response

if TYPE_CHECKING:
    from ..core.actions import Action, Flow
    from ..core.types import Delta
    from .aiopool import AsyncTransport, Opened

T = TypeVar("T")


class AsyncConversation:
    """Performs the actions of one flow, on one loop. Whatever is open is closed with ``close``."""

    __slots__ = ("_opened", "transport")

    def __init__(self, transport: AsyncTransport) -> None:
        self.transport = transport
        self._opened: Opened | None = None

    async def perform(self, action: Action) -> Any:
        """Do what an action asks for and return its result.

        Raises:
            TransportFault: the network failed.
        """
        match action:
            case Read():
                return await self._read(action)
            case Send():
                opened = await self._open(action)
                body = await opened.whole(action.endpoint.max_response_bytes, action.until)
                return Response(opened.head.status, opened.head.headers, body)
            case Open():
                return (await self._open(action)).head
            case Finish():
                await self._finish(action.until)
            case Sleep():
                await asyncio.sleep(action.seconds)
            case Wait():
                return await _wait(action)
            case Emit():
                raise TypeError("what is emitted goes to the caller, see AsyncRun.advance()")
            case _:
                assert_never(action)
        return None

    def close(self) -> None:
        """Close the open exchange, which tells the server that nobody listens any more."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    async def _open(self, action: Send | Open) -> Opened:
        self.close()
        self._opened = opened = await self.transport.open(action)
        return opened

    async def _read(self, action: Read) -> bytes:
        if self._opened is None:
            raise TypeError("Read without Open")
        return await self._opened.read(action.until)

    async def _finish(self, until: float) -> None:
        opened = self._opened
        if opened is not None and until > time.monotonic():
            with suppress(TransportFault):  # nobody needs this connection any more
                await opened.read(until)
        self.close()


class AsyncRun(Generic[T]):
    """A flow under way on this loop.

    It and its conversation are closed at its end, by ``close()``, and once the loop is closed.
    """

    __slots__ = ("_conversation", "_steps", "loop", "result")
    result: T

    def __init__(self, steps: Flow[T], conversation: AsyncConversation) -> None:
        self.loop = asyncio.get_running_loop()
        self._steps = steps
        self._conversation = conversation
        conversation.transport.enter(self)

    async def advance(self) -> Delta | None:
        """Perform until the flow emits something; at its end return None, and set ``result``.

        Raises:
            OllamaBridgeError: what the flow raises.
        """
        steps, perform = self._steps, self._conversation.perform
        resume: Any = steps.send
        value: Any = None
        try:
            while True:
                try:
                    action = resume(value)
                except StopIteration as end:
                    self.result = end.value
                    break
                if type(action) is Emit:
                    return action.delta
                try:
                    resume, value = steps.send, await perform(action)
                except TransportFault as fault:
                    self._conversation.close()  # the server need not go on while the flow waits
                    resume, value = steps.throw, fault
        except BaseException:  # a cancel among others
            self.close()
            raise
        self.close()
        return None

    def close(self) -> None:
        """Leave the flow where it is: on its own loop, or in any thread once that is closed."""
        if not self._conversation.transport.leave(self):
            return
        try:
            self._conversation.close()  # before the slot is given back
        finally:
            self._steps.close()


async def run(steps: Flow[T], conversation: AsyncConversation) -> T:
    """Perform a flow that emits nothing, and return its result."""
    under_way = AsyncRun(steps, conversation)
    if await under_way.advance() is not None:
        under_way.close()
        raise TypeError("this flow streams: advance() an AsyncRun instead")
    return under_way.result


async def _wait(action: Wait) -> bool:
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    # It raises RuntimeError once the loop is closed, as it shall.
    wake: Any = partial(loop.call_soon_threadsafe, _wake, woken)
    action.ticket.wake = wake
    if action.ticket.waits:
        with suppress(TimeoutError):
            async with asyncio.timeout(action.until - time.monotonic()):
                await woken
    return action.ticket.granted


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
