"""``get_stats()``, after real calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ollama_bridge import CircuitOpen, ServerFailed
from ollama_bridge.testing import faults, when

if TYPE_CHECKING:
    from ollama_bridge.testing import FakeOllama
    from tests.conftest import MakeClient


def test_the_figures_of_real_calls(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    client = make_client()
    fake_ollama.misbehave(faults.unavailable(), when=when.odd_attempts())
    replies = [client.chat(f"Question {number}") for number in range(4)]
    figures = client.get_stats()
    assert figures["total_requests"] == figures["successful_requests"] == 4
    assert figures["success_rate"] == 100.0
    assert figures["retries"] == 4
    mean = sum(reply.latency for reply in replies) / 4
    assert figures["avg_latency_ms"] == pytest.approx(mean * 1000)
    assert figures["p50_latency_ms"] <= figures["p95_latency_ms"] <= figures["p99_latency_ms"]
    assert figures["total_tokens"] == sum(reply.usage.total_tokens for reply in replies)
    assert figures["endpoints"]["default"]["models"]["llama3.2"]["successful_requests"] == 4


def test_refused_calls_are_failed_ones_that_were_never_sent(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(max_retries=0)
    fake_ollama.misbehave(faults.unavailable())
    with pytest.raises(ServerFailed):
        client.chat("Hi")
    client.circuit_breaker.force_open()
    with pytest.raises(CircuitOpen):
        client.chat("Hi")
    figures = client.get_stats()
    assert (figures["failed_requests"], figures["refused_requests"]) == (2, 1)
    assert figures["success_rate"] == 0.0
    assert figures["errors"] == {"upstream_failed": 1, "circuit_open": 1}


def test_a_closed_client_begins_anew(make_client: MakeClient) -> None:
    client = make_client()
    client.chat("Hi")
    client.close()
    assert client.get_stats()["total_requests"] == 0
