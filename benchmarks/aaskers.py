"""Those who can ask without a thread: as ``askers``, as coroutines."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ollama_bridge import OllamaClient

from . import askers, peers
from .askers import CHAT_PATH, MESSAGES, PAYLOAD, QUESTION
from .replies import MODEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    AsyncAsk = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncAsker:
    """One who can ask: ``open`` connects it with the server at a URL, for a block."""

    key: str
    name: str
    open: Callable[[str], AbstractAsyncContextManager[AsyncAsk]]
    needs: str = ""


@asynccontextmanager
async def bridge(url: str) -> AsyncIterator[AsyncAsk]:
    """``achat()`` of a client with the default settings."""
    async with OllamaClient(base_url=url) as client:
        yield partial(client.achat, QUESTION)


@asynccontextmanager
async def official_client(url: str, **options: object) -> AsyncIterator[Any]:
    """``ollama.AsyncClient``; what else it is given goes to the one of httpx."""
    client = peers.load("ollama").AsyncClient(host=url, **options)
    async with client._client:  # noqa: SLF001  # not every release has close() itself
        yield client


@asynccontextmanager
async def official(url: str, **options: object) -> AsyncIterator[AsyncAsk]:
    async with official_client(url, **options) as client:

        async def ask() -> str:
            content: str = (await client.chat(model=MODEL, messages=MESSAGES)).message.content
            return content

        yield ask


@asynccontextmanager
async def unlimited(url: str) -> AsyncIterator[AsyncAsk]:
    """The official one without the limits of httpx, which keeps 20 of 100 connections."""
    limits = peers.load("httpx").Limits(max_connections=None, max_keepalive_connections=None)
    async with official(url, limits=limits) as ask:
        yield ask


@asynccontextmanager
async def session() -> AsyncIterator[Any]:
    """``aiohttp.ClientSession()``, with as many connections as are needed."""
    aiohttp = peers.load("aiohttp")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
        yield opened


@asynccontextmanager
async def bare(url: str) -> AsyncIterator[AsyncAsk]:
    """``session.post()``, as everybody writes it."""
    async with session() as opened:

        async def ask() -> str:
            async with opened.post(url + CHAT_PATH, json=PAYLOAD) as response:
                content: str = (await response.json())["message"]["content"]
                return content

        yield ask


@asynccontextmanager
async def router(url: str) -> AsyncIterator[AsyncAsk]:
    """LiteLLM's Router over the one server."""
    routing = askers.routing(url)

    async def ask() -> str:
        reply = await routing.acompletion(model=MODEL, messages=MESSAGES)
        content: str = reply.choices[0].message.content
        return content

    yield ask


OURS: Final = AsyncAsker(key="ours", name="ollama_bridge", open=bridge)
OFFICIAL: Final = AsyncAsker(
    key="official", name="ollama.AsyncClient", open=official, needs="ollama"
)
UNLIMITED: Final = AsyncAsker(
    key="unlimited", name="ollama.AsyncClient, no limits", open=unlimited, needs="ollama"
)
BARE: Final = AsyncAsker(key="bare", name="aiohttp.ClientSession", open=bare, needs="aiohttp")
ROUTER: Final = AsyncAsker(key="litellm", name="LiteLLM's Router", open=router, needs="litellm")
