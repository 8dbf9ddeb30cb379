"""What takes too long for every day."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import OllamaClient
from ollama_bridge.testing import FakeOllama, faults, when
from tests.net.crowd import chats, echo

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.soak

CALLS = 1000
CALLERS = 20


def test_a_thousand_chats_are_answered_though_each_gets_a_503_at_first(
    say: Callable[[str], None],
) -> None:
    with FakeOllama(answer=echo) as server, OllamaClient(base_url=server.url) as client:
        server.misbehave(faults.unavailable(), when=when.odd_attempts())
        started = time.monotonic()
        assert chats(client, CALLS, CALLERS) == {"answered": CALLS}
        seconds = time.monotonic() - started
        assert len(server.chats) == 2 * CALLS
        assert client.circuit_breaker.failures == 0
    say(f"{CALLS} chats, each with a 503 at first: 100 % in {seconds:.1f} s")


def test_twenty_callers_survive_a_server_that_fails_every_second_request_of_all(
    say: Callable[[str], None],
) -> None:
    with FakeOllama(answer=echo) as server:
        server.misbehave(faults.unavailable(), when=when.every(2))
        with OllamaClient(base_url=server.url, max_retries=24, timeout=180) as client:
            started = time.monotonic()
            patient = chats(client, CALLS, CALLERS)
            seconds = time.monotonic() - started
        with OllamaClient(base_url=server.url) as client:
            hasty = chats(client, CALLS, CALLERS)
    say(
        f"{CALLS} chats, every second request fails over all: "
        f"{patient['answered'] / CALLS:.1%} with 24 retries in {seconds:.0f} s, "
        f"{hasty['answered'] / CALLS:.1%} with 3 ({dict(hasty)})"
    )
    assert patient == {"answered": CALLS}
