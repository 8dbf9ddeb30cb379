"""A server for crowds and for streams: one event loop, and no more work for an answer than a write.

It is a process of its own, ``python -m benchmarks.looped``. A chat is answered with the constant
of ``replies``, a streamed one with as many chunks as it was started for: after a pause each in a
write of its own, without one in writes of many, as a reader finds them who was busy meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

from . import children
from .replies import CHAT, NOT_FOUND, RESPONSES, STREAM_HEAD, chunks
from .upstream import END, body_length

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

_STREAMED: Final = (b'"stream":true', b'"stream": true')
_AT_ONCE: Final = 64


def looped(
    *, delay: float = 0.0, chunks: int = 0, pause: float = 0.0
) -> AbstractContextManager[str]:
    """Run the server for as long as the block lasts, and give its URL.

    Args:
        delay: seconds before each answer to a chat.
        chunks: how many of them a stream has, before the one that says it is done.
        pause: seconds before each of them; without any, many of them come at once.

    Raises:
        CannotRunError: it did not start.
    """
    return children.server("benchmarks.looped", delay, chunks, pause)


class _Connection(asyncio.Protocol):
    """Answers the requests of one connection, one after the other."""

    def __init__(self, delay: float, body: Sequence[bytes], pause: float) -> None:
        self._delay = delay
        self._body = body
        self._pause = pause
        self._at_once = 1 if pause else _AT_ONCE
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._data = b""
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._data = self._data + data
        end = data.find(END)
        if end < 0:
            return
        start = end + len(END)
        size = start + body_length(data[:end])
        if len(data) >= size:
            self._data = data[size:]
            self._answer(data[: data.find(b" HTTP/")], data[start:size])

    def _answer(self, line: bytes, body: bytes) -> None:
        if line == CHAT and any(each in body for each in _STREAMED):
            self._transport.write(STREAM_HEAD)
            self._sent = 0
            self._go_on()
        elif line == CHAT and self._delay:
            self._loop.call_later(self._delay, self._transport.write, RESPONSES[CHAT])
        else:
            self._transport.write(RESPONSES.get(line, NOT_FOUND))

    def _go_on(self) -> None:
        if self._pause:
            self._loop.call_later(self._pause, self._send)
        else:
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        if self._transport.is_closing():
            return
        end = self._sent + self._at_once
        self._transport.write(b"".join(self._body[self._sent : end]))
        self._sent = end
        if self._sent < len(self._body):
            self._go_on()


async def _serve(delay: float, number: int, pause: float) -> None:
    loop = asyncio.get_running_loop()
    body = chunks(number)
    listening = await loop.create_server(
        lambda: _Connection(delay, body, pause), "127.0.0.1", 0, backlog=2048
    )
    async with listening:
        children.tell(listening.sockets[0].getsockname()[1])
        await asyncio.to_thread(children.wait_for_the_end)


def main() -> None:
    """Serve until standard input ends."""
    children.leave_interrupts_to_the_parent()
    children.allow_many_connections()
    delay, number, pause = sys.argv[1:]
    asyncio.run(_serve(float(delay), int(number), float(pause)))


if __name__ == "__main__":
    main()
