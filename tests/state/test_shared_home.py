"""The thread that asks the store: no call waits for it for long, and nothing of it raises."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ollama_bridge import CircuitOpen, OllamaBridgeError, OllamaClient
from ollama_bridge.core.breaker import Mode, State
from ollama_bridge.core.limiter import Ticket
from ollama_bridge.core.retry import RetryPolicy
from ollama_bridge.state import courier
from ollama_bridge.state.exchange import Exchange
from ollama_bridge.state.letters import decode
from ollama_bridge.state.shared import SharedHome
from ollama_bridge.testing import FakeOllama
from tests.core.test_sharing import fail
from tests.core.virtual import FakeClock, World, endpoint

from .scripted import BOUND, ScriptedStore, await_, end_of, threads
from .waits import recorded

THREAD = "ollama_bridge.state.shared"
QUESTION = "What is water?"
PATIENCE = 0.05
SLACK = 0.045  # of a machine that has more to do


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    end_of(THREAD)


@pytest.fixture
def store() -> Iterator[ScriptedStore]:
    found = ScriptedStore()
    yield found
    found.open.set()


@pytest.fixture
def client(
    store: ScriptedStore, fake_ollama: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OllamaClient]:
    """A client that shares its circuits in the scripted store."""
    monkeypatch.setattr("ollama_bridge.client.store_of", lambda _: store)
    quick = {"max_retries": 0, "open_seconds": 0.2, "recovery_timeout": 0.2}
    with OllamaClient(base_url=fake_ollama.url, sync_interval=0.02, **quick) as made:
        yield made


@pytest.fixture
def waits() -> Iterator[list[float]]:
    found: list[float] = []
    with recorded(found):
        yield found


def seconds_of(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


@contextmanager
def joined(
    store: ScriptedStore, time: FakeClock | None = None
) -> Iterator[tuple[SharedHome, World]]:
    """A home in virtual time, with a real thread that has heard once."""
    time = time or FakeClock()
    home = SharedHome(0.5, time)
    world = World([endpoint(retry=RetryPolicy(max_retries=0))], home=home, time=time)
    join(home, world, store)
    home.wait(BOUND)
    yield home, world
    store.open.set()
    home.leave()


def join(home: SharedHome, world: World, store: ScriptedStore) -> None:
    addresses = {"default": "http://default.test:11434"}
    sharing = world.router.sharing
    exchange = Exchange(sharing, store, sender="one", addresses=addresses)
    home.join(sharing, exchange, store.hang_up)


def heard(ticket: Ticket | None) -> bool:
    """Wait for a ticket; tell whether there was one."""
    if ticket is None:
        return False
    await_(lambda: not ticket.waits)
    return ticket.granted


class TestAStoreThatIsSlow:
    def test_delays_one_call_by_50_ms_at_most_and_no_other(
        self, client: OllamaClient, store: ScriptedStore, waits: list[float]
    ) -> None:
        client.chat(QUESTION)
        store.open.clear()
        time.sleep(0.03)  # so that a reading is due
        waits.clear()
        for _ in range(30):
            client.chat(QUESTION)
        (wait,) = waits
        assert PATIENCE - 0.01 <= wait < PATIENCE + SLACK

    def test_delays_an_async_call_no_longer(
        self, client: OllamaClient, store: ScriptedStore, waits: list[float]
    ) -> None:
        async def scenario() -> None:
            await client.achat(QUESTION)
            store.open.clear()
            await asyncio.sleep(0.03)
            waits.clear()
            for _ in range(10):
                await client.achat(QUESTION)
            store.open.set()
            await client.aclose()

        asyncio.run(scenario())
        (wait,) = waits
        assert PATIENCE - 0.01 <= wait < PATIENCE + SLACK

    def test_delays_the_first_call_by_half_a_second_at_most(
        self, client: OllamaClient, store: ScriptedStore
    ) -> None:
        store.open.clear()
        first = seconds_of(lambda: client.chat(QUESTION))
        assert 0.5 <= first < 0.5 + PATIENCE + 0.2

    def test_counts_as_one_that_is_down_when_it_does_not_answer_for_a_second(
        self, store: ScriptedStore
    ) -> None:
        with joined(store) as (home, world):
            store.open.clear()
            world.time.now += 0.5
            assert home.hear(world.time.now) is not None
            await_(lambda: store.count == 2)
            for _ in range(3):
                assert home.hear(world.time.now + 0.9) is None, "nobody waits for another's look"
            assert home.hears(world.time.now + 0.9)
            assert not home.hears(world.time.now + 1.0)
            assert home.claim(world.time.now + 1.0) is None
            assert home.hear(world.time.now + 1.0, at_once=True) is None
            store.open.set()
            await_(lambda: home.hears(world.time.now + 1.0))

    def test_lets_a_probe_stand_back_at_first_and_go_alone_after_a_second(
        self, client: OllamaClient, store: ScriptedStore, fake_ollama: FakeOllama
    ) -> None:
        client.chat(QUESTION)
        fake_ollama.refuse()
        for _ in range(5):
            with pytest.raises(OllamaBridgeError):
                client.chat(QUESTION)
        fake_ollama.listen()
        await_(lambda: "set" in store.log)
        time.sleep(0.2)
        store.open.clear()
        refused: list[CircuitOpen] = []
        started = time.monotonic()
        while True:
            try:
                client.chat(QUESTION)
            except CircuitOpen as error:
                refused.append(error)
            else:
                break
            time.sleep(0.02)
        assert 0.5 < time.monotonic() - started < 2
        assert refused
        assert len(fake_ollama.chats) == 2
        assert client.circuit_breaker.state == "closed"


class TestAStoreThatIsDown:
    def test_is_asked_again_after_1_2_4_and_at_last_every_30_seconds(
        self, store: ScriptedStore
    ) -> None:
        with joined(store) as (home, world):
            store.down = True
            world.time.now += 0.5
            assert heard(home.hear(world.time.now))
            for rest in (1, 2, 4, 8, 16, 30, 30):
                asked = store.count
                for _ in range(100):
                    assert home.hear(world.time.now + rest - 0.01, at_once=True) is None
                    assert home.claim(world.time.now + rest - 0.01) is None
                assert store.count == asked
                world.time.now += rest
                assert heard(home.hear(world.time.now))
                assert store.count == asked + 1

    def test_is_asked_as_usual_after_it_is_back(self, store: ScriptedStore) -> None:
        with joined(store) as (home, world):
            for rest in (0.5, 1, 2):
                store.down = True
                world.time.now += rest
                assert heard(home.hear(world.time.now))
            store.down = False
            world.time.now += 4
            for _ in range(3):
                assert heard(home.hear(world.time.now))
                assert home.hear(world.time.now) is None
                world.time.now += 0.5
            store.down = True
            assert heard(home.hear(world.time.now))
            assert home.hear(world.time.now + 0.99) is None
            assert home.hear(world.time.now + 1.0) is not None

    def test_is_told_what_it_missed_without_any_call(
        self, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(courier, "_LONGEST_REST", 0.1)
        home = SharedHome(0.5, time.monotonic)
        world = World([endpoint(retry=RetryPolicy(max_retries=0))], home=home)
        join(home, world, store)
        home.wait(BOUND)
        store.down = True
        world.router.set_mode("default", Mode.FORCED_OPEN)
        await_(lambda: store.count >= 3)
        assert world.router.sharing.untold
        store.down = False
        await_(lambda: not world.router.sharing.untold)
        (head,) = (key for key in store.values if ":" not in key)
        letter = decode(store.values[head])
        assert letter is not None
        assert letter.snapshot.mode is Mode.FORCED_OPEN
        home.leave()

    def test_fails_no_call_and_delays_none(
        self, client: OllamaClient, store: ScriptedStore, waits: list[float]
    ) -> None:
        client.chat(QUESTION)
        store.down = True
        time.sleep(0.03)
        client.chat(QUESTION)
        asked = store.count
        waits.clear()
        for _ in range(50):
            client.chat(QUESTION)
        assert not waits
        assert store.count == asked

    def test_lets_each_process_open_and_probe_alone(
        self,
        client: OllamaClient,
        store: ScriptedStore,
        fake_ollama: FakeOllama,
        waits: list[float],
    ) -> None:
        store.down = True
        fake_ollama.refuse()
        for _ in range(5):
            with pytest.raises(OllamaBridgeError):
                client.chat(QUESTION)
        with pytest.raises(CircuitOpen):
            client.chat(QUESTION)
        fake_ollama.listen()
        time.sleep(0.2)
        waits.clear()
        assert client.chat(QUESTION)
        assert not waits
        assert client.circuit_breaker.state == "closed"

    def test_is_complained_of_once_a_minute_and_its_return_told(
        self, store: ScriptedStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        with joined(store) as (home, world), caplog.at_level(logging.INFO, "ollama_bridge.state"):
            store.down = True
            for rest in (0.5, 1, 2, 4, 8, 16, 30):
                world.time.now += rest
                assert heard(home.hear(world.time.now))
            store.down = False
            world.time.now += 30
            assert heard(home.hear(world.time.now))
        alone = "Cannot share circuits with other processes, going on alone: ConnectionError"
        back = "Circuits are shared with other processes again"
        assert caplog.messages == [alone, alone, back]


class TestTheThread:
    def test_ends_when_it_has_told_what_is_owed(self, store: ScriptedStore) -> None:
        with joined(store) as (home, world):
            world.time.now += 0.5
            home._awake = True  # as if the news came too late to wake it
            fail(world)
            assert "add" not in store.log
            home.leave()
            assert not threads(THREAD)
            assert store.log.count("add") == 1
            assert not world.router.sharing.untold
            assert store.hung_up.acquire(timeout=BOUND)

    def test_keeps_nobody_waiting_at_the_end_for_a_store_that_hangs(
        self, store: ScriptedStore
    ) -> None:
        with joined(store) as (home, world):
            store.open.clear()
            world.time.now += 0.5
            home.hear(world.time.now)
            await_(lambda: store.count == 2)
            assert 0.5 <= seconds_of(home.leave) < 0.7

    def test_leaves_calls_that_outlive_it_to_go_on_alone(self, store: ScriptedStore) -> None:
        with joined(store) as (home, world):
            home.leave()
            assert home.hear(world.time.now + 9) is None
            assert home.claim(world.time.now + 9) is None
            home.leave()

    def test_that_cannot_start_leaves_the_process_alone(
        self, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", start)
        with joined(store) as (home, world):
            assert home.hear(world.time.now + 9) is None
            assert home.claim(world.time.now + 99) is None
            fail(world)
            world.time.now += 9
            assert world.chat()
            assert world.router.facts("default").state is State.CLOSED
        assert store.count == 0

    def test_hangs_up_when_nobody_calls_and_works_on_even_if_that_fails(
        self, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(courier, "_IDLE", 0.02)
        store.ends_badly = True
        with joined(store) as (home, world):
            for _ in range(2):
                assert store.hung_up.acquire(timeout=BOUND)
                world.time.now += 0.5
                assert heard(home.hear(world.time.now))

    def test_is_one_for_each_running_client_and_none_after_it(self, client: OllamaClient) -> None:
        assert not threads(THREAD)
        for _ in range(2):
            client.chat(QUESTION)
            client.chat(QUESTION)
            assert len(threads(THREAD)) == 1
            client.close()
            assert not threads(THREAD)


def test_a_forked_child_hears_and_tells_with_a_thread_of_its_own(store: ScriptedStore) -> None:
    with joined(store) as (home, world):
        store.open.clear()  # the parent's thread is in the middle of it
        world.time.now += 0.5
        home.hear(world.time.now)
        await_(lambda: store.count == 2)
        code = _forked(lambda: _begin_anew(home, world))
        assert code == 0
        store.open.set()


def _begin_anew(home: SharedHome, world: World) -> bool:
    store = ScriptedStore()
    world.router.after_fork()
    home.after_fork()
    world.router.set_mode("default", Mode.FORCED_OPEN)  # before anybody has joined
    join(home, world, store)
    home.wait(BOUND)
    told = store.log == ["get_many", "add", "set"]
    home.leave()
    return told and not threads(THREAD)


def _forked(work: Callable[[], Any]) -> int:
    """Return 0 where the work was true in a forked child."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # it is what is tested
        child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
