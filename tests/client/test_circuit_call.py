"""A caller's own function under a circuit, with calls of the bridge inside."""

from __future__ import annotations

import os
import threading

import pytest

from ollama_bridge import ConnectionFailed, OllamaClient, RateLimited
from ollama_bridge.testing import FakeOllama, faults
from tests.conftest import MakeClient


@pytest.fixture
def client(make_client: MakeClient) -> OllamaClient:
    return make_client(max_retries=0, open_seconds=0.1, failure_threshold=3)


def let_the_open_time_pass(client: OllamaClient) -> None:
    threading.Event().wait(client.circuit_breaker.retry_after)


def test_a_chat_inside_a_call_is_counted_once(
    client: OllamaClient, fake_ollama: FakeOllama
) -> None:
    fake_ollama.refuse()
    for count in (1, 2):
        with pytest.raises(ConnectionFailed):
            client.circuit_breaker.call(client.chat, "What is ice?")
        assert client.circuit_breaker.failures == count


def test_a_chat_inside_a_call_is_not_refused_by_the_probe_that_it_is(
    client: OllamaClient, fake_ollama: FakeOllama
) -> None:
    fake_ollama.refuse()
    for _ in range(3):
        with pytest.raises(ConnectionFailed):
            client.circuit_breaker.call(client.chat, "What is ice?")
    assert client.circuit_breaker.state == "open"
    fake_ollama.listen()
    let_the_open_time_pass(client)
    assert client.circuit_breaker.call(client.chat, "What is ice?")
    assert client.circuit_breaker.state == "closed"


def test_a_function_under_a_models_circuit_counts_against_the_model(client: OllamaClient) -> None:
    client.chat("What is ice?")
    circuit = client.circuit_breakers["default/llama3.2"]

    def fail() -> None:
        raise ValueError

    for _ in range(3):
        with pytest.raises(ValueError):  # noqa: PT011  # the caller's own
            circuit.call(fail)
    assert (circuit.state, circuit.last_error) == ("open", "ValueError")
    assert client.circuit_breakers["default"].failures == 0


def test_an_error_of_the_bridge_counts_in_a_call_as_it_does_in_a_chat(
    client: OllamaClient,
) -> None:
    def fail() -> None:
        raise RateLimited

    for _ in range(10):
        with pytest.raises(RateLimited):
            client.circuit_breaker.call(fail)
    assert client.circuit_breaker.failures == 0


def test_a_handle_that_was_kept_moves_the_circuit_of_now(client: OllamaClient) -> None:
    handle = client.circuit_breaker
    client.close()
    handle.force_open()
    assert client.circuit_breaker.mode == "forced_open"
    handle.reset()
    assert client.chat("What is ice?")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_child_that_is_forked_while_its_parent_probes_may_probe(
    client: OllamaClient, fake_ollama: FakeOllama
) -> None:
    fake_ollama.refuse()
    for _ in range(3):
        with pytest.raises(ConnectionFailed):
            client.chat("What is ice?")
    fake_ollama.listen()
    let_the_open_time_pass(client)
    fake_ollama.misbehave(faults.Stall(30), when=lambda request: request.prompt == "Stall")
    prober = threading.Thread(target=lambda: _swallow(client, "Stall"), daemon=True)
    prober.start()
    fake_ollama.wait_for(lambda server: server.in_flight == 1)
    child = os.fork()
    if child == 0:
        os._exit(0 if client.chat("What is ice?") else 1)
    assert os.waitpid(child, 0)[1] == 0
    fake_ollama.refuse()
    prober.join()


def _swallow(client: OllamaClient, message: str) -> None:
    with pytest.raises(ConnectionFailed):
        client.chat(message)
