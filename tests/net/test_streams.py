"""What a stream promises to the thread or task that reads it, and to whoever closes it."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import AsyncChatStream, ChatStream, OllamaClient, StreamInterrupted, Timeout
from ollama_bridge.core.types import Delta
from ollama_bridge.testing import FakeOllama, faults
from tests.net.endless import Endless
from tests.net.held import Held
from tests.net.proxies import ConnectProxy
from tests.net.rawserver import ConnectBlackHole, RawServer
from tests.net.test_deadlines import MISS, late

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from tests.conftest import MakeClient

PROMPT = "What is water?"
ANSWER = "Water is wet and blue."
AT_ONCE = 0.1


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama(answer=ANSWER) as server:
        yield server


@pytest.fixture
def client(server: FakeOllama, make_client: MakeClient) -> OllamaClient:
    return make_client(base_url=server.url)


async def until(server: FakeOllama, predicate: Callable[[FakeOllama], bool]) -> None:
    await asyncio.to_thread(server.wait_for, predicate)


def is_neutral(client: OllamaClient) -> None:
    stats = client.get_stats()
    assert (stats["in_flight"], stats["waiting"]) == (0, 0)
    assert (stats["failed_requests"], stats["cancelled_requests"]) == (0, 1)
    assert client.circuit_breaker.failures == 0


# Beginning, text and reply.


def test_nothing_is_sent_before_the_first_piece_is_asked_for(
    server: FakeOllama, client: OllamaClient
) -> None:
    client.stream(PROMPT)
    with client.stream(PROMPT) as chunks:
        assert repr(chunks) == "<ChatStream not begun>"
        assert (chunks.text, server.connections) == ("", 0)
        assert list(chunks)
    assert len(server.chats) == 1


def test_nor_on_a_loop(server: FakeOllama, client: OllamaClient) -> None:
    async def go() -> None:
        client.astream(PROMPT)
        async with client.astream(PROMPT) as chunks:
            assert repr(chunks) == "<AsyncChatStream not begun>"
            await asyncio.sleep(0.02)
            assert (chunks.text, server.connections) == ("", 0)
            assert [chunk async for chunk in chunks]

    asyncio.run(go())
    assert len(server.chats) == 1


def test_text_grows_piece_by_piece_and_the_reply_comes_last(client: OllamaClient) -> None:
    with client.stream(PROMPT) as chunks:
        text = ""
        for chunk in chunks:
            text += chunk
            assert chunks.text == text
            with pytest.raises(RuntimeError, match="not ended yet"):
                _ = chunks.reply
    assert chunks.reply == chunks.text == ANSWER
    assert list(chunks) == []
    assert repr(chunks) == "<ChatStream ended>"


def test_so_it_does_on_a_loop(client: OllamaClient) -> None:
    async def go() -> None:
        async with client.astream(PROMPT) as chunks:
            text = ""
            async for chunk in chunks:
                text += chunk
                assert chunks.text == text
                with pytest.raises(RuntimeError, match="not ended yet"):
                    _ = chunks.reply
        assert chunks.reply == chunks.text == ANSWER
        assert [chunk async for chunk in chunks] == []

    asyncio.run(go())


def test_without_a_block_the_end_closes_the_stream(
    server: FakeOllama, client: OllamaClient
) -> None:
    chunks = client.stream(PROMPT)
    assert "".join(chunks) == ANSWER
    is_free(client)
    assert server.open_connections == 1  # kept for the next

    async def go() -> None:
        chunks = client.astream(PROMPT)
        assert "".join([chunk async for chunk in chunks]) == ANSWER
        is_free(client)

    asyncio.run(go())


def is_free(client: OllamaClient) -> None:
    stats = client.get_stats()
    assert (stats["in_flight"], stats["waiting"]) == (0, 0)


def test_without_a_block_an_error_closes_the_stream(
    server: FakeOllama, client: OllamaClient
) -> None:
    server.misbehave(faults.ErrorLine(after=1))
    chunks = client.stream(PROMPT)
    with pytest.raises(StreamInterrupted) as caught:
        list(chunks)
    assert caught.value.partial == chunks.text
    is_free(client)
    assert list(chunks) == []
    with pytest.raises(RuntimeError, match="ended without a reply"):
        _ = chunks.reply

    async def go() -> None:
        chunks = client.astream(PROMPT)
        with pytest.raises(StreamInterrupted) as caught:
            _ = [chunk async for chunk in chunks]
        assert caught.value.partial == chunks.text
        is_free(client)
        with pytest.raises(RuntimeError, match="ended without a reply"):
            _ = chunks.reply

    asyncio.run(go())


# Leaving.


def test_leaving_the_block_early_closes_the_connection(
    server: FakeOllama, client: OllamaClient
) -> None:
    server.misbehave(faults.StallStream(after=1))
    with client.stream(PROMPT) as chunks:
        for _ in chunks:
            break
    server.wait_for(lambda server: len(server.disconnects) == 1)
    assert server.open_connections == 0
    is_neutral(client)
    assert list(chunks) == []
    assert chunks.text


def test_so_it_does_on_a_loop_that_goes_on(server: FakeOllama, client: OllamaClient) -> None:
    server.misbehave(faults.StallStream(after=1))

    async def go() -> None:
        async with client.astream(PROMPT) as chunks:
            async for _ in chunks:
                break
        is_neutral(client)
        await until(server, lambda server: len(server.disconnects) == 1)
        assert server.open_connections == 0
        assert [chunk async for chunk in chunks] == []
        assert chunks.text

    asyncio.run(go())


def test_an_error_of_the_reader_closes_the_connection(
    server: FakeOllama, client: OllamaClient
) -> None:
    server.misbehave(faults.StallStream(after=1))

    async def go() -> None:
        async with client.astream(PROMPT) as chunks:
            async for _ in chunks:
                raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(go())
    server.wait_for(lambda server: len(server.disconnects) == 1)
    is_neutral(client)


async def pieces(client: OllamaClient) -> AsyncIterator[str]:
    async with client.astream(PROMPT) as chunks:
        async for chunk in chunks:
            yield chunk


def test_a_generator_around_a_stream_that_is_closed_closes_it(
    server: FakeOllama, client: OllamaClient
) -> None:
    server.misbehave(faults.StallStream(after=1))

    async def go() -> None:
        around: Any = pieces(client)
        assert await anext(around)
        await around.aclose()
        is_neutral(client)
        await until(server, lambda server: server.open_connections == 0)

    asyncio.run(go())


def test_closing_again_is_closing_once(client: OllamaClient) -> None:
    chunks = client.stream(PROMPT)
    next(chunks)
    for _ in range(3):
        chunks.close()
    is_neutral(client)
    unbegun = client.stream(PROMPT)
    unbegun.close()
    assert list(unbegun) == []

    async def go() -> None:
        chunks = client.astream(PROMPT)
        await chunks.aclose()
        await chunks.aclose()
        assert [chunk async for chunk in chunks] == []

    asyncio.run(go())
    is_neutral(client)


@pytest.mark.parametrize("collect", [gc.collect, lambda: None], ids=["cycle", "plain"])
def test_a_stream_that_is_forgotten_is_told_and_closed(
    server: FakeOllama, client: OllamaClient, collect: Callable[[], object]
) -> None:
    server.misbehave(faults.StallStream(after=1))
    chunks: Any = client.stream(PROMPT)
    next(chunks)
    if collect is gc.collect:
        chunks.itself = chunks
    with pytest.warns(ResourceWarning, match="unclosed <ChatStream") as told:  # noqa: PT031
        del chunks
        collect()
    assert len(told) == 1
    server.wait_for(lambda server: len(server.disconnects) == 1)
    assert server.open_connections == 0
    is_neutral(client)


def test_so_is_one_on_a_loop_that_goes_on(server: FakeOllama, client: OllamaClient) -> None:
    server.misbehave(faults.StallStream(after=1))

    async def go() -> None:
        chunks = client.astream(PROMPT)
        await anext(chunks)
        with pytest.warns(ResourceWarning, match="unclosed <AsyncChat") as told:  # noqa: PT031
            del chunks
            gc.collect()
        assert len(told) == 1
        await until(server, lambda server: server.open_connections == 0)
        is_neutral(client)

    asyncio.run(go())


# Closing from elsewhere, whatever the reader waits for.


@contextmanager
def head(client: OllamaClient, server: FakeOllama) -> Iterator[Callable[[], bool]]:
    server.misbehave(faults.BlackHole())
    yield lambda: server.in_flight == 1


@contextmanager
def body(client: OllamaClient, server: FakeOllama) -> Iterator[Callable[[], bool]]:
    server.misbehave(faults.StallStream(after=0))
    yield lambda: server.in_flight == 1


@contextmanager
def retry(client: OllamaClient, server: FakeOllama) -> Iterator[Callable[[], bool]]:
    server.misbehave(faults.unavailable())
    yield lambda: len(server.chats) == 1 and not server.in_flight


@contextmanager
def slot(client: OllamaClient, server: FakeOllama) -> Iterator[Callable[[], bool]]:
    held = Held()
    server.misbehave(held)
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(client.chat, PROMPT)
        server.wait_for(lambda server: server.in_flight == 1)
        yield lambda: client.get_stats()["waiting"] == 1
        held.let_go()
        assert other.result()


WAITS = pytest.mark.parametrize("wait", [head, body, retry, slot])
PATIENT = {"retry_backoff": "fixed", "retry_delay": 30, "max_concurrency": 1, "timeout": 60}


def comes(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)
    time.sleep(0.02)  # and the reader goes on to its wait


@WAITS
def test_a_close_from_another_thread_ends_the_reader_at_once(
    server: FakeOllama, make_client: MakeClient, wait: Any
) -> None:
    client = make_client(base_url=server.url, **PATIENT)
    chunks = client.stream(PROMPT)
    ended: list[float] = []

    def read() -> list[str]:
        got: list[str] = list(chunks)
        ended.append(time.monotonic())
        return got

    with wait(client, server) as waits, ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read)
        comes(waits)
        closed = time.monotonic()
        chunks.close()
        assert reading.result() == []
        assert ended[0] - closed < AT_ONCE
    if wait in {head, body}:
        server.wait_for(lambda server: len(server.disconnects) == 1)
    stats = client.get_stats()
    assert (stats["in_flight"], stats["waiting"], stats["cancelled_requests"]) == (0, 0, 1)
    assert client.circuit_breaker.failures == 0
    server.behave()
    assert client.chat(PROMPT)


@WAITS
def test_an_aclose_from_another_task_ends_the_reader_and_waits_for_that(
    server: FakeOllama, make_client: MakeClient, wait: Any
) -> None:
    client = make_client(base_url=server.url, **PATIENT)

    async def read(chunks: AsyncChatStream) -> list[str]:
        return [chunk async for chunk in chunks]

    async def go() -> None:
        chunks = client.astream(PROMPT)
        reading = asyncio.create_task(read(chunks))
        await asyncio.to_thread(comes, waits)
        started = time.monotonic()
        await chunks.aclose()
        assert client.get_stats()["cancelled_requests"] == 1
        assert await reading == []
        assert not reading.cancelling()
        assert time.monotonic() - started < AT_ONCE

    with wait(client, server) as waits:
        asyncio.run(go())
    if wait in {head, body}:
        server.wait_for(lambda server: len(server.disconnects) == 1)
    stats = client.get_stats()
    assert (stats["in_flight"], stats["waiting"], stats["cancelled_requests"]) == (0, 0, 1)
    assert client.circuit_breaker.failures == 0
    server.behave()
    assert client.chat(PROMPT)


def test_a_close_from_another_thread_ends_a_connect_that_hangs(make_client: MakeClient) -> None:
    with ConnectBlackHole() as hole, ThreadPoolExecutor(1) as threads:
        client = make_client(base_url=hole.url, connect_timeout=30)
        chunks = client.stream(PROMPT)
        reading = threads.submit(list, chunks)
        comes(lambda: client.get_stats()["in_flight"] == 1)
        time.sleep(0.05)
        closed = time.monotonic()
        chunks.close()
        assert reading.result() == []
        assert time.monotonic() - closed < AT_ONCE
    is_neutral(client)


def test_a_close_from_another_thread_ends_a_handshake_that_hangs(make_client: MakeClient) -> None:
    greeted = threading.Event()

    def serve(sock: socket.socket) -> None:
        if sock.recv(1):
            greeted.set()
            silent.stopping.wait(30)

    with RawServer(serve) as silent, ThreadPoolExecutor(1) as threads:
        client = make_client(base_url=f"https://{silent.host}:{silent.port}", connect_timeout=5)
        chunks = client.stream(PROMPT)
        reading = threads.submit(list, chunks)
        assert greeted.wait(10)
        closed = time.monotonic()
        chunks.close()
        assert reading.result() == []
        assert time.monotonic() - closed < AT_ONCE
    is_neutral(client)


def test_a_close_from_another_thread_ends_a_reader_behind_tls_inside_tls(
    make_client: MakeClient, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    with (
        FakeOllama(answer=ANSWER, tls=server_tls) as server,
        ConnectProxy(server.port, tls=server_tls) as proxy,
        ThreadPoolExecutor(1) as threads,
    ):
        client = make_client(
            base_url="https://ollama.internal", proxy=proxy.url, verify_ssl=str(ca_file)
        )
        assert client.chat("The connection is kept.")
        server.misbehave(faults.BlackHole())
        for _ in range(2):
            chunks = client.stream(PROMPT)
            reading = threads.submit(list, chunks)
            server.wait_for(lambda server: server.in_flight == 1)
            closed = time.monotonic()
            chunks.close()
            assert reading.result() == []
            assert time.monotonic() - closed < AT_ONCE
            server.wait_for(lambda server: server.in_flight == 0)
        assert [request.turn for request in server.chats] == [1, 2, 1]
        server.wait_for(lambda server: len(server.disconnects) == 2)


def test_so_it_does_while_the_connect_hangs(make_client: MakeClient) -> None:
    async def read(chunks: AsyncChatStream) -> list[str]:
        return [chunk async for chunk in chunks]

    async def go(client: OllamaClient) -> None:
        chunks = client.astream(PROMPT)
        reading = asyncio.create_task(read(chunks))
        await asyncio.to_thread(comes, lambda: client.get_stats()["in_flight"] == 1)
        started = time.monotonic()
        await chunks.aclose()
        assert await reading == []
        assert time.monotonic() - started < AT_ONCE

    with ConnectBlackHole() as hole:
        client = make_client(base_url=hole.url, connect_timeout=30)
        asyncio.run(go(client))
    is_neutral(client)


def test_several_tasks_may_close_a_stream_at_once(server: FakeOllama, client: OllamaClient) -> None:
    server.misbehave(faults.BlackHole())

    async def read(chunks: AsyncChatStream) -> list[str]:
        async with chunks:
            return [chunk async for chunk in chunks]

    async def go() -> None:
        chunks = client.astream(PROMPT)
        reading = asyncio.create_task(read(chunks))
        await until(server, lambda server: server.in_flight == 1)
        await asyncio.gather(*(chunks.aclose() for _ in range(3)))
        assert await reading == []

    asyncio.run(go())
    is_neutral(client)


def test_a_reader_that_is_cancelled_as_its_stream_is_closed_is_cancelled(
    server: FakeOllama, client: OllamaClient
) -> None:
    server.misbehave(faults.BlackHole())

    async def read(chunks: AsyncChatStream) -> list[str]:
        return [chunk async for chunk in chunks]

    async def go() -> None:
        chunks = client.astream(PROMPT)
        reading = asyncio.create_task(read(chunks))
        await until(server, lambda server: server.in_flight == 1)
        closing = asyncio.create_task(chunks.aclose())
        await asyncio.sleep(0)
        reading.cancel()
        await closing
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(go())
    is_neutral(client)


def test_a_close_between_two_pieces_ends_the_stream(
    server: FakeOllama, client: OllamaClient
) -> None:
    server.misbehave(faults.StallStream(after=1))
    chunks = client.stream(PROMPT)
    assert next(chunks)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(chunks.close).result()
    server.wait_for(lambda server: len(server.disconnects) == 1)
    is_neutral(client)
    assert list(chunks) == []


def test_a_close_at_any_moment_of_a_reader_leaves_nothing_behind(make_client: MakeClient) -> None:
    with FakeOllama(answer="word " * 50) as server:
        server.misbehave(faults.Resplit(200))
        client = make_client(base_url=server.url, max_concurrency=1, max_retries=0)
        for number in range(100):
            chunks = client.stream(PROMPT)
            with ThreadPoolExecutor(1) as threads:
                reading = threads.submit(list, chunks)
                time.sleep(0.00005 * number)
                chunks.close()
                assert len(reading.result()) <= 51
            is_free(client)
        assert client.get_stats()["failed_requests"] == 0
        client.close()
        server.wait_for(lambda server: server.open_connections == 0)


def test_a_close_that_comes_just_too_late_for_a_piece_is_heeded_after_it() -> None:
    inside, goes_on = threading.Event(), threading.Event()
    closed: list[bool] = []

    class Deaf:
        def cancel(self) -> None:
            """Be heard only by the next action."""

    def begin(_: object) -> Any:
        try:
            inside.set()
            assert goes_on.wait(10)
            yield Delta("Water")
        finally:
            closed.append(True)

    deaf: Any = Deaf()
    chunks = ChatStream(begin, deaf)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(next, chunks)
        assert inside.wait(10)
        chunks.close()
        assert closed == []
        goes_on.set()
        assert reading.result() == "Water"
    assert closed == [True]
    assert list(chunks) == []


def test_a_second_reader_is_refused_and_harms_not_the_first(
    server: FakeOllama, client: OllamaClient
) -> None:
    held = Held()
    server.misbehave(held)
    chunks = client.stream(PROMPT)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(list, chunks)
        server.wait_for(lambda server: server.in_flight == 1)
        with pytest.raises(RuntimeError, match="another thread is reading"):
            next(chunks)
        held.let_go()
        assert "".join(first.result()) == ANSWER
    assert chunks.reply == ANSWER


def test_nor_does_a_second_task(server: FakeOllama, client: OllamaClient) -> None:
    held = Held()
    server.misbehave(held)

    async def read(chunks: AsyncChatStream) -> list[str]:
        return [chunk async for chunk in chunks]

    async def go() -> None:
        chunks = client.astream(PROMPT)
        first = asyncio.create_task(read(chunks))
        await until(server, lambda server: server.in_flight == 1)
        with pytest.raises(RuntimeError, match="another task is reading"):
            await anext(chunks)
        held.let_go()
        assert "".join(await first) == ANSWER
        assert chunks.reply == ANSWER

    asyncio.run(go())


# Slow readers of fast servers.

MOST_SENT = 16 * 2**20  # what the system's buffers on both sides may hold, however they grow
MOST_HELD = 2 * 2**20


@contextmanager
def memory_is_flat() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < MOST_HELD


def settled(endless: Endless) -> None:
    """Wait until the server can send no more."""
    for _ in range(100):
        before = endless.sent
        time.sleep(0.1)
        if endless.sent == before:
            return
    pytest.fail("the server goes on sending")


def read_slowly(chunks: ChatStream) -> Iterator[None]:
    for _ in range(20):
        next(chunks)
        yield


def test_a_slow_reader_throttles_the_server(server: FakeOllama, client: OllamaClient) -> None:
    endless = Endless()
    server.misbehave(endless)
    with memory_is_flat(), client.stream(PROMPT) as chunks:
        for _ in read_slowly(chunks):
            time.sleep(0.01)
        settled(endless)
        assert endless.sent < MOST_SENT


def test_a_slow_reader_throttles_the_server_on_a_loop(
    server: FakeOllama, client: OllamaClient
) -> None:
    endless = Endless()
    server.misbehave(endless)

    async def go() -> None:
        async with client.astream(PROMPT) as chunks:
            for _ in range(20):
                await anext(chunks)
                await asyncio.sleep(0.01)
            await asyncio.to_thread(settled, endless)
            assert endless.sent < MOST_SENT

    with memory_is_flat():
        asyncio.run(go())


@asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """Tick every 5 ms; give what passed between two ticks."""
    gaps: list[float] = []

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - last)
            last += gaps[-1]

    task = asyncio.create_task(tick())
    try:
        yield gaps
    finally:
        task.cancel()


def test_a_fast_stream_lets_its_loop_do_other_things(
    server: FakeOllama, make_client: MakeClient
) -> None:
    server.misbehave(Endless(20))
    client = make_client(base_url=server.url, max_response_bytes=2**30)

    async def go() -> list[float]:
        async with ticking() as gaps:
            chunks = client.astream(PROMPT, timeout=1.0)
            with pytest.raises(Timeout) as caught:
                async for _ in chunks:
                    pass
            assert caught.value.phase == "total"
        return gaps

    gaps = asyncio.run(go())
    assert len(gaps) > 20
    assert max(gaps) < 0.2


@pytest.mark.parametrize("size", [20, 200])
def test_a_fast_stream_ends_at_its_deadline(
    server: FakeOllama, make_client: MakeClient, size: int
) -> None:
    server.misbehave(Endless(size))
    client = make_client(base_url=server.url, max_response_bytes=2**30, circuit_breaker=False)
    asyncio.run(client.ahealth_check())  # loads what is loaded once

    async def read() -> None:
        async for _ in client.astream(PROMPT, timeout=0.5):
            pass

    for call in (lambda: list(client.stream(PROMPT, timeout=0.5)), lambda: asyncio.run(read())):
        error, missed = late(call, 0.5)
        assert isinstance(error, Timeout)
        assert -0.02 < missed < MISS
