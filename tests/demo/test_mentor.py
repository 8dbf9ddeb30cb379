"""``/api/mentor/``: the bridge's API with a class number, open to everyone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from demo_project.mentor.levels import CLASSES, prompt_for
from ollama_bridge.testing import FakeOllama

pytestmark = pytest.mark.usefixtures("configure")

Configure = Callable[..., None]


def _ask(**fields: object) -> Any:
    body = json.dumps({"message": "What is water?"} | fields)
    return Client().post("/api/mentor/chat/", body, content_type="application/json")


def _prompt(ollama: FakeOllama) -> Any:
    return ollama.chats[0].json["messages"][0]


@pytest.mark.parametrize("number", [1, 7, 12])
def test_everyone_is_taught_at_the_level_of_the_class(fake_ollama: FakeOllama, number: int) -> None:
    response = _ask(class_number=number)
    assert response.status_code == 200
    assert response.json()["response"]
    assert _prompt(fake_ollama) == {"role": "system", "content": prompt_for(number)}


def test_the_class_is_the_first_where_none_is_given(fake_ollama: FakeOllama) -> None:
    assert _ask().status_code == 200
    assert "teacher for Class 1." in _prompt(fake_ollama)["content"]


def test_each_class_has_a_prompt_of_its_own() -> None:
    prompts = [prompt_for(number) for number in CLASSES]
    assert len(set(prompts)) == 12
    assert all("You are a patient teacher for Class" in prompt for prompt in prompts)


@pytest.mark.parametrize(
    "number", [0, 13, -1, 1.5, "one", "", None, True, [1], {}, 10**30, "1" * 2000]
)
def test_any_other_class_is_refused_by_name(fake_ollama: FakeOllama, number: object) -> None:
    response = _ask(class_number=number)
    assert response.status_code == 400
    sentence = "This must be a whole number from 1 to 12. Correct it."
    assert response.json()["fields"] == {"class_number": [sentence]}
    assert response.json()["error"] == f"class_number: {sentence}"
    assert fake_ollama.requests == []


def test_openness_has_a_limit(configure: Configure) -> None:
    configure(THROTTLE_RATE="1/min")
    assert [_ask().status_code for _ in range(2)] == [200, 429]


def test_health_and_liveness_are_beside_the_chat() -> None:
    health = Client().get("/api/mentor/health/")
    assert health.status_code == 200
    assert set(health.json()) == {
        "success",
        "status",
        "ollama_connected",
        "default_model",
        "circuit_breaker_state",
    }
    assert Client().get("/api/mentor/health/live/").json()["status"] == "alive"


def test_a_server_that_is_gone_is_said_with_the_time_to_retry(fake_ollama: FakeOllama) -> None:
    fake_ollama.refuse()
    response = _ask()
    assert response.status_code == 503
    assert response.json()["retry_after"] == 30
