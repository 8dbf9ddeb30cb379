"""Answers as they are made: iterate over their pieces, and leave when you like."""

from __future__ import annotations

import asyncio
import threading
import warnings
from typing import TYPE_CHECKING, Any, Self

from .core.actions import Cancelled
from .errors import OllamaBridgeError, without_frames

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType
    from typing import TypeAlias

    from .core.types import ChatReply, Delta
    from .transports.aio import AsyncRun
    from .transports.blocking import Conversation

    Deltas: TypeAlias = Generator[Delta, None, ChatReply]


class _Stream:
    """What both kinds of stream tell about themselves."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reply: ChatReply | None = None
        self._began = False
        self._ended = False

    def __repr__(self) -> str:
        state = "ended" if self._ended else "under way" if self._began else "not begun"
        return f"<{type(self).__name__} {state}>"

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    @property
    def reply(self) -> ChatReply:
        """The whole answer, once the stream has come to its end.

        Raises:
            RuntimeError: it has not, or it broke off.
        """
        if self._reply is None:
            state = "has ended without a reply" if self._ended else "has not ended yet"
            raise RuntimeError(f"the stream {state}: read all of it first, see .text")
        return self._reply

    def _end(self, reply: ChatReply | None = None) -> None:
        self._ended = True
        self._reply = reply

    def _is_abandoned(self) -> bool:
        """Tell, in ``__del__``, whether somebody has left the stream without closing it."""
        return getattr(self, "_began", False) and not self._ended

    def _complain(self, state: str) -> None:
        warnings.warn(
            f"unclosed {state}: read it to its end, close it, or use it in a with block",
            ResourceWarning,
            stacklevel=3,
            source=self,
        )


class ChatStream(_Stream):
    """The pieces of an answer, see ``Delta``; and a context manager, which closes it.

    Nothing is sent before the first piece is asked for. Closing it early closes the connection,
    and so stops the model; that is nobody's failure.

    Attributes:
        text: the text so far.
        reply: the ``ChatReply``, after the end; before it, ``RuntimeError``.
    """

    def __init__(self, begin: Callable[[Conversation], Deltas], conversation: Conversation) -> None:
        super().__init__()
        self._begin = begin
        self._conversation = conversation
        self._deltas: Deltas | None = None
        self._inside = threading.Lock()
        self._closing = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        """Return the next piece.

        Raises:
            OllamaBridgeError: there is no more; what came is in ``text`` and ``error.partial``.
        """
        if not self._inside.acquire(blocking=False):
            if self._closing:
                raise StopIteration
            raise RuntimeError("another thread is reading this stream")
        try:
            return self._advance()
        finally:
            self._inside.release()
            if self._closing:
                self._leave()

    def _advance(self) -> Delta:
        if self._ended or self._closing:
            raise StopIteration
        if self._deltas is None:
            self._began = True
            self._deltas = self._begin(self._conversation)
        try:
            delta = next(self._deltas)
        except StopIteration as end:
            self._end(end.value)
            raise StopIteration from None
        except Cancelled:  # by close(), in another thread
            self._end()
            raise StopIteration from None
        except OllamaBridgeError as error:
            self._end()
            raise without_frames(error) from error.__cause__
        except BaseException:
            self._end()
            raise
        self._texts.append(delta)
        return delta

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._is_abandoned():
            state = repr(self)
            self.close()
            self._complain(state)

    def close(self) -> None:
        """Leave the stream; from any thread, also while another one waits for its next piece."""
        self._closing = True
        if not self._ended:
            self._conversation.cancel()
        self._leave()

    def _leave(self) -> None:
        """Close what is open, unless somebody is inside, who will do so on the way out."""
        if self._inside.acquire(blocking=False):
            try:
                self._ended = True
                if self._deltas is not None:
                    self._deltas.close()
            finally:
                self._inside.release()


class AsyncChatStream(_Stream):
    """The pieces of an answer, see ``Delta``; and an async context manager, which closes it.

    As ``ChatStream``, for one task at a time.
    """

    def __init__(self, begin: Callable[[], Awaitable[AsyncRun[ChatReply]]]) -> None:
        super().__init__()
        self._begin = begin
        self._run: AsyncRun[ChatReply] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader: asyncio.Task[Any] | None = None
        self._left: asyncio.Event | None = None  # where aclose() waits for its reader

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        """Return the next piece.

        Raises:
            OllamaBridgeError: there is no more; what came is in ``text`` and ``error.partial``.
        """
        if self._ended:
            raise StopAsyncIteration
        if self._reader is not None:
            raise RuntimeError("another task is reading this stream")
        self._reader = asyncio.current_task()
        try:
            run = self._run or await self._started()
            delta = await run.advance()
        except OllamaBridgeError as error:
            self._end()
            raise without_frames(error) from error.__cause__
        except asyncio.CancelledError:
            self._end()
            if self._left is None or self._reader is None or self._reader.uncancel():
                raise
            raise StopAsyncIteration from None
        except BaseException:
            self._end()
            raise
        finally:
            self._reader = None
            if self._left is not None:
                self._left.set()
        if delta is None:
            self._end(run.result)
            raise StopAsyncIteration
        self._texts.append(delta)
        return delta

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._is_abandoned():
            if self._run is not None and self._loop is not None:
                try:
                    self._loop.call_soon_threadsafe(self._run.close)
                except RuntimeError:  # the loop is closed, and with it all that was open
                    self._run.close()
            self._complain(repr(self))

    async def aclose(self) -> None:
        """Leave the stream. Another task that waits for its next piece comes to its end first."""
        if self._reader is not None and self._reader is not asyncio.current_task():
            if self._left is None:
                self._left = asyncio.Event()
                self._reader.cancel()
            await self._left.wait()
        self._ended = True
        if self._run is not None:
            self._run.close()

    async def _started(self) -> AsyncRun[ChatReply]:
        self._began = True
        self._loop = asyncio.get_running_loop()
        self._run = await self._begin()
        return self._run
