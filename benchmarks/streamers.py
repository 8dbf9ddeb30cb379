"""Those who can read a stream: each asks the same question, and hands on the text of each chunk.

What they hand it to is called once for each chunk with text, and all of them read to the end, so
that the connection is kept.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import requests

from ollama_bridge import OllamaClient

from . import aaskers, peers, replies
from .askers import CHAT_PATH, MESSAGES, PAYLOAD, QUESTION
from .contest import CannotRunError
from .replies import MODEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    Take = Callable[[str], None]
    Read = Callable[[Take], None]
    AsyncRead = Callable[[Take], Awaitable[None]]

_STREAMED: Final = {**PAYLOAD, "stream": True}
_TIMEOUT: Final = 60
_AS_THEY_COME: Any = None  # its stubs know no None


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamer:
    """One who reads in a thread: ``open`` connects it with the server at a URL, for a block."""

    key: str
    name: str
    open: Callable[[str], AbstractContextManager[Read]]
    needs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncStreamer:
    """One who reads on a loop."""

    key: str
    name: str
    open: Callable[[str], AbstractAsyncContextManager[AsyncRead]]
    needs: str = ""


@contextmanager
def bridge(url: str) -> Iterator[Read]:
    """``stream()`` of a client with the default settings."""
    with OllamaClient(base_url=url) as client:

        def read(take: Take) -> None:
            with client.stream(QUESTION) as chunks:
                for chunk in chunks:
                    take(chunk)

        yield read


@contextmanager
def official(url: str) -> Iterator[Read]:
    """``ollama.Client``, the official one."""
    client = peers.load("ollama").Client(host=url)

    def read(take: Take) -> None:
        for part in client.chat(model=MODEL, messages=MESSAGES, stream=True):
            if text := part.message.content:
                take(text)

    with closing(client._client):  # noqa: SLF001  # not every release has close() itself
        yield read


@contextmanager
def session(url: str) -> Iterator[Read]:
    """``iter_lines()`` of a ``requests.Session``, as everybody writes it.

    With the ``chunk_size`` that its users soon find: the usual 512 holds chunks back.
    """
    with requests.Session() as opened:

        def read(take: Take) -> None:
            with opened.post(
                url + CHAT_PATH, json=_STREAMED, stream=True, timeout=_TIMEOUT
            ) as response:
                for line in response.iter_lines(_AS_THEY_COME):
                    _hand_on(line, take)

        yield read


@asynccontextmanager
async def async_bridge(url: str) -> AsyncIterator[AsyncRead]:
    """``astream()`` of a client with the default settings."""
    async with OllamaClient(base_url=url) as client:

        async def read(take: Take) -> None:
            async with client.astream(QUESTION) as chunks:
                async for chunk in chunks:
                    take(chunk)

        yield read


@asynccontextmanager
async def async_official(url: str) -> AsyncIterator[AsyncRead]:
    """``ollama.AsyncClient``, the official one."""
    async with aaskers.official_client(url) as client:

        async def read(take: Take) -> None:
            async for part in await client.chat(model=MODEL, messages=MESSAGES, stream=True):
                if text := part.message.content:
                    take(text)

        yield read


@asynccontextmanager
async def async_session(url: str) -> AsyncIterator[AsyncRead]:
    """The lines of an ``aiohttp.ClientSession``, and ``json.loads()``."""
    async with aaskers.session() as opened:

        async def read(take: Take) -> None:
            async with opened.post(url + CHAT_PATH, json=_STREAMED) as response:
                async for line in response.content:
                    _hand_on(line, take)

        yield read


def check(texts: Sequence[str], chunks: int) -> None:
    """Hold what one stream brought against what the server sent.

    Raises:
        CannotRunError: it is not that.
    """
    if list(texts) != replies.pieces(chunks):
        raise CannotRunError(f"got {len(texts)} other chunks than the {chunks} that were sent")


def _hand_on(line: bytes, take: Take) -> None:
    part: dict[str, Any] = json.loads(line)
    if text := part["message"]["content"]:
        take(text)


OURS: Final = Streamer(key="ours", name="ollama_bridge, stream()", open=bridge)
OFFICIAL: Final = Streamer(key="official", name="ollama.Client", open=official, needs="ollama")
SESSION: Final = Streamer(key="session", name="requests.Session", open=session)

ASYNC_OURS: Final = AsyncStreamer(key="ours", name="ollama_bridge, astream()", open=async_bridge)
ASYNC_OFFICIAL: Final = AsyncStreamer(
    key="official", name="ollama.AsyncClient", open=async_official, needs="ollama"
)
ASYNC_BARE: Final = AsyncStreamer(
    key="bare", name="aiohttp.ClientSession", open=async_session, needs="aiohttp"
)
