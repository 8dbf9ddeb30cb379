"""What is repeated, how often, and after which wait; see ``test_forms`` for all forms of a call."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import (
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
    from ollama_bridge import OllamaClient
    from tests.conftest import MakeClient


def tokens(client: OllamaClient) -> float:
    """Return what is left of the default endpoint's retry budget."""
    router = client._running().router  # no public name: nothing to decide by it
    return router.place(router.default.endpoint).budget.tokens


def test_a_status_that_is_not_listed_is_not_repeated(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
    fake_ollama.misbehave(faults.server_error("boom"))
    with pytest.raises(ServerFailed):
        make_client(retry_statuses=[503]).chat("What is water?")
    assert len(fake_ollama.chats) == 1


def test_retry_after_as_a_date_is_waited_for(
    fake_ollama: FakeOllama, make_client: MakeClient
) -> None:
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
