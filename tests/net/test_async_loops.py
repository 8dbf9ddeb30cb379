"""Event loops come and go, in several threads and in forked children; nothing is left open."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured

from ollama_bridge import OllamaClient, ollama_client
from ollama_bridge.testing import FakeOllama, faults, when
from tests.net.held import Held
from tests.net.scripts import run_script

if TYPE_CHECKING:
    from pytest_django import Settings

    from tests.conftest import MakeClient

PROMPT = "What is water?"
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and fork as Linux has them")


def sessions_of(client: OllamaClient) -> set[Any]:
    """Return what is open for all loops; it is not public."""
    transport: Any = client._running().async_transport
    return set() if transport is None else transport._open


def nothing_open(server: FakeOllama) -> bool:
    return server.open_connections == 0


def nothing_in_flight(server: FakeOllama) -> bool:
    return server.in_flight == 0


async def until(server: FakeOllama, predicate: Callable[[FakeOllama], bool]) -> None:
    await asyncio.to_thread(server.wait_for, predicate)


def test_each_run_of_a_loop_leaves_nothing_open(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    for _ in range(5):
        assert asyncio.run(client.achat(PROMPT))
        fake_ollama.wait_for(nothing_open)
    assert fake_ollama.connections == 5
    assert sessions_of(client) == set()


def test_async_to_sync_leaves_nothing_open(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    for _ in range(3):
        assert async_to_sync(client.achat)(PROMPT)
        fake_ollama.wait_for(nothing_open)
    assert sessions_of(client) == set()


def test_several_loops_in_several_threads_at_once_have_connections_of_their_own(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    together = threading.Barrier(8)

    async def some() -> list[str]:
        return [await client.achat(PROMPT) for _ in range(5)]

    def work(_: int) -> int:
        together.wait()
        return len(asyncio.run(some()))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == [5] * 8
    assert fake_ollama.connections == 8
    fake_ollama.wait_for(nothing_open)
    assert sessions_of(client) == set()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_loop_that_was_closed_without_finalising_is_tidied_up_by_the_next(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.achat(PROMPT))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert fake_ollama.open_connections == 1
    assert asyncio.run(client.achat(PROMPT))
    fake_ollama.wait_for(nothing_open)
    assert sessions_of(client) == set()
    gc.collect()


# What is pending on a loop that is closed never goes on. Nobody tells of it.

LEFT = "What is left?"


async def in_the_head(client: OllamaClient, server: FakeOllama) -> Any:
    server.misbehave(faults.BlackHole(), when=when.prompt(LEFT))
    call = asyncio.create_task(client.achat(LEFT))
    await until(server, lambda server: server.in_flight == 1)
    return call


async def in_the_body(client: OllamaClient, server: FakeOllama) -> Any:
    server.misbehave(faults.StallStream(after=1), when=when.prompt(LEFT))
    chunks = client.astream(LEFT)
    assert await anext(chunks)

    async def read() -> None:
        await anext(chunks)

    call = asyncio.create_task(read())
    await asyncio.sleep(0)
    return call


async def between_two_pieces(client: OllamaClient, server: FakeOllama) -> Any:
    server.misbehave(faults.StallStream(after=1), when=when.prompt(LEFT))
    chunks = client.astream(LEFT)
    assert await anext(chunks)
    return chunks


async def in_the_queue(client: OllamaClient, server: FakeOllama) -> Any:
    first = await in_the_head(client, server)
    second = asyncio.create_task(client.achat(LEFT))
    await asyncio.sleep(0)
    assert client.get_stats()["waiting"] == 1
    return first, second


async def astream(client: OllamaClient) -> str:
    async with client.astream(PROMPT) as chunks:
        return "".join([chunk async for chunk in chunks])


def stream(client: OllamaClient) -> str:
    with client.stream(PROMPT) as chunks:
        return "".join(chunks)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What goes wrong where nobody can be told."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda this: told.append(this.exc_value))
    return told


def leave_pending(client: OllamaClient, server: FakeOllama, pending: Callable[..., Any]) -> Any:
    """Return what holds what is pending, its loop closed."""
    loop = asyncio.new_event_loop()
    left = loop.run_until_complete(pending(client, server))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    return left


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.chat(PROMPT),
        lambda client: asyncio.run(client.achat(PROMPT)),
        stream,
        lambda client: asyncio.run(astream(client)),
    ],
    ids=["chat", "achat", "stream", "astream"],
)
@pytest.mark.parametrize("pending", [in_the_head, in_the_body, between_two_pieces, in_the_queue])
def test_a_call_that_is_left_on_a_closed_loop_takes_no_slot_from_the_next(
    fake_ollama: FakeOllama,
    make_client: MakeClient,
    told: list[object],
    pending: Callable[..., Any],
    ask: Callable[[OllamaClient], str],
) -> None:
    client = make_client(max_concurrency=1, max_waiting=1 if pending is in_the_queue else 0)
    left = leave_pending(client, fake_ollama, pending)
    assert ask(client)
    assert (client.get_stats()["in_flight"], client.get_stats()["waiting"]) == (0, 0)
    fake_ollama.wait_for(nothing_in_flight)
    assert client.circuit_breaker.failures == 0
    del left
    gc.collect()
    assert told == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("pending", [in_the_head, in_the_body, between_two_pieces, in_the_queue])
def test_nor_is_it_counted_as_in_flight(
    fake_ollama: FakeOllama,
    make_client: MakeClient,
    told: list[object],
    pending: Callable[..., Any],
) -> None:
    client = make_client(max_concurrency=1)
    leave_pending(client, fake_ollama, pending)
    gc.collect()
    assert (client.get_stats()["in_flight"], client.get_stats()["waiting"]) == (0, 0)
    fake_ollama.wait_for(nothing_open)
    assert sessions_of(client) == set()
    gc.collect()
    assert told == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_nor_where_the_generators_of_its_loop_were_finalised(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(max_concurrency=1, max_waiting=0)

    async def pending(*_: Any) -> Any:
        chunks = await between_two_pieces(client, fake_ollama)
        await asyncio.get_running_loop().shutdown_asyncgens()
        return chunks

    left = leave_pending(client, fake_ollama, pending)
    assert client.chat(PROMPT)
    assert left.text


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_nor_does_closing_the_client_forget_it(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.achat(PROMPT))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    client.close()
    fake_ollama.wait_for(nothing_open)
    gc.collect()


def test_a_loop_that_goes_on_keeps_its_connection(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    with asyncio.Runner() as runner:
        for _ in range(3):
            assert runner.run(client.achat(PROMPT))
        assert fake_ollama.connections == 1
    fake_ollama.wait_for(nothing_open)


# Closing.


async def under_way(client: OllamaClient, server: FakeOllama) -> tuple[Held, asyncio.Task[Any]]:
    held = Held()
    server.misbehave(held, when=when.first(1))
    call = asyncio.create_task(client.achat(PROMPT))
    await until(server, lambda server: server.in_flight == 1)
    return held, call


def close(client: OllamaClient, _: Settings) -> Any:
    return asyncio.to_thread(client.close)


def aclose(client: OllamaClient, _: Settings) -> Any:
    return client.aclose()


async def change_settings(_: OllamaClient, settings: Settings) -> None:
    settings.OLLAMA_BRIDGE = {**settings.OLLAMA_BRIDGE, "SYSTEM_PROMPT": "Be brief."}


ENDS = pytest.mark.parametrize("end", [close, aclose, change_settings])


@ENDS
def test_calls_under_way_may_finish_and_what_they_used_is_closed_then(
    fake_ollama: FakeOllama, settings: Settings, end: Callable[..., Any]
) -> None:
    settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url}

    async def go() -> None:
        held, call = await under_way(ollama_client, fake_ollama)
        await end(ollama_client, settings)
        assert fake_ollama.open_connections == 1
        held.let_go()
        assert await call
        await until(fake_ollama, nothing_open)

    asyncio.run(go())


@ENDS
def test_connections_that_nobody_uses_are_closed_while_the_loop_goes_on(
    fake_ollama: FakeOllama, settings: Settings, end: Callable[..., Any]
) -> None:
    settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url}

    async def go() -> None:
        await ollama_client.achat(PROMPT)
        assert fake_ollama.open_connections == 1
        await end(ollama_client, settings)
        await until(fake_ollama, nothing_open)
        assert await ollama_client.achat(PROMPT)

    asyncio.run(go())


def test_what_this_loop_has_open_is_closed_when_aclose_returns(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    async def go() -> None:
        client = make_client()
        await client.achat(PROMPT)
        (sessions,) = sessions_of(client)
        await client.aclose()
        assert sessions.pooled.closed
        assert sessions.fresh.closed

    asyncio.run(go())


def test_a_forgotten_client_has_its_connections_closed_while_the_loop_goes_on(
    fake_ollama: FakeOllama,
) -> None:
    async def go() -> None:
        client = OllamaClient(base_url=fake_ollama.url)
        await client.achat(PROMPT)
        assert fake_ollama.open_connections == 1
        del client
        gc.collect()
        await until(fake_ollama, nothing_open)

    asyncio.run(go())


def test_a_call_that_is_repeated_after_the_close_leaves_nothing_open(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.unavailable(), when=when.first(1))

    async def go() -> None:
        client = make_client(retry_backoff="fixed", retry_delay=0.2)
        call = asyncio.create_task(client.achat(PROMPT))
        await until(fake_ollama, lambda server: len(server.chats) == 1 and not server.in_flight)
        await client.aclose()
        reply = await call
        assert len(reply.attempts) == 2
        await until(fake_ollama, nothing_open)

    asyncio.run(go())


def test_closing_again_and_again_fails_no_call(make_client: MakeClient) -> None:
    with FakeOllama() as server:
        client = make_client(base_url=server.url, max_retries=0)
        stop = threading.Event()

        def keep_closing() -> int:
            times = 0
            while not stop.is_set():
                client.close()
                times += 1
                time.sleep(0.001)
            return times

        async def some() -> int:
            replies = await asyncio.gather(*(client.achat(PROMPT) for _ in range(100)))
            return sum(map(bool, replies))

        with ThreadPoolExecutor(3) as threads:
            closing = threads.submit(keep_closing)
            loops = [threads.submit(asyncio.run, some()) for _ in range(2)]
            assert [loop.result() for loop in loops] == [100, 100]
            stop.set()
            assert closing.result() > 1
        client.close()
        server.wait_for(nothing_open)


# What is left at the end of a process: not even a warning.

CLEAN = {
    "a chat": """
        asyncio.run(ollama_client.achat("What is water?"))
    """,
    "a stream": """
        async def go():
            async with ollama_client.astream("What is water?") as chunks:
                async for chunk in chunks:
                    pass
        asyncio.run(go())
    """,
    "a stream without a block": """
        async def go():
            async for chunk in ollama_client.astream("What is water?"):
                pass
        asyncio.run(go())
    """,
    "a stream left early": """
        async def go():
            async with ollama_client.astream("What is water?") as chunks:
                async for chunk in chunks:
                    break
        asyncio.run(go())
    """,
    "a stream closed early": """
        async def go():
            chunks = ollama_client.astream("What is water?")
            await anext(chunks)
            await chunks.aclose()
        asyncio.run(go())
    """,
    "a stream that was not begun": """
        async def go():
            ollama_client.astream("What is water?")
        asyncio.run(go())
        ollama_client.stream("What is water?")
    """,
    "a call that is cancelled with its loop": """
        async def go():
            global task
            task = asyncio.create_task(ollama_client.achat("What is water?"))
            await asyncio.sleep(0.02)
        asyncio.run(go())
    """,
    "aclose": """
        async def go():
            await ollama_client.achat("What is water?")
            await ollama_client.aclose()
        asyncio.run(go())
    """,
    "close from another thread": """
        async def go():
            await ollama_client.achat("What is water?")
            await asyncio.to_thread(ollama_client.close)
        asyncio.run(go())
    """,
    "a client of its own": """
        async def go():
            async with OllamaClient() as client:
                await client.achat("What is water?")
                await client.ahealth_check()
                await client.achat_many(["What is ice?"] * 3)
        asyncio.run(go())
    """,
    "a forgotten client": """
        async def go():
            await OllamaClient().achat("What is water?")
            gc.collect()
        asyncio.run(go())
    """,
    "the collector in between": """
        async def go():
            await ollama_client.achat("What is water?")
            gc.collect()
            await ollama_client.achat("What is ice?")
        for _ in range(3):
            asyncio.run(go())
            gc.collect()
    """,
    "async_to_sync": """
        from asgiref.sync import async_to_sync
        async_to_sync(ollama_client.achat)("What is water?")
    """,
    "debug mode": """
        asyncio.run(ollama_client.achat("What is water?"), debug=True)
    """,
}


@linux
@pytest.mark.parametrize("name", CLEAN)
def test_a_process_ends_without_a_warning_after(name: str) -> None:
    with FakeOllama() as server:
        leak_free = CLEAN[name] + "\n        assert not sockets(), sockets()\n"
        assert run_script(server, leak_free) == "end\n"
        server.wait_for(nothing_open)


ABANDONED = """
    def hook(unraisable):
        told.append(unraisable.exc_type.__name__)
    told = []
    sys.unraisablehook = hook
    kept = []
    async def go():
        chunks = ollama_client.astream("What is water?")
        await anext(chunks)
        {leave}
    asyncio.run(go())
    kept.clear()
    gc.collect()
    sys.unraisablehook = sys.__unraisablehook__
    print(told, sockets())
"""


@linux
@pytest.mark.parametrize(
    "leave",
    ["del chunks; gc.collect(); await asyncio.sleep(0)", "pass", "kept.append(chunks)"],
    ids=["on its loop", "as its loop ends", "after its loop"],
)
def test_a_stream_that_is_abandoned_is_told_once_and_closed(leave: str) -> None:
    with FakeOllama() as server:
        server.misbehave(faults.StallStream(after=1))
        said = run_script(server, ABANDONED.format(leave=leave))
        assert said == "['ResourceWarning'] []\nend\n"
        server.wait_for(lambda server: len(server.disconnects) == 1)


# Forks.

FORKED = """
    import threading
    loop_runs, forked, done = threading.Event(), threading.Event(), threading.Event()
    async def go():
        assert await ollama_client.achat("before")
        slow = asyncio.create_task(ollama_client.achat("slow"))
        await asyncio.sleep(0.05)
        loop_runs.set()
        await asyncio.to_thread(forked.wait, 20)
        assert await slow
        assert await ollama_client.achat("after")
    thread = threading.Thread(target=lambda: asyncio.run(go()))
    thread.start()
    assert loop_runs.wait(20)
    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    pid = os.fork()
    if not pid:
        try:
            assert len(sockets()) <= 2, sockets()  # those by which the parent's loop is woken
            for _ in range(2):
                assert asyncio.run(ollama_client.achat("child"))
                gc.collect()
        except Exception as error:
            print(repr(error), flush=True)
            os._exit(1)
        {end}
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    forked.set()
    thread.join()
    assert not sockets(), sockets()
"""


@linux
@pytest.mark.parametrize(
    "end",
    ["os._exit(0)", "ollama_client.close(); os._exit(0)", "sys.exit(0)"],
    ids=["open", "closed", "as programs do"],
)
def test_a_child_forked_beside_a_running_loop_calls_on_its_own_and_the_parent_goes_on(
    end: str,
) -> None:
    with FakeOllama() as server:
        server.misbehave(faults.Stall(0.3), when=when.prompt("slow"))
        assert run_script(server, FORKED.format(end=end)) == "end\n"
        by = {request.prompt: request.connection for request in server.chats}
        assert by["after"] in {by["before"], by["slow"]}
        assert by["child"] not in {by["before"], by["slow"]}
        assert server.disconnects == []


@linux
def test_a_child_that_ends_as_programs_do_says_nothing_either() -> None:
    body = """
        asyncio.run(ollama_client.achat("before"))
        async def go():
            await ollama_client.achat("before")
            pid = os.fork()
            if not pid:
                return "child"
            await asyncio.to_thread(os.waitpid, pid, 0)
            await ollama_client.achat("after")
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        loop = asyncio.new_event_loop()
        if loop.run_until_complete(go()) == "child":
            asyncio.set_event_loop(None)
            assert asyncio.run(ollama_client.achat("child"))
            sys.stdout.flush()
            os._exit(0)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    """
    with FakeOllama() as server:
        assert run_script(server, body) == "end\n"
        assert "child" in {request.prompt for request in server.chats}


# Beginnings.


def test_without_aiohttp_an_async_call_says_what_to_type(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "ollama_bridge.transports.aiopool", raising=False)
    monkeypatch.delitem(sys.modules, "ollama_bridge.transports.aiofaults", raising=False)
    client = make_client()
    install = r"pip install 'django-ollama-bridge\[async\]'"

    async def read() -> None:
        async for _ in client.astream(PROMPT):
            pass

    for call in (
        lambda: client.achat(PROMPT),
        read,
        lambda: client.achat_many([PROMPT]),
        client.ahealth_check,
    ):
        with pytest.raises(ImproperlyConfigured, match=install):
            asyncio.run(call())
    assert client.chat(PROMPT)  # which needs none


@pytest.fixture
def slow_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A first look at what operators wish that takes as long as it may."""

    class Slow:
        def look(self, changed: str = "") -> None:
            pass

        def end(self) -> None:
            pass

    def govern(*_: object) -> Slow:
        time.sleep(0.5)
        return Slow()

    ollama_client.close()
    monkeypatch.setattr(ollama_client, "_governor", govern)
    yield
    ollama_client.close()


async def read_first() -> object:
    async with ollama_client.astream(PROMPT) as chunks:
        return await anext(chunks)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ollama_client.achat(PROMPT),
        read_first,
        lambda: ollama_client.achat_many([PROMPT]),
        ollama_client.ahealth_check,
    ],
    ids=["achat", "astream", "achat_many", "ahealth_check"],
)
def test_the_first_call_does_not_hold_up_its_loop_while_the_engine_starts(
    fake_ollama: FakeOllama,
    settings: Settings,
    slow_start: None,
    call: Callable[[], Any],
) -> None:
    settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url}
    gaps: list[float] = []

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - last)
            last += gaps[-1]

    async def go() -> float:
        ticking = asyncio.create_task(tick())
        started = time.monotonic()
        assert await call()
        ticking.cancel()
        return time.monotonic() - started

    assert asyncio.run(go()) >= 0.5
    assert max(gaps) < 0.25
