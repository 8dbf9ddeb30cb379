"""A server that answers when the test says so."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ollama_bridge.testing.exchange import Exchange


class Held:
    """Holds every call until ``let_go()``."""

    def __init__(self) -> None:
        self._gone = threading.Event()

    def let_go(self) -> None:
        self._gone.set()

    async def reply(self, exchange: Exchange) -> None:
        while not self._gone.is_set():
            await exchange.sleep(0.002)
        await exchange.send(exchange.honest())
