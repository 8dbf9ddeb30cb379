"""What ``chat`` takes, and what it says of what it does not take."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge.testing import FakeOllama

if TYPE_CHECKING:
    from tests.conftest import MakeClient

CANARY = "the-canary-sings-at-dawn"
QUESTION = "What is water?"


class Text(str):
    """A string of another class."""

    __slots__ = ()


WRONG: list[tuple[str, type[Exception], dict[str, Any]]] = [
    ("message", TypeError, {"message": None}),
    ("message", TypeError, {"message": 5}),
    ("message", TypeError, {"message": CANARY.encode()}),
    ("message", TypeError, {"message": [CANARY]}),
    ("message", ValueError, {"message": ""}),
    ("message", ValueError, {"message": " \n\t"}),
    ("message", ValueError, {"message": f"{CANARY}\ud800"}),
    ("system_prompt", TypeError, {"system_prompt": 5}),
    ("system_prompt", TypeError, {"system_prompt": 0}),
    ("system_prompt", TypeError, {"system_prompt": [CANARY]}),
    ("system_prompt", ValueError, {"system_prompt": f"{CANARY}\udfff"}),
    ("history", TypeError, {"history": None}),
    ("history", TypeError, {"history": 5}),
    ("history", TypeError, {"history": CANARY}),
    ("history", TypeError, {"history": {"role": "user", "content": CANARY}}),
    ("history[0]", TypeError, {"history": [CANARY]}),
    ("history[0]", TypeError, {"history": [None]}),
    ("history[0].role", ValueError, {"history": [{"content": CANARY}]}),
    ("history[0].role", ValueError, {"history": [{"role": CANARY, "content": "x"}]}),
    ("history[0].role", ValueError, {"history": [{"role": [], "content": CANARY}]}),
    ("history[0].role", ValueError, {"history": [{"role": "tool", "content": CANARY}]}),
    ("history[0].content", TypeError, {"history": [{"role": "user"}]}),
    ("history[0].content", TypeError, {"history": [{"role": "user", "content": [CANARY]}]}),
    ("history[0].content", ValueError, {"history": [{"role": "user", "content": "\ud800"}]}),
    (
        "history[1]",
        ValueError,
        {"history": [{"role": "user", "content": "x"}, {"role": "user", "contents": CANARY}]},
    ),
    ("model", ValueError, {"model": 5}),
    ("model", ValueError, {"model": ""}),
    ("model", ValueError, {"model": "two words"}),
    ("model", ValueError, {"model": "a\nb"}),
    ("model", ValueError, {"model": "a\ud800"}),
    ("temperature", TypeError, {"temperature": "0.7"}),
    ("temperature", TypeError, {"temperature": True}),
    ("temperature", ValueError, {"temperature": -0.1}),
    ("temperature", ValueError, {"temperature": float("nan")}),
    ("temperature", ValueError, {"temperature": float("inf")}),
    ("temperature", ValueError, {"temperature": 10**400}),
    ("max_tokens", TypeError, {"max_tokens": 1.5}),
    ("max_tokens", TypeError, {"max_tokens": True}),
    ("max_tokens", TypeError, {"max_tokens": "5"}),
    ("max_tokens", ValueError, {"max_tokens": 0}),
    ("max_tokens", ValueError, {"max_tokens": -1}),
    ("options", TypeError, {"options": 5}),
    ("options", TypeError, {"options": [CANARY]}),
    ("options", TypeError, {"options": {5: CANARY}}),
    ("options", ValueError, {"options": {"stop": {CANARY}}}),
    ("options", ValueError, {"options": {"seed": float("nan")}}),
    ("options", ValueError, {"options": {"stop": [f"{CANARY}\ud800"]}}),
    ("options", ValueError, {"options": {f"{CANARY}\ud800": 1}}),
    ("max_tokens", ValueError, {"max_tokens": 5, "options": {"num_predict": 5}}),
    ("temperature", ValueError, {"temperature": 1, "options": {"temperature": 1}}),
    ("timeout", TypeError, {"timeout": "5"}),
    ("timeout", TypeError, {"timeout": True}),
    ("timeout", ValueError, {"timeout": 0}),
    ("timeout", ValueError, {"timeout": -1}),
    ("timeout", ValueError, {"timeout": float("nan")}),
    ("timeout", ValueError, {"timeout": float("inf")}),
    ("timeout", ValueError, {"timeout": 1e300}),
    ("timeout", ValueError, {"timeout": 10**400}),
    ("keep_alive", ValueError, {"keep_alive": True}),
    ("keep_alive", ValueError, {"keep_alive": "5"}),
    ("keep_alive", ValueError, {"keep_alive": "soon"}),
    ("keep_alive", ValueError, {"keep_alive": float("nan")}),
    ("keep_alive", ValueError, {"keep_alive": ["5m"]}),
]


def too_deep() -> dict[str, Any]:
    nested: Any = CANARY
    for _ in range(100_000):
        nested = [nested]
    return {"stop": nested}


@pytest.mark.parametrize(("named", "kind", "arguments"), WRONG)
def test_a_wrong_argument_is_named_and_no_text_is_quoted(
    fake_ollama: FakeOllama,
    make_client: MakeClient,
    named: str,
    kind: type[Exception],
    arguments: dict[str, Any],
) -> None:
    call = {"message": f"{QUESTION} {CANARY}", **arguments}
    with pytest.raises((TypeError, ValueError)) as caught:
        make_client().chat(**call)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(named)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert CANARY not in repr(caught.value.args)
    assert fake_ollama.chats == []


def test_options_that_are_nested_too_deeply_are_named(make_client: MakeClient) -> None:
    with pytest.raises(ValueError, match=r"^options"):
        make_client().chat(QUESTION, options=too_deep())


def test_a_wrong_argument_leaves_the_circuit_alone(make_client: MakeClient) -> None:
    client = make_client(failure_threshold=1)
    with pytest.raises(ValueError, match="message"):
        client.chat("")
    assert client.circuit_breaker.state == "closed"
    assert client.circuit_breaker.generation == 0


def test_the_least_call_sends_the_least(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    make_client().chat(QUESTION)
    (request,) = fake_ollama.chats
    assert (request.method, request.target) == ("POST", "/api/chat")
    assert request.json == {
        "model": "llama3.2",
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": False,
    }


def test_every_argument_arrives(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    history = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello. What is it?"},
        {"role": "system", "content": "Be short."},
    ]
    make_client().chat(
        QUESTION,
        "You are a teacher for Class 1.",
        history=history,
        model="llama3.2:latest",
        temperature=0,
        max_tokens=20,
        options={"seed": 42, "stop": ["\n"], "num_ctx": None},
        keep_alive="5m",
    )
    assert fake_ollama.chats[0].json == {
        "model": "llama3.2:latest",
        "messages": [
            {"role": "system", "content": "You are a teacher for Class 1."},
            *history,
            {"role": "user", "content": QUESTION},
        ],
        "stream": False,
        "options": {
            "seed": 42,
            "stop": ["\n"],
            "num_ctx": None,
            "temperature": 0,
            "num_predict": 20,
        },
        "keep_alive": "5m",
    }


def test_settings_fill_what_the_call_leaves_out(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(
        system_prompt="Be kind.", options={"seed": 1, "top_k": 5}, keep_alive=300, model="llama3.2"
    )
    client.chat(QUESTION, options={"seed": 2})
    sent = fake_ollama.chats[0].json
    assert sent["messages"][0] == {"role": "system", "content": "Be kind."}
    assert sent["options"] == {"seed": 2, "top_k": 5}
    assert sent["keep_alive"] == 300


def test_arguments_win_over_the_options_of_the_settings(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(options={"temperature": 1, "num_predict": 5}, system_prompt="Be kind.")
    client.chat(QUESTION, "", temperature=0.5, max_tokens=50)
    sent = fake_ollama.chats[0].json
    assert sent["options"] == {"temperature": 0.5, "num_predict": 50}
    assert [message["role"] for message in sent["messages"]] == ["user"]


@pytest.mark.parametrize("keep_alive", [0, -1, 2.5, "0", "1h30m", "-1m"])
def test_keep_alive_goes_as_it_is(
    fake_ollama: FakeOllama, make_client: MakeClient, keep_alive: str | float
) -> None:
    make_client().chat(QUESTION, keep_alive=keep_alive)
    assert fake_ollama.chats[0].json["keep_alive"] == keep_alive


@pytest.mark.parametrize(
    "text",
    [
        "Was ist Wasser? Öl, Straße, 水は何ですか, مرحبا, 🤖👩‍🏫",  # all scripts
        "nul \0, tab \t, bell \a",
        "\u2028 and \u0085 and \r\n and \\ and \"quotes\" and {'json': 1}",
        "x" * 1_000_000,
    ],
    ids=["unicode", "controls", "separators", "a million"],
)
def test_any_text_arrives_and_comes_back_as_it_was(make_client: MakeClient, text: str) -> None:
    with FakeOllama(answer=lambda prompt: f"<{prompt}>") as server:
        assert (
            make_client(base_url=server.url).chat(text, options={"num_ctx": 10**7}) == f"<{text}>"
        )
        assert server.chats[0].prompt == text


def test_history_may_be_any_iterable_and_hold_replies(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    first = client.chat(QUESTION)
    client.chat(
        Text("And ice?"),
        history=(
            item
            for item in (
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": first},
            )
        ),
    )
    assert [message["content"] for message in fake_ollama.chats[1].json["messages"]] == [
        QUESTION,
        str(first),
        "And ice?",
    ]


def test_what_the_caller_changes_later_is_not_sent(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    options: dict[str, object] = {"seed": 1}
    client = make_client(options=options)
    options["seed"] = 2
    client.chat(QUESTION)
    client.chat(QUESTION, options={"top_k": 1})
    assert [chat.json["options"]["seed"] for chat in fake_ollama.chats] == [2, 2]


@pytest.mark.parametrize("name", ["model", "keep_alive"])
def test_a_prompt_in_the_place_of_another_argument_is_not_quoted(
    make_client: MakeClient, name: str
) -> None:
    swapped: dict[str, Any] = {name: f"canary {QUESTION} canary"}
    with pytest.raises(ValueError, match=f"^{name} has a wrong value") as caught:
        make_client().chat("llama3.2", **swapped)
    assert "canary" not in str(caught.value)
