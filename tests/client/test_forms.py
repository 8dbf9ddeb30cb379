"""What a call does, in each of its four forms: one table of behaviours, and no form beside it."""

from __future__ import annotations

import logging
import pickle
import socket
import ssl
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import (
    CircuitOpen,
    ConnectionFailed,
    InvalidReply,
    OllamaBridgeError,
    Overloaded,
    RateLimited,
    ServerFailed,
    StreamInterrupted,
    Timeout,
)
from ollama_bridge.core.retry import RetryBudget
from ollama_bridge.testing import FakeModel, FakeOllama, faults, when
from tests.client.forms import FORMS, QUESTION, Form
from tests.client.midstream import (
    AFTER,
    AFTER_THE_FIRST_PIECE,
    ANSWER,
    BEFORE_THE_FIRST_PIECE,
    BEGINNING,
    Break,
    CutSlowly,
)
from tests.client.wrongarguments import CANARY, WRONG, WRONG_OF_STREAMS, too_deep
from tests.net.accounts import COUNTS, fail_once_each, failures, is_consistent
from tests.net.faulttable import CASES, FACES, Case, Verdict
from tests.net.held import Held
from tests.net.rawserver import ConnectBlackHole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ollama_bridge import OllamaClient
    from ollama_bridge.testing.exchange import Exchange
    from ollama_bridge.testing.faults import Fault
    from ollama_bridge.testing.recorded import RecordedRequest
    from tests.conftest import MakeClient


@pytest.fixture
def held(fake_ollama: FakeOllama) -> Held:
    held = Held()
    fake_ollama.misbehave(held)
    return held


@pytest.fixture
def water() -> Iterator[FakeOllama]:
    """A server that always says the same."""
    with FakeOllama(answer=ANSWER) as server:
        yield server


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end, "this does not come true"
        time.sleep(0.001)


def tokens(client: OllamaClient) -> float:
    """Return what is left of the default endpoint's retry budget."""
    router = client._running().router  # no public name: nothing to decide by it
    return router.place(router.default.endpoint).budget.tokens


def figures(client: OllamaClient, *names: str) -> tuple[Any, ...]:
    found = client.get_stats()
    return tuple(found[name] for name in names)


def nothing_is_left(client: OllamaClient, server: FakeOllama) -> None:
    """See that no slot is taken, nobody waits, and no connection is at work."""
    until(lambda: figures(client, "in_flight", "waiting") == (0, 0))
    server.wait_for(lambda server: server.in_flight == 0)


def is_as_told(error: OllamaBridgeError, verdict: Verdict, url: str) -> None:
    is_consistent(error)
    assert type(error) is verdict.error
    assert str(error) == verdict.says.format(url=url)
    assert error.status == verdict.status
    assert error.retryable is (
        FACES[verdict.error].retryable if verdict.retryable is None else verdict.retryable
    )
    assert error.retry_after == verdict.retry_after
    assert getattr(error, "phase", None) == verdict.phase
    assert bool(getattr(error, "partial", "")) is verdict.partial


# An answer.


def test_an_answer_comes_with_its_facts(
    form: Form, water: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(base_url=water.url)
    told = form.tell(client)
    reply = told.reply
    assert reply is not None
    assert reply == ANSWER
    assert (reply.model, reply.endpoint, reply.source) == ("llama3.2", "default", "ollama")
    assert (reply.reliability, reply.done_reason, reply.truncated) == ("high", "stop", False)
    assert (reply.thinking, reply.tool_calls, reply.error) == ("", (), None)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (11, 6)
    assert [(one.endpoint, one.code, one.status) for one in reply.attempts] == [
        ("default", "", 200)
    ]
    assert len(reply.request_id) == 32
    assert reply.latency >= reply.attempts[0].seconds > 0
    assert figures(client, "total_requests", "successful_requests", "in_flight") == (1, 1, 0)
    assert figures(client, "prompt_tokens", "completion_tokens") == (11, 6)
    (request,) = water.chats
    assert request.json["stream"] is form.streams
    if form.streams:
        assert "".join(told.pieces) == told.text == ANSWER
        assert len(told.pieces) > 1


def test_what_a_model_thinks_comes_apart_from_what_it_says(
    form: Form, make_client: MakeClient
) -> None:
    thinker = FakeModel("llama3.2", capabilities=("completion", "thinking"))
    with FakeOllama(models=[thinker], answer=ANSWER) as server:
        told = form.tell(make_client(base_url=server.url))
    assert told.reply == ANSWER
    assert told.reply is not None
    assert told.reply.thinking == "The simulator thinks before it answers."
    if form.streams:
        assert "".join(piece.thinking for piece in told.pieces) == told.reply.thinking
        assert not any(piece.text and piece.thinking for piece in told.pieces)


def test_all_forms_send_the_same_but_for_the_word_stream(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    history = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"}]
    form.ask(
        make_client(),
        QUESTION,
        system_prompt="You are a teacher for Class 1.",
        history=history,
        model="llama3.2:latest",
        temperature=0,
        max_tokens=20,
        options={"seed": 42},
        keep_alive="5m",
    )
    assert fake_ollama.chats[0].json == {
        "model": "llama3.2:latest",
        "messages": [
            {"role": "system", "content": "You are a teacher for Class 1."},
            *history,
            {"role": "user", "content": QUESTION},
        ],
        "stream": form.streams,
        "options": {"seed": 42, "temperature": 0, "num_predict": 20},
        "keep_alive": "5m",
    }


def test_one_call_after_another_uses_one_connection(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    for _ in range(5):
        assert form.ask(client)
    # The end of a stream may be late on a busy machine; its connection is then closed.
    assert fake_ollama.connections <= (2 if form.streams else 1)


@pytest.mark.parametrize("size", [1, 7])
def test_it_does_not_matter_where_the_network_cuts(
    form: Form, make_client: MakeClient, size: int
) -> None:
    answer = "Grüße 🤖: \u0085 and \u2028 end no line."
    with FakeOllama(answer=answer) as server:
        server.misbehave(faults.Resplit(size))
        assert form.ask(make_client(base_url=server.url)) == answer


@dataclass(frozen=True)
class LongHeader:
    """An honest answer under a header of so many bytes."""

    size: int

    async def reply(self, exchange: Exchange) -> None:
        long = ("Content-Security-Policy", "x" * self.size)
        await exchange.send(replace(exchange.honest(), headers=(long,)))


def test_headers_may_be_as_long_as_proxies_make_them(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(LongHeader(60_000))
    assert form.ask(make_client())


def test_a_header_without_end_is_no_http(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(LongHeader(70_000))
    assert type(form.fail(make_client())) is InvalidReply


# A wrong argument.


@pytest.mark.parametrize(("named", "kind", "arguments"), WRONG)
def test_a_wrong_argument_is_named_and_no_text_is_quoted(
    form: Form,
    fake_ollama: FakeOllama,
    make_client: MakeClient,
    named: str,
    kind: type[Exception],
    arguments: dict[str, Any],
) -> None:
    call = {"message": f"{QUESTION} {CANARY}", **arguments}
    with pytest.raises((TypeError, ValueError)) as caught:
        form.ask(make_client(), **call)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(named)
    assert CANARY not in str(caught.value) + repr(caught.value.args)
    assert fake_ollama.chats == []


def test_each_form_says_the_same_of_each_wrong_argument(make_client: MakeClient) -> None:
    client = make_client()
    said: dict[str, list[str]] = {}
    for kind in FORMS:
        with kind() as form:
            for _, error, arguments in WRONG:
                with pytest.raises(error) as caught:
                    form.ask(client, **{"message": QUESTION, **arguments})
                said.setdefault(form.name, []).append(str(caught.value))
    assert said["achat"] == said["stream"] == said["astream"] == said["chat"]


def test_options_that_are_nested_too_deeply_are_named(form: Form, make_client: MakeClient) -> None:
    with pytest.raises(ValueError, match=r"^options"):
        form.ask(make_client(), options=too_deep())


def test_a_wrong_argument_leaves_the_circuit_alone(form: Form, make_client: MakeClient) -> None:
    client = make_client(failure_threshold=1)
    with pytest.raises(ValueError, match="message"):
        form.ask(client, "")
    assert (client.circuit_breaker.state, client.circuit_breaker.generation) == ("closed", 0)
    assert figures(client, "total_requests", "in_flight") == (0, 0)


@pytest.mark.parametrize(("named", "kind", "value"), WRONG_OF_STREAMS)
def test_a_wrong_bound_of_a_stream_is_named_before_anything_is_sent(
    streaming: Form,
    fake_ollama: FakeOllama,
    make_client: MakeClient,
    named: str,
    kind: type[Exception],
    value: object,
) -> None:
    with pytest.raises(kind, match=f"^{named} ") as caught:
        streaming.ask(make_client(), **{named: value})
    assert CANARY not in str(caught.value)
    assert fake_ollama.connections == 0


# Each fault of a server.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_has_its_error_its_sentences_and_its_price(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient, case: Case
) -> None:
    fake_ollama.misbehave(case.fault)
    client = make_client(**case.settings)
    fail_once_each(client)
    told = form.tell(client)
    verdict = case.verdict_on(streams=form.streams)
    assert told.error is not None
    is_as_told(told.error, verdict, fake_ollama.url)
    assert len(fake_ollama.chats) == verdict.requests
    assert failures(client) == COUNTS[verdict.blames]
    assert figures(client, "failed_requests", "cancelled_requests") == (1, 0)
    if form.streams:
        assert "".join(told.pieces) == told.text == getattr(told.error, "partial", "")
    nothing_is_left(client, fake_ollama)


def test_a_refused_connect_names_the_command_that_starts_the_server(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.refuse()
    client = make_client()
    fail_once_each(client)
    error = form.fail(client)
    is_consistent(error)
    assert type(error) is ConnectionFailed
    assert (
        str(error) == f"Cannot connect to Ollama at {fake_ollama.url}. Start it with: ollama serve"
    )
    assert error.retryable
    assert failures(client) == COUNTS["endpoint"]
    assert len(error.attempts) == 4


def test_a_name_without_an_address_is_said_to_be_one(form: Form, make_client: MakeClient) -> None:
    client = make_client(base_url="http://nothing.invalid:11434")
    fail_once_each(client)
    error = form.fail(client)
    is_consistent(error)
    assert type(error) is ConnectionFailed
    assert str(error) == (
        "Cannot connect to Ollama at http://nothing.invalid:11434: "
        "no address for nothing.invalid. Check BASE_URL"
    )
    assert failures(client) == COUNTS["endpoint"]
    assert len(error.attempts) == 4


def test_a_black_hole_for_connects_is_a_connect_timeout(
    form: Form, make_client: MakeClient
) -> None:
    with ConnectBlackHole() as hole:
        client = make_client(base_url=hole.url, connect_timeout=0.05)
        fail_once_each(client)
        error = form.fail(client)
    is_consistent(error)
    assert isinstance(error, Timeout)
    assert error.phase == "connect"
    assert str(error) == (
        f"Cannot connect to Ollama at {hole.url}: no answer in time. "
        "Check BASE_URL, the network and the firewall"
    )
    assert failures(client) == COUNTS["endpoint"]
    assert len(error.attempts) == 4


def test_a_certificate_of_a_known_authority_is_good(
    form: Form, make_client: MakeClient, server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    with FakeOllama(tls=server_tls, answer=ANSWER) as server:
        assert form.ask(make_client(base_url=server.url, verify_ssl=str(ca_file))) == ANSWER


def test_a_certificate_of_nobody_known_is_not_asked_for_again(
    form: Form, make_client: MakeClient, server_tls: ssl.SSLContext
) -> None:
    with FakeOllama(tls=server_tls) as server:
        client = make_client(base_url=server.url)
        fail_once_each(client)
        error = form.fail(client)
        is_consistent(error)
        assert type(error) is ConnectionFailed
        assert str(error) == (
            f"No secure connection to {server.url}: unable to get local issuer certificate. "
            "Set VERIFY_SSL to the path of its CA"
        )
        assert not error.retryable
        assert failures(client) == COUNTS["endpoint"]
        assert len(error.attempts) == 1
        assert server.chats == []


def test_an_impatient_caller_is_nobodys_fault(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.BlackHole())
    client = make_client(max_retries=9)
    fail_once_each(client)
    error = form.fail(client, timeout=0.1)
    assert isinstance(error, Timeout)
    assert error.phase == "total"
    assert failures(client) == COUNTS["nobody"]
    fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)
    assert len(fake_ollama.chats) == 1, "a timed-out generation is not repeated"


def test_what_a_huge_reply_still_has_to_say_is_not_read(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.HugeBody(declared=False))
    form.fail(make_client())
    fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)
    assert fake_ollama.open_connections == 0


# Retries and replays.


@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_server_that_always_fails_sees_one_request_and_the_repeats(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient, most: int
) -> None:
    fake_ollama.misbehave(faults.unavailable())
    error = form.fail(make_client(max_retries=most))
    assert type(error) is ServerFailed
    assert len(fake_ollama.chats) == 1 + most
    assert len({request.body for request in fake_ollama.chats}) == 1
    assert [attempt.status for attempt in error.attempts] == [503] * (1 + most)


def test_the_answer_tells_what_it_took_and_that_costs_no_budget(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.bad_gateway(), when=when.first(1))
    cut = faults.CutStream(0) if form.streams else faults.CutBody()
    fake_ollama.misbehave(cut, when=when.first(1))
    client = make_client()
    reply = form.ask(client)
    assert [(one.code, one.status) for one in reply.attempts] == [
        ("upstream_failed", 502),
        ("connection_failed", None),
        ("", 200),
    ]
    assert figures(client, "retries", "successful_requests") == (2, 1)
    assert client.circuit_breaker.failures == 0
    assert tokens(client) == RetryBudget.CAPACITY


def test_all_repeats_use_one_connection(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.nested_error(), when=when.first(3))
    assert form.ask(make_client())
    assert [request.turn for request in fake_ollama.chats] == [1, 2, 3, 4]


@pytest.mark.parametrize("fault", [faults.Drop(), faults.Reset()], ids=["FIN", "RST"])
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_dropped_connection_is_replaced_once_at_once_and_for_free(
    form: Form,
    make_client: MakeClient,
    server_tls: ssl.SSLContext,
    ca_file: Path,
    fault: Fault,
    secure: bool,
) -> None:
    with FakeOllama(tls=server_tls if secure else None) as server:
        server.misbehave(fault, when=when.reused())
        client = make_client(base_url=server.url, verify_ssl=str(ca_file), max_retries=0)
        dropped, replayed = ask_until_one_is_dropped(form, client, server)
        assert tokens(client) == RetryBudget.CAPACITY
    assert dropped.turn > 1
    assert replayed.turn == 1
    assert replayed.connection != dropped.connection
    assert replayed.body == dropped.body


def ask_until_one_is_dropped(
    form: Form, client: OllamaClient, server: FakeOllama
) -> list[RecordedRequest]:
    """Ask until a connection was kept, which a stream whose end comes late does not do."""
    for _ in range(20):
        before = len(server.chats)
        assert len(form.ask(client).attempts) == 1
        if len(server.chats) == before + 2:
            return server.chats[-2:]
    raise AssertionError("no connection was kept")


def test_a_second_drop_in_the_same_call_is_an_attempt_that_failed(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.Reset(), when=when.first(3))
    reply = form.ask(make_client())
    assert [one.code for one in reply.attempts] == ["connection_failed", "connection_failed", ""]
    assert len(fake_ollama.chats) == 4


def watch_connects(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None] = lambda _: None
) -> list[socket.socket]:
    """Count connects from here on; ``before`` is called with the number of each."""
    connects: list[socket.socket] = []

    class Watched(socket.socket):
        def connect(self, address: Any) -> None:
            connects.append(self)
            before(len(connects))
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Watched)
    return connects


def test_a_refused_connect_is_tried_twice_at_once(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(max_retries=0)
    form.ask(client)
    fake_ollama.refuse()
    connects = watch_connects(monkeypatch)
    started = time.monotonic()
    assert type(form.fail(client)) is ConnectionFailed
    assert time.monotonic() - started < 0.5
    assert len(connects) == 2


def test_a_server_that_comes_back_between_two_connects_is_found(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(max_retries=0)
    form.ask(client)
    fake_ollama.refuse()

    def come_back(number: int) -> None:
        if number == 2:
            fake_ollama.listen()

    connects = watch_connects(monkeypatch, come_back)
    assert len(form.ask(client).attempts) == 1
    assert len(connects) == 2


def test_retry_after_is_waited_for_where_it_fits(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.rate_limited(retry_after=1), when=when.first(1))
    assert form.ask(make_client(timeout=10))
    first, second = fake_ollama.chats
    assert 0.98 < second.at - first.at < 1.5


def test_retry_after_that_does_not_fit_cools_the_endpoint_down(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.rate_limited(120))
    client = make_client()
    assert form.fail(client).retry_after == 120
    refused = form.fail(client)
    assert type(refused) is RateLimited
    assert refused.retry_after is not None
    assert 110 < refused.retry_after < 120
    assert len(fake_ollama.chats) == 1
    assert figures(client, "failed_requests", "refused_requests") == (2, 1)


# The circuit.


def test_five_calls_to_a_killed_server_fail_and_the_sixth_is_refused(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    assert form.ask(client)
    fake_ollama.refuse()
    for number in range(1, 6):
        assert client.circuit_breaker.state == "closed"
        assert type(form.fail(client)) is ConnectionFailed
        assert client.circuit_breaker.failures == number
    fake_ollama.listen()
    started = time.monotonic()
    error = form.fail(client)
    assert time.monotonic() - started < 0.5
    assert type(error) is CircuitOpen
    assert error.retry_after is not None
    assert 2 < error.retry_after <= 5
    assert client.circuit_breaker.retry_after == pytest.approx(error.retry_after, abs=0.3)
    assert client.circuit_breaker.last_error == "connection_failed"
    seconds = -int(-error.retry_after // 1)
    assert str(error) == f"Circuit breaker is OPEN - service unavailable. Next try in {seconds} s"
    assert [(one.code, one.status) for one in error.attempts] == [("circuit_open", None)]
    assert len(fake_ollama.chats) == 1
    client.circuit_breaker.reset()
    assert form.ask(client)


def test_one_call_probes_when_its_time_has_come_and_the_rest_is_refused(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient, held: Held
) -> None:
    client = make_client(max_retries=0, open_seconds=0.5, failure_threshold=1)
    fake_ollama.refuse()
    form.fail(client)
    fake_ollama.listen()
    assert client.circuit_breaker.state == "open"
    until(lambda: not client.circuit_breaker.retry_after)
    probe = form.begin(client)
    fake_ollama.wait_for(lambda server: len(server.chats) == 1)
    assert client.circuit_breaker.state == "half_open"
    assert type(form.fail(client)) is CircuitOpen
    held.let_go()
    assert probe.result().reply
    assert client.circuit_breaker.state == "closed"
    assert form.ask(client)


def test_forced_open_says_that_an_operator_did_it(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client()
    client.circuit_breaker.force_open()
    error = form.fail(client)
    assert type(error) is CircuitOpen
    assert "An operator has opened it" in str(error)
    assert error.retry_after is None
    assert fake_ollama.connections == 0


# Limits.


def test_the_server_never_sees_more_calls_at_once_than_allowed(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.Stall(0.005))
    client = make_client(max_concurrency=2)
    calls = [form.begin(client) for _ in range(30)]
    assert all(call.result().reply for call in calls)
    assert fake_ollama.peak_in_flight == 2


def test_more_callers_than_may_wait_are_refused_and_the_first_come_is_served_first(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient, held: Held
) -> None:
    client = make_client(max_concurrency=1, max_waiting=2)
    calls = []
    for number in range(3):
        calls.append(form.begin(client, f"{number}"))
        until(partial(_are_there, client, number + 1))
    error = form.fail(client)
    assert type(error) is Overloaded
    assert str(error).startswith("Too many calls wait for default/llama3.2")
    assert client.circuit_breaker.failures == 0
    held.let_go()
    assert all(call.result().reply for call in calls)
    assert [request.prompt for request in fake_ollama.chats] == ["0", "1", "2"]


def _are_there(client: OllamaClient, number: int) -> bool:
    return figures(client, "in_flight", "waiting") == (min(number, 1), number - 1)


def test_a_wait_for_a_slot_ends_with_the_callers_time(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient, held: Held
) -> None:
    client = make_client(max_concurrency=1)
    first = form.begin(client)
    fake_ollama.wait_for(lambda server: len(server.chats) == 1)
    assert type(form.fail(client, timeout=0.1)) is Overloaded
    held.let_go()
    assert first.result().reply
    assert len(fake_ollama.chats) == 1


def test_an_operator_who_opens_the_circuit_frees_those_who_wait(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient, held: Held
) -> None:
    client = make_client(max_concurrency=1)
    first = form.begin(client)
    fake_ollama.wait_for(lambda server: len(server.chats) == 1)
    waiting = [form.begin(client) for _ in range(3)]
    until(lambda: figures(client, "waiting") == (3,))
    client.circuit_breaker.force_open()
    assert {type(call.result().error) for call in waiting} == {CircuitOpen}
    held.let_go()
    assert first.result().reply


# Leaving.


def test_who_leaves_before_the_answer_begins_costs_nobody_anything(
    form: Form,
    fake_ollama: FakeOllama,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake_ollama.misbehave(faults.BlackHole())
    client = make_client(max_concurrency=1)
    fail_once_each(client)
    with caplog.at_level(logging.INFO, "ollama_bridge.client"):
        call = form.begin_to_leave(client)
        fake_ollama.wait_for(lambda server: len(server.chats) == 1)
        assert call.leave().left
        fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)
    nothing_is_left(client, fake_ollama)
    assert failures(client) == COUNTS["nobody"]
    assert figures(client, "cancelled_requests", "total_requests", "retries") == (1, 0, 0)
    (line,) = [record for record in caplog.records if "cancelled" in record.getMessage()]
    assert line.getMessage().startswith("Ollama call cancelled after ")
    assert (line.levelname, vars(line)["endpoint"]) == ("INFO", "default")
    assert vars(line)["request_id"]
    assert len(fake_ollama.chats) == 1


def test_who_leaves_while_waiting_for_a_slot_sends_nothing(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient, held: Held
) -> None:
    client = make_client(max_concurrency=1)
    first = form.begin(client)
    fake_ollama.wait_for(lambda server: len(server.chats) == 1)
    second = form.begin_to_leave(client)
    until(lambda: figures(client, "waiting") == (1,))
    assert second.leave().left
    assert figures(client, "in_flight", "waiting", "cancelled_requests") == (1, 0, 1)
    held.let_go()
    assert first.result().reply
    nothing_is_left(client, fake_ollama)
    assert len(fake_ollama.chats) == 1


def test_who_leaves_between_two_attempts_is_not_made_to_wait(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.unavailable())
    client = make_client(retry_backoff="fixed", retry_delay=30)
    call = form.begin_to_leave(client)
    until(lambda: figures(client, "retries") == (1,))
    started = time.monotonic()
    assert call.leave().left
    assert time.monotonic() - started < 10
    nothing_is_left(client, fake_ollama)
    assert figures(client, "cancelled_requests", "failed_requests") == (1, 0)
    assert len(fake_ollama.chats) == 1


def test_a_prober_that_leaves_blocks_nobody(
    form: Form, fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(max_retries=0, open_seconds=0.2, failure_threshold=1)
    fake_ollama.refuse()
    form.fail(client)
    fake_ollama.listen()
    fake_ollama.misbehave(faults.BlackHole(), when=when.first(1))
    until(lambda: not client.circuit_breaker.retry_after)
    probe = form.begin_to_leave(client)
    fake_ollama.wait_for(lambda server: len(server.chats) == 1)
    assert probe.leave().left
    assert client.circuit_breaker.state == "half_open"
    assert form.ask(client)
    assert client.circuit_breaker.state == "closed"


def test_leaving_early_closes_the_connection(
    streaming: Form, water: FakeOllama, make_client: MakeClient
) -> None:
    water.misbehave(faults.StallStream(AFTER))
    client = make_client(base_url=water.url)
    fail_once_each(client)
    told = streaming.begin(client, most=AFTER).result()
    assert told.left
    assert "".join(told.pieces) == told.text == BEGINNING
    water.wait_for(lambda server: len(server.disconnects) == 1)
    assert water.open_connections == 0
    nothing_is_left(client, water)
    assert failures(client) == COUNTS["nobody"]
    assert figures(client, "cancelled_requests", "total_requests") == (1, 0)
    assert len(water.chats) == 1


def test_somebody_else_may_close_a_stream_that_waits_for_its_next_piece(
    streaming: Form, water: FakeOllama, make_client: MakeClient
) -> None:
    water.misbehave(faults.StallStream(AFTER))
    client = make_client(base_url=water.url)
    call = streaming.begin(client)
    call.told.wait_for_pieces(AFTER)
    told = call.leave()
    assert told.left
    assert told.text == BEGINNING
    water.wait_for(lambda server: len(server.disconnects) == 1)
    nothing_is_left(client, water)
    assert figures(client, "cancelled_requests", "total_requests") == (1, 0)
    assert client.circuit_breaker.failures == 0


# Streams: their bounds, and each fault in their middle.


def test_a_stream_ends_truncated_with_its_most_pieces(
    streaming: Form, water: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(base_url=water.url)
    told = streaming.tell(client, max_chunks=AFTER)
    assert told.reply == told.text == BEGINNING
    assert told.reply is not None
    assert told.reply.truncated
    assert figures(client, "successful_requests", "failed_requests") == (1, 0)
    assert streaming.ask(client, max_chunks=1000).truncated is False
    limited = make_client(base_url=water.url, max_chunks=1)
    assert streaming.ask(limited).truncated
    assert streaming.ask(limited, max_chunks=1000) == ANSWER, "the caller's word wins"


def test_a_stream_ends_truncated_with_its_most_bytes(
    streaming: Form, make_client: MakeClient
) -> None:
    with FakeOllama(answer="Öl ist kein Wasser.") as server:
        reply = streaming.ask(make_client(base_url=server.url), max_bytes=1)
        assert (reply, reply.truncated) == ("", True)
        reply = streaming.ask(make_client(base_url=server.url), max_bytes=5)
        assert (reply, reply.truncated) == ("Öl i", True)
        reply = streaming.ask(make_client(base_url=server.url), max_bytes=20)
        assert (reply, reply.truncated) == ("Öl ist kein Wasser.", False)


def test_the_rest_of_a_truncated_stream_is_not_read(
    streaming: Form, water: FakeOllama, make_client: MakeClient
) -> None:
    water.misbehave(faults.StallStream(AFTER + 1))
    client = make_client(base_url=water.url)
    assert streaming.ask(client, max_chunks=AFTER).truncated
    water.wait_for(lambda server: len(server.disconnects) == 1)
    assert figures(client, "successful_requests", "cancelled_requests") == (1, 0)


def test_the_time_that_the_reader_takes_is_no_idle_time(
    streaming: Form, water: FakeOllama, make_client: MakeClient
) -> None:
    client = make_client(base_url=water.url)
    assert streaming.ask(client, pause=0.5, chunk_timeout=0.2, first_token_timeout=5) == ANSWER


def test_a_slow_reader_gets_all_that_came_before_the_connection_broke(
    streaming: Form, water: FakeOllama, make_client: MakeClient
) -> None:
    water.misbehave(CutSlowly(5))
    told = streaming.tell(make_client(base_url=water.url), pause=0.3)
    assert isinstance(told.error, StreamInterrupted)
    assert len(told.pieces) == 5
    assert told.error.partial == told.text


@pytest.mark.parametrize("case", BEFORE_THE_FIRST_PIECE, ids=lambda case: case.name)
def test_what_breaks_before_the_first_piece_fails_as_any_call(
    streaming: Form, water: FakeOllama, make_client: MakeClient, case: Break
) -> None:
    water.misbehave(case.fault)
    client = make_client(base_url=water.url, **case.settings)
    fail_once_each(client)
    started = time.monotonic()
    told = streaming.tell(client, **case.arguments)
    assert case.seconds - 0.01 < time.monotonic() - started < case.seconds + 2
    assert told.error is not None
    is_as_told(told.error, case.verdict, water.url)
    assert (told.pieces, told.text) == ([], "")
    assert len(water.chats) == case.verdict.requests
    assert failures(client) == COUNTS[case.verdict.blames]
    nothing_is_left(client, water)


@pytest.mark.parametrize("case", AFTER_THE_FIRST_PIECE, ids=lambda case: case.name)
def test_what_breaks_after_the_first_piece_keeps_the_text_and_is_never_repeated(
    streaming: Form, water: FakeOllama, make_client: MakeClient, case: Break
) -> None:
    water.misbehave(case.fault)
    client = make_client(base_url=water.url, **case.settings)
    fail_once_each(client)
    started = time.monotonic()
    told = streaming.tell(client, **case.arguments)
    assert case.seconds - 0.01 < time.monotonic() - started < case.seconds + 2
    error: Any = told.error
    assert error is not None
    is_as_told(error, case.verdict, water.url)
    assert "".join(told.pieces) == told.text == error.partial == BEGINNING
    assert BEGINNING not in f"{error} {error!r} {error.args} {error.public_message}"
    assert pickle.loads(pickle.dumps(error)).partial == BEGINNING
    assert len(water.chats) == 1
    assert failures(client) == COUNTS[case.verdict.blames]
    assert figures(client, "failed_requests", "cancelled_requests", "retries") == (1, 0, 0)
    nothing_is_left(client, water)
