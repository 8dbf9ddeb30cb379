"""The same flows under an async driver, against the same faults."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest

from ollama_bridge import errors
from ollama_bridge.core import exchanges, flow
from ollama_bridge.core.deadline import Clock
from ollama_bridge.core.flow import Call
from ollama_bridge.core.protocol import ChatRequest, messages_of
from ollama_bridge.core.retry import RetryPolicy
from ollama_bridge.core.routing import Router
from ollama_bridge.core.types import ChatReply, Delta
from ollama_bridge.state.local import LocalHome
from ollama_bridge.testing import FakeOllama, faults, when
from tests.core.virtual import endpoint

from .aiodriver import drive

Run = Callable[..., tuple[list[Delta], ChatReply]]


@pytest.fixture
def router(fake_ollama: FakeOllama) -> Router:
    quick = RetryPolicy(initial_delay=0.01)
    place = endpoint(base_url=fake_ollama.url, model="llama3.2", retry=quick, timeout=5.0)
    return Router(
        [place], clock=Clock(), random=random.random, observe=lambda _: None, home=LocalHome()
    )


@pytest.fixture(params=[exchanges.whole, exchanges.streamed], ids=["chat", "stream"])
def run(request: pytest.FixtureRequest, router: Router) -> Run:
    exchange = request.param

    def run(**facts: Any) -> tuple[list[Delta], ChatReply]:
        return asyncio.run(collect(router, exchange, **facts))

    return run


def steps(router: Router, exchange: flow.Exchange, **facts: Any) -> Any:
    asked = ChatRequest(messages=messages_of("hi", "", ()), stream=exchange is exchanges.streamed)
    return flow.answer(router, Call(request=asked, request_id="r", **facts), exchange)


async def collect(
    router: Router, exchange: flow.Exchange, **facts: Any
) -> tuple[list[Delta], ChatReply]:
    async with aiohttp.ClientSession() as session:
        *deltas, reply = [item async for item in drive(steps(router, exchange, **facts), session)]
    assert isinstance(reply, ChatReply)
    return [delta for delta in deltas if isinstance(delta, Delta)], reply


def test_it_answers(run: Run, fake_ollama: FakeOllama) -> None:
    deltas, reply = run()
    assert reply
    assert reply.done_reason == "stop"
    if deltas:
        assert "".join(delta.text for delta in deltas) == reply


def test_it_repeats_what_fails_for_a_passing_reason(run: Run, fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.unavailable(), when=when.first(2))
    _, reply = run()
    assert [a.code for a in reply.attempts] == ["upstream_failed", "upstream_failed", ""]


def test_it_replays_a_dropped_connection(run: Run, fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.Reset(), when=when.first(1))
    _, reply = run()
    assert len(reply.attempts) == 1
    assert len(fake_ollama.chats) == 2


def test_it_gives_up_at_the_deadline(run: Run, fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.BlackHole())
    with pytest.raises(errors.Timeout):
        run(timeout=0.2)


def test_a_missing_model_is_told_and_not_repeated(run: Run, fake_ollama: FakeOllama) -> None:
    with pytest.raises(errors.ModelNotFound):
        run(model="nobody")
    assert len(fake_ollama.chats) == 1


def test_the_circuit_opens_and_closes(run: Run, router: Router, fake_ollama: FakeOllama) -> None:
    fake_ollama.refuse()
    for _ in range(5):
        with pytest.raises(errors.ConnectionFailed):
            run()
    with pytest.raises(errors.CircuitOpen):
        run()
    router.reset("default")
    fake_ollama.listen()
    assert run()


def test_a_stream_that_breaks_keeps_its_text(router: Router, fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.CutStream(after=1))
    with pytest.raises(errors.StreamInterrupted) as caught:
        asyncio.run(collect(router, exchanges.streamed))
    assert caught.value.partial


def test_a_stream_left_early_closes_its_connection(router: Router, fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.StallStream(after=1, seconds=30))

    async def leave() -> None:
        async with aiohttp.ClientSession() as session:
            async with aclosing(drive(steps(router, exchanges.streamed), session)) as deltas:
                await anext(deltas)
            await asyncio.to_thread(
                fake_ollama.wait_for, lambda server: len(server.disconnects) == 1
            )

    asyncio.run(leave())
    assert router.facts("default").failures == 0
