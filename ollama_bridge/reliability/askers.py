"""How a question is asked: in one of the four forms of the client. All else is the same for all."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypedDict, Unpack

from .runners import EventLoop, Runner, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Future

    from ..client import OllamaClient
    from ..core.health import HealthReport
    from ..core.types import ChatReply
    from ..streams import ChatStream
    from .plan import Form


class Answer(NamedTuple):
    """A whole answer, and the seconds to its first piece; None where it comes as one."""

    reply: ChatReply
    first_token: float | None = None


class Bounds(TypedDict, total=False):
    """See ``OllamaClient.chat``."""

    timeout: float | None
    max_tokens: int | None


class Asker(Runner, Protocol):
    """Asks, and runs what asks: in threads or on a loop, as its form needs it."""

    async def ask(self, client: OllamaClient, question: str, **bounds: Unpack[Bounds]) -> Answer:
        """Ask a question; a stream is read to its end.

        Raises:
            OllamaBridgeError: there is no answer, or not a whole one.
        """

    async def report(self, client: OllamaClient) -> HealthReport:
        """Ask the server anew how it is."""


class _InThreads(Threads):
    async def report(self, client: OllamaClient) -> HealthReport:
        return client.health_check(force=True)


class _OnLoop(EventLoop):
    async def report(self, client: OllamaClient) -> HealthReport:
        return await client.ahealth_check(force=True)


class Chat(_InThreads):
    """By ``chat()``. What is under way at an interrupt is left to itself."""

    async def ask(self, client: OllamaClient, question: str, **bounds: Unpack[Bounds]) -> Answer:
        return Answer(client.chat(question, **bounds))


class Stream(_InThreads):
    """By ``stream()``. What is under way at an interrupt is closed."""

    def __init__(self) -> None:
        self._open: set[ChatStream] = set()

    async def ask(self, client: OllamaClient, question: str, **bounds: Unpack[Bounds]) -> Answer:
        since, first = monotonic(), None
        with client.stream(question, **bounds) as chunks:
            self._open.add(chunks)
            try:
                for _ in chunks:
                    first = first or monotonic() - since
            finally:
                self._open.discard(chunks)
        return Answer(chunks.reply, first)

    def leave(self, begun: Iterable[Future[Any]]) -> None:
        super().leave(begun)
        for each in list(self._open):  # a copy: other threads go on with the set
            each.close()


class AsyncChat(_OnLoop):
    """By ``achat()``. What is under way at an interrupt is cancelled."""

    async def ask(self, client: OllamaClient, question: str, **bounds: Unpack[Bounds]) -> Answer:
        return Answer(await client.achat(question, **bounds))


class AsyncStream(_OnLoop):
    """By ``astream()``. What is under way at an interrupt is cancelled."""

    async def ask(self, client: OllamaClient, question: str, **bounds: Unpack[Bounds]) -> Answer:
        since, first = monotonic(), None
        async with client.astream(question, **bounds) as chunks:
            async for _ in chunks:
                first = first or monotonic() - since
        return Answer(chunks.reply, first)


ASKERS: Final[Mapping[Form, Callable[[], Asker]]] = {
    "chat": Chat,
    "stream": Stream,
    "achat": AsyncChat,
    "astream": AsyncStream,
}
