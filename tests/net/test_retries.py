"""What is repeated, how often, after which wait, and on which connection."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import (
    ConnectionFailed,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    ServerFailed,
    Timeout,
)
from ollama_bridge.core.retry import RetryBudget
from ollama_bridge.testing import FakeOllama, faults, when
from tests.net.rawserver import RawServer

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from ollama_bridge import OllamaClient
    from ollama_bridge.testing.faults import Fault
    from tests.conftest import MakeClient


def tokens(client: OllamaClient) -> float:
    """Return what is left of the default endpoint's retry budget."""
    router = client._running().router  # no public name: nothing to decide by it
    return router.place(router.default.endpoint).budget.tokens


@pytest.mark.parametrize("most", [0, 1, 3, 5])
def test_a_server_that_always_answers_503_sees_one_request_and_the_repeats(
    fake_ollama: FakeOllama, make_client: MakeClient, most: int
) -> None:
    fake_ollama.misbehave(faults.unavailable())
    with pytest.raises(ServerFailed) as caught:
        make_client(max_retries=most).chat("What is water?")
    assert len(fake_ollama.chats) == 1 + most
    assert len({request.body for request in fake_ollama.chats}) == 1
    assert [attempt.status for attempt in caught.value.attempts] == [503] * (1 + most)


def test_a_status_that_is_not_listed_is_not_repeated(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.server_error("boom"))
    with pytest.raises(ServerFailed):
        make_client(retry_statuses=[503]).chat("What is water?")
    assert len(fake_ollama.chats) == 1


def test_the_answer_tells_what_it_took(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    fake_ollama.misbehave(faults.bad_gateway(), when=when.first(1))
    fake_ollama.misbehave(faults.busy(), when=when.first(1))
    reply = make_client().chat("What is water?")
    assert [(one.code, one.status) for one in reply.attempts] == [
        ("upstream_failed", 502),
        ("overloaded", 503),
        ("", 200),
    ]


def test_all_repeats_use_one_connection(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    fake_ollama.misbehave(faults.nested_error(), when=when.first(3))
    assert make_client().chat("What is water?")
    assert [request.turn for request in fake_ollama.chats] == [1, 2, 3, 4]


def test_retry_after_in_seconds_is_waited_for_where_it_fits(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.rate_limited(retry_after=1), when=when.first(1))
    make_client(timeout=10).chat("What is water?")
    first, second = fake_ollama.chats
    assert 0.98 < second.at - first.at < 1.3


def test_so_is_retry_after_as_a_date(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    moment = int(time.time() + 1.4)
    date = formatdate(moment, usegmt=True)
    fake_ollama.misbehave(faults.unavailable(retry_after=date), when=when.first(1))
    make_client(timeout=10).chat("What is water?")
    assert moment <= time.time() < moment + 0.3
    assert len(fake_ollama.chats) == 2


def test_while_one_call_waits_for_retry_after_others_are_refused_without_a_request(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.rate_limited(retry_after=1), when=when.first(1))
    client = make_client()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.chat, "What is water?")
        fake_ollama.wait_for(lambda server: len(server.chats) == 1 and not server.in_flight)
        with pytest.raises(RateLimited) as caught:
            chat_until_it_fails(client)  # until the reply has reached the client
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= 1
        assert waiting.result()
    assert client.circuit_breaker.failures == 0
    assert fake_ollama.chats[-1].prompt == "What is water?"


def chat_until_it_fails(client: OllamaClient) -> None:
    while True:
        client.chat("What is ice?")


@pytest.mark.parametrize(
    "asked",
    [120, "120", formatdate(time.time() + 3600, usegmt=True)],
    ids=["number", "digits", "date"],  # the same in each process that runs tests
)
def test_retry_after_that_does_not_fit_is_raised_at_once_and_cools_the_endpoint_down(
    fake_ollama: FakeOllama, make_client: MakeClient, asked: int | str
) -> None:
    fake_ollama.misbehave(faults.rate_limited(asked))
    client = make_client()
    started = time.monotonic()
    with pytest.raises(RateLimited) as caught:
        client.chat("What is water?")
    first = caught.value.retry_after
    assert first is not None
    assert 110 < first < 3601
    assert caught.value.status == 429
    with pytest.raises(RateLimited, match=r"asked for a pause\. Next try in") as caught:
        client.chat("What is ice?")
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after < first
    assert caught.value.status is None
    assert len(fake_ollama.chats) == 1
    assert time.monotonic() - started < 1


def test_the_end_of_a_pause_lets_calls_through_again(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.unavailable(retry_after=1), when=when.first(1))
    client = make_client(timeout=0.9)
    with pytest.raises(ServerFailed) as caught:
        client.chat("What is water?")
    with pytest.raises(RateLimited):
        client.chat("What is water?")
    assert caught.value.retry_after is not None
    time.sleep(caught.value.retry_after)  # it is time itself that is tested
    assert client.chat("What is water?")


@pytest.mark.parametrize("nonsense", ["soon", "-5", "1e3", "Wed, 99 Foo", "", "٣"])
def test_a_retry_after_of_no_sense_is_ignored(
    fake_ollama: FakeOllama, make_client: MakeClient, nonsense: str
) -> None:
    headers = (("Retry-After", nonsense),) if nonsense.isascii() else ()
    fake_ollama.misbehave(faults.Status(429, headers=headers), when=when.first(1))
    started = time.monotonic()
    assert make_client().chat("What is water?")
    assert time.monotonic() - started < 0.5


def test_a_used_up_quota_is_not_asked_again(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.usage_limit())
    with pytest.raises(QuotaExhausted):
        make_client().chat("What is water?")
    assert len(fake_ollama.chats) == 1


def test_a_quota_with_retry_after_stays_a_quota_while_it_cools_down(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.usage_limit(retry_after=3600))
    client = make_client()
    for _ in range(2):
        with pytest.raises(QuotaExhausted) as caught:
            client.chat("What is water?")
        assert caught.value.retry_after == pytest.approx(3600, abs=5)
    assert len(fake_ollama.chats) == 1


def test_a_timed_out_generation_is_not_repeated(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.BlackHole())
    with pytest.raises(Timeout):
        make_client(max_retries=9).chat("What is water?", timeout=0.2)
    fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)
    assert len(fake_ollama.chats) == 1


def test_repeats_stop_where_the_budget_is_used_up(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.busy())  # no circuit opens for this
    client = make_client(max_retries=30, retry_initial_delay=0, retry_max_delay=0)
    calls = 6
    for _ in range(calls):
        with pytest.raises(Overloaded):
            client.chat("What is water?")
    repeats = len(fake_ollama.chats) - calls
    assert repeats <= RetryBudget.CAPACITY + RetryBudget.EARNED * calls
    assert repeats >= RetryBudget.CAPACITY - 1
    assert tokens(client) < 1


def test_what_succeeds_in_the_end_costs_no_budget(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.busy(), when=when.first(3))
    client = make_client()
    assert client.chat("What is water?")
    assert tokens(client) == RetryBudget.CAPACITY


@pytest.mark.parametrize("fault", [faults.Drop(), faults.Reset()], ids=["FIN", "RST"])
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_dropped_connection_is_replaced_once_at_once_and_for_free(
    make_client: MakeClient,
    server_tls: ssl.SSLContext,
    ca_file: Path,
    fault: Fault,
    secure: bool,
) -> None:
    with FakeOllama(tls=server_tls if secure else None) as server:
        server.misbehave(fault, when=when.reused())
        client = make_client(base_url=server.url, verify_ssl=str(ca_file), max_retries=0)
        client.chat("What is ice?")
        budget = tokens(client)
        reply = client.chat("What is water?")
        assert len(reply.attempts) == 1
        assert tokens(client) >= budget
        first, dropped, replayed = server.chats
    assert (first.connection, dropped.connection) == (1, 1)
    assert (replayed.connection, replayed.turn) == (2, 1)
    assert replayed.body == dropped.body


def test_the_replay_takes_a_fresh_connection_and_no_other_idle_one(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.Drop(), when=when.reused())
    fake_ollama.misbehave(faults.Stall(0.2), when=when.prompt("together"))
    client = make_client(max_retries=0)
    together(client, 5)
    assert fake_ollama.open_connections == 5
    assert client.chat("What is water?")
    assert fake_ollama.chats[-1].turn == 1


def together(client: OllamaClient, callers: int) -> None:
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(client.chat, [f"together {number}" for number in range(callers)]))


def test_a_second_drop_in_the_same_call_is_an_attempt_that_failed(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.Reset(), when=when.first(3))
    reply = make_client().chat("What is water?")
    assert [attempt.code for attempt in reply.attempts] == [
        "connection_failed",
        "connection_failed",
        "",
    ]
    assert len(fake_ollama.chats) == 4


def test_a_reply_that_broke_off_is_repeated_and_costs_an_attempt(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.CutBody(), when=when.first(1))
    reply = make_client().chat("What is water?")
    assert [attempt.code for attempt in reply.attempts] == ["connection_failed", ""]


def test_a_refused_connect_is_tried_twice_at_once(
    fake_ollama: FakeOllama, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    connects: list[float] = []
    fake_ollama.refuse()
    client = make_client(max_retries=0)
    assert client.circuit_breaker.state == "closed"
    count_connects(monkeypatch, connects)
    started = time.monotonic()
    with pytest.raises(ConnectionFailed):
        client.chat("What is water?")
    assert time.monotonic() - started < 0.5
    assert len(connects) == 2


def count_connects(monkeypatch: pytest.MonkeyPatch, connects: list[float]) -> None:
    class Counted(socket.socket):
        def connect(self, address: object) -> None:
            connects.append(time.monotonic())
            super().connect(address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", Counted)


def test_a_server_that_comes_back_between_the_two_is_found(
    fake_ollama: FakeOllama, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ollama.refuse()
    client = make_client(max_retries=0)
    assert client.circuit_breaker.state == "closed"

    class Late(socket.socket):
        def connect(self, address: object) -> None:
            try:
                super().connect(address)  # type: ignore[arg-type]
            except ConnectionRefusedError:
                monkeypatch.undo()
                fake_ollama.listen()
                raise

    monkeypatch.setattr(socket, "socket", Late)
    assert client.chat("What is water?")


def test_a_silent_server_is_connected_to_once(make_client: MakeClient) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(65536)
        server.stopping.wait(10)

    with RawServer(serve) as server:
        with pytest.raises(Timeout):
            make_client(base_url=server.url).chat("What is water?", timeout=1)
        assert server.accepted == 1


def test_a_fixed_delay_is_meant_literally(fake_ollama: FakeOllama, make_client: MakeClient) -> None:
    fake_ollama.misbehave(faults.busy(), when=when.first(2))
    make_client(retry_backoff="fixed", retry_delay=0.2).chat("What is water?")
    first, second, third = (request.at for request in fake_ollama.chats)
    assert 0.2 <= second - first < 0.7
    assert 0.2 <= third - second < 0.7


def test_delays_without_jitter_double_up_to_their_bound(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.busy(), when=when.first(3))
    client = make_client(retry_jitter="none", retry_initial_delay=0.1, retry_max_delay=0.2)
    client.chat("What is water?")
    at = [request.at for request in fake_ollama.chats]
    waits = [later - earlier for earlier, later in pairwise(at)]
    assert all(0 <= wait - least < 0.5 for wait, least in zip(waits, [0.1, 0.2, 0.2], strict=True))
