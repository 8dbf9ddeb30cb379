from __future__ import annotations

import copy
import json
import pickle

import pytest

from ollama_bridge import errors
from ollama_bridge.core.types import Attempt, ChatReply, Delta, Usage

from .virtual import endpoint

REPLY = ChatReply(
    "Water is wet.",
    model="m",
    endpoint="e",
    usage=Usage(prompt_tokens=2, completion_tokens=3),
    latency=0.5,
    attempts=(Attempt(endpoint="e", model="m", code="", status=200, seconds=0.4),),
    thinking="Hm",
    tool_calls=({"id": "x"},),
    error=errors.CircuitOpen("no"),
)


def test_a_reply_is_its_text() -> None:
    assert REPLY == "Water is wet."
    assert hash(REPLY) == hash("Water is wet.")
    assert repr(REPLY) == repr("Water is wet.")
    assert isinstance(REPLY.upper(), str)


def test_a_plain_reply_has_neutral_facts() -> None:
    plain = ChatReply("x")
    assert (plain.source, plain.reliability, plain.truncated) == ("ollama", "high", False)
    assert (plain.thinking, plain.tool_calls, plain.error) == ("", (), None)
    assert plain.usage.total_tokens == 0


def test_no_fact_hides_a_method_of_str() -> None:
    assert not set(ChatReply.__slots__) & set(dir(str))


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))]
)
def test_a_reply_pickles_and_copies_with_its_facts(again: object) -> None:
    other = again(REPLY)  # type: ignore[operator]  # one of three functions
    assert (type(other), other, other.latency) == (ChatReply, REPLY, 0.5)
    assert (other.attempts, other.usage, other.tool_calls) == (
        REPLY.attempts,
        REPLY.usage,
        REPLY.tool_calls,
    )


def test_a_reply_is_read_only() -> None:
    with pytest.raises(AttributeError, match="read-only: cannot set 'model'"):
        REPLY.model = "other"
    with pytest.raises(AttributeError, match="read-only: cannot delete 'model'"):
        del REPLY.model


def test_a_reply_becomes_plain_json() -> None:
    plain = json.loads(json.dumps(REPLY.to_dict()))
    assert plain["text"] == "Water is wet."
    assert plain["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert plain["attempts"] == [
        {"endpoint": "e", "model": "m", "code": "", "status": 200, "seconds": 0.4}
    ]
    assert (plain["error"], plain["tool_calls"]) == ("circuit_open", [{"id": "x"}])
    assert ChatReply("x").to_dict()["error"] is None


DELTA = Delta("Wa", "Hm", ({"id": "x"},))


def test_a_delta_is_its_text() -> None:
    assert DELTA == DELTA.text == "Wa"
    assert type(DELTA.text) is str
    assert hash(DELTA) == hash("Wa")
    assert "".join([DELTA, Delta("ter")]) == "Water"
    assert (Delta().text, Delta().thinking, Delta().tool_calls) == ("", "", ())
    assert not Delta(thinking="Hm"), "it is false where the model only thinks"


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_delta_pickles_and_copies_with_its_facts(again: object) -> None:
    other = again(DELTA)  # type: ignore[operator]  # one of three functions
    assert (type(other), other, other.thinking) == (Delta, "Wa", "Hm")
    assert other.tool_calls == ({"id": "x"},)


def test_a_delta_is_read_only() -> None:
    with pytest.raises(AttributeError, match="read-only: cannot set 'thinking'"):
        DELTA.thinking = "other"
    with pytest.raises(AttributeError, match="read-only: cannot delete 'tool_calls'"):
        del DELTA.tool_calls
    with pytest.raises(AttributeError, match="read-only: cannot set 'more'"):
        DELTA.more = "other"


def test_a_delta_shows_its_length_alone() -> None:
    assert repr(DELTA) == "<Delta of 2 characters>"
    assert f"{DELTA}" == "Wa", "printing it prints the text"


def test_no_fact_of_a_delta_hides_a_method_of_str() -> None:
    assert not {"text", *Delta.__slots__} & set(dir(str))


def test_values_do_not_show_what_they_must_not() -> None:
    secret = endpoint(api_key="canary", headers={"X": "canary"}, proxy="http://canary@p")
    assert "canary" not in repr(secret) + repr(Delta("canary", "canary"))


def test_an_endpoint_knows_whether_it_is_secure() -> None:
    assert not endpoint().is_secure
    assert endpoint(base_url="https://x").is_secure
