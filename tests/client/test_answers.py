"""Answers that serve more than one call, for real: in threads, on loops, through real stores."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache

from ollama_bridge import OllamaBridgeError, RequestRejected, ServerFailed
from ollama_bridge.core import flow
from ollama_bridge.testing import FakeOllama, faults, when
from ollama_bridge.testing.outgoing import json_reply
from tests.client.forms import FORMS, AChat, AStream, Chat, Form, Stream
from tests.net.held import Held
from tests.state.redisserver import RedisServer
from tests.state.waits import recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django import Settings

    from ollama_bridge import ChatReply, OllamaClient
    from ollama_bridge.testing.exchange import Exchange
    from tests.conftest import MakeClient

QUESTION = "What is water?"
CANARY = "the-canary-sings-at-dawn"
FOR_ALL: dict[str, Any] = {"cache_ttl": 300, "cache_scope": "shared"}
PATIENCE = 0.05
SLACK = 0.045  # of a machine that has more to do
CROWD = 100
BOUND = 20.0


@pytest.fixture(autouse=True)
def cache(settings: Settings) -> LocMemCache:
    """The cache of the process, which is empty."""
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": uuid4().hex,
        }
    }
    found = caches["default"]
    assert isinstance(found, LocMemCache)
    return found


@pytest.fixture(autouse=True)
def _a_busy_machine_may_take_longer(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.cls is not TestAStoreThatIsBroken:
        monkeypatch.setattr(flow, "PATIENCE", BOUND)


@pytest.fixture
def held(fake_ollama: FakeOllama) -> Held:
    held = Held()
    fake_ollama.misbehave(held)
    return held


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + BOUND
    while not is_so():
        assert time.monotonic() < end, "this does not come true"
        time.sleep(0.001)


def entries(cache: Any) -> list[str]:
    return list(cache._cache)


def kept_in(cache: LocMemCache) -> list[str]:
    """Return the keys of all answers, once there is one."""
    until(lambda: bool(entries(cache)))
    return entries(cache)


def seats(client: OllamaClient) -> int:
    """Return how many calls wait for the answer to another, or ask for it."""
    answers = client._running()._answers
    assert answers is not None
    turns = [flight.turn for flight in list(answers.flights.under_way.values())]
    return sum(turn.in_flight + turn.waiting for turn in turns)


class TestAnAnswerThatIsKept:
    def test_serves_the_next_call_that_asks_the_same(
        self, form: Form, fake_ollama: FakeOllama, make_client: MakeClient
    ) -> None:
        client = make_client()
        first, second = (form.ask(client, **FOR_ALL) for _ in range(2))
        assert first == second
        assert (first.source, second.source) == ("ollama", "cache")
        assert (second.model, second.endpoint, second.done_reason) == (
            *("llama3.2", "default", "stop"),
        )
        assert (second.usage.total_tokens, second.attempts, second.reliability) == (0, (), "high")
        assert second.latency < 1
        assert second.request_id != first.request_id
        assert len(fake_ollama.chats) == 1

    def test_serves_all_forms_alike(self, fake_ollama: FakeOllama, make_client: MakeClient) -> None:
        client = make_client()
        for kind in FORMS:
            with kind() as form:
                told = form.tell(client, **FOR_ALL)
                assert told.reply is not None
                if kind is not FORMS[0] and form.streams:
                    assert [str(piece) for piece in told.pieces] == [str(told.reply)]
        assert len(fake_ollama.chats) == 1

    def test_serves_those_of_a_batch(
        self, fake_ollama: FakeOllama, make_client: MakeClient
    ) -> None:
        client = make_client()
        questions = [QUESTION, "What is ice?"] * 10
        answers = client.chat_many(questions, max_concurrency=8, **FOR_ALL)
        again = asyncio.run(_asked(client, questions))
        assert answers == again
        assert len(fake_ollama.chats) == 2
        assert {reply.source for reply in again if not isinstance(reply, OllamaBridgeError)} == {
            "cache"
        }

    def test_serves_nobody_of_another_scope(
        self, form: Form, fake_ollama: FakeOllama, make_client: MakeClient
    ) -> None:
        client = make_client()
        for scope in ("user:1", "user:2", "shared", "user:1"):
            form.ask(client, cache_ttl=300, cache_scope=scope)
        assert len(fake_ollama.chats) == 3

    def test_serves_nobody_who_did_not_ask_for_that(
        self, form: Form, fake_ollama: FakeOllama, make_client: MakeClient, cache: LocMemCache
    ) -> None:
        client = make_client()
        form.ask(client, **FOR_ALL)
        kept_in(cache)
        assert form.ask(client).source == "ollama"
        assert len(fake_ollama.chats) == 2
        assert len(entries(cache)) == 1

    @pytest.mark.parametrize(
        "other",
        [
            {"message": "What is ice?"},
            {"system_prompt": "Be brief."},
            {"history": [{"role": "user", "content": "Hello."}]},
            {"model": "other"},
            {"model": ["llama3.2", "other"]},
            {"temperature": 0.5},
            {"using": "default"},
            {"cache_ttl": 60},
        ],
        ids=str,
    )
    def test_serves_no_other_question(self, make_client: MakeClient, other: dict[str, Any]) -> None:
        with FakeOllama(models=["llama3.2", "other"]) as server:
            client = make_client(base_url=server.url)
            client.chat(**{"message": QUESTION, **FOR_ALL})
            assert client.chat(**{"message": QUESTION, **FOR_ALL, **other}).source == "ollama"

    def test_serves_no_other_settings(self, make_client: MakeClient) -> None:
        with FakeOllama(models=["llama3.2", "other"]) as server:
            for changes in (
                {},
                {"base_url": server.url},
                {"base_url": server.url, "model": "other"},
                {"system_prompt": "Be brief."},
                {"options": {"seed": 1}},
                {"cache_prefix": "another"},
            ):
                assert make_client(**changes).chat(QUESTION, **FOR_ALL).source == "ollama"
            assert make_client(timeout=7).chat(QUESTION, **FOR_ALL).source == "cache"
            assert make_client(keep_alive=7).chat(QUESTION, **FOR_ALL).source == "cache"

    def test_serves_while_nobody_else_does(
        self, form: Form, fake_ollama: FakeOllama, make_client: MakeClient
    ) -> None:
        client = make_client()
        form.ask(client, **FOR_ALL)
        fake_ollama.refuse()
        client.circuit_breaker.force_open()
        assert form.ask(client, **FOR_ALL).source == "cache"

    def test_serves_as_long_as_was_asked(self, make_client: MakeClient, cache: LocMemCache) -> None:
        client = make_client()
        brief: dict[str, Any] = {"cache_ttl": 0.3, "cache_scope": "shared"}
        began = time.monotonic()
        client.chat(QUESTION, **brief)
        kept_in(cache)
        assert client.chat(QUESTION, **brief).source == "cache" or time.monotonic() > began + 0.3
        time.sleep(0.31)
        assert client.chat(QUESTION, **brief).source == "ollama"

    def test_has_a_line_and_a_figure_of_its_own(
        self, form: Form, make_client: MakeClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = make_client()
        with caplog.at_level(logging.INFO, "ollama_bridge.client"):
            form.ask(client, **FOR_ALL)
            caplog.clear()
            reply = form.ask(client, **FOR_ALL)
        (record,) = caplog.records
        assert record.getMessage() == f"Response taken from the cache in {reply.latency:.2f}s"
        assert vars(record)["endpoint"] == "default"
        assert vars(record)["model"] == "llama3.2"
        assert vars(record)["request_id"] == reply.request_id
        stats = client.get_stats()
        assert (stats["successful_requests"], stats["cached_requests"]) == (2, 1)
        assert stats["endpoints"]["default"]["models"]["llama3.2"]["cached_requests"] == 1

    def test_is_told_by_nothing_but_a_hash(
        self,
        form: Form,
        make_client: MakeClient,
        cache: LocMemCache,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        client = make_client()
        private: dict[str, Any] = {
            "system_prompt": CANARY,
            "history": [{"role": "user", "content": CANARY}],
            "sticky_key": CANARY,
            "cache_scope": CANARY,
        }
        with caplog.at_level(logging.DEBUG):
            for _ in range(2):
                form.ask(client, CANARY, cache_ttl=300, **private)
        (key,) = kept_in(cache)
        prefix, digest = key.rsplit(":", 1)
        assert prefix == ":1:ollama_bridge:answer"
        assert len(digest) == 64
        assert CANARY not in caplog.text


async def _asked(client: OllamaClient, questions: list[str]) -> list[ChatReply | OllamaBridgeError]:
    try:
        return await client.achat_many(questions, max_concurrency=8, **FOR_ALL)
    finally:
        await client.aclose()


class TestNothingIsKept:
    @pytest.mark.parametrize(
        "arguments",
        [{"max_tokens": 1}, {"message": "Use a tool."}],
        ids=["cut by its length", "tool calls"],
    )
    def test_of_an_answer_that_is_for_its_own_call(
        self, form: Form, make_client: MakeClient, arguments: dict[str, Any], cache: LocMemCache
    ) -> None:
        with FakeOllama(answer="Water is wet, mostly.") as server:
            server.misbehave(_WantsATool(), when=when.prompt("Use a tool."))
            client = make_client(base_url=server.url)
            for _ in range(2):
                assert form.ask(client, **FOR_ALL, **arguments).source == "ollama"
            assert len(server.chats) == 2
        assert entries(cache) == []

    def test_of_a_stream_that_its_caller_bounds(
        self, streaming: Form, make_client: MakeClient, cache: LocMemCache
    ) -> None:
        client = make_client()
        for _ in range(2):
            assert streaming.ask(client, max_chunks=2, **FOR_ALL).truncated
        assert entries(cache) == []

    def test_of_a_stream_that_its_caller_leaves(
        self, streaming: Form, make_client: MakeClient, cache: LocMemCache
    ) -> None:
        client = make_client()
        assert streaming.tell(client, most=1, **FOR_ALL).left
        assert streaming.ask(client, **FOR_ALL).source == "ollama"
        assert len(kept_in(cache)) == 1

    def test_of_a_failure(
        self, form: Form, fake_ollama: FakeOllama, make_client: MakeClient, cache: LocMemCache
    ) -> None:
        client = make_client(max_retries=0)
        fake_ollama.misbehave(faults.bad_gateway())
        assert isinstance(form.fail(client, **FOR_ALL), ServerFailed)
        assert entries(cache) == []
        fake_ollama.behave()
        assert form.ask(client, **FOR_ALL).source == "ollama"


class _WantsATool:
    """A model that wants a tool called."""

    async def reply(self, exchange: Exchange) -> None:
        called = {"function": {"name": "look", "arguments": {}}}
        message = {"role": "assistant", "content": "", "tool_calls": [called]}
        body = {"model": "llama3.2", "message": message, "done": True, "done_reason": "stop"}
        await exchange.send(json_reply(body))


class TestIdenticalQuestionsAtOnce:
    def test_are_one_call_of_threads(
        self, fake_ollama: FakeOllama, make_client: MakeClient, held: Held
    ) -> None:
        client = make_client()
        with ThreadPoolExecutor(CROWD) as pool:
            asked = [pool.submit(client.chat, QUESTION, **FOR_ALL) for _ in range(CROWD)]
            until(lambda: seats(client) == CROWD)
            held.let_go()
            replies = [each.result(BOUND) for each in asked]
        assert len(set(replies)) == 1
        assert sorted(reply.source for reply in replies) == ["cache"] * (CROWD - 1) + ["ollama"]
        assert len(fake_ollama.chats) == 1
        assert client.get_stats()["cached_requests"] == CROWD - 1

    def test_are_one_call_of_tasks(
        self, fake_ollama: FakeOllama, make_client: MakeClient, held: Held
    ) -> None:
        client = make_client()

        async def scenario() -> list[ChatReply]:
            asked = [asyncio.create_task(client.achat(QUESTION, **FOR_ALL)) for _ in range(CROWD)]
            await asyncio.to_thread(until, lambda: seats(client) == CROWD)
            held.let_go()
            replies = await asyncio.gather(*asked)
            await client.aclose()
            return replies

        replies = asyncio.run(scenario())
        assert len(set(replies)) == 1
        assert len(fake_ollama.chats) == 1

    def test_are_one_call_of_all_forms_on_several_loops(
        self, fake_ollama: FakeOllama, make_client: MakeClient, held: Held
    ) -> None:
        client = make_client()
        with Chat() as chat, Stream() as stream, AChat() as one, AChat() as two, AStream() as three:
            forms = [chat, stream, one, two, three]
            asked = [form.begin(client, **FOR_ALL) for form in forms for _ in range(5)]
            until(lambda: seats(client) == len(asked))
            held.let_go()
            told = [each.result() for each in asked]
        assert len({each.reply for each in told}) == 1
        assert None not in {each.reply for each in told}
        assert len(fake_ollama.chats) == 1

    def test_are_several_calls_where_nobody_asked_for_caching(
        self, fake_ollama: FakeOllama, make_client: MakeClient, held: Held
    ) -> None:
        client = make_client()
        with Chat() as form:
            asked = [form.begin(client) for _ in range(5)]
            fake_ollama.wait_for(lambda server: len(server.chats) == 5)
            held.let_go()
            for each in asked:
                each.result()

    def test_are_one_call_also_where_the_store_keeps_nothing(
        self, fake_ollama: FakeOllama, make_client: MakeClient, held: Held, settings: Settings
    ) -> None:
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
        client = make_client()
        with Chat() as form:
            asked = [form.begin(client, **FOR_ALL) for _ in range(5)]
            until(lambda: seats(client) == 5)
            held.let_go()
            for each in asked:
                assert each.result().reply
            assert len(fake_ollama.chats) == 1
            until(lambda: form.ask(client, **FOR_ALL).source == "ollama")

    def test_fail_one_by_one_and_the_next_goes_on(
        self, form: Form, fake_ollama: FakeOllama, make_client: MakeClient
    ) -> None:
        first = Held()
        fake_ollama.misbehave(_ThenBoom(first), when=when.first(2))
        client = make_client(max_retries=0)
        asked = [form.begin(client, **FOR_ALL) for _ in range(10)]
        until(lambda: seats(client) == 10)
        first.let_go()
        told = [each.result() for each in asked]
        errors = [each.error for each in told if each.error is not None]
        assert [type(error) for error in errors] == [RequestRejected] * 2
        assert errors[0] is not errors[1]
        assert all(each.reply for each in told if each.error is None)
        assert len(fake_ollama.chats) == 3

    @pytest.mark.parametrize("kind", [AChat, Stream, AStream], ids=lambda kind: kind.name)
    def test_go_on_where_the_first_is_cancelled(
        self, fake_ollama: FakeOllama, make_client: MakeClient, held: Held, kind: type[Form]
    ) -> None:
        client = make_client()
        with kind() as form, Chat() as others:
            leader = form.begin(client, **FOR_ALL)
            fake_ollama.wait_for(lambda server: server.in_flight == 1)
            followers = [others.begin(client, **FOR_ALL) for _ in range(3)]
            until(lambda: seats(client) == 4)
            assert leader.leave().left
            fake_ollama.wait_for(lambda server: len(server.chats) == 2)
            until(lambda: seats(client) == 3)
            held.let_go()
            assert all(each.result().reply for each in followers)
        assert len(fake_ollama.chats) == 2
        assert client.get_stats()["cancelled_requests"] == 1

    def test_go_on_where_the_loop_of_the_first_is_closed(
        self, fake_ollama: FakeOllama, make_client: MakeClient, held: Held
    ) -> None:
        client = make_client()

        async def begin() -> Any:
            call = asyncio.create_task(client.achat(QUESTION, **FOR_ALL))
            await asyncio.to_thread(fake_ollama.wait_for, lambda server: server.in_flight == 1)
            return call

        loop = asyncio.new_event_loop()
        left = loop.run_until_complete(begin())
        loop.run_until_complete(loop.shutdown_default_executor())
        with Chat() as form:
            follower = form.begin(client, **FOR_ALL)
            until(lambda: seats(client) == 2)
            loop.close()
            client.get_stats()  # as any call, it looks for what closed loops have left
            fake_ollama.wait_for(lambda server: len(server.chats) == 2)
            held.let_go()
            assert follower.result().reply
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del left
            gc.collect()

    def test_have_a_deadline_each(
        self, form: Form, fake_ollama: FakeOllama, make_client: MakeClient, held: Held
    ) -> None:
        client = make_client()
        with Chat() as other:
            leader = other.begin(client, **FOR_ALL)
            fake_ollama.wait_for(lambda server: server.in_flight == 1)
            began = time.monotonic()
            error = form.fail(client, timeout=0.3, **FOR_ALL)
            assert error.code == "timeout"
            assert 0.29 < time.monotonic() - began < 0.6
            held.let_go()
            assert leader.result().reply
        assert client.circuit_breaker.failures == 0

    def test_leave_no_seat_behind(self, form: Form, make_client: MakeClient) -> None:
        client = make_client()
        for message in ("one", "two"):
            form.ask(client, message, **FOR_ALL)
        assert seats(client) == 0


class _ThenBoom:
    """Holds the first call, and rejects it and the next."""

    def __init__(self, held: Held) -> None:
        self._held = held

    async def reply(self, exchange: Exchange) -> None:
        await self._held.held(exchange)
        await faults.bad_option().reply(exchange)


class BrokenCache(LocMemCache):
    """A store that hangs, or is down; ``asked`` counts."""

    down = False
    open = threading.Event()
    asked = 0

    def get_many(self, keys: Any, version: int | None = None) -> Any:
        self._do()
        return super().get_many(keys, version)

    def set(self, *args: Any, **kwargs: Any) -> None:
        self._do()
        super().set(*args, **kwargs)

    @classmethod
    def _do(cls) -> None:
        cls.asked += 1
        assert cls.open.wait(BOUND)
        if cls.down:
            raise ConnectionError("gone")


class TestAStoreThatIsBroken:
    @pytest.fixture(autouse=True)
    def _broken(self, settings: Settings) -> Iterator[None]:
        settings.CACHES = {
            "default": {"BACKEND": f"{__name__}.BrokenCache", "LOCATION": uuid4().hex}
        }
        BrokenCache.down, BrokenCache.asked = False, 0
        BrokenCache.open.set()
        yield
        BrokenCache.open.set()

    @pytest.fixture
    def waits(self) -> Iterator[list[float]]:
        found: list[float] = []
        with recorded(found):
            yield found

    def test_that_hangs_delays_one_call_by_50_ms_at_most(
        self, form: Form, make_client: MakeClient, waits: list[float]
    ) -> None:
        with make_client() as client:
            form.ask(client, "before", **FOR_ALL)
            until(lambda: BrokenCache.asked == 2)
            waits.clear()
            BrokenCache.open.clear()
            for number in range(20):
                assert form.ask(client, f"{number}", **FOR_ALL).source == "ollama"
            (wait,) = waits
            assert PATIENCE - 0.01 <= wait < PATIENCE + SLACK
            BrokenCache.open.set()

    def test_that_is_down_delays_none_and_is_left_alone(
        self, form: Form, make_client: MakeClient, waits: list[float]
    ) -> None:
        BrokenCache.down = True
        with make_client() as client:
            form.ask(client, "before", **FOR_ALL)
            waits.clear()
            for number in range(20):
                assert form.ask(client, f"{number}", **FOR_ALL).source == "ollama"
            assert not waits
            assert BrokenCache.asked == 1

    def test_delays_nobody_who_did_not_ask_for_caching(
        self, form: Form, make_client: MakeClient, waits: list[float]
    ) -> None:
        BrokenCache.open.clear()
        with make_client(cache=None) as client:
            form.ask(client)
            assert not waits
        assert BrokenCache.asked == 0


def test_nothing_is_begun_for_who_does_not_ask_for_caching(make_client: MakeClient) -> None:
    with make_client() as client:
        client.chat(QUESTION)
        assert not [each for each in threading.enumerate() if "answers" in each.name]
        client.chat(QUESTION, **FOR_ALL)
        (thread,) = [each for each in threading.enumerate() if "answers" in each.name]
    thread.join(BOUND)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "garbage", [5, "", "{", "null", json.dumps({"text": "Got you."})], ids=repr
)
def test_what_is_not_ours_is_no_answer(
    make_client: MakeClient, cache: LocMemCache, garbage: object
) -> None:
    client = make_client()
    client.chat(QUESTION, **FOR_ALL)
    (key,) = kept_in(cache)
    cache.set(key.removeprefix(":1:"), garbage)
    assert client.chat(QUESTION, **FOR_ALL).source == "ollama"


def test_a_forked_child_has_what_is_kept_and_follows_nobody_of_its_parent(
    fake_ollama: FakeOllama, make_client: MakeClient, held: Held, cache: LocMemCache
) -> None:
    client = make_client()
    with Chat() as form:
        leader = form.begin(client, "held", **FOR_ALL)
        fake_ollama.wait_for(lambda server: server.in_flight == 1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # it is what is tested
            child = os.fork()
        if not child:
            code = 1
            try:
                reply = client.chat("held", timeout=10, **FOR_ALL)
                code = 0 if reply.source == "ollama" else 2
            finally:
                os._exit(code)
        fake_ollama.wait_for(lambda server: len(server.chats) == 2)
        held.let_go()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert leader.result().reply


def test_processes_share_what_is_kept_in_redis(
    fake_ollama: FakeOllama, make_client: MakeClient, settings: Settings
) -> None:
    with RedisServer() as redis:
        settings.CACHES = {"default": redis.cache}
        with make_client() as one:
            one.chat(CANARY, cache_ttl=300, cache_scope=CANARY)
        with make_client() as other:
            until(lambda: other.chat(CANARY, cache_ttl=300, cache_scope=CANARY).source == "cache")
            asked = len(fake_ollama.chats)
            redis.do("FLUSHALL")
            assert other.chat(CANARY, cache_ttl=300, cache_scope=CANARY).source == "ollama"
            until(lambda: bool(redis.do("KEYS", "*:answer:*")))
            (key,) = redis.do("KEYS", "*:answer:*")
            assert CANARY not in key
            assert 0 < redis.do("TTL", key) <= 300
            redis.kill()
            assert other.chat(CANARY, cache_ttl=300, cache_scope=CANARY).source == "ollama"
        assert len(fake_ollama.chats) == asked + 2
