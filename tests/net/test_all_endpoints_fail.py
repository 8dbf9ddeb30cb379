"""All endpoints fail, or none of them may be asked: what a call is told then, and how soon."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from rest_framework.test import APIClient

from ollama_bridge import (
    AllEndpointsFailed,
    AuthenticationFailed,
    CircuitOpen,
    ConnectionFailed,
    OllamaBridgeError,
    ollama_client,
)
from ollama_bridge.testing import faults, when
from tests.client.forms import Form
from tests.net.pair import Pair, codes, tried

if TYPE_CHECKING:
    from pytest_django import Settings

    from ollama_bridge import OllamaClient

AT_ONCE = 0.05
TRIES = 3


class TestIfAllFail:
    def test_in_the_same_way_that_is_the_error(self, two: Pair, form: Form) -> None:
        for server in (two.a, two.b):
            server.refuse()
        error = form.fail(two.client(max_retries=0))
        assert type(error) is ConnectionFailed
        assert tried(error) == ["a:connection_failed", "b:connection_failed"]

    def test_they_are_asked_again_after_a_pause(self, two: Pair, form: Form) -> None:
        for server in (two.a, two.b):
            server.misbehave(faults.unavailable(), when=when.odd_attempts())
        reply = form.ask(two.client())
        assert codes(reply.attempts) == ["a:upstream_failed", "b:upstream_failed", "a:"]

    def test_in_different_ways_the_error_tells_each(self, two: Pair, form: Form) -> None:
        two.a.misbehave(faults.unauthorized())
        two.b.misbehave(faults.rate_limited(7))
        error = form.fail(two.client(max_retries=0))
        assert type(error) is AllEndpointsFailed
        assert tried(error) == ["a:upstream_auth", "b:rate_limited"]
        assert [attempt.status for attempt in error.attempts] == [401, 429]
        assert f"a: The server at {two.a.url} does not accept the key" in str(error)
        assert f"b: The server at {two.b.url} asks for fewer requests" in str(error)
        assert error.retry_after == pytest.approx(7, abs=0.5)
        assert tried(pickle.loads(pickle.dumps(error))) == tried(error)

    def test_a_refusal_is_told_beside_a_failure(self, two: Pair, form: Form) -> None:
        two.a.refuse()
        two.b.misbehave(faults.unauthorized())
        client = two.client(a={"FAILURE_THRESHOLD": 1}, max_retries=0)
        assert tried(form.fail(client)) == ["a:connection_failed", "b:upstream_auth"]
        error = form.fail(client)
        assert type(error) is AllEndpointsFailed
        assert tried(error) == ["a:circuit_open", "b:upstream_auth"]
        assert isinstance(error.__cause__, AuthenticationFailed)


class TestIfAllCircuitsAreOpen:
    @pytest.mark.parametrize("soonest", ["a", "b"])
    def test_a_call_is_refused_at_once_with_the_smallest_of_the_waits(
        self, two: Pair, form: Form, soonest: str
    ) -> None:
        client = self.opened(two, soonest)
        waits = {name: client.circuit_breakers[name].retry_after or 0.0 for name in "ab"}
        assert min(waits, key=waits.__getitem__) == soonest
        error, seconds = self.refused(form, client)
        assert type(error) is CircuitOpen
        assert tried(error) == ["a:circuit_open", "b:circuit_open"]
        assert error.retry_after == pytest.approx(waits[soonest], abs=1)
        assert seconds < AT_ONCE
        assert not two.a.chats
        assert not two.b.chats

    def test_one_of_them_is_answered_as_soon_as_it_may_be(self, two: Pair, form: Form) -> None:
        client = self.opened(two, "b")
        client.circuit_breakers["a"].reset()
        assert codes(form.ask(client).attempts) == ["b:circuit_open", "a:"]

    def opened(self, two: Pair, soonest: str) -> OllamaClient:
        """Return a client that was refused by both, which would answer now."""
        own = {name: {"OPEN_SECONDS": 20 if name == soonest else 60} for name in "ab"}
        client = two.client(**own, failure_threshold=1, max_retries=0)
        for server in (two.a, two.b):
            server.refuse()
        with suppress(ConnectionFailed):
            client.chat("What is ice?")
        for server in (two.a, two.b):
            server.listen()
        return client

    def refused(self, form: Form, client: OllamaClient) -> tuple[OllamaBridgeError, float]:
        """Return the error of a refused call, and the seconds it took at the best of some times."""
        seconds = []
        for _ in range(TRIES):
            started = time.monotonic()
            error = form.fail(client)
            seconds.append(time.monotonic() - started)
        return error, min(seconds)


@pytest.fixture
def post(settings: Settings, two: Pair) -> Iterator[Callable[[], Any]]:
    """Return what asks over HTTP, of a site with both servers."""
    settings.OLLAMA_BRIDGE = {
        "ENDPOINTS": {name: {"BASE_URL": getattr(two, name).url} for name in "ab"},
        "ROUTES": {"default": {"TARGETS": ["a", "b"]}},
        "CACHE": None,
        "MAX_RETRIES": 0,
        "FAILURE_THRESHOLD": 1,
        "PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"],
        "THROTTLE_RATE": None,
    }
    yield lambda: APIClient().post("/api/chat/", {"message": "What is water?"}, format="json")
    ollama_client.close()


class TestOverHttp:
    def test_the_other_answers(self, two: Pair, post: Callable[[], Any]) -> None:
        two.a.refuse()
        assert post().json()["response"] == "Wet."

    def test_different_failures_are_one_503_with_a_time(
        self, two: Pair, post: Callable[[], Any]
    ) -> None:
        two.a.refuse()
        two.b.misbehave(faults.rate_limited(7))
        response = post()
        assert (response.status_code, response.json()["code"]) == (503, "all_endpoints_failed")
        assert response.headers["Retry-After"] == "7"
        assert "detail" not in response.json()

    def test_open_circuits_are_a_503_with_the_smallest_of_the_waits(
        self, two: Pair, post: Callable[[], Any]
    ) -> None:
        for server in (two.a, two.b):
            server.refuse()
        assert post().json()["code"] == "connection_failed"
        response = post()
        assert (response.status_code, response.json()["code"]) == (503, "circuit_open")
        waits = [ollama_client.circuit_breakers[name].retry_after or 0.0 for name in "ab"]
        assert int(response.headers["Retry-After"]) == pytest.approx(min(waits), abs=1.1)
