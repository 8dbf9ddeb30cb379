"""What comes back: the answer with its facts, or an error with its own."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

import ollama_bridge
from ollama_bridge import ChatReply, OllamaBridgeError, OllamaClient, errors
from ollama_bridge.core.types import Attempt
from ollama_bridge.testing import FakeModel, FakeOllama, faults, when

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeClient

QUESTION = "What is water?"
ATTEMPT = Attempt(endpoint="default", model="m", code="timeout", status=None, seconds=1.5)


def leaves(cls: type[OllamaBridgeError] = OllamaBridgeError) -> Iterator[type[OllamaBridgeError]]:
    if not cls.__name__.startswith("_"):
        yield cls
    for below in cls.__subclasses__():
        yield from leaves(below)


ALL = list(leaves())


def test_an_answer_comes_with_its_facts(make_client: MakeClient) -> None:
    with FakeOllama(answer="Water is wet.") as server:
        reply = make_client(base_url=server.url).chat(QUESTION)
        assert len(server.chats) == 1
    assert reply == "Water is wet."
    assert (reply.model, reply.endpoint) == ("llama3.2", "default")
    assert (reply.source, reply.reliability) == ("ollama", "high")
    assert (reply.done_reason, reply.truncated) == ("stop", False)
    assert reply.usage.prompt_tokens > 0
    assert reply.usage.completion_tokens > 0
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert 0 < reply.latency < 5
    assert (reply.thinking, reply.tool_calls, reply.error) == ("", (), None)
    (attempt,) = reply.attempts
    assert (attempt.endpoint, attempt.model, attempt.code) == ("default", "llama3.2", "")
    assert attempt.status == 200
    assert 0 < attempt.seconds <= reply.latency


def test_a_thinking_model_shows_what_it_thought(make_client: MakeClient) -> None:
    model = FakeModel("thinker", capabilities=("completion", "thinking"))
    with FakeOllama(models=[model], answer="42") as server:
        reply = make_client(base_url=server.url, model="thinker").chat(QUESTION)
    assert reply == "42"
    assert reply.thinking


def test_a_limit_of_tokens_ends_the_answer(make_client: MakeClient) -> None:
    with FakeOllama(answer="one two three four five six") as server:
        reply = make_client(base_url=server.url).chat(QUESTION, max_tokens=2)
    assert reply.done_reason == "length"
    assert len(reply) < len("one two three four five six")
    assert not reply.truncated


def test_latency_counts_every_wait(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    fake_ollama.misbehave(faults.busy(), when=when.first(1))
    reply = make_client(retry_backoff="fixed", retry_delay=0.2).chat(QUESTION)
    assert reply.latency > 0.2 > reply.attempts[-1].seconds


@pytest.mark.parametrize(
    "body",
    [
        b'{"message":{"role":"assistant","content":""},"done":true}',
        b'{"message":{},"done":true}',
        b'{"message":{"content":null},"done":true,"eval_count":"many","model":5}',
        b' \n{"message":{"content":"","tool_calls":[5,{"id":"x"}]},"done":true} \n',
    ],
)
def test_an_empty_answer_is_an_answer(
    fake_ollama: FakeOllama, make_client: MakeClient, body: bytes
) -> None:
    fake_ollama.misbehave(faults.Status(200, body, "application/json"))
    reply = make_client().chat(QUESTION)
    assert reply == ""
    assert reply.model == "llama3.2"
    assert reply.usage.total_tokens == 0


AGAIN: list[Callable[[object], object]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda it, n=n: pickle.loads(pickle.dumps(it, n)) for n in range(6)),
]


@pytest.mark.parametrize("again", AGAIN)
def test_an_answer_pickles_and_copies(
    make_client: MakeClient, again: Callable[[object], object]
) -> None:
    reply = make_client().chat(QUESTION)
    other = again(reply)
    assert isinstance(other, ChatReply)
    assert other == reply
    assert other.to_dict() == reply.to_dict()


def test_an_answer_is_read_only(make_client: MakeClient) -> None:
    reply = make_client().chat(QUESTION)
    for name in (*ChatReply.__slots__, "anything"):
        with pytest.raises(AttributeError, match="read-only"):
            setattr(reply, name, "x")
    with pytest.raises(AttributeError, match="read-only"):
        del reply.model


def test_the_tree_of_errors_is_the_one_that_is_public() -> None:
    public = {name for name in ollama_bridge.__all__ if getattr(errors, name, None) in ALL}
    assert public == {cls.__name__ for cls in ALL}
    assert len({cls.code for cls in ALL}) == len(ALL)
    assert all(cls.public_message.endswith(".") for cls in ALL)


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("cls", ALL)
def test_every_error_pickles_and_copies_with_its_facts(
    cls: type[OllamaBridgeError], again: Callable[[object], object]
) -> None:
    error = cls(
        "It failed. Do something",
        endpoint="default",
        model="m",
        status=503,
        retry_after=2.5,
        attempts=(ATTEMPT, ATTEMPT),
    )
    facts: dict[type[OllamaBridgeError], dict[str, Any]] = {
        errors.Timeout: {"phase": "idle", "partial": "Water is"},
        errors.StreamInterrupted: {"partial": "Water is"},
        errors.InvalidReply: {"partial": "Water is"},
        errors.OutputInvalid: {"raw": "{", "errors": ("no end",)},
        errors.RequestDeferred: {"deferred_id": "7", "expires_at": datetime.now(UTC)},
    }
    own = facts.get(cls, {})
    for name, value in own.items():
        assert hasattr(error, name)
        setattr(error, name, value)
    error.retryable = not cls.retryable
    other = again(error)
    assert type(other) is cls
    assert str(other) == "It failed. Do something"
    assert vars(other) == vars(error)
    assert {name: getattr(other, name) for name in own} == own


@pytest.mark.parametrize("cls", ALL)
def test_no_error_shows_its_partial_text(cls: type[OllamaBridgeError]) -> None:
    error = cls("It failed")
    vars(error)["partial"] = "canary"
    assert "canary" not in f"{error} {error!r} {error.args}"


def test_an_error_of_a_call_pickles_with_what_was_tried(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.NotDone(), when=when.every(2))
    fake_ollama.misbehave(faults.unavailable())
    with pytest.raises(errors.InvalidReply) as caught:
        make_client().chat(QUESTION)
    other = pickle.loads(pickle.dumps(caught.value))  # our own
    assert [attempt.code for attempt in other.attempts] == ["upstream_failed", "invalid_reply"]
    assert other.partial
    assert vars(other) == vars(caught.value)


def test_wrong_settings_and_arguments_are_outside_of_the_tree() -> None:
    with pytest.raises(TypeError) as caught:
        OllamaClient(nonsense=1)
    assert not isinstance(caught.value, OllamaBridgeError)
