"""What differs between sites under ASGI: middleware, subclasses, libraries, decorators."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from ollama_bridge.testing import FakeOllama

from .conftest import SHORT
from .running import BOUND, UVICORN, Server, serving
from .test_leaving import assert_nothing_is_kept_for_who_left_while_middleware_was_at_work
from .upstreams import Endless, Stepped

SYNC_ONLY = {"middleware": ["tests.servers.controls.sync_only_middleware"]}
WITHOUT_AIOHTTP = {"without": ["aiohttp"]}
ATOMIC = {"atomic": True}
HEARTBEAT_EVERY = 5.0
SEVERAL = 40
"""More calls at once than the pool of threads that a loop has by itself."""


def assert_live(server: Server, ollama: FakeOllama, path: str = "/api/chat/") -> dict[str, str]:
    """Ask for both kinds of answer, see that events come one by one, and return the headers."""
    with server.chat(path) as plain:
        assert (plain.status, plain.json()["response"]) == (200, SHORT)
    stepped = Stepped(1)
    ollama.misbehave(stepped)
    with server.stream(path) as stream:
        assert stream.event().name == "delta"
        assert len(stepped.sent) == 1
        stepped.finish()
        assert stream.names() == ["delta", "done"]
    ollama.behave()
    return dict(stream.headers)


def assert_many_may_wait(server: Server, ollama: FakeOllama) -> None:
    """Let several calls of both kinds wait at once; all of them are answered."""
    before = ollama.in_flight
    stepped = Stepped()
    ollama.misbehave(stepped)

    def ask(number: int) -> str:
        with server.chat(stream=number % 2 == 0) as answer:
            return answer.text()

    with ThreadPoolExecutor(SEVERAL) as clients:
        asking = [clients.submit(ask, number) for number in range(SEVERAL)]
        try:
            ollama.wait_for(lambda ollama: ollama.in_flight == before + SEVERAL, BOUND)
        finally:
            stepped.finish()
        answers = [each.result(BOUND) for each in asking]
    assert all(SHORT in answer for answer in answers)
    ollama.behave()


def assert_silent_streams_hold_up_nobody(server: Server, ollama: FakeOllama) -> None:
    """Let several streams be silent after their first event; another one is live meanwhile."""
    stepped = Stepped(1)
    ollama.misbehave(stepped)
    with ExitStack() as stack:
        silent = [stack.enter_context(server.stream()) for _ in range(SEVERAL)]
        assert [stream.event().name for stream in silent] == ["delta"] * SEVERAL
        ollama.behave()
        assert_live(server, ollama)
        stepped.finish()
        assert [stream.names()[-1] for stream in silent] == ["done"] * SEVERAL


def assert_leaving_is_seen(server: Server, ollama: FakeOllama) -> None:
    ollama.misbehave(Stepped(1))
    left = len(ollama.disconnects)
    with server.stream() as stream:
        assert stream.event().name == "delta"
    ollama.wait_for(lambda ollama: len(ollama.disconnects) == left + 1, BOUND)
    server.wait_for_state({"calls": 0, "in_flight": 0, "waiting": 0, "circuit": "closed"})
    ollama.behave()


@pytest.mark.parametrize(
    "site", [SYNC_ONLY, WITHOUT_AIOHTTP, ATOMIC], ids=["sync-only", "without-aiohttp", "atomic"]
)
def test_an_odd_site_answers_live_and_lets_nobody_wait_for_another(
    ollama: FakeOllama, site: dict[str, Any]
) -> None:
    with serving(UVICORN, ollama.url, **site) as server:
        server.configure(MAX_CALLS_PER_USER=None, heartbeat=HEARTBEAT_EVERY)
        headers = assert_live(server, ollama)
        assert ("X-Sync-Only" in headers) is (site is SYNC_ONLY)
        assert_many_may_wait(server, ollama)
        server.configure(MAX_CALLS_PER_USER=None, heartbeat=HEARTBEAT_EVERY)
        assert_silent_streams_hold_up_nobody(server, ollama)
        assert_leaving_is_seen(server, ollama)
        assert_nothing_is_kept_for_who_left_while_middleware_was_at_work(server, ollama)


def test_a_view_that_overrides_post_only_is_served_in_a_thread(
    plain_server: Server, ollama: FakeOllama
) -> None:
    headers = assert_live(plain_server, ollama, "/post-only/")
    assert headers["X-Served-In"] == "a thread"


def test_a_decorated_view_is_live(plain_server: Server, ollama: FakeOllama) -> None:
    headers = assert_live(plain_server, ollama, "/decorated/")
    assert "private" in headers["Cache-Control"]


def test_an_async_view_that_asks_it_is_live_under_wsgi_too(
    plain_server: Server, ollama: FakeOllama
) -> None:
    assert_live(plain_server, ollama, "/wrapped/")


def test_a_server_that_is_told_to_end_leaves_its_streams_soon(ollama: FakeOllama) -> None:
    ollama.misbehave(Endless(pause=0.01))
    left = len(ollama.disconnects)
    with (
        ExitStack() as stack,
        serving(UVICORN, ollama.url, "--timeout-graceful-shutdown", "1") as server,
    ):
        streams = [stack.enter_context(server.stream()) for _ in range(3)]
        assert [stream.event().name for stream in streams] == ["delta"] * 3
        started = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - started < BOUND / 2
        ollama.wait_for(lambda ollama: len(ollama.disconnects) == left + 3)
        assert_only_uvicorn_complains(server)


def assert_only_uvicorn_complains(server: Server) -> None:
    """See that it tells of tasks that it cancelled, and of nothing that these left open."""
    server.clean_up()
    said = [line for line in server.said if not line.startswith((" ", "Traceback"))]
    assert said.pop(0).startswith("ERROR:    Cancel 3 running task(s), timeout graceful shutdown")
    assert {line.split(": ")[0] for line in said} <= {"ERROR", "asyncio.exceptions.CancelledError"}
    server.said.clear()
