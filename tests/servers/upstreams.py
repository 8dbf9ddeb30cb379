"""Servers of models that go on when a test says so, or never stop."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ollama_bridge.testing import gojson

if TYPE_CHECKING:
    from ollama_bridge.testing.connection import Fault
    from ollama_bridge.testing.exchange import Exchange

_ALL = 1_000_000


class _Steps:
    """Counts steps in the test's thread, and lets the server's wait for them without polling."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = 0
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def go(self, steps: int) -> None:
        with self._lock:
            self._done += steps
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)

    async def until(self, steps: int) -> None:
        waiting = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.add(waiting)
        try:
            while self._done < steps:
                await waiting[1].wait()
                waiting[1].clear()
        finally:
            with self._lock:
                self._waiting.discard(waiting)


class Stepped:
    """Sends one more line of its answer for each step; a plain answer is one line.

    Attributes:
        sent: ``time.monotonic()`` of each line.
    """

    def __init__(self, steps: int = 0) -> None:
        self.sent: list[float] = []
        self._steps = _Steps()
        self._steps.go(steps)

    def step(self) -> None:
        self._steps.go(1)

    def finish(self) -> None:
        self._steps.go(_ALL)

    async def reply(self, exchange: Exchange) -> None:
        reply = exchange.honest()
        length = None if reply.chunked else reply.size
        await exchange.send_parts(replace(reply, parts=(), length=length))
        for number, part in enumerate(reply.parts, start=1):
            await self._steps.until(number)
            self.sent.append(time.monotonic())
            exchange.write(exchange.framing.part(reply, part))
            await exchange.drain()
        await exchange.send_rest(reply, ())


class HeldBefore:
    """Does what another fault does, once ``let_go()`` was called."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._steps = _Steps()

    def let_go(self) -> None:
        self._steps.go(1)

    async def reply(self, exchange: Exchange) -> None:
        await self._steps.until(1)
        await self._fault.reply(exchange)


class Endless:
    """A stream that never ends, as fast as it is read, or a piece each ``pause`` seconds.

    Attributes:
        sent: bytes so far.
    """

    def __init__(self, size: int = 1000, pause: float = 0.0) -> None:
        self.sent = 0
        self._size = size
        self._pause = pause

    async def reply(self, exchange: Exchange) -> None:
        reply = replace(exchange.honest(), parts=(), length=None)
        message = {"role": "assistant", "content": "x" * self._size}
        line = gojson.dump({"model": "llama3.2", "message": message, "done": False}) + b"\n"
        await exchange.send_parts(reply)
        piece = exchange.framing.part(reply, line)
        while True:
            exchange.write(piece)
            self.sent += len(piece)
            await exchange.sleep(self._pause)
            await exchange.drain()
