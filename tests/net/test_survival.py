"""Servers that fail again and again, and nobody notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ollama_bridge import OllamaClient
from ollama_bridge.testing import FakeOllama, faults, when
from tests.net.crowd import chats, echo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ollama_bridge.testing.faults import Fault

CALLS = 1000
CALLERS = 20


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama(answer=echo) as server:
        yield server


@pytest.fixture
def client(server: FakeOllama) -> Iterator[OllamaClient]:
    """A client with the default settings."""
    with OllamaClient(base_url=server.url) as client:
        yield client


def test_a_thousand_chats_are_answered_though_each_is_reset_at_first(
    server: FakeOllama, client: OllamaClient
) -> None:
    server.misbehave(faults.Reset(), when=when.odd_attempts())
    assert chats(client, CALLS, CALLERS) == {"answered": CALLS}
    assert len(server.chats) == 2 * CALLS
    assert client.circuit_breaker.failures == 0


@pytest.mark.parametrize(
    ("fault", "predicate", "calls"),
    [
        (faults.CloseAfterReply(), None, CALLS),
        (faults.Drop(), when.reused(), 300),
        (faults.Reset(), when.reused(), 300),
    ],
    ids=["after its reply", "at its next request", "at its next request, by RST"],
)
def test_a_thousand_chats_are_answered_though_each_kept_connection_is_dropped(
    server: FakeOllama,
    client: OllamaClient,
    fault: Fault,
    predicate: when.Predicate | None,
    calls: int,
) -> None:
    server.misbehave(fault, when=predicate)
    assert chats(client, calls, CALLERS) == {"answered": calls}
    assert client.circuit_breaker.failures == 0


@pytest.mark.parametrize(
    "fault",
    [faults.Reset(), faults.Drop(), faults.CutBody(), faults.unavailable(), faults.server_error()],
    ids=["reset", "drop", "cut", "503", "500"],
)
def test_one_caller_survives_a_server_that_fails_every_second_request(
    server: FakeOllama, fault: Fault
) -> None:
    server.misbehave(fault, when=when.every(2))
    with OllamaClient(base_url=server.url, retry_initial_delay=0.01) as client:
        assert chats(client, 50, 1) == {"answered": 50}


def test_one_caller_with_default_settings_survives_it_too(
    server: FakeOllama, client: OllamaClient
) -> None:
    server.misbehave(faults.unavailable(), when=when.every(2))
    assert chats(client, 4, 1) == {"answered": 4}
