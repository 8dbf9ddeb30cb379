"""``MAX_CONCURRENCY`` and ``MAX_WAITING``, against a server that counts."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import OllamaBridgeError, OllamaClient, Overloaded
from ollama_bridge.testing import faults
from tests.net.crowd import chats
from tests.net.held import Held

if TYPE_CHECKING:
    from collections.abc import Callable

    from ollama_bridge.testing import FakeOllama
    from ollama_bridge.testing.connection import Fault
    from ollama_bridge.testing.recorded import RecordedRequest
    from tests.conftest import MakeClient

THREADS = 100


@pytest.fixture
def held(fake_ollama: FakeOllama) -> Held:
    held = Held()
    fake_ollama.misbehave(held)
    return held


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end, "this does not come true"
        time.sleep(0.001)


def waiting(client: OllamaClient) -> int:
    number: int = client.get_stats()["waiting"]
    return number


def test_the_server_never_sees_more_calls_at_once_than_allowed(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.Stall(0.005))
    client = make_client(max_concurrency=2)
    assert chats(client, 200, THREADS) == {"answered": 200}
    assert fake_ollama.peak_in_flight == 2


def test_the_first_come_is_the_first_served(
    fake_ollama: FakeOllama, make_client: MakeClient, held: Held
) -> None:
    client = make_client(max_concurrency=1)
    with ThreadPoolExecutor(10) as pool:
        for number in range(10):
            pool.submit(client.chat, f"{number}")
            until(partial(_are_there, client, number + 1))
        held.let_go()
    assert [request.prompt for request in fake_ollama.chats] == [str(n) for n in range(10)]


def test_a_wait_that_cannot_end_in_time_is_refused_at_once_with_a_true_retry_after(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.Stall(2.0))
    client = make_client(max_concurrency=1)
    client.chat("How long does it take?")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(client.chat, "Take your time.")
        until(lambda: client.get_stats()["in_flight"] == 1)
        began = time.monotonic()
        with pytest.raises(Overloaded) as told:
            client.chat("Quick!", timeout=1)
        took = time.monotonic() - began
        assert took < 0.8, "it did not wait for its timeout"
        assert told.value.retry_after is not None
        assert told.value.retry_after == pytest.approx(2.0 - took, abs=0.5)
        fake_ollama.behave()
        time.sleep(told.value.retry_after + 0.05)  # as its caller is told to do
        assert client.chat("Quick!", timeout=1)


def test_a_function_under_the_circuit_takes_no_slot_from_the_calls_inside_it(
    make_client: MakeClient,
) -> None:
    client = make_client(max_concurrency=1, max_waiting=0)
    assert client.circuit_breaker.call(client.chat, "Hi", timeout=5)


def test_no_slot_is_lost_whatever_happens_to_a_hundred_callers(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(max_concurrency=3, max_retries=1, circuit_breaker=False)
    misdeeds: list[Fault] = [
        faults.Reset(),
        faults.unavailable(),
        faults.Drop(),
        faults.Stall(0.01),
    ]
    for number, fault in enumerate(misdeeds):
        fake_ollama.misbehave(fault, when=partial(_asks, str(number)))
    start = threading.Barrier(THREADS)

    def call(number: int) -> None:
        chance = random.Random(number)
        start.wait()
        for _ in range(5):
            try:
                client.chat(f"{chance.randrange(8)}", timeout=chance.choice([0.01, 0.05, 5]))
            except OllamaBridgeError:
                continue

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(call, range(THREADS)))
    fake_ollama.behave()
    figures = client.get_stats()
    assert (figures["in_flight"], figures["waiting"]) == (0, 0)
    assert figures["total_requests"] == 5 * THREADS
    assert chats(client, 30, 10) == {"answered": 30}


def _asks(prompt: str, request: RecordedRequest) -> bool:
    return request.prompt == prompt


def _are_there(client: OllamaClient, number: int) -> bool:
    figures = client.get_stats()
    return bool(figures["in_flight"] + figures["waiting"] == number)
