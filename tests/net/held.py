"""A server that answers when the test says so."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ollama_bridge.testing.faults.stream import split

if TYPE_CHECKING:
    from ollama_bridge.testing.exchange import Exchange


class Held:
    """Holds every call until ``let_go()``."""

    def __init__(self) -> None:
        self._gone = threading.Event()

    def let_go(self) -> None:
        self._gone.set()

    async def held(self, exchange: Exchange) -> None:
        while not self._gone.is_set():
            await exchange.sleep(0.002)

    async def reply(self, exchange: Exchange) -> None:
        await self.held(exchange)
        await exchange.send(exchange.honest())


class HeldInside(Held):
    """Holds every call in the midst of its answer: after a line of a stream, or half of a body."""

    async def reply(self, exchange: Exchange) -> None:
        beginning, rest = split(exchange.honest(), after=1)
        await exchange.send_parts(beginning)
        await self.held(exchange)
        await exchange.send_rest(beginning, rest)
