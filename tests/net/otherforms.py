"""Clients whose ``chat`` is another form of a call, for tests that were written for ``chat``.

A test module that has ``make_client`` from here runs them for the other forms as well.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ollama_bridge import ChatReply, OllamaClient
from ollama_bridge.transports import aiopool  # noqa: F401  # it takes its time, once

if TYPE_CHECKING:
    from ollama_bridge.core.health import HealthReport
    from ollama_bridge.testing import FakeOllama
    from tests.conftest import MakeClient

T = TypeVar("T")
Run: TypeAlias = "Callable[[Coroutine[Any, Any, Any]], Any]"


class _Client(OllamaClient):
    """What the forms below have in common: a loop that goes on between calls."""

    run: Run

    def close(self) -> None:
        self.run(self.aclose())
        super().close()


class AChat(_Client):
    def chat(self, *args: Any, **kwargs: Any) -> ChatReply:
        reply: ChatReply = self.run(self.achat(*args, **kwargs))
        return reply

    def health_check(self, force: bool = False) -> HealthReport:
        report: HealthReport = self.run(self.ahealth_check(force))
        return report


class AStream(AChat):
    def chat(self, *args: Any, **kwargs: Any) -> ChatReply:
        async def read() -> ChatReply:
            async with self.astream(*args, **kwargs) as chunks:
                text = "".join([chunk async for chunk in chunks])
            assert text == chunks.text == chunks.reply
            return chunks.reply

        reply: ChatReply = self.run(read())
        return reply


class Stream(_Client):
    def chat(self, *args: Any, **kwargs: Any) -> ChatReply:
        with self.stream(*args, **kwargs) as chunks:
            text = "".join(chunks)
        assert text == chunks.text == chunks.reply
        return chunks.reply


@contextmanager
def loop() -> Iterator[Run]:
    """Run a loop in a thread; give what runs a coroutine there, from any other thread."""
    with asyncio.Runner() as runner:
        running = runner.get_loop()
        thread = threading.Thread(target=running.run_forever)
        thread.start()

        def run(coroutine: Coroutine[Any, Any, T]) -> T:
            return asyncio.run_coroutine_threadsafe(coroutine, running).result(60)

        yield run
        running.call_soon_threadsafe(running.stop)
        thread.join()


@contextmanager
def clients(kind: type[_Client], server: FakeOllama) -> Iterator[MakeClient]:
    """Give a maker of clients as ``tests.conftest.make_client`` is; they are closed at the end."""
    made: list[OllamaClient] = []
    with loop() as run:

        def make(**overrides: Any) -> OllamaClient:
            quick = {"retry_initial_delay": 0.01, "retry_max_delay": 0.02}
            client = kind(**{"base_url": server.url, **quick, **overrides})
            client.run = run
            made.append(client)
            return client

        yield make
        for client in made:
            client.close()


FORMS = (AChat, AStream, Stream)
