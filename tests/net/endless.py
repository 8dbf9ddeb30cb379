"""A server that never comes to an end, and knows how much of it was taken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ollama_bridge.testing.exchange import Exchange

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)


class Endless:
    """Streams pieces of ``size`` characters as fast as the client takes them.

    Attributes:
        sent: the bytes that were handed to the system so far, which waits while its buffers and
            those of the client are full.
    """

    def __init__(self, size: int = 1000) -> None:
        message = {"role": "assistant", "content": "x" * size}
        line = json.dumps({"model": "llama3.2", "message": message, "done": False}).encode() + b"\n"
        self._chunk = b"%x\r\n%b\r\n" % (len(line), line)
        self.sent = 0

    async def reply(self, exchange: Exchange) -> None:
        exchange.write(_HEAD)
        while True:
            exchange.write(self._chunk)
            await exchange.drain()
            self.sent += len(self._chunk)
