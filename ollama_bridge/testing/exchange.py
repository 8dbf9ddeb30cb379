"""One request and the means to answer it: all that a fault gets to see of the server."""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable

from .outgoing import Framing, Reply
from .recorded import RecordedRequest

_BATCH = 65536
_LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: closing the socket sends RST, as the kernel does for the dead."""


class Line:
    """The way out to one client."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable = asyncio.Event()
        self._writable.set()
        self.ended = False
        """The server itself ended the connection."""

    def pause(self) -> None:
        self._writable.clear()

    def resume(self) -> None:
        self._writable.set()

    def write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        # Without a pause a quick reader would keep the loop from noticing that it left.
        await asyncio.sleep(0)
        await self._writable.wait()

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self.ended = True
        self._transport.close()

    def drop(self) -> None:
        """Let go of a client that left."""
        self._transport.abort()

    def abort(self) -> None:
        self.ended = True
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None and not self._transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._transport.abort()


class Exchange:
    """A request that waits for its answer.

    When the client leaves, whatever is awaited here is cancelled. When a fault returns without
    closing or aborting, the connection goes on to its next request.
    """

    def __init__(
        self,
        line: Line,
        request: RecordedRequest,
        framing: Framing,
        think: Callable[[RecordedRequest], Reply],
    ) -> None:
        self._line = line
        self._think = think
        self.request = request
        self.framing = framing

    def honest(self) -> Reply:
        """Return what a server in good health would answer."""
        return self._think(self.request)

    async def send(self, reply: Reply) -> None:
        """Send a whole reply at its own pace."""
        await asyncio.sleep(reply.wait)
        await self.send_parts(reply)
        await self.send_rest(reply, ())

    def send_at_once(self, reply: Reply) -> None:
        """Send a whole reply without waiting for anything."""
        self.write(self.framing.whole(reply))
        if self.framing.closes(reply):
            self.close()

    async def send_parts(self, reply: Reply) -> None:
        """Send a reply's head and parts, but not its end."""
        ready = self.framing.head(reply)
        for index, part in enumerate(reply.parts):
            if reply.pace and index:
                await asyncio.sleep(reply.pace)
            ready += self.framing.part(reply, part)
            if reply.pace or len(ready) >= _BATCH:
                self.write(ready)
                ready = b""
                await self.drain()
        self.write(ready)
        await self.drain()

    async def send_rest(self, reply: Reply, parts: Iterable[bytes]) -> None:
        """Send further parts, each in a write of its own, and the end of the reply."""
        for part in parts:
            self.write(self.framing.part(reply, part))
            await self.drain()
        self.write(self.framing.end(reply))
        if self.framing.closes(reply):
            self.close()

    def write(self, data: bytes) -> None:
        """Write raw bytes; they leave at once."""
        self._line.write(data)

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written."""
        await self._line.drain()

    async def sleep(self, seconds: float) -> None:
        """Do nothing for so long, or until the client leaves."""
        await asyncio.sleep(seconds)

    async def outwait_client(self) -> None:
        """Do nothing until the client leaves."""
        await asyncio.get_running_loop().create_future()

    def close(self) -> None:
        """End the connection with a FIN, after what was written."""
        self._line.close()

    def abort(self) -> None:
        """End the connection with an RST, now."""
        self._line.abort()
