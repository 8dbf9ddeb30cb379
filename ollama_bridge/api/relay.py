"""A stream as server-sent events under WSGI: a thread reads, another one writes."""

from __future__ import annotations

import threading
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, NamedTuple, Self

from . import events, threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..streams import ChatStream
    from .events import Ended


class Item(NamedTuple):
    """What a reader hands to its writer: bytes to send, or the error that ended the stream."""

    data: bytes = b""
    is_last: bool = False
    error: Exception | None = None

    def told(self, ended: Ended) -> bytes:
        """Return what is to be sent; an error first had its chance to be a status."""
        return self.data if self.error is None else events.of_error(ended, self.error)


class Events:
    """The bytes of a response, as an iterator; ``close()`` leaves the stream.

    A pump thread reads the stream into a short queue, so that silence can be told from an end:
    the one who writes sends heartbeats meanwhile. A full queue holds up the pump, and so the
    server.
    """

    def __init__(self, stream: ChatStream, ended: Ended, release: Callable[[], None]) -> None:
        self._stream = stream
        self._ended = ended
        self._release = release
        self._lock = threading.Lock()
        self._queue: Queue[Item] = Queue(events.MOST_QUEUED)
        self._first: Item | None = None
        self._patience = events.HEARTBEAT_EVERY
        self._is_read = False
        self._is_over = False

    def begin(self, patience: float) -> None:
        """Wait for the first event, at most ``patience`` seconds.

        Raises:
            Exception: what ended the stream before it; there is still time for a status.
        """
        name = "ollama_bridge stream"
        threading.Thread(
            target=copy_context().run, args=(self._pump,), name=name, daemon=True
        ).start()
        try:
            self._first = self._queue.get(timeout=patience)
        except Empty:
            self._first = Item(events.HEARTBEAT)
            self._patience = events.FIRST_HEARTBEAT
        if self._first.error is not None:
            raise self._first.error

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        """Return all events that wait, or a heartbeat after a silence."""
        if not self._is_read:
            self._begin_to_read()
        if self._is_over:
            self.close()
            raise StopIteration
        item, self._first = self._first or self._next(), None
        pieces = [item.told(self._ended)]
        with suppress(Empty):
            while not item.is_last:
                item = self._queue.get_nowait()
                pieces.append(item.told(self._ended))
        self._is_over = item.is_last
        return b"".join(pieces)

    def close(self) -> None:
        """Leave the stream, and let the pump end, wherever it is. Closing twice is closing once."""
        self._is_over = True
        self._stream.close()
        with suppress(Empty):
            while not (item := self._queue.get_nowait()).is_last:
                pass
            self._queue.put_nowait(item)  # the pump has ended; a reader may still wait
        self._let_go()

    def _begin_to_read(self) -> None:
        with self._lock:
            self._is_read = True
        threads.hang_up()  # the middleware has been at work since, under WSGI in this thread

    def _next(self) -> Item:
        patience, self._patience = self._patience, events.HEARTBEAT_EVERY
        try:
            return self._queue.get(timeout=patience)
        except Empty:
            if patience != events.FIRST_HEARTBEAT:
                self._patience = events.FIRST_HEARTBEAT
            return Item(events.HEARTBEAT)

    def _pump(self) -> None:
        last = self._last()
        self._let_go()  # whatever the one who writes does with it, the call is over
        self._put(last)

    def _put(self, item: Item) -> None:
        """Wait for room; leave the stream if nobody has begun to read it for a ``LEASE``.

        A silent one that Django has dropped ends by its own timeouts.
        """
        try:
            self._queue.put(item, timeout=None if self._is_read else events.LEASE)
        except Full:
            with self._lock:  # somebody may begin just now
                self._is_over |= not self._is_read
            if self._is_over:
                self.close()
            else:
                self._queue.put(item)

    def _let_go(self) -> None:
        with self._lock:  # pump and writer may both come to it
            self._release()

    def _last(self) -> Item:
        try:
            for delta in self._stream:
                if data := events.of_delta(delta):
                    self._put(Item(data))
            if self._is_over:  # by close(): there is no reply, and nobody to read it
                return Item(is_last=True)
            return Item(events.of_reply(self._ended, self._stream.reply), is_last=True)
        except Exception as error:  # noqa: BLE001  # it is handed on, to be raised or told
            return Item(is_last=True, error=error)
