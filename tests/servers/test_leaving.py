"""Clients that leave: the model stops, and nothing of theirs is left behind."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any, NamedTuple

import pytest

from ollama_bridge.testing import FakeOllama, faults

from .reading import Answer
from .running import BOUND, ECHO, GUNICORN, UVICORN, Server
from .upstreams import Endless, Stepped

HEARTBEAT_EVERY = 2.0
COMMIT_AFTER = 0.5
ON_TIME = 1.0  # less than HEARTBEAT_EVERY: one heartbeat must do
"""Seconds; under gunicorn, on top of what it has to wait for before it writes."""

LEASE = 0.5
MANY = 60
AT_A_TIME = 6
LONGEST_STAY = 0.06

ALONE = {"MAX_CALLS_PER_USER": 1, "MAX_CONCURRENCY": 1, "SSE_COMMIT_AFTER": COMMIT_AFTER}


class Moment(NamedTuple):
    """When a client leaves.

    Attributes:
        come: begins a call, waits for the moment, and returns what to close.
        silence: seconds until gunicorn writes something, and so learns of it.
    """

    misbehave: Callable[[], Any]
    come: Callable[[Server, FakeOllama], Answer | HTTPConnection]
    silence: float = 0.0


def with_a_delta(server: Server, _ollama: FakeOllama) -> Answer:
    answer = server.stream()
    while (event := answer.event()).name != "delta":
        assert event.name == "heartbeat"  # where the machine is busy
    return answer


def with_the_response(server: Server, _ollama: FakeOllama) -> Answer:
    return server.stream()


def begun(server: Server, path: str, *, stream: bool = True) -> HTTPConnection:
    body = json.dumps({"message": "What is water?", "stream": stream}).encode()
    return server.begin("POST", path, body, {"Content-Type": "application/json"})


def with_nothing(server: Server, ollama: FakeOllama, *, stream: bool = True) -> HTTPConnection:
    before = len(ollama.chats)
    connection = begun(server, "/api/chat/", stream=stream)
    ollama.wait_for(lambda ollama: len(ollama.chats) > before, BOUND)
    return connection


MOMENTS = {
    "during deltas": Moment(lambda: Endless(pause=0.01), with_a_delta),
    "in a silence": Moment(lambda: Stepped(1), with_a_delta, HEARTBEAT_EVERY),
    "before the first delta": Moment(lambda: Stepped(0), with_nothing, COMMIT_AFTER),
    "before its headers": Moment(faults.BlackHole, with_nothing, COMMIT_AFTER),
    "after the response began": Moment(lambda: Stepped(0), with_the_response, HEARTBEAT_EVERY),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_leaving_a_stream_stops_the_model_and_frees_everything(
    plain_server: Server, ollama: FakeOllama, moment: Moment, say: Callable[[str], None]
) -> None:
    server = plain_server
    server.configure(heartbeat=HEARTBEAT_EVERY, **ALONE)
    ollama.misbehave(moment.misbehave())
    took = seconds_until_it_is_seen(server, ollama, moment.come)
    say(f"{server.kind}: {took:.3f}")
    assert took < ON_TIME + (moment.silence + ECHO if server.kind == GUNICORN else 0)
    assert_nothing_is_left_behind(server, ollama)


@pytest.mark.parametrize("kind", [UVICORN])
def test_leaving_a_plain_chat_under_asgi_stops_the_model_too(
    plain_server: Server, ollama: FakeOllama
) -> None:
    plain_server.configure(**ALONE)
    ollama.misbehave(faults.BlackHole())
    took = seconds_until_it_is_seen(
        plain_server, ollama, lambda server, ollama: with_nothing(server, ollama, stream=False)
    )
    assert took < ON_TIME
    assert_nothing_is_left_behind(plain_server, ollama)


@pytest.fixture(params=["/api/chat/", "/post-only/"], ids=["native", "post-only"])
def path(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_who_leaves_while_middleware_is_at_work_leaves_nothing_behind(
    plain_server: Server, ollama: FakeOllama, path: str
) -> None:
    assert_nothing_is_kept_for_who_left_while_middleware_was_at_work(plain_server, ollama, path)


def test_nothing_is_left_of_a_stream_that_middleware_has_lost(
    plain_server: Server, ollama: FakeOllama, path: str
) -> None:
    plain_server.configure(lease=LEASE, **ALONE)
    ollama.misbehave(Endless(pause=0.01))
    left = len(ollama.disconnects)
    with plain_server.stream(f"{path}?way_out=lost") as answer:
        assert answer.status == 404
    ollama.wait_for(lambda ollama: len(ollama.disconnects) == left + 1, BOUND)
    assert_nothing_is_left_behind(plain_server, ollama)


def test_nothing_is_left_of_many_who_stay_for_a_moment_only(
    plain_server: Server, ollama: FakeOllama, path: str
) -> None:
    plain_server.configure(lease=LEASE, MAX_CALLS_PER_USER=None, CIRCUIT_BREAKER=False)
    ollama.misbehave(Endless(pause=0.01))
    stays = random.Random(1)

    def stay(seconds: float) -> None:
        connection = begun(plain_server, path)
        time.sleep(seconds)
        connection.close()

    with ThreadPoolExecutor(AT_A_TIME) as clients:
        list(clients.map(stay, [stays.uniform(0, LONGEST_STAY) for _ in range(MANY)]))
    plain_server.wait_for_state({"calls": 0, "in_flight": 0, "waiting": 0})
    ollama.wait_for(lambda ollama: ollama.in_flight == 0, BOUND)


def assert_nothing_is_kept_for_who_left_while_middleware_was_at_work(
    server: Server, ollama: FakeOllama, path: str = "/api/chat/"
) -> None:
    server.configure(lease=LEASE, **ALONE)
    ollama.misbehave(Endless(pause=0.01))
    left = len(ollama.disconnects)
    connection = begun(server, f"{path}?way_out=held")
    server.wait_for_state({"held": 1})
    connection.close()
    server.let_go()
    ollama.wait_for(lambda ollama: len(ollama.disconnects) == left + 1, BOUND)
    assert_nothing_is_left_behind(server, ollama)


def seconds_until_it_is_seen(
    server: Server,
    ollama: FakeOllama,
    come: Callable[[Server, FakeOllama], Answer | HTTPConnection],
) -> float:
    sent, left = len(ollama.chats), len(ollama.disconnects)
    come(server, ollama).close()
    started = time.monotonic()
    ollama.wait_for(lambda ollama: len(ollama.disconnects) > left, BOUND)
    took = time.monotonic() - started
    assert len(ollama.chats) == sent + 1
    return took


def assert_nothing_is_left_behind(server: Server, ollama: FakeOllama) -> None:
    wanted = {
        "calls": 0,
        "in_flight": 0,
        "waiting": 0,
        "cancelled_requests": 1,
        "failed_requests": 0,
        "circuit": "closed",
        "failures": 0,
    }
    server.wait_for_state(wanted)
    ollama.behave()
    sent = len(ollama.chats)
    for is_streamed in (True, False):
        with server.chat(stream=is_streamed) as answer:
            answer.text()
        assert answer.status == 200
    assert len(ollama.chats) == sent + 2
