"""A driver on aiohttp, to prove that the flows serve async code and streams as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp

from ollama_bridge.core.actions import (
    Action,
    Emit,
    FaultKind,
    Flow,
    Open,
    Read,
    Send,
    Sleep,
    TransportFault,
)
from ollama_bridge.core.types import ChatReply, Delta, Head, Response


class AsyncConversation:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._response: aiohttp.ClientResponse | None = None

    async def perform(self, action: Action) -> Any:
        loop = asyncio.get_running_loop()
        try:
            match action:
                case Send():
                    async with asyncio.timeout_at(action.until - _skew(loop)):
                        response = await self._open(action)
                        return Response(response.status, response.headers, await response.read())
                case Open():
                    async with asyncio.timeout_at(action.until - _skew(loop)):
                        response = await self._open(action)
                        return Head(response.status, response.headers)
                case Read() if self._response is not None:
                    async with asyncio.timeout_at(action.until - _skew(loop)):
                        return await self._response.content.readany()
                case Sleep():
                    await asyncio.sleep(action.seconds)
        except TimeoutError as exc:
            raise TransportFault(FaultKind.SILENT) from exc
        except aiohttp.ClientConnectorError as exc:
            raise TransportFault(FaultKind.REFUSED) from exc
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as exc:
            raise TransportFault(FaultKind.DROPPED) from exc
        except aiohttp.ClientPayloadError as exc:
            raise TransportFault(FaultKind.CUT) from exc

    async def _open(self, action: Send | Open) -> aiohttp.ClientResponse:
        self.close()
        request = action.request
        url = action.endpoint.base_url + request.path
        self._response = await self._session.request(request.method, url, data=request.body)
        return self._response

    def close(self) -> None:
        if self._response is not None:
            self._response.close()


def _skew(loop: asyncio.AbstractEventLoop) -> float:
    """Both clocks are monotonic; on other platforms they may begin elsewhere."""
    import time  # noqa: PLC0415

    return time.monotonic() - loop.time()


async def drive(
    steps: Flow[ChatReply], session: aiohttp.ClientSession
) -> AsyncGenerator[Delta | ChatReply, None]:
    """Perform a flow; yield what it emits and, last, what it returns."""
    conversation, resume, value = AsyncConversation(session), steps.send, None
    try:
        while True:
            try:
                action = resume(value)
            except StopIteration as end:
                yield end.value
                return
            resume, value = steps.send, None
            if isinstance(action, Emit):
                yield action.delta
                continue
            try:
                value = await conversation.perform(action)
            except TransportFault as fault:
                resume, value = steps.throw, fault
    finally:
        steps.close()
        conversation.close()
