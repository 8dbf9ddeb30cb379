"""``chat/`` as server-sent events, under WSGI and under ASGI."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.test import RequestFactory
from rest_framework.permissions import AllowAny

from ollama_bridge import ChatReply, context, ollama_client
from ollama_bridge.api import events
from ollama_bridge.api.concurrency import calls_by_user
from ollama_bridge.api.relay import Events
from ollama_bridge.api.views import ChatView, Question
from ollama_bridge.testing import FakeModel, FakeOllama, faults, when
from tests.api import sse
from tests.api.sites import EVENTS, JSON, MEMBER, STAFF, Site, wait_until
from tests.api.stepped import Stepped
from tests.net.held import Held

Configure = Callable[..., None]

CANARY = "heliotrope-armadillo"
KEY = "canary-5f3a"


@pytest.fixture(autouse=True)
def _every_seat_is_given_back() -> Iterator[None]:
    yield
    wait_until(lambda: not calls_by_user._began)


@pytest.fixture
def stepped(fake_ollama: FakeOllama) -> Iterator[Stepped]:
    stepped = Stepped()
    fake_ollama.misbehave(stepped)
    yield stepped
    stepped.let_go()


class TestTheAnswer:
    def test_comes_piece_by_piece_and_at_last_whole_as_without_a_stream(self, site: Site) -> None:
        headers = {"X-Request-ID": "mine"}

        plain = site.post(headers=JSON | headers).json()
        *deltas, done = site.post(headers=EVENTS | headers).events()

        assert len(deltas) > 10
        assert {event.name for event in deltas} == {"delta"}
        assert sse.texts(deltas) == plain["response"]
        assert done == ("done", plain)

    def test_comes_while_it_is_made(self, site: Site, stepped: Stepped) -> None:
        stepped.step()
        answer = site.post()
        assert sse.texts(sse.parse(answer.read())) == "Let"
        for word in (" us", " look", " at"):
            stepped.step()
            assert sse.texts(sse.parse(answer.read())) == word
        stepped.let_go()
        assert answer.events()[-1].name == "done"

    def test_begins_with_what_a_thinking_model_thinks(
        self, site: Site, configure: Configure
    ) -> None:
        model = FakeModel("qwen3", ("completion", "thinking"))
        with FakeOllama(models=[model], answer="Water is wet.") as ollama:
            configure(BASE_URL=ollama.url, MODEL="qwen3")
            found = site.post().events()
        names = [event.name for event in found]
        assert names == sorted(names, key=["thinking", "delta", "done"].index)
        assert sse.texts(found, "thinking") == "The simulator thinks before it answers."
        assert sse.texts(found) == found[-1].data["response"] == "Water is wet."

    @pytest.mark.parametrize("said", ["a\nb\r\nc\rd", "a\u2028b\x85c", "ä€😀", " a  b "])
    def test_may_hold_any_characters(self, site: Site, configure: Configure, said: str) -> None:
        with FakeOllama(answer=said) as ollama:
            ollama.misbehave(faults.Resplit())
            configure(BASE_URL=ollama.url)
            found = site.post().events()
        assert sse.texts(found) == found[-1].data["response"] == said

    def test_may_hold_half_a_character(self, site: Site, fake_ollama: FakeOllama) -> None:
        """A model can write the escape of a lone surrogate, which UTF-8 cannot carry."""
        lines = [
            rb'{"model":"m","message":{"role":"assistant","content":"a\ud83d"},"done":false}',
            rb'{"model":"m","message":{"role":"assistant","content":""},"done":true}',
        ]
        fake_ollama.misbehave(faults.Status(200, b"\n".join(lines), "application/x-ndjson"))
        found = site.post().events()
        assert sse.texts(found).startswith("a")
        assert found[-1].name == "done"

    def test_may_be_empty(self, site: Site, configure: Configure) -> None:
        with FakeOllama(answer="") as ollama:
            configure(BASE_URL=ollama.url)
            ((name, body),) = site.post().events()
        assert (name, body["response"]) == ("done", "")

    def test_that_is_cut_by_our_bounds_says_so(self, site: Site, configure: Configure) -> None:
        configure(MAX_CHUNKS=3)
        *deltas, done = site.post().events()
        assert sse.texts(deltas) == done.data["response"] == "Let us look"
        assert done.data["truncated"] is True

    def test_comes_after_a_retry(self, site: Site, fake_ollama: FakeOllama) -> None:
        fake_ollama.misbehave(faults.Reset(), when=when.first(2))
        assert site.post().events()[-1].name == "done"

    def test_says_how_it_wants_to_be_passed_on(self, site: Site) -> None:
        headers = site.post().headers
        assert headers["Content-Type"] == "text/event-stream"
        assert headers["Content-Encoding"] == "identity"
        assert headers["Cache-Control"] == "no-cache, no-transform"
        assert headers["X-Accel-Buffering"] == "no"
        assert "Content-Length" not in headers


class TestWhatIsWanted:
    @pytest.mark.parametrize(
        ("accept", "streamed"),
        [
            ("text/event-stream", True),
            ("text/event-stream;q=0.1", True),
            ("text/*", True),
            ("text/event-stream, */*;q=0.1", True),
            ("text/html, text/event-stream", True),
            ("application/json", False),
            ("application/*", False),
            ("*/*", False),
            ("application/json, text/event-stream", False),
        ],
    )
    def test_is_said_by_accept(self, site: Site, accept: str, streamed: bool) -> None:
        answer = site.post(headers={"Accept": accept})
        assert (answer.status, answer.is_streamed) == (200, streamed)

    def test_is_said_by_a_field_of_the_body(self, site: Site) -> None:
        for headers in ({}, JSON, {"Accept": "*/*"}):
            assert site.post(headers=headers, stream=True).is_streamed
            assert not site.post(headers=headers, stream=False).is_streamed

    def test_is_what_accept_says_where_the_body_says_nothing_of_it(self, site: Site) -> None:
        assert site.post(stream=False).is_streamed

    @pytest.mark.parametrize("path", ["/api/health/", "/api/health/live/"])
    def test_cannot_be_events_elsewhere(self, site: Site, path: str) -> None:
        answer = site.get(path, EVENTS)
        assert answer.status == 406
        assert answer.json()["code"] == "not_acceptable"


class TestAnErrorBeforeTheFirstEvent:
    @pytest.mark.parametrize(
        ("fault", "status", "code", "wait"),
        [
            (faults.Reset(), 503, "connection_failed", "30"),
            (faults.BlackHole(), 504, "timeout", None),
            (faults.model_missing(), 503, "model_not_found", "30"),
            (faults.rate_limited(12), 503, "rate_limited", "12"),
            (faults.bad_option(), 502, "request_rejected", None),
            (faults.ErrorLine(after=0), 502, "upstream_failed", None),
            (faults.StallStream(after=0), 504, "timeout", None),
            (faults.CutStream(after=0), 503, "connection_failed", "30"),
        ],
    )
    def test_is_a_response_of_its_own_as_without_a_stream(
        self,
        site: Site,
        configure: Configure,
        fake_ollama: FakeOllama,
        fault: faults.Fault,
        status: int,
        code: str,
        wait: str | None,
    ) -> None:
        configure(MAX_RETRIES=0, TIMEOUT=0.3)
        fake_ollama.misbehave(fault)
        answer = site.post()
        assert (answer.status, answer.headers.get("Retry-After")) == (status, wait)
        assert "no-store" in answer.headers["Cache-Control"]
        body = answer.json()
        assert (body["code"], body["request_id"]) == (code, answer.headers["X-Request-ID"])
        assert set(body) - {"retry_after"} == {"success", "error", "code", "request_id"}

    def test_that_is_the_clients_own_is_one_too(self, site: Site) -> None:
        for answer, status, code in (
            (site.post(message=""), 400, "invalid"),
            (site.post(who=None), 401, "not_authenticated"),
            (site.send("GET", "/api/chat/", b"", EVENTS, MEMBER).result(), 405, None),
            (site.send("POST", "/api/chat/", b"{", EVENTS, MEMBER).result(), 400, "invalid"),
        ):
            assert answer.status == status
            assert answer.json()["code"] == (code or "method_not_allowed")

    def test_blames_the_client_for_what_it_chose(
        self, site: Site, configure: Configure, fake_ollama: FakeOllama
    ) -> None:
        configure(CLIENT_MAY_SET=["options"])
        fake_ollama.misbehave(faults.bad_option())
        assert site.post(options={"temperature": 1}).status == 400

    def test_tells_staff_what_the_operator_should_know(
        self, site: Site, fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.model_missing())
        assert "detail" not in site.post().json()
        assert "ollama pull llama3.2" in site.post(STAFF).json()["detail"]

    def test_that_is_a_bug_is_left_to_django(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, configure: Configure
    ) -> None:
        with FakeOllama(answer="") as ollama:
            configure(BASE_URL=ollama.url)
            monkeypatch.setattr(ChatView, "answered", lambda *_: 1 / 0)
            answer = site.post()
        assert answer.status == 500
        assert b"division" not in answer.rest()


class TestAnErrorAfterTheFirstEvent:
    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            (faults.CutStream(after=2), "stream_interrupted"),
            (faults.CutStream(after=2, reset=True), "stream_interrupted"),
            (faults.ErrorLine(after=2), "stream_interrupted"),
            (faults.StallStream(after=2), "timeout"),
            (faults.NotDone(), "stream_interrupted"),
        ],
    )
    def test_is_one_event_at_the_end(
        self,
        site: Site,
        configure: Configure,
        fake_ollama: FakeOllama,
        fault: faults.Fault,
        code: str,
    ) -> None:
        configure(CHUNK_TIMEOUT=0.2)
        fake_ollama.misbehave(fault)
        answer = site.post()
        assert (answer.status, answer.is_streamed) == (200, True)
        *deltas, (name, body) = answer.events()
        assert {event.name for event in deltas} == {"delta"}
        assert sse.texts(deltas).startswith("Let us")
        assert (name, body["code"], body["success"]) == ("error", code, False)
        assert body["request_id"] == answer.headers["X-Request-ID"]
        assert set(body) - {"retry_after"} == {"success", "error", "code", "request_id"}
        assert len(fake_ollama.chats) == 1

    def test_tells_staff_what_the_operator_should_know(
        self, site: Site, fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.ErrorLine(after=1, text="out of luck"))
        assert "detail" not in site.post().events()[-1].data
        assert site.post(STAFF).events()[-1].data["detail"]

    def test_that_is_a_bug_is_logged_and_told_without_its_text(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def answered(*_: object) -> None:
            raise ZeroDivisionError(CANARY)

        monkeypatch.setattr(ChatView, "answered", answered)
        read = site.post(message=CANARY[::-1]).rest()
        *_, (name, body) = sse.parse(read)
        assert (name, body["code"]) == ("error", "stream_interrupted")
        assert CANARY.encode() not in read
        (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert record.exc_info
        assert record.exc_info[0] is ZeroDivisionError
        assert CANARY[::-1] not in caplog.text


class TestPatience:
    @pytest.fixture(autouse=True)
    def _short(self, configure: Configure) -> None:
        configure(SSE_COMMIT_AFTER=0.05, MAX_RETRIES=0)

    def test_ends_and_the_response_begins_with_a_heartbeat(
        self, site: Site, fake_ollama: FakeOllama
    ) -> None:
        held = Held()
        fake_ollama.misbehave(held)
        answer = site.post()
        assert (answer.status, answer.is_streamed) == (200, True)
        assert answer.read() == events.HEARTBEAT
        held.let_go()
        assert answer.events()[-1].name == "done"

    def test_has_ended_and_an_error_is_one_event(
        self, site: Site, configure: Configure, fake_ollama: FakeOllama
    ) -> None:
        configure(SSE_COMMIT_AFTER=0.05, MAX_RETRIES=0, TIMEOUT=0.3)
        fake_ollama.misbehave(faults.BlackHole())
        answer = site.post()
        assert answer.status == 200
        ((name, body),) = answer.events()
        assert (name, body["code"]) == ("error", "timeout")

    def test_makes_no_difference_to_a_whole_answer(
        self, site: Site, fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.Stall(0.2))
        assert site.post(headers=JSON).json()["success"] is True

    def test_silence_is_filled_with_heartbeats(
        self, site: Site, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(events, "HEARTBEAT_EVERY", 0.01)
        monkeypatch.setattr(events, "FIRST_HEARTBEAT", 0.005)
        stepped.step()
        answer = site.post()
        assert sse.texts(sse.parse(answer.read())) == "Let"
        assert [answer.read() for _ in range(3)] == [events.HEARTBEAT] * 3
        stepped.let_go()
        assert answer.events()[-1].name == "done"


class TestSeats:
    @pytest.fixture(autouse=True)
    def _one(self, configure: Configure) -> None:
        configure(MAX_CALLS_PER_USER=1, MAX_RETRIES=0)

    def test_a_stream_has_one_as_long_as_it_goes_on(self, site: Site, stepped: Stepped) -> None:
        stepped.step()
        answer = site.post()
        answer.read()
        refused = site.post()
        assert refused.status == 429
        assert refused.json()["code"] == "throttled"
        assert site.post(headers=JSON).status == 429
        assert site.post(STAFF).status == 200
        stepped.let_go()
        assert answer.events()[-1].name == "done"
        assert site.post().status == 200

    def test_it_is_given_back_when_the_model_has_ended(
        self, site: Site, configure: Configure
    ) -> None:
        with FakeOllama(answer="Wet.") as ollama:
            configure(BASE_URL=ollama.url, MAX_CALLS_PER_USER=1)
            unread = site.post()
            wait_until(lambda: not calls_by_user._began)
            assert site.post().status == 200
            assert unread.events()[-1].name == "done"

    def test_it_is_given_back_when_the_client_leaves(self, site: Site, stepped: Stepped) -> None:
        stepped.step()
        site.post().close()
        wait_until(lambda: not calls_by_user._began)

    @pytest.mark.parametrize("fault", [faults.Reset(), faults.CutStream(after=1)])
    def test_it_is_given_back_after_an_error(
        self, site: Site, fake_ollama: FakeOllama, fault: faults.Fault
    ) -> None:
        fake_ollama.misbehave(fault)
        for _ in range(3):
            assert site.post().rest()
            wait_until(lambda: not calls_by_user._began)

    def test_a_wrong_request_takes_none(self, site: Site, stepped: Stepped) -> None:
        stepped.step()
        site.post()
        assert site.post(message="").status == 400


def test_streams_are_counted_by_the_throttle(site: Site, configure: Configure) -> None:
    configure(THROTTLE_RATE="2/min")
    answers = [site.post(), site.post(headers=JSON), site.post()]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "throttled"


class TestLeaving:
    def _is_left(self, ollama: FakeOllama) -> None:
        ollama.wait_for(lambda server: len(server.disconnects) == 1 and not server.in_flight)
        assert ollama_client.circuit_breaker.state == "closed"
        wait_until(lambda: ollama_client.get_stats()["cancelled_requests"] == 1)
        assert ollama_client.get_stats()["failed_requests"] == 0
        assert len(ollama.chats) == 1

    def test_unread_closes_the_connection_to_the_server(
        self, site: Site, stepped: Stepped, fake_ollama: FakeOllama
    ) -> None:
        stepped.step()
        site.post().close()
        self._is_left(fake_ollama)

    def test_in_the_middle_closes_the_connection_to_the_server(
        self, site: Site, stepped: Stepped, fake_ollama: FakeOllama
    ) -> None:
        stepped.step(3)
        answer = site.post()
        answer.read()
        answer.close()
        self._is_left(fake_ollama)

    def test_before_the_first_piece_closes_the_connection_to_the_server(
        self, site: Site, configure: Configure, fake_ollama: FakeOllama
    ) -> None:
        configure(SSE_COMMIT_AFTER=0.05)
        fake_ollama.misbehave(faults.BlackHole())
        answer = site.post()
        assert answer.read() == events.HEARTBEAT
        answer.close()
        self._is_left(fake_ollama)

    def test_after_the_end_does_nothing(self, site: Site, fake_ollama: FakeOllama) -> None:
        answer = site.post()
        assert answer.events()[-1].name == "done"
        answer.close()
        assert fake_ollama.disconnects == []
        assert ollama_client.get_stats()["cancelled_requests"] == 0

    def test_is_no_error_in_the_log(
        self,
        site: Site,
        stepped: Stepped,
        fake_ollama: FakeOllama,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        stepped.step(3)
        answer = site.post()
        answer.read()
        answer.close()
        self._is_left(fake_ollama)
        assert [each for each in caplog.records if each.levelno > logging.INFO] == []


def test_an_interrupt_before_the_first_event_leaves_the_stream(
    configure: Configure,
    fake_ollama: FakeOllama,
    stepped: Stepped,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a WSGI server raises it in a worker whose time is up."""
    begin = Events.begin

    def interrupted(self: Events, _patience: float) -> None:
        begin(self, 0.01)
        fake_ollama.wait_for(lambda server: server.in_flight == 1)
        raise SystemExit

    configure(MAX_CALLS_PER_USER=1)
    monkeypatch.setattr(Events, "begin", interrupted)
    request = RequestFactory().post("/", {"message": "Hi"}, "application/json", headers=EVENTS)
    with pytest.raises(SystemExit):
        ChatView.as_view(permission_classes=[AllowAny])(request)
    fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)


class Flood:
    """An answer without an end, as fast as it is taken."""

    sent = 0

    async def reply(self, exchange: faults.Exchange) -> None:
        reply = exchange.honest()
        await exchange.send_parts(replace(reply, parts=(), length=0))
        line = exchange.framing.part(reply, next(iter(reply.parts)))
        while True:
            exchange.write(line)
            await exchange.drain()
            self.sent += 1


def test_a_reader_that_takes_nothing_holds_up_the_server(site: Site, configure: Configure) -> None:
    flood = Flood()
    with FakeOllama(answer="x" * 10_000) as ollama:
        ollama.misbehave(flood)
        configure(BASE_URL=ollama.url, MAX_RESPONSE_BYTES=2**30)
        answer = site.post()
        answer.read()
        wait_until(lambda: _stands(flood))
        before = flood.sent
        while flood.sent == before:
            answer.read()
        answer.close()
        ollama.wait_for(lambda server: len(server.disconnects) == 1)


def _stands(flood: Flood) -> bool:
    before = flood.sent
    time.sleep(0.2)
    return flood.sent == before


class TestTheRequestId:
    def test_is_in_header_body_and_log_lines(
        self, site: Site, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "ollama_bridge")
        answer = site.post(headers=EVENTS | {"X-Request-ID": "mine"})
        assert answer.headers["X-Request-ID"] == "mine"
        assert answer.events()[-1].data["request_id"] == "mine"
        lines = [each for each in caplog.records if "esponse" in each.getMessage()]
        assert len(lines) == 2
        assert {each.__dict__["request_id"] for each in lines} == {"mine"}

    def test_is_known_to_whatever_is_called_when_the_stream_ends(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answered = ChatView.answered
        known: list[str] = []

        def noted(self: ChatView, reply: ChatReply) -> dict[str, Any]:
            known.append(context.request_id.get())
            return answered(self, reply)

        monkeypatch.setattr(ChatView, "answered", noted)
        assert site.post(headers=EVENTS | {"X-Request-ID": "mine"}).events()[-1].name == "done"
        assert known == ["mine"]

    def test_is_made_where_none_is_sent(self, site: Site) -> None:
        answer = site.post()
        found = answer.headers["X-Request-ID"]
        assert re.fullmatch("[0-9a-f]{32}", found)
        assert answer.events()[-1].data["request_id"] == found

    def test_is_in_an_error_at_the_end(
        self, site: Site, fake_ollama: FakeOllama, caplog: pytest.LogCaptureFixture
    ) -> None:
        fake_ollama.misbehave(faults.CutStream(after=2))
        answer = site.post(headers=EVENTS | {"X-Request-ID": "mine"})
        assert answer.events()[-1].data["request_id"] == "mine"
        (line,) = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert line.__dict__["request_id"] == "mine"


@pytest.mark.parametrize("fault", [None, faults.CutStream(after=6), faults.StallStream(after=6)])
def test_neither_question_nor_answer_nor_key_is_in_the_log(
    site: Site, configure: Configure, caplog: pytest.LogCaptureFixture, fault: faults.Fault | None
) -> None:
    caplog.set_level("DEBUG")
    with FakeOllama(answer=f"It is {CANARY}, said the {CANARY}.") as ollama:
        if fault is not None:
            ollama.misbehave(fault)
        configure(BASE_URL=ollama.url, API_KEY=KEY, CHUNK_TIMEOUT=0.2, SYSTEM_PROMPT=CANARY)
        assert CANARY in sse.texts(site.post(message=f"Who? {CANARY}?").events())
        logged = caplog.text + "".join(str(each.__dict__) for each in caplog.records)
    assert CANARY not in logged
    assert KEY not in logged


def test_a_question_shows_nothing_of_itself() -> None:
    question = Question(ollama_client, CANARY, CANARY, {}, CANARY, is_streamed=True)
    assert repr(question) == "Question(is_streamed=True)"
