"""The cloud and one's own server, by two variables: who answers while the cloud does not."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import pytest

from ollama_bridge import ChatReply, OllamaClient, QuotaExhausted, RateLimited
from ollama_bridge.testing import FakeOllama, faults, when
from tests.client.forms import AStream, Chat, Form
from tests.net.held import Held
from tests.net.pair import QUICK, codes

KEY = "key-of-the-cloud"
CROWD = 20
COOLDOWN = 1.0
# For what takes as long as a cooldown: threads, and a loop.
TWO_FORMS = pytest.mark.parametrize(
    "form", [Chat, AStream], ids=lambda kind: kind.name, indirect=True
)


@dataclass
class Hybrid:
    cloud: FakeOllama
    local: FakeOllama
    client: OllamaClient

    @property
    def asked(self) -> tuple[int, int]:
        """How many chats have reached the cloud, and one's own server."""
        return len(self.cloud.chats), len(self.local.chats)

    def is_back(self) -> None:
        """Return as soon as the cloud may be tried again."""
        until(lambda: not self.client.endpoints["cloud"].cooldown)

    def crowd(self, form: Form) -> list[ChatReply]:
        """Ask from many callers at once."""
        calls = [form.begin(self.client, f"Question {number}") for number in range(CROWD)]
        told = [call.result() for call in calls]
        return [each.reply for each in told if each.reply is not None]


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end, "this does not come true"
        time.sleep(0.001)


@pytest.fixture
def hybrid(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hybrid]:
    """What the variables of the cloud make of the default settings."""
    with FakeOllama(models=["gpt-oss:120b"]) as cloud, FakeOllama() as local:
        monkeypatch.setenv("OLLAMA_HOST", local.url)
        monkeypatch.setenv("OLLAMA_API_KEY", KEY)
        monkeypatch.setenv("OLLAMA_CLOUD_MODEL", "gpt-oss:120b-cloud")
        monkeypatch.setenv("OLLAMA_CLOUD_ENDPOINT", cloud.url)
        monkeypatch.setenv("OLLAMA_COOLDOWN_SECONDS", str(COOLDOWN))
        with OllamaClient(cache=None, **QUICK) as client:
            yield Hybrid(cloud, local, client)


def places(replies: list[ChatReply]) -> Counter[str]:
    return Counter(reply.endpoint for reply in replies)


def test_the_cloud_answers_under_the_name_that_it_has_there(hybrid: Hybrid, form: Form) -> None:
    reply = form.ask(hybrid.client)
    assert (reply.endpoint, reply.model) == ("cloud", "gpt-oss:120b")
    (asked,) = hybrid.cloud.chats
    assert asked.model == "gpt-oss:120b"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert hybrid.local.chats == []


def test_ones_own_server_answers_with_its_own_model_and_without_the_key(
    hybrid: Hybrid, form: Form
) -> None:
    hybrid.cloud.refuse()
    reply = form.ask(hybrid.client)
    assert (reply.endpoint, reply.model) == ("local", "llama3.2")
    assert codes(reply.attempts) == ["cloud:connection_failed", "local:"]
    assert all("authorization" not in request.headers for request in hybrid.local.requests)


class TestAUsageLimit:
    def test_sends_a_crowd_to_ones_own_server_and_leaves_the_cloud_alone(
        self, hybrid: Hybrid, form: Form
    ) -> None:
        held = HeldLimit()
        hybrid.cloud.misbehave(held)
        calls = [form.begin(hybrid.client, f"Question {number}") for number in range(CROWD)]
        hybrid.cloud.wait_for(lambda cloud: cloud.in_flight >= CROWD)
        held.let_go()
        replies = [call.result().reply for call in calls]
        assert places([reply for reply in replies if reply]) == {"local": CROWD}
        assert hybrid.asked == (CROWD, CROWD)  # of these nobody could know
        assert places(hybrid.crowd(form)) == {"local": CROWD}
        assert hybrid.asked == (CROWD, 2 * CROWD)
        facts = hybrid.client.endpoints["cloud"]
        assert 0 < facts.cooldown <= COOLDOWN
        assert facts.cooldown_code == QuotaExhausted.code
        assert hybrid.client.circuit_breakers["cloud"].failures == 0

    @TWO_FORMS
    def test_is_tried_by_exactly_one_after_its_end_and_begins_anew_if_it_still_holds(
        self, hybrid: Hybrid, form: Form
    ) -> None:
        hybrid.cloud.misbehave(faults.usage_limit())
        assert form.ask(hybrid.client).endpoint == "local"
        hybrid.is_back()
        assert places(hybrid.crowd(form)) == {"local": CROWD}
        assert hybrid.asked == (2, 1 + CROWD)
        assert hybrid.client.endpoints["cloud"].cooldown > COOLDOWN / 2

    @TWO_FORMS
    def test_is_over_for_all_when_the_one_is_answered(self, hybrid: Hybrid, form: Form) -> None:
        held = Held()
        hybrid.cloud.misbehave(faults.usage_limit(), when=when.first(1))
        hybrid.cloud.misbehave(held)
        assert form.ask(hybrid.client).endpoint == "local"
        hybrid.is_back()
        probe = form.begin(hybrid.client)
        hybrid.cloud.wait_for(lambda cloud: len(cloud.chats) == 2)
        assert places(hybrid.crowd(form)) == {"local": CROWD}
        assert hybrid.asked == (2, 1 + CROWD)
        held.let_go()
        reply = probe.result().reply
        assert reply is not None
        assert reply.endpoint == "cloud"
        assert places(hybrid.crowd(form)) == {"cloud": CROWD}
        assert hybrid.client.endpoints["cloud"].cooldown_code == ""

    def test_is_as_long_as_the_server_says(self, hybrid: Hybrid, form: Form) -> None:
        hybrid.cloud.misbehave(faults.usage_limit(retry_after=3600))
        form.ask(hybrid.client)
        assert hybrid.client.endpoints["cloud"].cooldown == pytest.approx(3600, abs=10)
        hybrid.cloud.behave()
        assert form.ask(hybrid.client).endpoint == "local"
        assert isinstance(form.fail(hybrid.client, using="cloud"), QuotaExhausted)
        assert hybrid.asked == (1, 2)


class TestTooManyAtOnce:
    def test_is_repeated_shortly_after_where_only_the_cloud_will_do(
        self, hybrid: Hybrid, form: Form
    ) -> None:
        hybrid.cloud.misbehave(faults.rate_limited(), when=when.first(2))
        reply = form.ask(hybrid.client, using="cloud")
        assert codes(reply.attempts) == ["cloud:rate_limited", "cloud:rate_limited", "cloud:"]
        assert reply.latency < 1

    def test_is_answered_elsewhere_and_no_cooldown(self, hybrid: Hybrid, form: Form) -> None:
        hybrid.cloud.misbehave(faults.rate_limited(), when=when.first(1))
        reply = form.ask(hybrid.client)
        assert codes(reply.attempts) == ["cloud:rate_limited", "local:"]
        facts = hybrid.client.endpoints["cloud"]
        assert (facts.cooldown, facts.cooldown_code) == (0, "")
        assert hybrid.client.circuit_breakers["cloud"].failures == 0
        assert form.ask(hybrid.client).endpoint == "cloud"

    @TWO_FORMS
    def test_keeps_all_away_for_as_long_as_the_server_says_and_no_longer(
        self, hybrid: Hybrid, form: Form
    ) -> None:
        hybrid.cloud.misbehave(faults.rate_limited(retry_after=1), when=when.first(1))
        assert form.ask(hybrid.client).endpoint == "local"
        assert places(hybrid.crowd(form)) == {"local": CROWD}
        assert hybrid.asked == (1, 1 + CROWD)
        assert hybrid.client.endpoints["cloud"].cooldown_code == RateLimited.code
        hybrid.is_back()
        assert places(hybrid.crowd(form)) == {"cloud": CROWD}


class HeldLimit(Held):
    """Holds every call until ``let_go()``, and then says that the allowance is used up."""

    async def reply(self, exchange: faults.Exchange) -> None:
        await self.held(exchange)
        await faults.usage_limit().reply(exchange)


def test_a_crowd_that_goes_on_asking_tries_the_cloud_once_each_time(hybrid: Hybrid) -> None:
    hybrid.cloud.misbehave(faults.usage_limit())
    assert hybrid.client.chat("What is water?").endpoint == "local"
    ended = threading.Event()

    def chat() -> set[str]:
        found = set()
        while not ended.is_set():
            found.add(hybrid.client.chat("What is water?").endpoint)
        return found

    with ThreadPoolExecutor(CROWD) as threads:
        calls = [threads.submit(chat) for _ in range(CROWD)]
        try:
            hybrid.cloud.wait_for(lambda cloud: len(cloud.chats) == 4, 3 * COOLDOWN + 5)
        finally:
            ended.set()
    assert {endpoint for call in calls for endpoint in call.result()} == {"local"}
    moments = [request.at for request in hybrid.cloud.chats]
    gaps = [after - before for before, after in pairwise(moments)]
    assert min(gaps) > COOLDOWN - 0.05
