"""The circuit breaker as callers and operators meet it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import (
    CircuitOpen,
    ConnectionFailed,
    OllamaBridgeError,
    Overloaded,
    RateLimited,
    ServerFailed,
)
from ollama_bridge.testing import FakeModel, FakeOllama, faults, when

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ollama_bridge import OllamaClient
    from ollama_bridge.testing.faults import Fault
    from tests.conftest import MakeClient

QUESTION = "What is water?"
SOON = {"max_retries": 0, "open_seconds": 1.0}


def kill(server: FakeOllama, client: OllamaClient) -> None:
    """Kill the server, and call until the circuit has opened."""
    server.refuse()
    for _ in range(5):
        with pytest.raises(ConnectionFailed):
            client.chat(QUESTION)
    assert client.circuit_breaker.state == "open"


def outlast(client: OllamaClient) -> None:
    """Wait for the end of the open time; it is time itself that is tested."""
    left = client.circuit_breaker.retry_after
    assert left is not None
    time.sleep(left)


def test_the_first_call_after_the_open_time_probes_and_closes_it(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(**SOON)
    kill(fake_ollama, client)
    fake_ollama.listen()
    with pytest.raises(CircuitOpen):
        client.chat(QUESTION)
    assert fake_ollama.chats == []
    outlast(client)
    assert client.circuit_breaker.state == "open"
    assert client.chat(QUESTION)
    assert client.circuit_breaker.state == "closed"
    assert client.circuit_breaker.failures == 0
    assert client.circuit_breaker.retry_after is None
    assert len(fake_ollama.chats) == 1


def test_a_probe_that_fails_opens_it_for_longer(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(**SOON)
    kill(fake_ollama, client)
    outlast(client)
    with pytest.raises(ConnectionFailed):
        client.chat(QUESTION)
    assert client.circuit_breaker.state == "open"
    left = client.circuit_breaker.retry_after
    assert left is not None
    assert 0.5 < left <= 2.0


def test_of_twenty_concurrent_callers_exactly_one_probes(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(**SOON)
    kill(fake_ollama, client)
    fake_ollama.listen()
    outlast(client)
    refused: SimpleQueue[CircuitOpen] = SimpleQueue()
    fake_ollama.misbehave(faults.BlackHole())
    together = threading.Barrier(20)

    def call(_: int) -> str:
        together.wait()
        try:
            client.chat(QUESTION, timeout=1)
        except CircuitOpen as error:
            refused.put(error)
            return error.code
        except OllamaBridgeError as error:
            return error.code
        return "answered"

    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(call, number) for number in range(20)]
        waits = [refused.get(timeout=5).retry_after for _ in range(19)]
        fake_ollama.wait_for(lambda server: len(server.chats) == 1)
        assert client.circuit_breaker.state == "half_open"
        seen = Counter(done.result() for done in calls)
    assert seen == {"circuit_open": 19, "timeout": 1}
    assert all(wait is not None and 0 < wait <= 1 for wait in waits)
    assert len(fake_ollama.chats) == 1


@pytest.fixture
def _interrupts_are_heeded() -> Iterator[None]:
    """As Python does by itself, but for a process in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no such signals")
@pytest.mark.usefixtures("_interrupts_are_heeded")
def test_a_prober_that_is_interrupted_blocks_nobody(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(**SOON)
    kill(fake_ollama, client)
    fake_ollama.listen()
    outlast(client)
    fake_ollama.misbehave(faults.BlackHole(), when=when.first(1))

    def interrupt() -> None:
        fake_ollama.wait_for(lambda server: len(server.chats) == 1)
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.chat(QUESTION, timeout=10)
        done.result()
    assert client.circuit_breaker.state == "half_open"
    fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)
    assert client.chat(QUESTION)
    assert client.circuit_breaker.state == "closed"


def test_a_probe_is_not_counted_against_an_impatient_caller(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(**SOON)
    kill(fake_ollama, client)
    fake_ollama.listen()
    outlast(client)
    fake_ollama.misbehave(faults.BlackHole(), when=when.first(1))
    with pytest.raises(OllamaBridgeError):
        client.chat(QUESTION, timeout=0.1)
    assert client.circuit_breaker.state == "half_open"
    assert client.chat(QUESTION)
    assert client.circuit_breaker.state == "closed"


@pytest.mark.parametrize("fault", [faults.rate_limited(), faults.busy(), faults.usage_limit()])
def test_too_much_to_do_never_opens_it(
    fake_ollama: FakeOllama, make_client: MakeClient, fault: Fault
) -> None:
    fake_ollama.misbehave(fault)
    client = make_client(max_retries=0)
    for _ in range(30):
        with pytest.raises((RateLimited, Overloaded)):
            client.chat(QUESTION)
    assert client.circuit_breaker.state == "closed"
    assert client.circuit_breaker.failures == 0


def test_a_model_that_fails_does_not_cut_off_another(make_client: MakeClient) -> None:
    with FakeOllama(models=["llama3.2", "huge"]) as server:
        server.misbehave(faults.out_of_memory(), when=when.model("huge"))
        client = make_client(base_url=server.url, max_retries=0)
        for _ in range(5):
            with pytest.raises(ServerFailed):
                client.chat(QUESTION, model="huge")
        with pytest.raises(CircuitOpen) as caught:
            client.chat(QUESTION, model="huge")
        assert caught.value.model == "huge"
        assert client.chat(QUESTION)
        circuits = client.circuit_breakers
    assert {name: found.state for name, found in circuits.items()} == {
        "default": "closed",
        "default/huge": "open",
        "default/llama3.2": "closed",
    }
    assert client.circuit_breaker.state == "closed"
    assert client.circuit_breakers["default/huge"].last_error == "upstream_failed"


def test_the_breaker_of_the_default_target_shows_the_worse_of_its_two(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.out_of_memory())
    client = make_client(max_retries=0)
    for _ in range(5):
        with pytest.raises(ServerFailed):
            client.chat(QUESTION)
    assert client.circuit_breakers["default"].state == "closed"
    assert client.circuit_breaker.state == "open"


def test_more_than_half_of_many_calls_failing_opens_it_too(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.bad_gateway(), when=when.every(2))
    client = make_client(max_retries=0)
    for _ in range(20):
        try:
            client.chat(QUESTION)
        except ServerFailed:
            assert client.circuit_breaker.failures == 1
    assert client.circuit_breaker.state == "open"


def test_it_is_survived_rather_than_opened_by_a_flaky_server(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.unavailable(), when=lambda request: request.attempt % 4 > 0)
    client = make_client()
    for number in range(20):
        assert client.chat(f"{QUESTION} {number}")
    assert client.circuit_breaker.state == "closed"


def test_forced_open_refuses_until_it_is_reset(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    breaker = client.circuit_breaker
    assert (breaker.state, breaker.mode) == ("closed", "auto")
    breaker.force_open()
    assert (breaker.state, breaker.mode) == ("open", "forced_open")
    assert breaker.retry_after is None
    with pytest.raises(CircuitOpen, match="An operator has opened it") as caught:
        client.chat(QUESTION)
    assert caught.value.retry_after is None
    assert fake_ollama.chats == []
    breaker.reset()
    assert (breaker.state, breaker.mode) == ("closed", "auto")
    assert client.chat(QUESTION)


def test_forced_open_covers_models_that_were_never_called(make_client: MakeClient) -> None:
    client = make_client()
    client.circuit_breaker.force_open()
    with pytest.raises(CircuitOpen):
        client.chat(QUESTION, model="another")


def test_disabled_lets_everything_through_and_records_nothing(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(**SOON)
    kill(fake_ollama, client)
    breaker = client.circuit_breaker
    breaker.disable()
    assert (breaker.state, breaker.mode) == ("closed", "disabled")
    for _ in range(7):
        with pytest.raises(ConnectionFailed):
            client.chat(QUESTION)
    assert breaker.failures == 5
    breaker.reset()
    assert (breaker.state, breaker.mode, breaker.failures) == ("closed", "auto", 0)


def test_reset_closes_an_open_circuit_at_once(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(max_retries=0)
    kill(fake_ollama, client)
    fake_ollama.listen()
    client.circuit_breaker.reset()
    assert client.chat(QUESTION)


def test_every_transition_counts_a_generation(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(**SOON)
    breaker = client.circuit_breakers["default"]
    assert breaker.generation == 0
    kill(fake_ollama, client)
    assert breaker.generation == 1
    fake_ollama.listen()
    outlast(client)
    client.chat(QUESTION)
    assert breaker.generation == 3
    breaker.force_open()
    assert breaker.generation == 4
    breaker.reset()
    assert breaker.generation == 5


def test_an_answer_that_comes_after_a_reset_changes_nothing(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.BlackHole())
    client = make_client(max_retries=0, timeout=20)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(client.chat, QUESTION)
        fake_ollama.wait_for(lambda server: server.in_flight == 1)
        client.circuit_breaker.reset()
        fake_ollama.refuse()
        with pytest.raises(ConnectionFailed):
            late.result()
    assert client.circuit_breaker.failures == 0


def test_the_switch_in_the_settings_switches_it_off(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.refuse()
    client = make_client(circuit_breaker=False, max_retries=0)
    for _ in range(8):
        with pytest.raises(ConnectionFailed):
            client.chat(QUESTION)
    assert (client.circuit_breaker.state, client.circuit_breaker.mode) == ("closed", "disabled")
    client.circuit_breaker.reset()
    assert client.circuit_breaker.mode == "disabled"


def test_the_threshold_is_a_setting(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    fake_ollama.refuse()
    client = make_client(failure_threshold=2, max_retries=0)
    for _ in range(2):
        with pytest.raises(ConnectionFailed):
            client.chat(QUESTION)
    with pytest.raises(CircuitOpen):
        client.chat(QUESTION)


def test_its_repr_says_how_it_is(make_client: MakeClient) -> None:
    client = make_client()
    assert repr(client.circuit_breaker) == "<CircuitBreaker default closed (auto)>"
    client.circuit_breaker.force_open()
    assert repr(client.circuit_breaker) == "<CircuitBreaker default open (forced_open)>"


class BrokenError(Exception):
    """What a user's own function raises."""


def test_a_function_of_ones_own_runs_under_it(make_client: MakeClient) -> None:
    client = make_client()
    breaker = client.circuit_breaker

    def divide(dividend: int, *, by: int) -> float:
        return dividend / by

    assert breaker.call(divide, 6, by=3) == 2
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            breaker.call(divide, 6, by=0)
    assert breaker.state == "open"
    with pytest.raises(CircuitOpen):
        breaker.call(divide, 6, by=3)


def test_an_async_function_of_ones_own_does_too(make_client: MakeClient) -> None:
    breaker = make_client(**SOON).circuit_breaker

    async def answer(number: int) -> int:
        await asyncio.sleep(0)
        if not number:
            raise BrokenError
        return number

    async def main() -> None:
        assert await breaker.acall(answer, 42) == 42
        for _ in range(5):
            with pytest.raises(BrokenError):
                await breaker.acall(answer, 0)
        with pytest.raises(CircuitOpen):
            await breaker.acall(answer, 42)

    asyncio.run(main())
    assert breaker.state == "open"


def test_a_cancelled_async_function_is_neither_success_nor_failure(
    make_client: MakeClient,
) -> None:
    client = make_client(**SOON)
    breaker = client.circuit_breaker
    for _ in range(5):
        with pytest.raises(BrokenError):
            breaker.call(broken)
    outlast(client)

    async def main() -> None:
        probing = asyncio.create_task(breaker.acall(asyncio.sleep, 60))
        await asyncio.sleep(0)
        assert breaker.state == "half_open"
        with pytest.raises(CircuitOpen):
            await breaker.acall(asyncio.sleep, 0)
        probing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probing
        assert breaker.state == "half_open"
        await breaker.acall(asyncio.sleep, 0)

    asyncio.run(main())
    assert breaker.state == "closed"


def broken() -> None:
    raise BrokenError


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupted_function_is_neither_success_nor_failure(
    make_client: MakeClient, interruption: type[BaseException]
) -> None:
    breaker = make_client(failure_threshold=1).circuit_breaker

    def interrupted() -> None:
        raise interruption

    with pytest.raises(interruption):
        breaker.call(interrupted)
    assert (breaker.state, breaker.failures) == ("closed", 0)


def test_what_a_function_raises_comes_unchanged(make_client: MakeClient) -> None:
    error = BrokenError("mine")

    def fail() -> None:
        raise error

    with pytest.raises(BrokenError) as caught:
        make_client().circuit_breaker.call(fail)
    assert caught.value is error
    assert caught.value.__cause__ is None


def test_functions_run_at_the_same_time(make_client: MakeClient) -> None:
    breaker = make_client().circuit_breaker
    together = threading.Barrier(20)
    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(breaker.call, together.wait, 5) for _ in range(20)]
        assert sorted(call.result() for call in calls) == list(range(20))


def test_models_are_created_as_they_are(make_client: MakeClient) -> None:
    with FakeOllama(models=[FakeModel("a/b:c")]) as server:
        client = make_client(base_url=server.url)
        client.chat(QUESTION, model="a/b:c")
        circuits = client.circuit_breakers
    assert set(circuits) >= {"default", "default/a/b:c"}
    circuits["default/a/b:c"].force_open()
    with pytest.raises(CircuitOpen):
        client.chat(QUESTION, model="a/b:c")
    assert client.circuit_breaker.state == "closed"
