"""Sites whose tests mock requests with the library ``responses``."""

from __future__ import annotations

import json

import pytest
import responses

from ollama_bridge import ConnectionFailed, OllamaClient

URL = "http://ollama.test:11434"
REPLY = {
    "model": "llama3.2",
    "message": {"role": "assistant", "content": "A liquid."},
    "done": True,
    "done_reason": "stop",
}


@responses.activate
def test_a_mocked_server_is_repeated_and_answers_and_its_calls_can_be_looked_at() -> None:
    responses.post(f"{URL}/api/chat", json={"error": "busy"}, status=503)
    responses.post(f"{URL}/api/chat", json=REPLY)
    with OllamaClient(base_url=URL, retry_initial_delay=0, retry_max_delay=0) as client:
        assert client.chat("What is water?") == "A liquid."
    body = responses.calls[1].request.body
    assert isinstance(body, bytes)
    asked = json.loads(body)
    assert asked["messages"] == [{"role": "user", "content": "What is water?"}]


@responses.activate
def test_a_mocked_server_can_be_unreachable() -> None:
    responses.post(f"{URL}/api/chat", body=ConnectionError("refused"))
    with OllamaClient(base_url=URL, max_retries=0) as client, pytest.raises(ConnectionFailed):
        client.chat("What is water?")
