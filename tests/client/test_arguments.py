"""What ``chat`` takes; what it says of what it does not take is in ``test_forms``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import OllamaClient
from ollama_bridge.testing import FakeOllama

if TYPE_CHECKING:
    from pytest_django import Settings

    from tests.conftest import MakeClient

QUESTION = "What is water?"


class Text(str):
    """A string of another class."""

    __slots__ = ()


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


def test_where_to_ask_and_what_to_keep_is_not_sent(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    make_client().chat(
        QUESTION, using="default", sticky_key="user:7", cache_ttl=300, cache_scope="user:7"
    )
    (request,) = fake_ollama.chats
    assert request.json == {
        "model": "llama3.2",
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": False,
    }
    assert "user:7" not in str(request.headers)


def test_using_names_an_endpoint_or_a_route(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    with FakeOllama(models=["mistral"]) as other:
        client = make_client(
            endpoints={"other": {"BASE_URL": other.url, "MODEL": "mistral"}},
            routes={"fast": {"TARGETS": ["other"]}},
        )
        for using in ("other", "fast"):
            reply = client.chat(QUESTION, using=using)
            assert (reply.endpoint, reply.model) == ("other", "mistral")
        assert len(other.chats) == 2
    assert fake_ollama.chats == []


def test_an_unknown_name_is_answered_with_those_that_are_known(make_client: MakeClient) -> None:
    client = make_client(
        endpoints={"gpu": {"BASE_URL": "http://10.0.0.5:11434"}},
        routes={"fast": {"TARGETS": ["gpu"]}},
    )
    sentence = "^using names no route and no endpoint. Type one of: .*$"
    with pytest.raises(ValueError, match=sentence) as caught:
        client.chat(QUESTION, using="gpus")
    told = str(caught.value).partition("Type one of: ")[2].split(", ")
    assert {"fast", "gpu"} <= set(told)
    with pytest.raises(ValueError, match=r"Type one of: default$"):
        make_client().chat(QUESTION, using="gpu")


@pytest.mark.parametrize("models", [["missing", "llama3.2"], ("missing", "missing", "llama3.2")])
def test_models_of_a_list_are_tried_in_order(
    fake_ollama: FakeOllama, make_client: MakeClient, models: list[str]
) -> None:
    assert make_client().chat(QUESTION, model=models).model == "llama3.2"
    assert [chat.json["model"] for chat in fake_ollama.chats] == ["missing", "llama3.2"]


def test_a_cache_without_a_scope_is_told_what_to_type(make_client: MakeClient) -> None:
    with pytest.raises(ValueError, match=r'cache_scope=f"user:\{user\.pk\}", or "shared"'):
        make_client().chat(QUESTION, cache_ttl=300)


def test_a_key_of_another_type_is_told_what_to_type(make_client: MakeClient) -> None:
    key: Any = 7
    with pytest.raises(TypeError, match=r'^sticky_key must be .* not int\. Type .* f"user:'):
        make_client().chat(QUESTION, sticky_key=key)


def test_without_a_cache_nothing_can_be_kept(make_client: MakeClient) -> None:
    client = make_client(cache=None)
    with pytest.raises(ValueError, match=r'^cache_ttl needs a cache, .* Type CACHE = "default"'):
        client.chat(QUESTION, cache_ttl=300, cache_scope="shared")
    assert client.chat(QUESTION)


def test_a_client_with_a_server_of_its_own_has_no_other_servers(
    fake_ollama: FakeOllama, settings: Settings
) -> None:
    settings.OLLAMA_BRIDGE = {
        "ENDPOINTS": {"far": {"BASE_URL": "http://127.0.0.1:9"}},
        "ROUTES": {"default": {"TARGETS": ["far"]}},
    }
    with OllamaClient(base_url=fake_ollama.url) as client:
        assert client.chat(QUESTION).endpoint == "default"
        with pytest.raises(ValueError, match=r"Type one of: default$"):
            client.chat(QUESTION, using="far")


@pytest.mark.parametrize("name", ["model", "keep_alive"])
def test_a_prompt_in_the_place_of_another_argument_is_not_quoted(
    make_client: MakeClient, name: str
) -> None:
    swapped: dict[str, Any] = {name: f"canary {QUESTION} canary"}
    with pytest.raises(ValueError, match=f"^{name} has a wrong value") as caught:
        make_client().chat("llama3.2", **swapped)
    assert "canary" not in str(caught.value)
