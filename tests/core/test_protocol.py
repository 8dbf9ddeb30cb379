from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_bridge.core.names import canonical, is_remote
from ollama_bridge.core.protocol import (
    Answer,
    ChatRequest,
    LineDecoder,
    decode_object,
    error_of,
    messages_of,
    model_names,
    options_of,
)
from ollama_bridge.core.types import ChatReply, Usage


def sent(**facts: Any) -> dict[str, Any]:
    request = ChatRequest(messages=messages_of("hi", "", ()), **facts).to("m")
    assert (request.method, request.path) == ("POST", "/api/chat")
    body: dict[str, Any] = json.loads(request.body or b"")
    return body


def test_a_request_says_whether_it_streams_because_ollama_would_by_default() -> None:
    assert sent() == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
    }
    assert sent(stream=True)["stream"] is True


def test_options_and_keep_alive_are_sent_where_they_are_given() -> None:
    body = sent(options={"seed": 1}, keep_alive=0)
    assert (body["options"], body["keep_alive"]) == ({"seed": 1}, 0)


def test_a_request_does_not_show_its_text() -> None:
    request = ChatRequest(messages=messages_of("secret", "", ()), options={"stop": ["secret"]})
    assert "secret" not in repr(request) + repr(request.to("m"))


def test_the_conversation_is_system_prompt_history_and_message() -> None:
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ChatReply("b")}]
    messages = messages_of("c", "s", history)
    assert [(m["role"], m["content"]) for m in messages] == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((5, "", ()), TypeError, "message must be a string, not int"),
        (("", "", ()), ValueError, "message must not be empty"),
        ((" \n", "", ()), ValueError, "message must not be empty"),
        (("a\ud800", "", ()), ValueError, "message holds a lone surrogate"),
        (("a", 5, ()), TypeError, "system_prompt must be a string"),
        (("a", "", ["b"]), TypeError, r"history\[0\] must be a mapping"),
        (("a", "", [{"role": "wizard", "content": "b"}]), ValueError, r"history\[0\].role must"),
        (("a", "", [{"role": ["user"], "content": "b"}]), ValueError, r"history\[0\].role must"),
        (("a", "", [{"role": "user"}]), TypeError, r"history\[0\].content must be a string"),
        (("a", "", [{"role": "user", "content": "b", "images": []}]), ValueError, "keys: images"),
    ],
)
def test_wrong_messages_are_named(
    arguments: tuple[Any, Any, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        messages_of(*arguments)


def test_options_of_a_call_win_over_those_of_the_settings() -> None:
    found = options_of({"seed": 1, "top_k": 5}, {"seed": 2}, temperature=0.5, max_tokens=7)
    assert found == {"seed": 2, "top_k": 5, "temperature": 0.5, "num_predict": 7}
    assert options_of({"seed": 1}, None, temperature=None, max_tokens=None) == {"seed": 1}


@pytest.mark.parametrize(
    ("options", "facts", "error", "text"),
    [
        ({"num_predict": 1}, {"max_tokens": 2}, ValueError, "max_tokens is given twice"),
        ({"temperature": 1}, {"temperature": 2}, ValueError, "temperature is given twice"),
        (None, {"max_tokens": 0}, ValueError, "max_tokens must be at least 1"),
        (None, {"max_tokens": 1.5}, TypeError, "max_tokens must be a whole number"),
        (None, {"max_tokens": True}, TypeError, "max_tokens must be a whole number"),
        (None, {"temperature": "hot"}, TypeError, "temperature must be a number, not str"),
        (None, {"temperature": True}, TypeError, "temperature must be a number, not bool"),
        (None, {"temperature": -1}, ValueError, "temperature must be at least 0"),
        (None, {"temperature": float("nan")}, ValueError, "temperature must be at least 0"),
        ([1], {}, TypeError, "options must be a mapping"),
        ({1: 1}, {}, TypeError, "options must be a mapping with strings as keys"),
        ({"stop": object()}, {}, ValueError, "options must hold JSON values only"),
        ({"seed": float("inf")}, {}, ValueError, "options must hold JSON values only"),
    ],
)
def test_wrong_options_are_named(
    options: Any, facts: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        options_of({}, options, **{"temperature": None, "max_tokens": None, **facts})


def test_an_answer_is_read_from_what_a_server_sent() -> None:
    answer = Answer.parse(
        {
            "model": "think",
            "message": {"role": "assistant", "content": "a", "thinking": "b"},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 9,
            "eval_count": 4,
        }
    )
    assert answer == Answer(
        text="a",
        thinking="b",
        model="think",
        done=True,
        done_reason="stop",
        usage=Usage(prompt_tokens=9, completion_tokens=4),
    )


def test_an_answer_does_not_show_its_text() -> None:
    assert repr(Answer("secret", "secret", done=True)) == "Answer(done=True)"


def test_half_a_character_in_an_answer_becomes_a_replacement_character() -> None:
    answer = Answer.parse({"message": {"content": "a\ud83db 😀 é"}})
    assert answer is not None
    assert answer.text == "a\ufffdb 😀 é"


def test_what_a_server_leaves_out_or_gets_wrong_is_neutral() -> None:
    odd = {"message": {"content": 5, "tool_calls": [1, {"id": "x"}]}, "eval_count": -1, "done": 1}
    assert Answer.parse(odd) == Answer(tool_calls=({"id": "x"},))
    assert Answer.parse({"message": "text"}) is None
    assert Answer.parse({"response": "text"}) is None


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"<html>", b"\xff\xfe", b"[" * 100_000, b"NaN"]
)
def test_what_is_no_json_object_is_none(body: bytes) -> None:
    assert decode_object(body) is None


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ({}, None),
        ({"error": None}, None),
        ({"error": ""}, None),
        ({"error": "plain"}, "plain"),
        ({"error": {"message": "openai", "type": "x"}}, "openai"),
        ({"error": '{"error":{"code":400,"message":"nested"}}'}, "nested"),
        ({"error": "{not json"}, "{not json"),
        ({"error": {"error": {"error": {"error": "deep"}}}}, "deep"),
        ({"error": {"error": {"error": {"error": {"error": "too deep"}}}}}, ""),
        ({"error": {"code": 5}}, ""),
        ({"error": 5}, ""),
        ({"error": {"message": 5}}, ""),
    ],
)
def test_the_text_of_an_error_is_found_in_every_shape(
    reply: dict[str, Any], text: str | None
) -> None:
    assert error_of(reply) == text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("LLAMA3.2:1b", "llama3.2:1b"),
        (" registry.ollama.ai/library/tiny ", "tiny:latest"),
        ("https://registry.ollama.ai/library/tiny", "tiny:latest"),
        ("library/tiny:x", "tiny:x"),
        ("hf.co/user/repo:Q4_K_M", "hf.co/user/repo:q4_k_m"),
        ("host:5000/ns/m", "host:5000/ns/m:latest"),
    ],
)
def test_names_are_compared_in_one_form(name: str, expected: str) -> None:
    assert canonical(name) == expected


@pytest.mark.parametrize(
    ("name", "remote"),
    [("gpt-oss:cloud", True), ("gpt-oss:120b-cloud", True), ("gpt-oss:120b", False), ("c", False)],
)
def test_a_cloud_model_is_known_by_its_tag(name: str, remote: bool) -> None:
    assert is_remote(name) is remote


def test_the_names_of_models_are_read_from_a_list_however_odd() -> None:
    assert model_names({"models": [{"name": "Tiny"}, {"name": 5}, "x"]}) == {"tiny:latest"}
    assert model_names({"models": None}) == frozenset()


@given(
    st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))),
    st.lists(st.integers(1, 7), min_size=1),
)
def test_lines_come_out_whole_wherever_the_network_cuts_them(
    lines: list[str], cuts: list[int]
) -> None:
    data = "\n".join(lines).encode()
    decoder, found, start = LineDecoder(), [], 0
    while start < len(data):
        size = cuts[start % len(cuts)]
        found += decoder.feed(data[start : start + size])
        start += size
    found += decoder.finish()
    assert [line.decode() for line in found] == [line for line in lines if line.encode().strip()]
