"""Chat over HTTP through real servers: live events, honest statuses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from ollama_bridge.testing import FakeOllama, faults

from .conftest import LONG, SHORT
from .reading import HEARTBEAT
from .running import Server
from .upstreams import HeldBefore, Stepped

TOKENS = 7
AT_ONCE = 1.0
"""Seconds that an event may take through two processes of a busy machine."""

Misbehave = Callable[[FakeOllama], None]


def test_each_event_arrives_before_its_upstream_sends_the_next(
    server: Server, ollama: FakeOllama
) -> None:
    stepped = Stepped(1)
    ollama.misbehave(stepped)
    with server.stream() as answer:
        arrived = []
        for _ in range(TOKENS):
            arrived.append(answer.event())
            stepped.step()
        end = answer.events()
    assert [event.name for event in arrived] == ["delta"] * TOKENS
    assert "".join(event.text for event in arrived) == SHORT
    assert [event.name for event in end] == ["done"]
    took = [event.at - sent for event, sent in zip(arrived, stepped.sent, strict=False)]
    assert max(took) < AT_ONCE


def test_headers_let_nobody_hold_events_back(server: Server) -> None:
    with server.stream() as answer:
        answer.events()
    wanted = {
        "Content-Type": "text/event-stream",
        "Content-Encoding": "identity",
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
        "Content-Length": None,
    }
    assert {name: answer.headers[name] for name in wanted} == wanted
    assert answer.status == 200


def test_the_last_event_is_the_body_of_a_plain_answer(server: Server) -> None:
    sent = {"X-Request-ID": "my-request", "Accept": "text/event-stream"}
    with server.post("/api/chat/", {"message": "Hi"}, **sent) as answer:
        *deltas, done = answer.events()
    assert {event.name for event in deltas} == {"delta"}
    assert done.name == "done"
    assert done.data["success"] is True
    assert done.data["response"] == SHORT
    assert done.data["usage"]["completion_tokens"] == TOKENS
    assert done.data["request_id"] == answer.headers["X-Request-ID"] == "my-request"


def test_a_plain_answer_comes_whole_and_packed_where_the_site_packs(
    server: Server, is_packing: bool
) -> None:
    with server.chat(message=LONG) as answer:
        body = answer.json()
    assert (answer.status, body["response"]) == (200, LONG)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Encoding"] == ("gzip" if is_packing else None)
    assert answer.headers["X-Request-ID"] == body["request_id"]


def test_a_client_that_takes_events_only_gets_errors_as_json(server: Server) -> None:
    with server.post("/api/chat/", {"message": ""}, Accept="text/event-stream") as answer:
        body = answer.json()
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert list(body["fields"]) == ["message"]


def test_thinking_comes_as_events_of_its_own(server: Server, ollama: FakeOllama) -> None:
    server.configure(MODEL="thinker")
    stepped = Stepped(1)
    ollama.misbehave(stepped)
    with server.stream() as answer:
        first = answer.event()
        stepped.finish()
        rest = answer.events()
    thoughts = [event.text for event in [first, *rest] if event.name == "thinking"]
    assert first.name == "thinking"
    assert "".join(thoughts) == "The simulator thinks before it answers."
    assert "".join(event.text for event in rest if event.name == "delta") == SHORT
    assert rest[-1].data["response"] == SHORT


def test_silence_is_filled_with_heartbeats(server: Server, ollama: FakeOllama) -> None:
    server.configure(heartbeat=0.1)
    stepped = Stepped(1)
    ollama.misbehave(stepped)
    with server.stream() as answer:
        silence = [answer.event().name for _ in range(4)]
        stepped.finish()
        rest = answer.names()
    assert silence == ["delta", HEARTBEAT, HEARTBEAT, HEARTBEAT]
    assert [name for name in rest if name != HEARTBEAT] == ["delta", "done"]


def test_the_response_begins_without_a_delta_after_a_while(
    server: Server, ollama: FakeOllama
) -> None:
    server.configure(SSE_COMMIT_AFTER=0.2)
    stepped = Stepped()
    ollama.misbehave(stepped)
    with server.stream() as answer:
        first = answer.event()
        assert stepped.sent == []
        stepped.finish()
        names = answer.names()
    assert (answer.status, first.name) == (200, HEARTBEAT)
    assert [name for name in names if name != HEARTBEAT] == ["delta", "done"]


def test_a_reader_who_comes_late_gets_everything(plain_server: Server) -> None:
    with ThreadPoolExecutor(1) as client:
        call = client.submit(plain_server.stream, "/api/chat/?way_out=held", message=LONG)
        plain_server.wait_for_state({"held": 1})
        plain_server.let_go()
        with call.result() as answer:
            events = answer.events()
    assert "".join(event.text for event in events if event.name == "delta") == LONG
    assert events[-1].name == "done"


@pytest.mark.parametrize("path", ["/api/chat/", "/post-only/"], ids=["native", "post-only"])
def test_no_database_connection_is_open_while_it_is_written_whatever_middleware_asked(
    plain_server: Server, ollama: FakeOllama, path: str
) -> None:
    stepped = Stepped(1)
    ollama.misbehave(stepped)
    with plain_server.stream(f"{path}?way_out=asking+the+database") as answer:
        assert answer.event().name == "delta"
        plain_server.wait_for_state({"databases": 0})
        stepped.finish()
        assert answer.names()[-1] == "done"


def refuse(ollama: FakeOllama) -> None:
    ollama.refuse()


def hang(ollama: FakeOllama) -> None:
    ollama.misbehave(faults.BlackHole())


def crash(ollama: FakeOllama) -> None:
    ollama.misbehave(faults.server_error())


def lose_its_model(ollama: FakeOllama) -> None:
    ollama.misbehave(faults.model_missing())


@pytest.mark.parametrize("is_streamed", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("misbehave", "status", "code"),
    [
        (refuse, 503, "connection_failed"),
        (hang, 504, "timeout"),
        (crash, 502, "upstream_failed"),
        (lose_its_model, 503, "model_not_found"),
    ],
)
def test_an_error_before_the_first_delta_has_its_status(
    server: Server,
    ollama: FakeOllama,
    misbehave: Misbehave,
    status: int,
    code: str,
    is_streamed: bool,
) -> None:
    server.configure(TIMEOUT=0.5, CONNECT_TIMEOUT=0.5, MAX_RETRIES=1)
    misbehave(ollama)
    with server.chat(stream=is_streamed) as answer:
        body = answer.json()
    assert (answer.status, body["code"], body["success"]) == (status, code, False)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-ID"] == body["request_id"]
    assert ("Retry-After" in answer.headers) is (status == 503)


def test_a_silent_upstream_after_its_headers_is_a_timeout(
    server: Server, ollama: FakeOllama
) -> None:
    server.configure(FIRST_TOKEN_TIMEOUT=0.3)
    ollama.misbehave(Stepped())
    with server.stream() as answer:
        body = answer.json()
    assert (answer.status, body["code"]) == (504, "timeout")


@pytest.mark.parametrize("is_streamed", [False, True], ids=["plain", "stream"])
def test_who_is_not_logged_in_is_told_so(server: Server, is_streamed: bool) -> None:
    server.configure(PERMISSION_CLASSES=["rest_framework.permissions.IsAuthenticated"])
    with server.chat(stream=is_streamed) as answer:
        body = answer.json()
    assert (answer.status, body["code"]) == (401, "not_authenticated")
    assert answer.headers["WWW-Authenticate"] == "Session"


@pytest.mark.parametrize("is_streamed", [False, True], ids=["plain", "stream"])
def test_a_stream_is_one_of_its_users_calls_until_it_ends(
    server: Server, ollama: FakeOllama, is_streamed: bool
) -> None:
    server.configure(MAX_CALLS_PER_USER=2)
    stepped = Stepped(1)
    ollama.misbehave(stepped)
    with ExitStack() as stack:
        streams = [stack.enter_context(server.stream()) for _ in range(2)]
        assert [stream.event().name for stream in streams] == ["delta"] * 2
        with server.chat(stream=is_streamed) as refused:
            body = refused.json()
        assert (refused.status, body["code"]) == (429, "throttled")
        assert int(refused.headers["Retry-After"]) >= 1
        stepped.finish()
        assert [stream.events()[-1].name for stream in streams] == ["done"] * 2
    with server.chat(stream=is_streamed) as taken:
        taken.text()
    assert taken.status == 200


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (faults.unavailable(), "upstream_failed"),
        (faults.Reset(), "connection_failed"),
        (faults.ErrorLine(after=0), "upstream_failed"),
    ],
    ids=["503", "reset", "error-line"],
)
def test_an_error_after_the_response_began_is_an_event(
    server: Server, ollama: FakeOllama, fault: Any, code: str
) -> None:
    server.configure(SSE_COMMIT_AFTER=0.2, MAX_RETRIES=0)
    held = HeldBefore(fault)
    ollama.misbehave(held)
    with server.stream() as answer:
        assert answer.event().name == HEARTBEAT
        held.let_go()
        events = [event for event in answer.events() if event.name != HEARTBEAT]
    assert [event.name for event in events] == ["error"]
    assert (events[0].data["success"], events[0].data["code"]) == (False, code)
    assert events[0].data["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    "fault",
    [faults.CutStream(after=3), faults.CutStream(after=3, reset=True), faults.ErrorLine(after=3)],
    ids=["cut", "reset", "error-line"],
)
def test_a_stream_that_breaks_off_ends_with_an_error_after_its_deltas(
    server: Server, ollama: FakeOllama, fault: Any
) -> None:
    ollama.misbehave(fault)
    with server.stream() as answer:
        *deltas, error = answer.events()
    assert answer.status == 200
    assert {event.name for event in deltas} == {"delta"}
    assert "".join(event.text for event in deltas) == "Water is wet"
    assert (error.name, error.data["code"]) == ("error", "stream_interrupted")
    assert error.data["success"] is False
