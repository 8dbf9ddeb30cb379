"""A stream whose lines come when the test says so."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ollama_bridge.testing.exchange import Exchange


class Stepped:
    """Sends the head of each reply at once, and its lines one by one."""

    def __init__(self) -> None:
        self._allowed: float = 0

    def step(self, lines: int = 1) -> None:
        """Let so many lines more of each reply go."""
        self._allowed += lines

    def let_go(self) -> None:
        self._allowed = math.inf

    async def reply(self, exchange: Exchange) -> None:
        reply = exchange.honest()
        await exchange.send_parts(replace(reply, parts=(), length=reply.size))
        for number, part in enumerate(reply.parts):
            while number >= self._allowed:
                await exchange.sleep(0.002)
            exchange.write(exchange.framing.part(reply, part))
            await exchange.drain()
        await exchange.send_rest(reply, ())
