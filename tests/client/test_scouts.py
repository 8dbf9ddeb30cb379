"""What servers are asked about themselves, over HTTP, in a thread of its own."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from ollama_bridge import ModelNotFound, OllamaBridgeError, OllamaClient, QuotaExhausted
from ollama_bridge.core import scouting
from ollama_bridge.core.scouting import Intervals, Scouting
from ollama_bridge.testing import FakeAccount, FakeOllama, faults, when
from ollama_bridge.testing.faults import Fault
from tests.client.forms import Form
from tests.testing.plainhttp import chat as load

THREAD = "ollama_bridge.scouts"
QUESTION = "What is water?"
PS, TAGS, BALANCE = "/api/ps", "/api/tags", "/api/balance"
KEY = "canary-key-of-the-cloud"
BOUND = 10.0


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    for thread in threads():
        thread.join(BOUND)
        assert not thread.is_alive()


@pytest.fixture
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers be asked more often than anybody should."""
    intervals = partial(Intervals, installed=0.1, loaded=0.05, balance=0.1, rest=0.2)
    monkeypatch.setattr(scouting, "Intervals", intervals)


@pytest.fixture
def other() -> Iterator[FakeOllama]:
    with FakeOllama() as server:
        yield server


@pytest.fixture
def make(fake_ollama: FakeOllama, other: FakeOllama) -> Iterator[Callable[..., OllamaClient]]:
    """Return a maker of clients with a route to the servers a and b."""
    made: list[OllamaClient] = []

    def make(route: dict[str, Any] | None = None, **settings: Any) -> OllamaClient:
        places = {"a": {"BASE_URL": fake_ollama.url}, "b": {"BASE_URL": other.url}}
        routes = {"default": {"TARGETS": ["a", "b"], "STRATEGY": "least_busy", **(route or {})}}
        facts = {"endpoints": places, "routes": routes, "max_retries": 0, **settings}
        made.append(OllamaClient(**facts))
        return made[-1]

    yield make
    for client in made:
        client.close()


Make = Callable[..., OllamaClient]


def asked(server: FakeOllama, path: str) -> int:
    return sum(request.path == path for request in server.requests)


def is_asked(server: FakeOllama, *paths: str, times: int = 1) -> None:
    """Wait until a server was asked on all these paths so often, and what it said is learnt."""
    server.wait_for(lambda it: all(asked(it, path) >= times for path in paths), BOUND)


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + BOUND
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def hear(client: OllamaClient) -> None:
    """Do as a call does at its beginning."""
    scout = client._router().scout
    assert scout is not None
    scout("default")


def idle(client: OllamaClient) -> None:
    """Wait until the thread has done what it was asked."""
    due = client._running()._scouts._due
    until(lambda: all(at < math.inf for at in due.values()))


class TestARoute:
    @pytest.mark.parametrize("strategy", ["least_busy", "lowest_cost"])
    def test_prefers_the_server_that_has_the_model_loaded(
        self, make: Make, other: FakeOllama, strategy: str
    ) -> None:
        load(other)
        client = make({"STRATEGY": strategy})
        hear(client)
        is_asked(other, TAGS, PS)
        idle(client)
        assert {client.chat(QUESTION).endpoint for _ in range(10)} == {"b"}

    @pytest.mark.usefixtures("_quickly")
    def test_follows_a_model_that_was_loaded_elsewhere(
        self, make: Make, fake_ollama: FakeOllama, other: FakeOllama
    ) -> None:
        client = make({"STRATEGY": "failover", "AFFINITY": True})
        assert client.chat(QUESTION).endpoint == "a"
        load(fake_ollama, keep_alive=0)
        load(other)
        until(lambda: client.chat(QUESTION, keep_alive=0).endpoint == "b")

    @pytest.mark.usefixtures("_quickly")
    def test_skips_a_server_without_the_model_until_it_is_pulled(
        self,
        make: Make,
        fake_ollama: FakeOllama,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        fake_ollama.remove("llama3.2")
        client = make({"STRATEGY": "failover"})
        client.chat(QUESTION)
        is_asked(fake_ollama, TAGS)
        idle(client)
        asked_before = len(fake_ollama.chats)
        for _ in range(20):
            assert client.chat(QUESTION).endpoint == "b"
        assert len(fake_ollama.chats) == asked_before <= 1
        lines = [record.getMessage() for record in caplog.records if "is skipped" in record.message]
        assert lines == [
            "Model llama3.2 is not on endpoint a, which is skipped. Run there: ollama pull llama3.2"
        ]
        fake_ollama.install("llama3.2")
        until(lambda: client.chat(QUESTION).endpoint == "a")

    def test_without_the_model_anywhere_names_what_to_pull(
        self, make: Make, fake_ollama: FakeOllama, other: FakeOllama
    ) -> None:
        for server in (fake_ollama, other):
            server.remove("llama3.2")
        client = make()
        for _ in range(2):
            with pytest.raises(ModelNotFound) as caught:
                client.chat(QUESTION)
            is_asked(other, TAGS)
            idle(client)
            parts = sorted(str(caught.value).split("; "))
            assert parts == [
                f"{name}: Model llama3.2 not found. Run: ollama pull llama3.2" for name in "ab"
            ]

    def test_asks_as_often_as_documented(
        self, make: Make, fake_ollama: FakeOllama, other: FakeOllama
    ) -> None:
        client = make()
        started = time.monotonic()
        for _ in range(100):
            client.chat(QUESTION)
        most = 1 + (time.monotonic() - started) // 3
        is_asked(fake_ollama, TAGS, PS)
        is_asked(other, TAGS, PS)
        idle(client)
        for server in (fake_ollama, other):
            assert asked(server, TAGS) == 1
            assert asked(server, PS) <= most

    @pytest.mark.usefixtures("_quickly")
    def test_asks_again_while_calls_are_made_and_only_then(
        self, make: Make, fake_ollama: FakeOllama
    ) -> None:
        client = make()
        client.chat(QUESTION)
        is_asked(fake_ollama, PS)
        idle(client)
        time.sleep(0.2)  # it is what does not happen in it that is tested
        assert (asked(fake_ollama, PS), asked(fake_ollama, TAGS)) == (1, 1)
        client.chat(QUESTION)
        is_asked(fake_ollama, PS, TAGS, times=2)

    def test_without_affinity_does_not_ask_what_is_loaded(
        self, make: Make, fake_ollama: FakeOllama, other: FakeOllama
    ) -> None:
        client = make({"AFFINITY": False})
        client.chat(QUESTION)
        is_asked(fake_ollama, TAGS)
        is_asked(other, TAGS)
        idle(client)
        assert asked(fake_ollama, PS) + asked(other, PS) == 0

    @pytest.mark.parametrize("path", [PS, TAGS])
    def test_delays_no_call_while_a_server_is_silent(
        self, make: Make, fake_ollama: FakeOllama, form: Form, path: str
    ) -> None:
        fake_ollama.misbehave(faults.BlackHole(), path=path)
        client = make()
        assert form.tell(client).reply
        is_asked(fake_ollama, path)
        for _ in range(5):
            started = time.monotonic()
            assert form.tell(client).reply
            assert time.monotonic() - started < 1.0, "it is silent for two seconds"
        client.close()
        fake_ollama.wait_for(lambda server: server.in_flight == 0)

    @pytest.mark.usefixtures("_quickly")
    def test_moves_no_circuit_where_a_server_is_down(
        self, make: Make, fake_ollama: FakeOllama
    ) -> None:
        client = make({"TARGETS": ["b", "a"], "STRATEGY": "failover"}, failure_threshold=1)
        fake_ollama.refuse()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            assert client.chat(QUESTION).endpoint == "b"
        assert client.circuit_breakers["a"].failures == 0


class TestAnAnswer:
    @pytest.mark.parametrize(
        "fault", [faults.HugeBody(3 * 1024 * 1024), faults.WrongType(), faults.Garbage()], ids=repr
    )
    def test_that_is_none_is_not_taken_for_one(
        self, make: Make, fake_ollama: FakeOllama, other: FakeOllama, fault: Fault
    ) -> None:
        for path in (TAGS, PS):
            fake_ollama.misbehave(fault, path=path)
        client = make({"STRATEGY": "failover", "AFFINITY": True})
        client._router().learn_models("a", frozenset({"llama3.2:latest"}), frozenset())
        hear(client)
        is_asked(fake_ollama, TAGS, PS)
        is_asked(other, TAGS, PS)
        idle(client)
        assert client.chat(QUESTION).endpoint == "a"

    def test_that_drips_is_waited_for_no_longer_than_two_seconds(
        self, make: Make, fake_ollama: FakeOllama, other: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.Drip("body"), path=TAGS)
        client = make({"AFFINITY": False})
        started = time.monotonic()
        hear(client)
        is_asked(other, TAGS)
        assert 1.9 < time.monotonic() - started < 3.5
        fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)


class TestTheThread:
    def test_begins_with_the_first_call_that_needs_it(self, make: Make) -> None:
        client = make()
        client.health_check()
        client.chat(QUESTION, using="a")
        assert not threads()
        client.chat(QUESTION)
        assert len(threads()) == 1
        client.chat(QUESTION)
        assert len(threads()) == 1

    def test_never_begins_for_one_server(self, fake_ollama: FakeOllama) -> None:
        with OllamaClient(base_url=fake_ollama.url) as client:
            for _ in range(5):
                client.chat(QUESTION)
            assert client._router().scout is None
        assert not threads()
        assert {request.path for request in fake_ollama.requests} == {"/api/chat"}

    def test_keeps_no_connection(
        self, make: Make, fake_ollama: FakeOllama, other: FakeOllama
    ) -> None:
        client = make()
        client.chat(QUESTION, using="a")
        client.chat(QUESTION)
        is_asked(other, TAGS, PS)
        idle(client)
        until(lambda: fake_ollama.open_connections <= 1)
        client.close()
        for server in (fake_ollama, other):
            server.wait_for(lambda it: it.open_connections == 0)
        assert not threads()

    def test_ends_at_once_whatever_it_waits_for(self, make: Make, fake_ollama: FakeOllama) -> None:
        fake_ollama.misbehave(faults.BlackHole(), path=TAGS)
        client = make()
        client.chat(QUESTION)
        is_asked(fake_ollama, TAGS)
        started = time.monotonic()
        client.close()
        until(lambda: not threads())
        assert time.monotonic() - started < 1.0, "it is silent for two seconds"
        fake_ollama.wait_for(lambda server: not server.in_flight)

    def test_is_another_after_close(self, make: Make, fake_ollama: FakeOllama) -> None:
        client = make()
        client.chat(QUESTION)
        is_asked(fake_ollama, TAGS)
        client.close()
        client.chat(QUESTION)
        is_asked(fake_ollama, TAGS, times=2)

    def test_does_not_begin_for_a_call_that_outlives_its_engine(self, make: Make) -> None:
        client = make()
        scout = client._router().scout
        assert scout is not None
        client.close()
        for _ in range(2):
            scout("default")
        assert not threads()

    def test_ended_stays_so(self, make: Make) -> None:
        client = make()
        client.chat(QUESTION)
        scout = client._router().scout
        assert scout is not None
        client.close()
        for _ in range(2):
            scout("default")
        assert not threads()

    def test_survives_what_nobody_thought_of(
        self,
        make: Make,
        fake_ollama: FakeOllama,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def broken(*_: object) -> Any:
            raise KeyError(KEY)

        client = make()
        with monkeypatch.context() as patch:
            patch.setattr(Scouting, "go", broken)
            client.chat(QUESTION)
            until(lambda: "going on without it" in caplog.text)
        assert "KeyError" in caplog.text
        assert KEY not in caplog.text
        until(lambda: bool(client.chat(QUESTION)) and asked(fake_ollama, TAGS) == 1)

    def test_is_not_needed_where_there_can_be_none(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, fake_ollama: FakeOllama
    ) -> None:
        def full(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        client = make()
        client.health_check()
        monkeypatch.setattr(threading.Thread, "start", full)
        for _ in range(3):
            assert client.chat(QUESTION)
        assert asked(fake_ollama, TAGS) == 1  # the health check's

    def test_is_one_of_its_own_in_a_forked_child(
        self, make: Make, fake_ollama: FakeOllama, other: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.BlackHole(), path=TAGS, when=when.first(1))
        client = make()
        client.chat(QUESTION)
        is_asked(fake_ollama, TAGS)  # the parent's thread is in the middle of it
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # it is what is tested
            child = os.fork()
        if not child:
            code = 1
            try:
                client.chat(QUESTION)
                until(lambda: client._running()._scouts._scouting.due_at("default") > 0)
                client.close()
                code = 2 if threads() else 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        is_asked(other, TAGS)


@pytest.fixture
def cloud() -> Iterator[FakeOllama]:
    with FakeOllama(models=["gpt-oss:120b"], account=FakeAccount.legacy(KEY)) as server:
        yield server


@pytest.fixture
def hybrid(cloud: FakeOllama, fake_ollama: FakeOllama) -> Iterator[OllamaClient]:
    """A client whose calls go to the cloud, else to the server at hand."""
    with OllamaClient(
        base_url=fake_ollama.url,
        api_key=KEY,
        cloud_model="gpt-oss:120b",
        cloud_endpoint=cloud.url,
        max_retries=0,
    ) as client:
        yield client


class TestTheKey:
    def test_goes_to_its_own_server_alone(
        self, hybrid: OllamaClient, cloud: FakeOllama, fake_ollama: FakeOllama, form: Form
    ) -> None:
        reply = form.tell(hybrid).reply
        assert reply is not None
        assert reply.endpoint == "cloud"
        cloud.misbehave(faults.unavailable())
        reply = form.tell(hybrid).reply
        assert reply is not None
        assert reply.endpoint == "local"
        is_asked(cloud, BALANCE)
        is_asked(fake_ollama, TAGS)
        idle(hybrid)
        headers = {request.headers.get("authorization") for request in cloud.requests}
        assert headers == {f"Bearer {KEY}"}
        assert not any("authorization" in request.headers for request in fake_ollama.requests)
        assert KEY not in str([request.headers for request in fake_ollama.requests])

    def test_does_not_follow_a_redirect(
        self, hybrid: OllamaClient, cloud: FakeOllama, fake_ollama: FakeOllama
    ) -> None:
        cloud.misbehave(faults.redirect(f"{fake_ollama.url}/api/balance"), path=BALANCE)
        hybrid.chat(QUESTION)
        is_asked(cloud, BALANCE)
        idle(hybrid)
        assert asked(fake_ollama, BALANCE) == 0


class TestTheBalance:
    def test_is_known_soon_after_the_first_call(
        self, hybrid: OllamaClient, cloud: FakeOllama
    ) -> None:
        assert [facts.quota for facts in hybrid.endpoints.values()] == [None, None]
        hybrid.chat(QUESTION)
        until(lambda: hybrid.endpoints["cloud"].quota is not None)
        quota = hybrid.endpoints["cloud"].quota
        assert quota is not None
        assert (quota.source, quota.used, quota.window) == ("balance", 0.6, "weekly")
        for _ in range(20):
            hybrid.chat(QUESTION)
        idle(hybrid)
        assert asked(cloud, BALANCE) == 1

    def test_is_asked_for_where_the_cloud_is_the_only_server(self, cloud: FakeOllama) -> None:
        with OllamaClient(
            base_url=cloud.url, api_key=KEY, cloud_endpoint=cloud.url, model="gpt-oss:120b"
        ) as client:
            client.chat(QUESTION)
            until(lambda: client.endpoints["default"].quota is not None)
        assert {request.path for request in cloud.requests} == {"/api/chat", BALANCE}

    @pytest.mark.usefixtures("_quickly")
    def test_that_is_low_is_warned_of_once(
        self,
        hybrid: OllamaClient,
        cloud: FakeOllama,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        cloud.account = FakeAccount(
            KEY,
            {"session": {"remaining_percent": 18, "resets_at": "2998-01-15T08:30:00Z"}},
        )
        until(lambda: bool(hybrid.chat(QUESTION)) and asked(cloud, BALANCE) >= 3)
        lines = [record for record in caplog.records if record.name == "ollama_bridge.quota"]
        (line,) = lines
        assert line.levelno == logging.WARNING
        assert line.getMessage() == (
            "Quota: endpoint cloud has used 82 % of its session allowance, "
            "which comes back at 2998-01-15 08:30 UTC"
        )
        assert line.__dict__["endpoint"] == "cloud"
        assert hybrid.chat(QUESTION).endpoint == "cloud"

    def test_without_a_reset_is_warned_of_without_one(
        self, hybrid: OllamaClient, cloud: FakeOllama, caplog: pytest.LogCaptureFixture
    ) -> None:
        cloud.account = FakeAccount(KEY, {"balance_usd": 1, "allowance_usd": 100})
        hybrid.chat(QUESTION)
        until(lambda: "Quota:" in caplog.text)
        assert "Quota: endpoint cloud has used 99 % of its allowance\n" in caplog.text

    def test_of_an_account_that_is_used_up_tells_until_when_it_is_left_alone(
        self, hybrid: OllamaClient, cloud: FakeOllama
    ) -> None:
        cloud.account = FakeAccount.legacy(KEY, session=0, seconds=7200)
        cloud.misbehave(faults.usage_limit())
        assert hybrid.chat(QUESTION).endpoint == "local"
        until(lambda: 7000 < hybrid.endpoints["cloud"].cooldown < 7300)
        with pytest.raises(QuotaExhausted):
            hybrid.chat(QUESTION, using="cloud")
        idle(hybrid)
        assert asked(cloud, BALANCE) == 1

    @pytest.mark.usefixtures("_quickly")
    def test_is_asked_for_when_the_account_is_used_up(
        self, hybrid: OllamaClient, cloud: FakeOllama
    ) -> None:
        hybrid.chat(QUESTION)
        is_asked(cloud, BALANCE)
        idle(hybrid)
        time.sleep(0.15)  # until it may be asked for again
        cloud.misbehave(faults.usage_limit())
        router = hybrid._router()
        router.scout = None  # no call asks for it
        assert hybrid.chat(QUESTION).endpoint == "local"
        is_asked(cloud, BALANCE, times=2)

    @pytest.mark.usefixtures("_quickly")
    def test_that_is_no_answer_changes_nothing(
        self, hybrid: OllamaClient, cloud: FakeOllama
    ) -> None:
        cloud.account = None
        for _ in range(5):
            assert hybrid.chat(QUESTION).endpoint == "cloud"
        is_asked(cloud, BALANCE)
        idle(hybrid)
        time.sleep(0.15)  # it is what does not happen in it that is tested
        hybrid.chat(QUESTION)
        idle(hybrid)
        assert asked(cloud, BALANCE) == 1
        assert hybrid.endpoints["cloud"].quota is None


def test_headers_of_replies_tell_what_is_left(
    hybrid: OllamaClient, cloud: FakeOllama, form: Form
) -> None:
    fields = (("X-RateLimit-Limit", "50"), ("X-RateLimit-Remaining", "20"))
    cloud.misbehave(faults.WithHeaders(fields))
    assert form.tell(hybrid).reply
    quota = hybrid.endpoints["cloud"].quota
    assert quota is not None
    assert (quota.source, quota.used, quota.limit) == ("headers", 0.6, 50.0)


def test_a_crowd_of_first_calls_begins_one_thread(
    make: Make, fake_ollama: FakeOllama, other: FakeOllama
) -> None:
    client = make()
    assert client.running_since is None
    together = threading.Barrier(8)
    failed: list[OllamaBridgeError] = []

    def call() -> None:
        together.wait()
        try:
            client.chat(QUESTION)
        except OllamaBridgeError as error:
            failed.append(error)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failed
    assert len(threads()) == 1
    is_asked(other, PS)
    idle(client)
    assert (asked(fake_ollama, PS), asked(other, PS)) == (1, 1)
