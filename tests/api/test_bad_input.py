"""What ``chat/`` refuses, and whether it says which field, what is wrong and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, UnreadablePostError
from rest_framework.test import APIClient, force_authenticate

from ollama_bridge.api.serializers import ChatSerializer
from ollama_bridge.api.views import ChatView
from ollama_bridge.testing import FakeOllama

Ask = Callable[..., Any]
Configure = Callable[..., None]

QUESTION = {"role": "user", "content": "Hi"}

WRONG = [
    pytest.param({"message": ""}, "message", "empty", id="an empty message"),
    pytest.param({"message": " \n\t"}, "message", "empty", id="a blank message"),
    pytest.param({"message": None}, "message", "null", id="null"),
    pytest.param({"message": 5}, "message", "not a number", id="a number"),
    pytest.param({"message": True}, "message", "not true or false", id="a boolean"),
    pytest.param({"message": ["a"]}, "message", "not a list", id="a list"),
    pytest.param({"message": {"a": 1}}, "message", "not an object", id="an object"),
    pytest.param({"message": "a" * 8001}, "message", "8001 characters", id="too long a message"),
    pytest.param({"message": "a\x00b"}, "message", "U+0000, at character 2", id="NUL"),
    pytest.param({"message": "a\x1b[2J"}, "message", "U+001B", id="an escape sequence"),
    pytest.param({"message": "\ud83d"}, "message", "U+D83D, at character 1", id="half an emoji"),
    pytest.param({"history": None}, "history", "null", id="a history of null"),
    pytest.param({"history": {}}, "history", "not an object", id="a history that is an object"),
    pytest.param({"history": "x"}, "history", "not text", id="a history that is text"),
    pytest.param({"history": [QUESTION] * 51}, "history", "51 messages", id="a long history"),
    pytest.param({"history": ["x"]}, "history[0]", "an object", id="a turn that is text"),
    pytest.param({"history": [None]}, "history[0]", "null", id="a turn that is null"),
    pytest.param({"history": [{"role": "user"}]}, "history[0].content", "missing", id="no content"),
    pytest.param(
        {"history": [QUESTION, {"role": "user", "content": 1}]},
        "history[1].content",
        "not a number",
        id="a content that is a number",
    ),
    pytest.param(
        {"history": [{"role": "user", "content": "a" * 8001}]},
        "history[0].content",
        "8001 characters",
        id="too long a content",
    ),
    pytest.param(
        {"history": [{"role": "user", "content": "\x07"}]},
        "history[0].content",
        "U+0007",
        id="a bell in the history",
    ),
    pytest.param({"history": [{"content": "x"}]}, "history[0].role", "missing", id="no role"),
    pytest.param(
        {"history": [QUESTION | {"role": "boss"}]}, "history[0].role", "no role", id="a wrong role"
    ),
    pytest.param(
        {"history": [QUESTION | {"role": ["user"]}]}, "history[0].role", "no role", id="role list"
    ),
    pytest.param(
        {"history": [QUESTION | {"role": "system"}]},
        "history[0].role",
        "may not be set here",
        id="a system role",
    ),
    pytest.param(
        {"history": [QUESTION | {"role": "tool"}]},
        "history[0].role",
        "not available in this version",
        id="a tool role",
    ),
    pytest.param({"stream": "no"}, "stream", "not text", id="a stream of text"),
    pytest.param({"stream": 1}, "stream", "not a number", id="a stream of a number"),
    pytest.param({"stream": None}, "stream", "null", id="a stream of null"),
    *(
        pytest.param({name: None}, name, "not available in this version", id=name)
        for name in (
            *("use_case", "on_unavailable", "think", "format"),
            *("tools", "images", "strict_context"),
        )
    ),
    pytest.param({"temperature": 0.5}, "temperature", '"options"', id="temperature"),
    pytest.param({"max_tokens": 5}, "max_tokens", '"num_predict"', id="max_tokens"),
    *(
        pytest.param({name: 5}, name, "for the site to decide", id=name)
        for name in (*("keep_alive", "timeout", "using", "sticky_key", "cache_ttl", "cache_scope"),)
    ),
    pytest.param(
        {"history": [{"role": "user", "content": "a", "images": []}]},
        "history[0].images",
        "not available in this version",
        id="an image in the history",
    ),
    *(
        pytest.param({name: value}, name, "may not be set here", id=f"{name} without leave")
        for name, value in {"model": "m", "system_prompt": "", "options": {}}.items()
    ),
]

ALLOWED = {"CLIENT_MAY_SET": ["model", "system_prompt", "options"], "ALLOWED_MODELS": ["llama3.2"]}

WRONG_WHERE_ALLOWED = [
    pytest.param({"model": "gpt"}, "model", "Send one of: llama3.2.", id="another model"),
    pytest.param({"model": ""}, "model", "empty", id="no model"),
    pytest.param({"model": None}, "model", "null", id="a model of null"),
    pytest.param({"model": ["llama3.2"]}, "model", "not a list", id="a list of models"),
    pytest.param({"model": "a b"}, "model", "no name of a model", id="a model with a blank"),
    pytest.param({"model": "a" * 256}, "model", "no name of a model", id="a long model"),
    pytest.param({"system_prompt": 1}, "system_prompt", "not a number", id="a numeric prompt"),
    pytest.param({"system_prompt": "a" * 8001}, "system_prompt", "8001", id="a long prompt"),
    pytest.param({"options": []}, "options", "not a list", id="a list of options"),
    pytest.param({"options": None}, "options", "null", id="options of null"),
    pytest.param({"options": {"num_ctx": 1}}, "options.num_ctx", "Send only: temp", id="num_ctx"),
    pytest.param({"options": {"a b": 1}}, "options", "no option", id="no name of an option"),
    pytest.param({"options": {"\ud83d": 1}}, "options", "no option", id="half an emoji as option"),
    *(
        pytest.param({"options": {name: value}}, f"options.{name}", wanted, id=f"{name} {value}")
        for name, value, wanted in (
            ("temperature", "hot", "a number from 0 to 100"),
            ("temperature", True, "a number"),
            ("temperature", -0.1, "a number"),
            ("temperature", None, "a number"),
            ("top_p", 1.1, "a number from 0 to 1"),
            ("top_k", 1.0, "a whole number from 0 to 2147483647"),
            ("top_k", False, "a whole number"),
            ("seed", 2**31, "a whole number"),
            ("num_predict", 0, "a whole number from 1"),
            ("num_predict", -1, "a whole number from 1"),
            ("stop", "x", "a list of at most 16 texts"),
            ("stop", [1], "a list"),
            ("stop", [""], "a list"),
            ("stop", ["\ud83d"], "a list"),
            ("stop", ["x"] * 17, "a list"),
        )
    ),
]


def _is_refused(response: Any, path: str, words: str) -> None:
    body = response.json()
    assert response.status_code == 400
    assert body["code"] == "invalid"
    assert body["success"] is False
    assert list(body["fields"]) == [path]
    (sentence,) = body["fields"][path]
    assert words in sentence
    problem, remedy = sentence.removesuffix(".").split(". ")
    assert problem
    assert remedy
    assert body["error"] == f"{path}: {sentence}"
    assert set(body) == {"success", "error", "code", "request_id", "fields"}


@pytest.mark.parametrize(("fields", "path", "words"), WRONG)
def test_a_wrong_field_is_named_with_its_problem_and_a_remedy(
    ask: Ask, fake_ollama: FakeOllama, fields: dict[str, Any], path: str, words: str
) -> None:
    _is_refused(ask(**fields), path, words)
    assert fake_ollama.requests == []


@pytest.mark.parametrize(("fields", "path", "words"), WRONG_WHERE_ALLOWED)
def test_a_field_that_may_be_set_is_checked_too(
    ask: Ask, configure: Configure, fields: dict[str, Any], path: str, words: str
) -> None:
    configure(**ALLOWED)
    _is_refused(ask(**fields), path, words)


def test_all_wrong_fields_are_named_together(ask: Ask) -> None:
    body = ask(message="", stream="yes", history=[{"role": "boss"}]).json()
    assert set(body["fields"]) == {"message", "stream", "history[0].role", "history[0].content"}
    assert body["error"].startswith("message: ")


def test_no_flood_of_complaints_answers_a_flood_of_options(ask: Ask, configure: Configure) -> None:
    configure(**ALLOWED)
    body = ask(options={f"option{number}": 1 for number in range(1000)}).json()
    assert len(body["fields"]) == 10


def test_options_beyond_the_usual_are_checked_where_the_settings_offer_them(
    ask: Ask, configure: Configure, fake_ollama: FakeOllama
) -> None:
    configure(CLIENT_MAY_SET=["options"], CLIENT_OPTIONS=["use_mmap", "mood", "num_ctx", "weight"])
    body = ask(options={"use_mmap": 1, "mood": [], "num_ctx": 0, "weight": "\ud83d"}).json()
    assert set(body["fields"]) == {
        "options.use_mmap",
        "options.mood",
        "options.num_ctx",
        "options.weight",
    }
    options = {"use_mmap": True, "mood": "calm", "num_ctx": 4096, "weight": 0.5}
    assert ask(options=options).status_code == 200
    assert fake_ollama.chats[0].json["options"] == options


def test_limits_follow_the_settings(ask: Ask, configure: Configure) -> None:
    configure(MAX_MESSAGE_CHARS=3, MAX_HISTORY=0)
    assert ask(message="abc").status_code == 200
    assert ask(message="abcd").status_code == 400
    assert "latest 0" in ask(message="abc", history=[QUESTION]).json()["error"]


def test_a_complaint_never_repeats_what_was_sent(ask: Ask) -> None:
    body = ask(message="xyzzy\x00", history=[{"role": "xyzzy", "content": "xyzzy\x00"}])
    assert b"xyzzy" not in body.content


class TestTheBody:
    @pytest.fixture
    def post(self, member: APIClient, configure: Configure) -> Callable[..., Any]:
        configure(MAX_BODY_BYTES=2000)

        def post(body: bytes, content_type: str = "application/json") -> Any:
            return member.post("/api/chat/", body, content_type=content_type)

        return post

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"What is water?",
            b'{"message": xyzzy}',
            b'{"message": "\xff"}',
            b'{"message": NaN}',
            b"1" * 5000,
            b"[" * 200_000,
        ],
    )
    def test_is_json(self, post: Any, configure: Configure, body: bytes) -> None:
        configure()
        response = post(body)
        assert response.status_code == 400
        assert response.json()["code"] == "invalid"
        assert response.json()["error"].startswith("The body is not valid JSON. Send for example")
        assert b"xyzzy" not in response.content

    @pytest.mark.parametrize("body", [b"[]", b'"hi"', b"5", b"null", b"true"])
    def test_is_an_object(self, post: Any, body: bytes) -> None:
        response = post(body)
        assert response.status_code == 400
        assert response.json()["error"].startswith("The body must be a JSON object")

    @pytest.mark.parametrize("body", [b"", b"{}"])
    def test_has_a_message(self, post: Any, body: bytes) -> None:
        assert post(body).json()["fields"] == {"message": ["This is missing. Send it."]}

    @pytest.mark.parametrize(
        "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
    )
    def test_is_sent_as_json(self, post: Any, content_type: str) -> None:
        response = post(b"message=Hi", content_type)
        assert response.status_code == 415
        assert response.json()["code"] == "unsupported_media_type"
        assert "Content-Type: application/json" in response.json()["error"]

    def test_is_of_a_known_text_encoding(self, post: Any) -> None:
        response = post(b'{"message": "Hi"}', "application/json; charset=bz2")
        assert response.status_code == 400

    def test_is_refused_by_its_length_before_it_is_read(self, post: Any) -> None:
        response = post(json.dumps({"message": "a" * 1990}).encode())
        assert response.status_code == 413
        body = response.json()
        assert body.pop("request_id")
        assert body == {
            "success": False,
            "error": "The request is too large. Send a shorter message or history.",
            "code": "too_large",
        }

    @pytest.mark.parametrize("length", ["many", "-5", "9" * 5000])
    def test_declares_its_length_in_a_number(self, member: APIClient, length: str) -> None:
        response = member.post(
            "/api/chat/", "{}", content_type="application/json", CONTENT_LENGTH=length
        )
        assert response.status_code == 400
        assert "Content-Length" in response.json()["error"]

    def test_may_be_as_large_as_the_limit(self, post: Any) -> None:
        body = json.dumps({"message": "Hi"}).encode()
        assert post(body.ljust(2000)).status_code == 200

    def test_obeys_the_limit_of_the_project_too(self, post: Any, settings: Any) -> None:
        settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
        response = post(b'{"message": "Hello"}')
        assert response.status_code == 413
        assert response.json()["code"] == "too_large"


class TestABodyWithoutItsLength:
    """As a proxy or a client sends it in chunks."""

    HEADERS = (
        (b"content-type", b"application/json"),
        (b"transfer-encoding", b"chunked"),
    )

    @pytest.fixture(autouse=True)
    def _limit(self, configure: Configure) -> None:
        configure(MAX_BODY_BYTES=100)

    def _answer(self, request: HttpRequest) -> Any:
        force_authenticate(request, User(pk=7))
        return ChatView.as_view()(request)

    def _over_asgi(self, body: BytesIO) -> ASGIRequest:
        scope = {"type": "http", "method": "POST", "path": "/chat/", "headers": self.HEADERS}
        return ASGIRequest(scope, body)

    def test_is_read_under_asgi(self) -> None:
        request = self._over_asgi(BytesIO(b'{"message": "Hi"}'))
        assert self._answer(request).status_code == 200

    def test_is_refused_under_asgi_where_it_is_too_large(self) -> None:
        request = self._over_asgi(BytesIO(b'{"message": "Hi"}'.ljust(101)))
        assert self._answer(request).status_code == 413

    def test_is_refused_under_wsgi_because_it_cannot_be_read(self) -> None:
        environ = {
            "REQUEST_METHOD": "POST",
            "CONTENT_TYPE": "application/json",
            "HTTP_TRANSFER_ENCODING": "chunked",
            "wsgi.input": BytesIO(b'{"message": "Hi"}'),
        }
        response = self._answer(WSGIRequest(environ))
        assert response.status_code == 400
        assert "Content-Length" in response.data["error"]

    def test_that_breaks_off_is_no_fault_of_the_servers(self) -> None:
        class Broken(BytesIO):
            def read(self, *_: object) -> bytes:
                raise UnreadablePostError

        response = self._answer(self._over_asgi(Broken()))
        assert response.status_code == 400
        assert response.data["error"] == "The request broke off. Send it again."


def test_what_was_validated_can_be_shown() -> None:
    serializer = ChatSerializer(data={"message": "Hi"})
    assert serializer.is_valid()
    assert serializer.data == {"message": "Hi"}


class TestTheAddress:
    @pytest.mark.parametrize("method", ["get", "put", "delete"])
    def test_takes_post_only(self, member: APIClient, method: str) -> None:
        response = getattr(member, method)("/api/chat/", content_type="text/plain")
        assert response.status_code == 405
        assert response.json()["code"] == "method_not_allowed"
        assert "POST" in response.headers["Allow"]

    @pytest.mark.parametrize("accept", ["text/html", "text/event-streams", "image/*"])
    def test_gives_json_and_events_only(self, member: APIClient, accept: str) -> None:
        response = member.post("/api/chat/", {}, format="json", headers={"Accept": accept})
        assert response.status_code == 406
        assert response.json()["code"] == "not_acceptable"
        assert response.headers["Content-Type"] == "application/json"

    def test_has_no_other_format(self, member: APIClient) -> None:
        response = member.post("/api/chat/?format=xml", {}, format="json")
        assert response.status_code == 404
        assert response.json()["code"] == "not_found"
