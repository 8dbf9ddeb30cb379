"""One identifier ties the request, its log lines and its answer together."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import context
from ollama_bridge.api.views import ChatView
from ollama_bridge.testing import FakeOllama

if TYPE_CHECKING:
    from rest_framework.test import APIClient

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def _configured(configure: Configure) -> None:
    configure(MAX_RETRIES=0)


def _post(client: APIClient, **headers: str) -> Any:
    return client.post("/api/chat/", {"message": "Hi"}, format="json", headers=headers)


@pytest.mark.parametrize("sent", ["a", "trace-1.2_3", "A" * 64])
def test_a_safe_identifier_is_taken_over(member: APIClient, sent: str) -> None:
    response = _post(member, **{"X-Request-ID": sent})
    assert response.headers["X-Request-ID"] == response.json()["request_id"] == sent


@pytest.mark.parametrize("sent", ["", " ", "A" * 65, "a b", "a\nb", "é", "<b>", "a;b", "a\n"])
def test_any_other_is_replaced(member: APIClient, sent: str) -> None:
    response = _post(member, **{"X-Request-ID": sent})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])
    assert response.headers["X-Request-ID"] == response.json()["request_id"]


def test_each_request_has_its_own(member: APIClient) -> None:
    assert _post(member).json()["request_id"] != _post(member).json()["request_id"]


def test_errors_carry_it_too(
    member: APIClient, anonymous: APIClient, fake_ollama: FakeOllama
) -> None:
    fake_ollama.refuse()
    for client in (member, anonymous):
        response = _post(client, **{"X-Request-ID": "mine"})
        assert response.json()["success"] is False
        assert response.headers["X-Request-ID"] == response.json()["request_id"] == "mine"


def test_the_log_lines_of_the_call_carry_it(
    member: APIClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ollama_bridge")
    _post(member, **{"X-Request-ID": "mine"})
    carried = [getattr(record, "request_id", None) for record in caplog.records]
    assert "mine" in carried


def test_it_is_forgotten_after_the_request(
    member: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    _post(member)
    assert context.request_id.get() == ""
    monkeypatch.setattr(ChatView, "get_system_prompt", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _post(member)
    assert context.request_id.get() == ""
