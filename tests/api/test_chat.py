"""``chat/`` when all goes well, and who may use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.permissions import BasePermission
from rest_framework.test import APIClient

from ollama_bridge.testing import FakeOllama, faults
from ollama_bridge.urls import urlpatterns

Ask = Callable[..., Any]
Configure = Callable[..., None]

pytestmark = pytest.mark.usefixtures("configure")

OPEN = ["rest_framework.permissions.AllowAny"]


class TeachersOnly(BasePermission):
    message = "Only teachers may ask. Ask yours."

    def has_permission(self, *_: object) -> bool:
        return False


class TestTheAnswer:
    def test_has_exactly_the_documented_fields(self, ask: Ask) -> None:
        response = ask()
        body = response.json()
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "application/json"
        assert body.pop("response").startswith("Let us look at this")
        assert body.pop("request_id") == response.headers["X-Request-ID"]
        usage = body.pop("usage")
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
        assert body == {
            "success": True,
            "source": "ollama",
            "reliability": "high",
            "model": "llama3.2",
            "done_reason": "stop",
        }

    def test_is_never_cached(self, ask: Ask) -> None:
        assert "no-store" in ask().headers["Cache-Control"]

    def test_may_hold_half_a_character(self, ask: Ask, fake_ollama: FakeOllama) -> None:
        """A model can write the escape of a lone surrogate, which UTF-8 cannot carry."""
        body = rb'{"model":"m","message":{"role":"assistant","content":"a\ud83d"},"done":true}'
        fake_ollama.misbehave(faults.Status(200, body, "application/json"))
        response = ask()
        assert response.status_code == 200
        assert response.json()["response"].startswith("a")

    def test_comes_after_a_retry(self, ask: Ask, fake_ollama: FakeOllama) -> None:
        fake_ollama.misbehave(faults.Reset(), when=lambda request: request.number == 1)
        assert ask().status_code == 200


class TestTheRequest:
    def test_carries_message_history_and_the_prompt_of_the_settings(
        self, ask: Ask, configure: Configure, fake_ollama: FakeOllama
    ) -> None:
        configure(SYSTEM_PROMPT="Be brief.")
        history = [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "", "seen": True},
        ]
        assert ask(message="\tWhat is\n water? ", history=history).status_code == 200
        assert fake_ollama.chats[0].json["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "\tWhat is\n water? "},
        ]

    def test_may_say_that_it_wants_no_stream(self, ask: Ask) -> None:
        assert ask(stream=False).status_code == 200

    def test_may_hold_fields_that_nobody_knows(self, ask: Ask, fake_ollama: FakeOllama) -> None:
        assert ask(color="blue").status_code == 200
        assert b"blue" not in fake_ollama.chats[0].body

    def test_may_be_of_any_text_encoding(self, member: APIClient) -> None:
        body = '{"message": "Größe?"}'.encode("utf-16")
        response = member.post("/api/chat/", body, content_type="application/json; charset=utf-16")
        assert response.status_code == 200
        assert "Größe?" in response.json()["response"]

    def test_chooses_the_model_where_it_may(self, ask: Ask, configure: Configure) -> None:
        with FakeOllama(models=["llama3.2", "qwen3:0.6b"]) as ollama:
            configure(BASE_URL=ollama.url, CLIENT_MAY_SET=["model"])
            assert ask(model="qwen3:0.6b").json()["model"] == "qwen3:0.6b"

    def test_sets_prompt_options_and_system_history_where_it_may(
        self, ask: Ask, configure: Configure, fake_ollama: FakeOllama
    ) -> None:
        configure(
            CLIENT_MAY_SET=["system_prompt", "options", "history_system"],
            OPTIONS={"seed": 1, "top_k": 5},
            SYSTEM_PROMPT="Be brief.",
        )
        options = {"temperature": 0, "seed": -1, "stop": ["\n\n"]}
        history = [{"role": "system", "content": "Rhyme."}]
        response = ask(system_prompt="Be long.", options=options, history=history)
        assert response.status_code == 200
        sent = fake_ollama.chats[0].json
        assert sent["options"] == {"temperature": 0, "seed": -1, "top_k": 5, "stop": ["\n\n"]}
        assert [message["content"] for message in sent["messages"][:2]] == ["Be long.", "Rhyme."]

    def test_may_empty_the_prompt_where_it_may_set_it(
        self, ask: Ask, configure: Configure, fake_ollama: FakeOllama
    ) -> None:
        configure(CLIENT_MAY_SET=["system_prompt"], SYSTEM_PROMPT="Be brief.")
        assert ask(system_prompt="").status_code == 200
        assert [each["role"] for each in fake_ollama.chats[0].json["messages"]] == ["user"]


class TestWhoMayAsk:
    def test_nobody_without_logging_in(self, anonymous: APIClient) -> None:
        response = anonymous.post("/api/chat/", {"message": "Hi"}, format="json")
        assert response.status_code == 401
        assert response.json()["code"] == "not_authenticated"
        assert response.json()["error"] == "You are not logged in. Log in and try again."
        assert response.headers["WWW-Authenticate"] == "Session"

    def test_everybody_where_the_settings_say_so(
        self, anonymous: APIClient, configure: Configure
    ) -> None:
        configure(PERMISSION_CLASSES=OPEN)
        response = anonymous.post("/api/chat/", {"message": "Hi"}, format="json")
        assert response.status_code == 200

    def test_a_permission_says_why_not(self, ask: Ask, configure: Configure) -> None:
        configure(PERMISSION_CLASSES=[f"{TeachersOnly.__module__}.TeachersOnly"])
        response = ask()
        assert response.status_code == 403
        assert response.json()["code"] == "forbidden"
        assert response.json()["error"] == TeachersOnly.message

    @pytest.mark.django_db
    def test_a_session_needs_the_csrf_token(self) -> None:
        client = APIClient(enforce_csrf_checks=True)
        client.force_login(User.objects.create_user("ada"))
        response = client.post("/api/chat/", {"message": "Hi"}, format="json")
        assert response.status_code == 403
        assert response.json()["code"] == "forbidden"
        assert "CSRF" in response.json()["error"]
        token = "a" * 32
        client.cookies["csrftoken"] = token
        response = client.post(
            "/api/chat/", {"message": "Hi"}, format="json", headers={"X-CSRFToken": token}
        )
        assert response.status_code == 200

    def test_wrong_credentials_are_a_401_too(self, anonymous: APIClient) -> None:
        response = anonymous.post(
            "/api/chat/", {"message": "Hi"}, format="json", headers={"Authorization": "Basic !"}
        )
        assert response.status_code == 401
        assert "Invalid basic header" in response.json()["error"]


def test_no_view_holds_a_transaction_while_it_waits() -> None:
    for pattern in urlpatterns:
        view: Any = pattern.callback
        assert view._non_atomic_requests == {"default"}
