"""Whether all who ask on a loop, and all who read streams, do the same work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import aaskers, peers, project, streamers
from benchmarks.askers import MESSAGES
from benchmarks.contest import CannotRunError
from benchmarks.looped import looped
from benchmarks.replies import ANSWER, MODEL, pieces

if TYPE_CHECKING:
    from benchmarks.aaskers import AsyncAsker
    from benchmarks.streamers import AsyncStreamer, Streamer
    from ollama_bridge.testing import FakeOllama

CHUNKS = 5
ASKERS = [aaskers.OURS, aaskers.OFFICIAL, aaskers.UNLIMITED, aaskers.BARE, aaskers.ROUTER]
STREAMERS = [streamers.OURS, streamers.OFFICIAL, streamers.SESSION]
ASYNC_STREAMERS = [streamers.ASYNC_OURS, streamers.ASYNC_OFFICIAL, streamers.ASYNC_BARE]


def here(each: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return one of them, where it is installed."""
    if each.needs and not peers.is_here(each.needs):
        pytest.skip(f"{each.needs} is not installed here")
    monkeypatch.setenv(*project.WITHOUT_NETWORK)
    return each


@pytest.fixture(params=ASKERS, ids=lambda each: each.key)
def asker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncAsker:
    found: AsyncAsker = here(request.param, monkeypatch)
    return found


@pytest.fixture(params=STREAMERS, ids=lambda each: each.key)
def streamer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Streamer:
    found: Streamer = here(request.param, monkeypatch)
    return found


@pytest.fixture(params=ASYNC_STREAMERS, ids=lambda each: each.key)
def async_streamer(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncStreamer:
    found: AsyncStreamer = here(request.param, monkeypatch)
    return found


def ask(asker: AsyncAsker, url: str, times: int) -> list[str]:
    async def asked() -> list[str]:
        async with asker.open(url) as ask:
            return [await ask() for _ in range(times)]

    return asyncio.run(asked())


def read(streamer: Streamer, url: str, times: int) -> list[str]:
    found: list[str] = []
    with streamer.open(url) as read:
        for _ in range(times):
            read(found.append)
    return found


def read_on_a_loop(streamer: AsyncStreamer, url: str, times: int) -> list[str]:
    found: list[str] = []

    async def reading() -> None:
        async with streamer.open(url) as read:
            for _ in range(times):
                await read(found.append)

    asyncio.run(reading())
    return found


def assert_asked(server: FakeOllama, times: int, *, stream: bool) -> None:
    """Assert that the question came so often, word for word, on one connection."""
    assert len(server.chats) == times
    for chat in server.chats:
        (message,) = chat.json["messages"]
        assert [{"role": message["role"], "content": message["content"]}] == MESSAGES
        assert (chat.json["model"], chat.json["stream"]) == (MODEL, stream)
    assert len({chat.connection for chat in server.chats}) == 1


def test_whoever_asks_on_a_loop_sends_the_same_on_a_connection_that_is_kept(
    asker: AsyncAsker, fake_ollama: FakeOllama
) -> None:
    ask(asker, fake_ollama.url, 3)

    assert_asked(fake_ollama, 3, stream=False)


def test_whoever_asks_on_a_loop_returns_the_text_of_the_answer(asker: AsyncAsker) -> None:
    with looped() as url:
        assert ask(asker, url, 2) == [ANSWER] * 2


def test_whoever_reads_in_a_thread_sends_the_same_on_a_connection_that_is_kept(
    streamer: Streamer, fake_ollama: FakeOllama
) -> None:
    read(streamer, fake_ollama.url, 3)

    assert_asked(fake_ollama, 3, stream=True)


def test_whoever_reads_on_a_loop_sends_the_same_on_a_connection_that_is_kept(
    async_streamer: AsyncStreamer, fake_ollama: FakeOllama
) -> None:
    read_on_a_loop(async_streamer, fake_ollama.url, 3)

    assert_asked(fake_ollama, 3, stream=True)


def test_whoever_reads_in_a_thread_hands_on_each_chunk(streamer: Streamer) -> None:
    with looped(chunks=CHUNKS) as url:
        assert read(streamer, url, 2) == pieces(CHUNKS) * 2


def test_whoever_reads_on_a_loop_hands_on_each_chunk(async_streamer: AsyncStreamer) -> None:
    with looped(chunks=CHUNKS) as url:
        assert read_on_a_loop(async_streamer, url, 2) == pieces(CHUNKS) * 2


@pytest.mark.parametrize("taken", [[], pieces(CHUNKS)[1:], [*pieces(CHUNKS), "more"]])
def test_other_chunks_than_the_servers_are_not_accepted(taken: list[str]) -> None:
    with pytest.raises(CannotRunError, match="other chunks"):
        streamers.check(taken, CHUNKS)
