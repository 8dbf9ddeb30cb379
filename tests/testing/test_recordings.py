"""`FakeOllama` against everything that was recorded from a real server."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ollama_bridge.testing import FakeModel, FakeOllama
from tests.testing.plainhttp import Answer, ask, chat, connect, once, open_socket, read_to_end

LINES = Path(__file__).parent.parent.joinpath("fixtures", "observed-wire.jsonl").read_bytes()
RECORDINGS: dict[str, dict[str, Any]] = {
    recording["name"]: recording for recording in map(json.loads, LINES.splitlines())
}

LEFT_OUT = {
    "42_logprobs": "the bridge never asks for log probabilities",
    "75_pull_unreachable": "the fake pulls nothing",
    "76_pull_unreachable_nonstream": "the fake pulls nothing",
    "77_pull_empty": "the fake pulls nothing",
    "78_pull_badname": "the fake pulls nothing",
    "80_copy": "the fake's models are fixed",
    "81_delete": "the fake's models are fixed",
    "82_delete_unknown": "the fake's models are fixed",
    "83_v1_models": "the bridge does not use the OpenAI paths",
    "84_v1_chat": "the bridge does not use the OpenAI paths",
    "85_v1_unknown": "the bridge does not use the OpenAI paths",
    "86_v1_stream": "the bridge does not use the OpenAI paths",
}
# The recordings do not hold what curl was told by these names.
SENT = {
    "73_origin_bad": {"Origin": "http://evil.example"},
    "74_host_bad": {"Host": "evil.example"},
    "93_chat_gzip": {"Accept-Encoding": "gzip"},
}
NEEDS_A_LOADED_MODEL = ("04_ps", "90_ps_after", "92_ps_after")
REPLAYED = [name for name in RECORDINGS if name not in LEFT_OUT]


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    models = (
        FakeModel("think", capabilities=("completion", "thinking")),
        FakeModel("tools", capabilities=("completion", "tools")),
        FakeModel("embedder", capabilities=("embedding",), context_length=4),
        *("slow", "tiny", "endless"),
    )
    with FakeOllama(models=models) as running:
        yield running


def replay(server: FakeOllama, name: str) -> Answer:
    recording = RECORDINGS[name]
    with closing(connect(server)) as connection:
        if name in NEEDS_A_LOADED_MODEL:
            ask(connection, "POST", "/api/chat", b'{"model":"tiny"}')
        body = recording["request"].encode()
        return ask(connection, recording["method"], recording["path"], body, SENT.get(name))


def shape(value: object) -> object:
    """The keys and JSON types of a value; a list is the set of the shapes in it."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(item)) for item in value})
    return "number" if type(value) in (int, float) else type(value).__name__


def body_shape(content_type: str, body: str) -> object:
    if "ndjson" in content_type:
        return shape([json.loads(line) for line in body.split("\n") if line])
    return shape(json.loads(body)) if "json" in content_type else body


def test_no_recording_is_forgotten() -> None:
    assert set(LEFT_OUT) <= set(RECORDINGS)
    assert len(REPLAYED) == 66


@pytest.mark.parametrize("name", REPLAYED)
def test_status_headers_and_framing_are_the_recorded_ones(server: FakeOllama, name: str) -> None:
    recording, answer = RECORDINGS[name], replay(server, name)
    recorded = recording["headers"]
    assert answer.status == recording["status"]
    assert [key for key, _ in answer.headers] == list(recorded)
    for key in recorded.keys() - {"Date", "Content-Length"}:
        assert answer.header(key) == recorded[key]
    assert answer.complete


@pytest.mark.parametrize("name", REPLAYED)
def test_bodies_have_the_recorded_keys_and_types(server: FakeOllama, name: str) -> None:
    recording, answer = RECORDINGS[name], replay(server, name)
    content_type = recording["headers"].get("Content-Type", "")
    recorded = body_shape(content_type, recording["body"])
    assert body_shape(content_type, answer.body.decode()) == recorded


@pytest.mark.parametrize("name", [n for n in REPLAYED if RECORDINGS[n]["status"] >= 400])
def test_refusals_have_the_recorded_words(server: FakeOllama, name: str) -> None:
    assert replay(server, name).body.decode() == RECORDINGS[name]["body"]


@pytest.mark.parametrize("name", [n for n in REPLAYED if "done" in RECORDINGS[n]["body"]])
def test_the_last_line_ends_as_recorded_and_keys_keep_their_order(
    server: FakeOllama, name: str
) -> None:
    recorded = RECORDINGS[name]["body"].strip().split("\n")[-1]
    ours = json.loads(replay(server, name).body.strip().split(b"\n")[-1])
    assert list(ours) == list(json.loads(recorded))
    assert ours["done"] is True


GO_TYPE = "json: cannot unmarshal {} into Go struct field {} of type {}"
# Seen on the same server, written down in observed-wire.md only.
MORE_REFUSALS = [
    ({"stream": "yes"}, 400, GO_TYPE.format("string", "ChatRequest.stream", "bool")),
    ({"model": "tiny:v9"}, 404, "model 'tiny:v9' not found"),
    ({"model": "bad name!"}, 400, "invalid model name"),
    ({"messages": [{"content": ["a"]}]}, 400, GO_TYPE.format("array", "Alias.content", "string")),
    ({"tools": "x"}, 400, GO_TYPE.format("string", "ChatRequest.tools", "api.Tools")),
    (
        {"options": "x"},
        400,
        GO_TYPE.format("string", "ChatRequest.options", "map[string]interface {}"),
    ),
    ({"options": {"num_predict": "5"}}, 500, 'option "num_predict" must be of type integer'),
    ({"options": {"stop": "x"}}, 500, 'option "stop" must be of type array'),
    ({"messages": [], "think": True}, 400, '"tiny" does not support thinking'),
]
# Not seen there, but written in the server's source.
FROM_THE_SOURCE = [
    ({"messages": ["hi"]}, 400, GO_TYPE.format("string", "ChatRequest.messages", "api.Message")),
    ({"model": "embedder"}, 400, '"embedder" does not support chat'),
]
MORE_ANSWERS = [
    {"model": "TINY"},
    {"model": "tiny:latest"},
    {"keep_alive": -1},
    {"keep_alive": "1h30m"},
    {"messages": [{"role": "user", "content": None}]},
    {"messages": [{"content": "hi"}]},
    {"options": {"num_ctx": 1_000_000_000}},
]


@pytest.mark.parametrize(("fields", "status", "text"), MORE_REFUSALS + FROM_THE_SOURCE)
def test_more_refusals_that_were_seen(
    server: FakeOllama, fields: dict[str, object], status: int, text: str
) -> None:
    answer = chat(server, **{"model": "tiny", **fields})
    assert answer.status == status
    assert answer.json == {"error": text}


@pytest.mark.parametrize("fields", MORE_ANSWERS)
def test_more_answers_that_were_seen(server: FakeOllama, fields: dict[str, object]) -> None:
    answer = chat(server, **{"model": "tiny", **fields})
    assert answer.status == 200
    assert answer.json["done"] is True
    assert answer.json["model"] == fields.get("model", "tiny")


def test_junk_after_the_body_is_ignored(server: FakeOllama) -> None:
    with closing(connect(server)) as connection:
        answer = ask(connection, "POST", "/api/chat", b'{"model":"tiny"} trailing')
    assert answer.status == 200


def test_a_list_is_no_request(server: FakeOllama) -> None:
    answer = once(server, "POST", "/api/chat", [])
    text = "json: cannot unmarshal array into Go value of type api.ChatRequest"
    assert (answer.status, answer.json) == (400, {"error": text})


def test_one_token_takes_no_time_to_evaluate(server: FakeOllama) -> None:
    answer = chat(server, model="tiny", options={"num_predict": 1})
    assert answer.json["eval_count"] == 1
    assert "eval_duration" not in answer.json


def test_embedding_nothing_says_nothing_about_time(server: FakeOllama) -> None:
    answer = once(server, "POST", "/api/embed", {"model": "tiny", "input": []})
    assert answer.json == {"model": "tiny", "embeddings": []}


def test_a_text_too_long_to_embed_is_refused_where_it_may_not_be_cut(server: FakeOllama) -> None:
    asked = {"model": "embedder", "input": ["one two three four five"], "truncate": False}
    answer = once(server, "POST", "/api/embed", asked)
    assert (answer.status, answer.json) == (
        400,
        {"error": "the input length exceeds the context length"},
    )


def test_embedding_without_an_input_only_loads(server: FakeOllama) -> None:
    assert once(server, "POST", "/api/embed", {"model": "tiny"}).json["embeddings"] == []


def test_null_is_an_empty_request(server: FakeOllama) -> None:
    with closing(connect(server)) as connection:
        answer = ask(connection, "POST", "/api/chat", b"null")
    assert (answer.status, answer.json) == (400, {"error": "model is required"})


def test_an_old_client_gets_its_stream_without_chunks(server: FakeOllama) -> None:
    body = b'{"model":"tiny","messages":[{"role":"user","content":"hi"}]}'
    head = f"POST /api/chat HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    with open_socket(server) as sock:
        sock.sendall(head.encode() + body)
        raw = read_to_end(sock)
    start, _, lines = raw.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.0 200 OK\r\nContent-Type: application/x-ndjson\r\nDate: ")
    assert b"Transfer-Encoding" not in start
    assert json.loads(lines.strip().split(b"\n")[-1])["done"] is True
