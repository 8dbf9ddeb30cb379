"""The four forms of a call behind one face, so that a test says once what holds for all."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pytest

from ollama_bridge import OllamaBridgeError
from ollama_bridge.asking import call_of
from ollama_bridge.core.actions import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future
    from types import TracebackType

    from ollama_bridge import ChatReply, OllamaClient
    from ollama_bridge.core.types import Delta
    from ollama_bridge.streams import AsyncChatStream, ChatStream

QUESTION = "What is water?"
_LONGEST = 20.0  # seconds for which a test waits for what must come


@dataclass
class Told:
    """What a caller has been told so far; with neither reply nor error, that it left."""

    pieces: list[Delta] = field(default_factory=list)
    reply: ChatReply | None = None
    error: OllamaBridgeError | None = None
    stream: ChatStream | AsyncChatStream | None = None
    _came: threading.Condition = field(default_factory=threading.Condition)

    @property
    def left(self) -> bool:
        return self.reply is None and self.error is None

    @property
    def text(self) -> str:
        """What the stream itself says has come."""
        return "" if self.stream is None else self.stream.text

    def take(self, piece: Delta) -> int:
        with self._came:
            self.pieces.append(piece)
            self._came.notify_all()
        return len(self.pieces)

    def wait_for_pieces(self, number: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.pieces) >= number, _LONGEST)


@dataclass
class UnderWay:
    """A call in a thread or on a loop of its own."""

    told: Told
    _done: Future[None]
    _leave: Callable[[], object]

    def leave(self) -> Told:
        """Leave it where it is, from outside."""
        self._leave()
        return self.result()

    def result(self) -> Told:
        self._done.result(_LONGEST)
        return self.told

    @property
    def done(self) -> bool:
        return self._done.done()


class Form(ABC):
    """One form of a call. Use it as a context manager."""

    name: ClassVar[str]
    streams: ClassVar[bool] = False

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End what the calls ran on."""

    @abstractmethod
    def begin(self, client: OllamaClient, message: Any = QUESTION, **arguments: Any) -> UnderWay:
        """Begin a call.

        The reader of a stream leaves after ``most`` pieces, if that is given, and takes ``pause``
        seconds for the first.

        Raises:
            TypeError, ValueError: an argument is wrong.
        """

    def begin_to_leave(self, client: OllamaClient) -> UnderWay:
        """Begin a call that can be left from outside."""
        return self.begin(client)

    def tell(self, client: OllamaClient, message: Any = QUESTION, **arguments: Any) -> Told:
        """Do a call to its end, whatever that is."""
        return self.begin(client, message, **arguments).result()

    def ask(self, client: OllamaClient, message: Any = QUESTION, **arguments: Any) -> ChatReply:
        """Return the reply, or raise the error."""
        told = self.tell(client, message, **arguments)
        if told.error is not None:
            raise told.error
        assert told.reply is not None
        return told.reply

    def fail(
        self, client: OllamaClient, message: Any = QUESTION, **arguments: Any
    ) -> OllamaBridgeError:
        """Return the error of a call that must have one."""
        with pytest.raises(OllamaBridgeError) as caught:
            self.ask(client, message, **arguments)
        return caught.value


class _InThreads(Form):
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(32)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._threads.shutdown()


class _OnALoop(Form):
    """One loop for all calls of a test, ended as ``asyncio.run`` ends it."""

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.close()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


class Chat(_InThreads):
    name = "chat"

    def begin(self, client: OllamaClient, message: Any = QUESTION, **arguments: Any) -> UnderWay:
        told = Told()

        def chat() -> None:
            try:
                told.reply = client.chat(message, **arguments)
            except OllamaBridgeError as error:
                told.error = error

        return UnderWay(told, self._threads.submit(chat), _cannot_leave)

    def begin_to_leave(self, client: OllamaClient) -> UnderWay:
        """Begin a call as a batch does, which can be cancelled from outside."""
        told = Told()
        engine = client._running()
        conversation = engine.conversation()

        def chat() -> None:
            with suppress(Cancelled):
                told.reply = engine.answer(call_of(engine.settings, QUESTION), conversation)

        return UnderWay(told, self._threads.submit(chat), conversation.cancel)


class AChat(_OnALoop):
    name = "achat"

    def begin(self, client: OllamaClient, message: Any = QUESTION, **arguments: Any) -> UnderWay:
        told = Told()
        tasks: list[asyncio.Task[Any]] = []

        async def chat() -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            try:
                told.reply = await client.achat(message, **arguments)
            except OllamaBridgeError as error:
                told.error = error
            except asyncio.CancelledError:
                task.uncancel()

        def leave() -> None:
            self._loop.call_soon_threadsafe(tasks[0].cancel)

        return UnderWay(told, self._start(chat()), leave)


class Stream(_InThreads):
    name = "stream"
    streams = True

    def begin(
        self,
        client: OllamaClient,
        message: Any = QUESTION,
        *,
        most: int = 0,
        pause: float = 0.0,
        **arguments: Any,
    ) -> UnderWay:
        stream = client.stream(message, **arguments)
        told = Told(stream=stream)

        def read() -> None:
            try:
                with stream:
                    for piece in stream:
                        if (came := told.take(piece)) == most:
                            return
                        time.sleep(pause if came == 1 else 0)
            except OllamaBridgeError as error:
                told.error = error
            else:
                with suppress(RuntimeError):  # by somebody else, who left
                    told.reply = stream.reply

        return UnderWay(told, self._threads.submit(read), stream.close)


class AStream(_OnALoop):
    name = "astream"
    streams = True

    def begin(
        self,
        client: OllamaClient,
        message: Any = QUESTION,
        *,
        most: int = 0,
        pause: float = 0.0,
        **arguments: Any,
    ) -> UnderWay:
        stream = client.astream(message, **arguments)
        told = Told(stream=stream)

        async def read() -> None:
            try:
                async with stream:
                    async for piece in stream:
                        if (came := told.take(piece)) == most:
                            return
                        await asyncio.sleep(pause if came == 1 else 0)
            except OllamaBridgeError as error:
                told.error = error
            else:
                with suppress(RuntimeError):  # by somebody else, who left
                    told.reply = stream.reply

        def leave() -> None:
            self._start(stream.aclose()).result(_LONGEST)

        return UnderWay(told, self._start(read()), leave)


FORMS: list[type[Form]] = [Chat, AChat, Stream, AStream]


def _cannot_leave() -> None:
    raise TypeError("nobody leaves chat() but by an interrupt, see begin_to_leave()")
