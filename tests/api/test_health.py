"""``health/`` for load balancers and staff, ``health/live/`` for whoever restarts processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import ollama_client
from ollama_bridge.testing import FakeOllama, faults

if TYPE_CHECKING:
    from rest_framework.test import APIClient

Configure = Callable[..., None]

FIVE = {
    "success": True,
    "status": "healthy",
    "ollama_connected": True,
    "default_model": "llama3.2",
    "circuit_breaker_state": "closed",
}


@pytest.fixture(autouse=True)
def _configured(configure: Configure) -> None:
    configure(MAX_RETRIES=0, FAILURE_THRESHOLD=1, OPEN_SECONDS=20)


def _health(client: APIClient, query: str = "") -> Any:
    return client.get(f"/api/health/{query}")


class TestHealth:
    def test_says_five_things_to_everybody(self, anonymous: APIClient) -> None:
        response = _health(anonymous)
        assert response.status_code == 200
        assert response.json() == FIVE
        assert list(response.json()) == list(FIVE)
        assert "no-store" in response.headers["Cache-Control"]
        assert response.headers["X-Request-ID"]

    def test_asks_the_server_once_for_a_crowd(
        self, anonymous: APIClient, fake_ollama: FakeOllama
    ) -> None:
        for _ in range(10):
            assert _health(anonymous).status_code == 200
        paths = [request.path for request in fake_ollama.requests]
        assert len(paths) == len(set(paths))

    def test_says_that_nobody_listens(self, anonymous: APIClient, fake_ollama: FakeOllama) -> None:
        fake_ollama.refuse()
        response = _health(anonymous)
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "30"
        assert response.json() == {
            "success": False,
            "status": "unhealthy",
            "ollama_connected": False,
            "default_model": "llama3.2",
            "circuit_breaker_state": "closed",
            "error": "The AI service cannot be reached right now. Please try again later.",
            "code": "connection_failed",
            "retry_after": 30,
        }

    def test_says_that_the_model_is_missing(
        self, anonymous: APIClient, configure: Configure
    ) -> None:
        configure(MODEL="mistral")
        response = _health(anonymous)
        assert response.status_code == 503
        assert response.json()["ollama_connected"] is True
        assert response.json()["code"] == "model_not_found"
        assert response.json()["default_model"] == "mistral"

    def test_is_a_503_even_where_a_chat_would_be_a_504(
        self, anonymous: APIClient, configure: Configure, fake_ollama: FakeOllama
    ) -> None:
        configure(TIMEOUT=0.2)
        fake_ollama.misbehave(faults.BlackHole(), path=None)
        response = _health(anonymous)
        assert response.status_code == 503
        assert response.json()["code"] == "timeout"
        assert response.json()["retry_after"] == 30

    def test_tells_when_an_open_circuit_is_tried_again(
        self, anonymous: APIClient, member: APIClient, fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.server_error())
        member.post("/api/chat/", {"message": "Hi"}, format="json")
        response = _health(anonymous)
        body = response.json()
        assert response.status_code == 503
        assert body["ollama_connected"] is True
        assert body["circuit_breaker_state"] == "open"
        assert body["code"] == "circuit_open"
        assert 1 <= body["retry_after"] <= 20
        assert response.headers["Retry-After"] == str(body["retry_after"])

    def test_serves_while_only_something_else_does_not(
        self, anonymous: APIClient, member: APIClient, configure: Configure
    ) -> None:
        with FakeOllama(models=["llama3.2", "other"]) as ollama:
            ollama.misbehave(faults.server_error())
            configure(
                BASE_URL=ollama.url, MAX_RETRIES=0, FAILURE_THRESHOLD=1, CLIENT_MAY_SET=["model"]
            )
            member.post("/api/chat/", {"message": "Hi", "model": "other"}, format="json")
            response = _health(anonymous)
        assert response.status_code == 200
        assert response.json() == FIVE | {"status": "degraded"}

    def test_shows_endpoints_to_staff_only(
        self, staff: APIClient, member: APIClient, fake_ollama: FakeOllama
    ) -> None:
        assert "endpoints" not in _health(member).json()
        body = _health(staff).json()
        endpoint = body.pop("endpoints")["default"]
        assert body == FIVE
        assert endpoint.pop("latency_ms") > 0
        assert endpoint == {
            "status": "healthy",
            "url": fake_ollama.url,
            "model": "llama3.2",
            "reachable": True,
            "version": "0.24.0",
            "models": {"llama3.2": True},
            "loaded": [],
            "circuit_breaker_state": "closed",
            "error": None,
            "retry_after": None,
        }

    def test_shows_all_endpoints_and_serves_as_long_as_one_can(
        self, staff: APIClient, anonymous: APIClient, configure: Configure, fake_ollama: FakeOllama
    ) -> None:
        with FakeOllama() as other:
            configure(
                ENDPOINTS={"gpu": {"BASE_URL": fake_ollama.url}, "cpu": {"BASE_URL": other.url}},
                ROUTES={"default": {"TARGETS": ["gpu", "cpu"]}},
            )
            fake_ollama.refuse()
            response = _health(anonymous)
            endpoints = _health(staff).json()["endpoints"]
        models = {name: each["models"] for name, each in endpoints.items()}
        assert models == {"gpu": {"llama3.2": None}, "cpu": {"llama3.2": True}}, "null is unknown"
        assert response.status_code == 200
        assert response.json() == FIVE | {"status": "degraded"}
        assert {name: each["status"] for name, each in endpoints.items()} == {
            "gpu": "unhealthy",
            "cpu": "healthy",
        }

    def test_tells_staff_what_to_type(self, staff: APIClient, fake_ollama: FakeOllama) -> None:
        fake_ollama.refuse()
        error = _health(staff).json()["endpoints"]["default"]["error"]
        assert "ollama serve" in error

    def test_is_asked_anew_for_staff_only(
        self, staff: APIClient, member: APIClient, fake_ollama: FakeOllama
    ) -> None:
        _health(member)
        before = len(fake_ollama.requests)
        _health(member, "?force=1")
        assert len(fake_ollama.requests) == before
        _health(staff, "?force=1")
        assert len(fake_ollama.requests) > before

    def test_never_moves_the_circuit(self, anonymous: APIClient, fake_ollama: FakeOllama) -> None:
        fake_ollama.refuse()
        for _ in range(3):
            _health(anonymous)
        assert ollama_client.circuit_breaker.state == "closed"

    def test_is_only_read(self, anonymous: APIClient) -> None:
        assert anonymous.post("/api/health/").status_code == 405
        assert anonymous.head("/api/health/").status_code == 200

    def test_of_a_wrong_setting_is_misconfigured(
        self, anonymous: APIClient, configure: Configure
    ) -> None:
        configure(TIMEOUT="soon")
        response = _health(anonymous)
        assert response.status_code == 500
        assert response.json()["code"] == "misconfigured"


class TestLiveness:
    def test_is_told_without_asking_the_server(
        self, anonymous: APIClient, fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.refuse()
        response = anonymous.get("/api/health/live/")
        assert response.status_code == 200
        assert response.json() == {"success": True, "status": "alive"}
        assert fake_ollama.requests == []

    def test_is_told_without_asking_who_asks(self, anonymous: APIClient) -> None:
        response = anonymous.get("/api/health/live/", headers={"Authorization": "Basic !"})
        assert response.status_code == 200
