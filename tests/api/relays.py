"""Both relays behind one face, with a stream that gives what the test hands it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from queue import Queue
from typing import Any, ClassVar, Self

from ollama_bridge import ChatReply
from ollama_bridge.api.arelay import AsyncEvents, ThreadedEvents
from ollama_bridge.api.relay import Events
from ollama_bridge.core.types import Delta
from tests.api.test_events import Ended

LONGEST = 20.0  # seconds for which a test waits for what must come


class Counter:
    """Counts what other threads do. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.number = 0

    def __call__(self) -> None:
        with self._changed:
            self.number += 1
            self._changed.notify_all()

    def reaches(self, number: int, within: float = LONGEST) -> bool:
        """Tell whether it comes to a number in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.number >= number, within)


class Relay:
    """A relay with its stream. Use it as a context manager."""

    name: ClassVar[str]
    releases: ClassVar[int] = 2  # of one that was left: by whoever closes it, and by its pump

    def __init__(self) -> None:
        self.taken = Counter()
        self.released = Counter()
        self.left = Counter()
        self.reply = ChatReply("A liquid.")
        self.is_complete = False

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError

    def feed(self, *steps: Delta | Exception | None) -> None:
        """Let the stream give pieces, fail with an error, or end with None."""
        raise NotImplementedError

    def begin(self, patience: float = LONGEST) -> None:
        raise NotImplementedError

    def read(self) -> bytes:
        """Return what comes next, b"" at the end."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _Stream:
    """What a ``ChatStream`` is to a relay."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._steps: Queue[Delta | Exception | None] = Queue()
        self.put = self._steps.put

    @property
    def reply(self) -> ChatReply:
        return _reply(self._relay)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        return _given(self._steps.get(), self._relay, StopIteration)

    def close(self) -> None:
        self._relay.left()
        self.put(StopIteration())


class _AsyncStream:
    """What an ``AsyncChatStream`` is to a relay."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._steps: asyncio.Queue[Delta | Exception | None] = asyncio.Queue()
        self.put = self._steps.put_nowait

    @property
    def reply(self) -> ChatReply:
        return _reply(self._relay)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        return _given(await self._steps.get(), self._relay, StopAsyncIteration)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._relay.left()


def _reply(relay: Relay) -> ChatReply:
    if not relay.is_complete:
        raise RuntimeError("the stream has ended without a reply")
    return relay.reply


def _given(step: Delta | Exception | None, relay: Relay, end: type[Exception]) -> Delta:
    if step is None:
        relay.is_complete = True
        raise end
    if isinstance(step, Exception):
        raise step
    relay.taken()
    return step


class SyncRelay(Relay):
    name = "sync"

    def __enter__(self) -> Self:
        self._stream = _Stream(self)
        stream: Any = self._stream
        self.events = Events(stream, Ended(), self.released)
        return self

    def __exit__(self, *_: object) -> None:
        self.events.close()

    def feed(self, *steps: Delta | Exception | None) -> None:
        for step in steps:
            self._stream.put(step)

    def begin(self, patience: float = LONGEST) -> None:
        self.events.begin(patience)

    def read(self) -> bytes:
        return next(self.events, b"")

    def close(self) -> None:
        self.events.close()


class _OnALoop(Relay):
    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._run(self._make())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.close()

    async def _make(self) -> None:
        raise NotImplementedError

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(LONGEST)


class AsyncRelay(_OnALoop):
    name = "async"
    releases = 1  # the pump is cancelled

    async def _make(self) -> None:
        self._stream = _AsyncStream(self)
        stream: Any = self._stream
        self.events = AsyncEvents(stream, Ended(), self.released)

    def feed(self, *steps: Delta | Exception | None) -> None:
        for step in steps:
            self._loop.call_soon_threadsafe(self._stream.put, step)

    def begin(self, patience: float = LONGEST) -> None:
        self._run(self.events.begin(patience))

    def read(self) -> bytes:
        piece: bytes = self._run(anext(self.events, b""))
        return piece

    def close(self) -> None:
        self.events.close()
        self._run(asyncio.sleep(0))


class ThreadedRelay(_OnALoop):
    name = "threaded"

    async def _make(self) -> None:
        self._stream = _Stream(self)
        stream: Any = self._stream
        self._pumped = Events(stream, Ended(), self.released)
        self.events = ThreadedEvents(self._pumped)

    def feed(self, *steps: Delta | Exception | None) -> None:
        for step in steps:
            self._stream.put(step)

    def begin(self, patience: float = LONGEST) -> None:
        self._pumped.begin(patience)

    def read(self) -> bytes:
        piece: bytes = self._run(anext(self.events, b""))
        return piece

    def close(self) -> None:
        self.events.close()


RELAYS: list[type[Relay]] = [SyncRelay, AsyncRelay, ThreadedRelay]
