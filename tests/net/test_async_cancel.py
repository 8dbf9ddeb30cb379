"""A call that is cancelled, at whichever await, leaves nothing behind."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import ConnectionFailed, OllamaClient
from ollama_bridge.testing import FakeOllama, faults, when
from tests.net.held import Held
from tests.net.rawserver import ConnectBlackHole, RawServer, read_head
from tests.net.stepping import MOMENTS, MOST, Moment, cancelled_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ollama_bridge.testing.faults import Fault

PROMPT = "What is water?"
Call = Callable[[OllamaClient], Coroutine[Any, Any, str]]


async def chat(client: OllamaClient) -> str:
    return await client.achat(PROMPT)


async def stream(client: OllamaClient) -> str:
    async with client.astream(PROMPT) as chunks:
        async for _ in chunks:
            pass
    return chunks.reply


async def bare_stream(client: OllamaClient) -> str:
    chunks = client.astream(PROMPT)
    async for _ in chunks:
        pass
    return chunks.reply


@dataclass(frozen=True)
class Way:
    """What happens to a call that is not cancelled."""

    fault: Callable[[], Fault] | None = None
    failing: int = 0


WAYS = {
    "answered": Way(),
    "repeated": Way(faults.unavailable, 1),
    "replayed": Way(faults.Drop, 1),
}


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama(answer="Water is wet and blue.") as server:
        yield server


@asynccontextmanager
async def client_of(server: FakeOllama, **settings: Any) -> AsyncIterator[OllamaClient]:
    quick = {"retry_backoff": "fixed", "retry_delay": 0.001, "timeout": 10}
    async with OllamaClient(base_url=server.url, **{**quick, **settings}) as client:
        yield client


async def until(server: FakeOllama, predicate: Callable[[FakeOllama], bool]) -> None:
    await asyncio.to_thread(server.wait_for, predicate)


async def comes(true: Callable[[], bool]) -> None:
    """Let the loop run until it is true."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)


def load(client: OllamaClient) -> tuple[int, int]:
    stats = client.get_stats()
    return stats["in_flight"], stats["waiting"]


async def is_clean(client: OllamaClient, server: FakeOllama, *, most: int) -> None:
    """Check that nothing is left of a call that may have sent so many requests."""
    assert load(client) == (0, 0)
    assert client.circuit_breaker.failures == 0
    await until(server, lambda server: server.in_flight == 0)
    server.behave()
    assert await client.achat("What is ice?")
    assert client.get_stats()["failed_requests"] == 0
    assert sum(request.prompt == PROMPT for request in server.chats) <= most


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", [chat, stream, bare_stream])
def test_a_cancel_at_any_await_leaves_nothing_behind(
    server: FakeOllama, call: Call, way: str, warm: bool, moment: Moment
) -> None:
    made = WAYS[way]
    most = 0

    async def go() -> int:
        nonlocal most
        for step in range(1, MOST):
            most += 1 + made.failing
            async with client_of(server, max_concurrency=1) as client:
                if warm:
                    await client.achat("What is steam?")
                if made.fault is not None:
                    server.misbehave(made.fault(), when=when.first(made.failing))
                server.misbehave(faults.StallStream(after=1, seconds=0.005))
                cancelled = await cancelled_at(lambda: call(client), step, moment)
                await is_clean(client, server, most=most)
            await until(server, lambda server: server.open_connections == 0)
            if not cancelled:
                return step
        raise AssertionError("it never came to its end")

    at_least = {"answered": 2, "repeated": 4, "replayed": 3}[way] + (not warm)
    # On a machine that is busy a stream may have come as one piece, which is one await less.
    assert any(asyncio.run(go()) > at_least for _ in range(5))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("call", [chat, stream])
def test_a_cancel_in_the_queue_or_after_it_lets_the_next_one_in(
    server: FakeOllama, call: Call, moment: Moment
) -> None:
    async def go() -> int:
        for step in range(1, MOST):
            async with client_of(server, max_concurrency=1) as client:
                held = Held()
                server.misbehave(held, when=when.prompt("first"))
                first = asyncio.create_task(client.achat("first"))
                await until(server, lambda server: server.in_flight == 1)
                second = asyncio.create_task(cancelled_at(lambda: call(client), step, moment))
                await in_queue(client, second)
                third = asyncio.create_task(client.achat("third"))
                await in_queue(client, second, third)
                held.let_go()
                assert await first
                assert await third
                cancelled = await second
                await is_clean(client, server, most=step)
            if not cancelled:
                return step
        raise AssertionError("it never came to its end")

    assert asyncio.run(go()) > 2


async def in_queue(client: OllamaClient, *calls: asyncio.Task[Any]) -> None:
    """Let the loop run until each of them waits for its slot, or has ended."""
    await comes(lambda: load(client)[1] >= sum(not call.done() for call in calls))


@pytest.mark.parametrize("call", [chat, stream])
def test_a_slot_granted_in_the_moment_of_the_cancel_goes_to_the_next(
    server: FakeOllama, call: Call
) -> None:
    async def go() -> None:
        async with client_of(server, max_concurrency=1) as client:
            held = Held()
            server.misbehave(held, when=when.prompt("first"))
            first = asyncio.create_task(client.achat("first"))
            await until(server, lambda server: server.in_flight == 1)
            second = asyncio.create_task(call(client))
            await in_queue(client, second)
            third = asyncio.create_task(client.achat("third"))
            await in_queue(client, second, third)
            first.add_done_callback(lambda _: second.cancel())
            first.cancel()  # gives its slot to the second, which is cancelled in the same round
            with suppress(asyncio.CancelledError):
                await first
            with pytest.raises(asyncio.CancelledError):
                await second
            assert await third
            assert [request.prompt for request in server.chats] == ["first", "third"]
            await is_clean(client, server, most=0)

    asyncio.run(go())


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("call", [chat, stream])
def test_a_cancelled_probe_leaves_its_place_to_the_next(
    server: FakeOllama, call: Call, moment: Moment
) -> None:
    async def go() -> int:
        for step in range(1, MOST):
            settings = {"failure_threshold": 1, "open_seconds": 0.01, "max_retries": 0}
            async with client_of(server, **settings) as client:
                await open_circuit(client, server)
                server.misbehave(faults.StallStream(after=1, seconds=0.005))
                cancelled = await cancelled_at(lambda: call(client), step, moment)
                assert load(client) == (0, 0)
                assert client.circuit_breaker.failures <= 1  # the one that opened it
                server.behave()
                assert await client.achat("What is ice?")  # a probe itself, and not refused
                assert client.circuit_breaker.state == "closed"
            if not cancelled:
                return step
        raise AssertionError("it never came to its end")

    assert asyncio.run(go()) > 3


async def open_circuit(client: OllamaClient, server: FakeOllama) -> None:
    """Open the circuit, and wait until it would let a probe in."""
    server.refuse()
    with pytest.raises(ConnectionFailed):
        await client.achat(PROMPT)
    server.listen()
    assert client.circuit_breaker.state == "open"
    await comes(lambda: not client.circuit_breaker.retry_after)


def test_a_cancel_while_the_connect_hangs_ends_at_once() -> None:
    async def go(url: str) -> None:
        async with OllamaClient(base_url=url, connect_timeout=30, timeout=30) as client:
            call = asyncio.create_task(client.achat(PROMPT))
            await comes(lambda: bool(sockets_of(client)))
            began = asyncio.get_running_loop().time()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert asyncio.get_running_loop().time() - began < 0.1
            assert load(client) == (0, 0)
            assert client.circuit_breaker.failures == 0
            await closed(client)

    with ConnectBlackHole() as hole:
        asyncio.run(go(hole.url))


def test_a_cancel_while_a_server_does_not_take_the_request_closes_its_connection() -> None:
    """Closed politely, a connection stays open for as long as something is still to be sent."""

    async def go(server: RawServer) -> None:
        async with OllamaClient(base_url=server.url) as client:
            call = asyncio.create_task(client.achat("x" * 16_000_000))
            assert await asyncio.to_thread(arrived.wait, 10)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert load(client) == (0, 0)
            await closed(client)

    arrived = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        arrived.set()
        server.stopping.wait(10)

    with RawServer(serve) as server:
        asyncio.run(go(server))


def sockets_of(client: OllamaClient) -> list[socket.socket]:
    """Return the sockets of all loops that still exist; they are not public."""
    transport: Any = client._running().async_transport
    return [
        sock
        for sessions in (transport._open if transport else ())
        for session in (sessions.pooled, sessions.fresh)
        for sock in list(session.connector.sockets)
    ]


async def closed(client: OllamaClient) -> None:
    await comes(lambda: all(sock.fileno() < 0 for sock in sockets_of(client)))
