"""``manage.py ollama_health``."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import ollama_client
from ollama_bridge.management.commands import ollama_health
from ollama_bridge.testing import FakeAccount, FakeOllama, faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Run

NAME = "ollama_health"

pytestmark = pytest.mark.usefixtures("configure")


def test_a_healthy_server(run: Run, fake_ollama: FakeOllama) -> None:
    ollama_client.chat("Load the model")
    ended = run(NAME)
    assert (ended.code, ended.err) == (0, "")
    server = ended.lines.pop(3)
    assert server.startswith("server    Ollama 0.24.0, answered in 0.")
    assert ended.lines[:3] + ended.lines[4:] == [
        "endpoint  default",
        f"url       {fake_ollama.url}",
        "status    healthy",
        "model     llama3.2, present",
        "loaded    llama3.2:latest",
        "circuit   closed, as far as this process knows",
    ]


def test_an_absent_server(run: Run, fake_ollama: FakeOllama) -> None:
    fake_ollama.refuse()
    ended = run(NAME)
    assert ended.code == 1
    assert ended.lines[2:] == [
        "status    unhealthy",
        "server    not reachable",
        "circuit   closed, as far as this process knows",
        f"error     Cannot connect to Ollama at {fake_ollama.url}.",
        "          Start it with: ollama serve",
    ]


def test_a_missing_model(run: Run, configure: Callable[..., None]) -> None:
    configure(MODEL="qwen3:0.6b")
    ended = run(NAME)
    assert ended.code == 1
    assert "model     qwen3:0.6b, missing" in ended.lines
    assert "loaded    no model yet" in ended.lines
    assert ended.lines[-1] == "error     Model qwen3:0.6b not found. Run: ollama pull qwen3:0.6b"


def test_a_model_that_the_cloud_lacks(
    run: Run, configure: Callable[..., None], fake_ollama: FakeOllama
) -> None:
    with FakeOllama(models=["gpt-oss:120b"]) as cloud:
        configure(API_KEY="key", CLOUD_MODEL="gpt-oss:999b-cloud", CLOUD_ENDPOINT=cloud.url)
        ended = run(NAME)
    assert ended.code == 0
    assert "pull" not in ended.out
    assert ended.lines[6:11] == [
        "model     gpt-oss:999b, missing",
        "loaded    no model yet",
        "circuit   closed, as far as this process knows",
        f"error     Model gpt-oss:999b not found at {cloud.url}.",
        "          See https://ollama.com/search?c=cloud",
    ]
    assert f"url       {fake_ollama.url}" in ended.lines


def test_a_server_that_does_not_say_which_models_it_has(run: Run, fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.server_error(), path="/api/tags")
    ended = run(NAME)
    assert ended.code == 1
    assert not [line for line in ended.lines if line.startswith(("model", "loaded"))]


def test_it_always_asks_anew(run: Run, fake_ollama: FakeOllama) -> None:
    assert run(NAME).code == 0
    fake_ollama.refuse()
    assert run(NAME).code == 1
    fake_ollama.listen()
    assert run(NAME).code == 0


def test_a_degraded_server_can_serve(run: Run) -> None:
    ollama_client.chat("What is water?", model="llama3.2:latest")
    ollama_client.circuit_breakers["default/llama3.2:latest"].force_open()
    ended = run(NAME)
    assert ended.code == 0
    assert "status    degraded" in ended.lines


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("force_open", "circuit   forced open by an operator; reset it in the admin"),
        ("disable", "circuit   switched off"),
    ],
)
def test_the_mode_of_an_operator_is_told(run: Run, mode: str, told: str) -> None:
    getattr(ollama_client.circuit_breaker, mode)()
    assert told in run(NAME).lines


def test_every_mode_has_its_words() -> None:
    assert set(ollama_health._MODES) == {"auto", "forced_open", "disabled"}


def test_a_server_that_hides_its_version(run: Run, fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.page_not_found(), path="/api/version")
    ended = run(NAME)
    assert ended.code == 0
    assert "of unknown version, answered in" in ended.out
    assert json.loads(run(NAME, "--format=json").out)["endpoints"][0]["version"] is None


def test_the_document(run: Run, fake_ollama: FakeOllama) -> None:
    found = json.loads(run(NAME, "--format=json").out)
    (endpoint,) = found["endpoints"]
    assert 0 < endpoint.pop("latency") < 30
    assert found == {
        "status": "healthy",
        "endpoints": [
            {
                "status": "healthy",
                "endpoint": "default",
                "url": fake_ollama.url,
                "reachable": True,
                "version": "0.24.0",
                "model": "llama3.2",
                "models": {"llama3.2": True},
                "loaded": [],
                "circuit": {"state": "closed", "mode": "auto"},
                "retry_after": None,
                "error": None,
            }
        ],
        "error": None,
    }


def test_the_document_of_an_unhealthy_server(run: Run, fake_ollama: FakeOllama) -> None:
    fake_ollama.refuse()
    ended = run(NAME, "--format=json")
    found = json.loads(ended.out)
    assert (ended.code, found["status"]) == (1, "unhealthy")
    assert found["endpoints"][0]["models"] == {"llama3.2": None}
    assert found["endpoints"][0]["error"] == {
        "code": "connection_failed",
        "message": f"Cannot connect to Ollama at {fake_ollama.url}. Start it with: ollama serve",
    }


@pytest.mark.parametrize("form", ["table", "json"])
def test_wrong_settings(run: Run, configure: Callable[..., None], form: str) -> None:
    configure(BASE_URL="ftp://nowhere")
    ended = run(NAME, f"--format={form}")
    assert ended.code == 3
    assert "BASE_URL" in ended.err
    if form == "json":
        found = json.loads(ended.out)
        assert (found["status"], found["endpoints"]) == (None, [])
        assert found["error"]["code"] == "misconfigured"
    else:
        assert ended.out == ""


def test_an_interrupt_is_a_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ollama_client, "health_check", interrupted)
    assert run(NAME).code == 130


def test_it_moves_no_circuit_and_logs_nothing(
    run: Run, fake_ollama: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fake_ollama.refuse()
    for _ in range(6):
        run(NAME)
    assert ollama_client.circuit_breaker.failures == 0
    assert caplog.records == []
    ollama_client.close()
    run(NAME, "--verbosity=2")
    assert "OllamaClient initialized" in caplog.text


def test_colours_are_for_terminals(run: Run) -> None:
    assert "\x1b[32;1mhealthy\x1b[0m" in run(NAME, "--force-color").out
    assert "\x1b" not in run(NAME).out


def test_a_cloud_that_does_not_accept_the_key_is_not_healthy_though_it_lists_its_models(
    run: Run, configure: Callable[..., None], fake_ollama: FakeOllama
) -> None:
    account = FakeAccount.credit("another key")
    with FakeOllama(models=["gpt-oss:120b"], account=account) as cloud:
        configure(
            BASE_URL=fake_ollama.url,
            API_KEY="a-key",
            CLOUD_MODEL="gpt-oss:120b-cloud",
            CLOUD_ENDPOINT=cloud.url,
        )
        ended = run(NAME)
    assert ended.lines[:5] == [
        "status  degraded",
        "",
        "endpoint  cloud",
        f"url       {cloud.url}",
        "status    unhealthy",
    ]
    assert "does not accept the key" in ended.out


def test_several_endpoints_are_told_one_after_the_other(
    run: Run, configure: Callable[..., None], fake_ollama: FakeOllama
) -> None:
    with FakeOllama() as other:
        configure(
            ENDPOINTS={"gpu": {"BASE_URL": fake_ollama.url}, "cpu": {"BASE_URL": other.url}},
            ROUTES={"default": {"TARGETS": ["gpu", "cpu"]}},
        )
        fake_ollama.refuse()
        ended = run(NAME)
        document = json.loads(run(NAME, "--format", "json").out)
        other.refuse()
        dead = run(NAME)
    assert ended.code == 0
    assert ended.lines[:5] == [
        "status  degraded",
        "",
        "endpoint  gpu",
        f"url       {fake_ollama.url}",
        "status    unhealthy",
    ]
    assert "endpoint  cpu" in ended.lines
    assert [each["status"] for each in document["endpoints"]] == ["unhealthy", "healthy"]
    assert dead.code == 1
    assert dead.lines[0] == "status  unhealthy"
    assert dead.lines[1].startswith("error   ")
    assert "Cannot connect" in dead.lines[1]
