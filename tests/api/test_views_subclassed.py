"""What a project changes: the prompt, the client, the fields, who may ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from django.test import RequestFactory
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.permissions import AllowAny
from rest_framework.throttling import BaseThrottle

from ollama_bridge import OllamaClient
from ollama_bridge.api.serializers import ChatSerializer
from ollama_bridge.api.views import ChatView
from ollama_bridge.testing import FakeOllama

Configure = Callable[..., None]


class LanguageSerializer(ChatSerializer):
    language = serializers.ChoiceField(["Welsh", "Latin"], default="Latin")


class TranslatorView(ChatView):
    permission_classes = (AllowAny,)
    serializer_class = LanguageSerializer

    def get_system_prompt(self, data: Mapping[str, Any]) -> str:
        return f"Answer in {data['language']}."


@pytest.fixture(autouse=True)
def _configured(configure: Configure) -> None:
    configure(SYSTEM_PROMPT="Be brief.")


def _post(view: type[ChatView], body: str = '{"message": "Hi"}', **initkwargs: Any) -> Any:
    request = RequestFactory().post("/", body, content_type="application/json")
    return view.as_view(**initkwargs)(request)


def _prompt(ollama: FakeOllama) -> Any:
    return ollama.chats[0].json["messages"][0]


def test_the_prompt_may_depend_on_a_field_of_ones_own(fake_ollama: FakeOllama) -> None:
    response = _post(TranslatorView, '{"message": "Hi", "language": "Welsh"}')
    assert response.status_code == 200
    assert _prompt(fake_ollama) == {"role": "system", "content": "Answer in Welsh."}


def test_a_field_of_ones_own_is_refused_in_the_same_form() -> None:
    response = _post(TranslatorView, '{"message": "Hi", "language": 5}')
    assert response.status_code == 400
    assert list(response.data["fields"]) == ["language"]
    assert response.data["error"].startswith("language: ")


def test_the_prompt_of_the_settings_holds_where_there_is_no_other(fake_ollama: FakeOllama) -> None:
    class OpenView(ChatView):
        permission_classes = (AllowAny,)

    assert _post(OpenView).status_code == 200
    assert _prompt(fake_ollama)["content"] == "Be brief."


def test_the_client_may_be_ones_own(fake_ollama: FakeOllama) -> None:
    with FakeOllama(models=["mistral"]) as other:
        client = OllamaClient(base_url=other.url, model="mistral")

        class OtherView(TranslatorView):
            def get_client(self) -> OllamaClient:
                return client

        assert _post(OtherView).data["model"] == "mistral"
        client.close()
    assert fake_ollama.requests == []


def test_permissions_may_be_given_to_as_view() -> None:
    assert _post(ChatView).status_code == 401
    assert _post(ChatView, permission_classes=[AllowAny]).status_code == 200


def test_throttles_may_be_ones_own_and_need_not_know_when() -> None:
    class Closed(BaseThrottle):
        def allow_request(self, *_: object) -> bool:
            return False

    response = _post(TranslatorView, throttle_classes=[Closed])
    assert response.status_code == 429
    assert response.headers["Retry-After"] == "30"


def test_an_error_of_ones_own_keeps_its_code_and_status() -> None:
    class LessonOverError(APIException):
        status_code = 409
        default_code = "lesson_over"

    class LessonView(TranslatorView):
        def get_system_prompt(self, data: Mapping[str, Any]) -> str:
            raise LessonOverError(f"{data['language']} is over. Come back tomorrow.")

    response = _post(LessonView)
    assert response.status_code == 409
    assert response.data["code"] == "lesson_over"
    assert response.data["error"] == "Latin is over. Come back tomorrow."


def test_errors_do_not_go_through_the_exception_handler_of_the_project(settings: Any) -> None:
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": f"{__name__}.nowhere"}
    assert _post(TranslatorView, '{"message": ""}').data["code"] == "invalid"


def test_no_transaction_is_held_by_a_subclass_either() -> None:
    view: Any = TranslatorView.as_view()
    assert view._non_atomic_requests == {"default"}
