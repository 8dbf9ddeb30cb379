"""``MAX_CONCURRENCY`` and ``MAX_WAITING`` of several endpoints, by what each server sees."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import OllamaBridgeError, OllamaClient
from ollama_bridge.testing import FakeOllama, faults, when
from tests.client.forms import Form
from tests.net.crowd import chats
from tests.net.held import Held
from tests.net.pair import Pair, codes, pair, tried
from tests.net.scripts import run_script

if TYPE_CHECKING:
    from ollama_bridge.testing.faults import Exchange, Fault

CALLS = 150
THREADS = 30
STRATEGIES = ["failover", "round_robin", "random", "weighted", "least_busy", "lowest_cost"]
BATCH = [f"batch {number}" for number in range(6)]


class Counted:
    """Answers after a moment; knows how many it had to answer at once, at most.

    A server's own count has what it is asked about itself, too.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._now = 0

    async def reply(self, exchange: Exchange) -> None:
        self._now += 1
        self.peak = max(self.peak, self._now)
        try:
            await exchange.sleep(0.005)
        finally:
            self._now -= 1
        await exchange.send(exchange.honest())


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end, "this does not come true"
        time.sleep(0.001)


def load(client: OllamaClient) -> tuple[int, int]:
    """Return how many calls are in flight, and how many wait."""
    figures = client.get_stats()
    return figures["in_flight"], figures["waiting"]


def counted(two: Pair) -> tuple[Counted, Counted]:
    counts = Counted(), Counted()
    for server, count in zip((two.a, two.b), counts, strict=True):
        server.misbehave(count)
    return counts


def achats(client: OllamaClient, calls: int) -> Counter[str]:
    """Chat so often on a loop, all at once; count answers and codes of errors."""

    async def chat(number: int) -> str:
        try:
            await client.achat(f"Question {number}")
        except OllamaBridgeError as error:
            return error.code
        return "answered"

    async def all_chat() -> Counter[str]:
        return Counter(await asyncio.gather(*map(chat, range(calls))))

    return asyncio.run(all_chat())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_server_sees_more_at_once_than_its_own_limit(two: Pair, strategy: str) -> None:
    of_a, of_b = counted(two)
    client = two.client(a={"MAX_CONCURRENCY": 2}, b={"MAX_CONCURRENCY": 3}, strategy=strategy)
    with ThreadPoolExecutor(2) as threads:
        in_threads = threads.submit(crowd, client)
        on_a_loop = threads.submit(achats, client, CALLS)
        assert in_threads.result() == on_a_loop.result() == {"answered": CALLS}
    assert load(client) == (0, 0)
    both = of_a.peak, of_b.peak
    # A queue has no end here, so whoever is the first by rank has all.
    assert both == ((2, 0) if strategy == "failover" else (2, 3))


def crowd(client: OllamaClient) -> Counter[str]:
    def chat(number: int) -> str:
        try:
            client.chat(f"Question {number} of a thread")
        except OllamaBridgeError as error:
            return error.code
        return "answered"

    with ThreadPoolExecutor(THREADS) as threads:
        return Counter(threads.map(chat, range(CALLS)))


def test_what_finds_no_place_in_one_queue_goes_to_the_other(two: Pair, form: Form) -> None:
    held = Held()
    two.a.misbehave(held)
    client = two.client(a={"MAX_CONCURRENCY": 1, "MAX_WAITING": 0})
    first = form.begin(client)
    two.a.wait_for(lambda server: len(server.chats) == 1)
    reply = form.ask(client)
    assert codes(reply.attempts) == ["a:overloaded", "b:"]
    assert reply.latency < 1
    held.let_go()
    assert first.result().reply == "Wet."
    assert form.ask(client).endpoint == "a"


def test_where_all_queues_are_full_a_call_is_refused_and_says_so(two: Pair, form: Form) -> None:
    held = Held()
    for server in (two.a, two.b):
        server.misbehave(held)
    client = two.client(max_concurrency=1, max_waiting=0)
    under_way = [form.begin(client) for _ in range(2)]
    for server in (two.a, two.b):
        server.wait_for(lambda server: len(server.chats) == 1)
    error = form.fail(client)
    assert tried(error) == ["a:overloaded", "b:overloaded"]
    assert error.code == "overloaded"
    held.let_go()
    assert {call.result().reply for call in under_way} == {"Wet."}


def test_a_call_that_went_on_elsewhere_holds_no_slot_where_it_failed(two: Pair, form: Form) -> None:
    held = Held()
    two.a.misbehave(faults.unavailable(), when=when.first(1))
    two.b.misbehave(held)
    client = two.client(max_concurrency=1, max_waiting=0)
    gone_on = form.begin(client)
    two.b.wait_for(lambda server: len(server.chats) == 1)
    assert load(client) == (1, 0)
    assert form.ask(client).endpoint == "a"
    held.let_go()
    assert gone_on.result().reply == "Wet."


@pytest.mark.parametrize("strategy", ["round_robin", "least_busy"])
def test_batches_wait_behind_all_others_at_each_of_them(two: Pair, strategy: str) -> None:
    held = Held()
    for server in (two.a, two.b):
        server.misbehave(held)
    client = two.client(strategy=strategy, max_concurrency=1)
    with ThreadPoolExecutor(3) as threads:
        batch = threads.submit(client.chat_many, BATCH, max_concurrency=len(BATCH))
        until(lambda: load(client) == (2, len(BATCH) - 2))
        others = [threads.submit(client.chat, f"other {number}") for number in range(2)]
        until(lambda: load(client) == (2, len(BATCH)))
        held.let_go()
        assert [*batch.result(), *(other.result() for other in others)] == ["Wet."] * 8
    for server in (two.a, two.b):
        first, *rest = [request.prompt.split()[0] for request in server.chats]
        assert (first, rest) == ("batch", sorted(rest, reverse=True))
    prompts = [request.prompt for server in (two.a, two.b) for request in server.chats]
    assert sorted(prompts) == [*BATCH, "other 0", "other 1"]


def test_no_slot_of_any_is_lost_whatever_happens_to_a_hundred_callers(two: Pair) -> None:
    misdeeds: list[Fault] = [
        *(faults.Reset(), faults.unavailable(), faults.Drop(), faults.Stall(0.01)),
        *(faults.rate_limited(), faults.busy(), faults.Garbage()),
    ]
    for number, fault in enumerate(misdeeds):
        for shift, server in enumerate((two.a, two.b)):
            server.misbehave(fault, when=partial(_asks, str((number + shift) % 8)))
    client = two.client(
        a={"MAX_CONCURRENCY": 3}, b={"MAX_CONCURRENCY": 2}, strategy="least_busy", max_retries=1
    )
    start = threading.Barrier(100)

    def call(number: int) -> None:
        chance = random.Random(number)
        start.wait()
        for _ in range(5):
            try:
                client.chat(f"{chance.randrange(8)}", timeout=chance.choice([0.01, 0.05, 5]))
            except OllamaBridgeError:
                continue

    with ThreadPoolExecutor(100) as threads:
        list(threads.map(call, range(100)))
    for server in (two.a, two.b):
        server.behave()
    assert load(client) == (0, 0)
    for circuit in client.circuit_breakers.values():
        circuit.reset()
    of_a, of_b = counted(two)
    assert chats(client, 30, 10).total() == 30
    assert (of_a.peak, of_b.peak) == (3, 2)


def _asks(prompt: str, request: Any) -> bool:
    return bool(request.prompt == prompt)


FORKED = """
    import logging
    logging.disable()
    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    endpoints = {{"a": {{"BASE_URL": {a!r}}}, "b": {{"BASE_URL": {b!r}}}}}
    client = OllamaClient(
        endpoints=endpoints, routes={{"default": {{"TARGETS": ["a", "b"]}}}}, cache=None,
        max_concurrency=1, failure_threshold=1, open_seconds=60, max_retries=0,
    )
    held = threading.Thread(target=client.chat, args=("held",), kwargs={{"using": "b"}})
    client.chat("before")
    held.start()
    while client.get_stats()["in_flight"] < 1:
        pass
    pid = os.fork()
    if not pid:
        try:
            reply = client.chat("child")
            print(*(f"{{each.endpoint}}:{{each.code}}" for each in reply.attempts), flush=True)
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    held.join()
    reply = client.chat("after")
    print(*(f"{{each.endpoint}}:{{each.code}}" for each in reply.attempts))
    client.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="fork")
def test_a_forked_child_knows_what_is_open_and_has_slots_of_its_own() -> None:
    """The parent's one slot at the other endpoint is taken, for as long as the child asks."""
    with pair(answer="Wet.") as two:
        two.a.misbehave(faults.unavailable())
        held = Held()
        two.b.misbehave(held, when=when.prompt("held"))
        with ThreadPoolExecutor(1) as threads:
            body = FORKED.format(a=two.a.url, b=two.b.url)
            said = threads.submit(run_script, two.a, body)
            two.b.wait_for(partial(_was_asked, "child"), 20)
            held.let_go()
            refused = "a:circuit_open b:\n"
            assert said.result() == f"{refused}{refused}end\n"
        assert [request.prompt for request in two.a.chats] == ["before"]


def _was_asked(prompt: str, server: FakeOllama) -> bool:
    return any(request.prompt == prompt for request in server.chats)
