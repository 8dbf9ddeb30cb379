"""A stream as server-sent events under ASGI: a task reads, another one writes; no thread waits."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from . import events, threads
from .relay import Item

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ..streams import AsyncChatStream
    from .events import Ended
    from .relay import Events


class AsyncEvents:
    """As ``relay.Events``, for the loop that makes it; ``close()`` may come from any thread."""

    def __init__(self, stream: AsyncChatStream, ended: Ended, release: Callable[[], None]) -> None:
        self._stream = stream
        self._ended = ended
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Item] = asyncio.Queue(events.MOST_QUEUED)
        self._task: asyncio.Task[None] | None = None
        self._latest = self._loop.time()  # when there was an event
        self._timer: asyncio.TimerHandle | None = None
        self._first: Item | None = None
        self._is_read = False
        self._is_over = False

    async def begin(self, patience: float) -> None:
        """Wait for the first event, at most ``patience`` seconds.

        Raises:
            Exception: what ended the stream before it; there is still time for a status.
        """
        self._task = self._loop.create_task(self._pump())
        try:
            async with asyncio.timeout(patience):
                self._first = await self._queue.get()
        except TimeoutError:
            self._first = Item(events.HEARTBEAT)
        if self._first.error is not None:
            raise self._first.error
        self._after(events.LEASE, self.stop)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return all events that wait, or a heartbeat after a silence."""
        if self._is_over:
            self.stop()
            raise StopAsyncIteration
        try:
            item = await self._next()
        except BaseException:  # the client has gone, or a database connection does not close
            self.stop()
            raise
        pieces = [item.told(self._ended)]
        with suppress(asyncio.QueueEmpty):
            while not item.is_last:
                item = self._queue.get_nowait()
                pieces.append(item.told(self._ended))
        self._is_over = item.is_last
        return b"".join(pieces)

    def stop(self) -> None:
        """Leave the stream. To be called on the loop; twice is once."""
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._release()

    def close(self) -> None:
        """Do as ``stop`` does, from any thread: Django calls it after the response."""
        with suppress(RuntimeError):  # the loop is closed, and the task ended with it
            self._loop.call_soon_threadsafe(self.stop)

    async def _next(self) -> Item:
        if not self._is_read:
            self._is_read = True
            self._after(events.HEARTBEAT_EVERY, self._beat)
            await threads.release()  # the middleware has been at work since, in a thread
        item, self._first = self._first, None
        return await self._queue.get() if item is None else item

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        """Set the only timer, to leave the stream or for a heartbeat."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, act)

    def _beat(self) -> None:
        """Send a heartbeat if there was silence; one timer serves many events."""
        left = self._latest + events.HEARTBEAT_EVERY - self._loop.time()
        if left > 0:
            self._after(left, self._beat)
            return
        if self._queue.empty():
            self._queue.put_nowait(Item(events.HEARTBEAT))
        self._after(events.HEARTBEAT_EVERY, self._beat)

    async def _pump(self) -> None:
        last = await self._last()
        self._release()  # whatever the one who writes does with it, the call is over
        await self._queue.put(last)

    async def _last(self) -> Item:
        try:
            async with self._stream:
                async for delta in self._stream:
                    if data := events.of_delta(delta):
                        self._latest = self._loop.time()
                        await self._queue.put(Item(data))
            return Item(events.of_reply(self._ended, self._stream.reply), is_last=True)
        except Exception as error:  # noqa: BLE001  # it is handed on, to be raised or told
            return Item(is_last=True, error=error)


class ThreadedEvents:
    """``relay.Events`` for a view that runs in a thread although the server is ASGI."""

    def __init__(self, found: Events) -> None:
        self._events = found
        # Of its own: those that a loop has are few, and silent streams would hold up all others.
        self._thread = ThreadPoolExecutor(1, "ollama_bridge events")
        self._is_read = False
        self._is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._is_closed:
            raise StopAsyncIteration
        if not self._is_read:
            self._is_read = True
            await threads.release()  # as above
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(self._thread, next, self._events, b"")
        if not data:
            raise StopAsyncIteration
        return data

    def close(self) -> None:
        self._is_closed = True
        self._events.close()
        self._thread.shutdown(wait=False)
