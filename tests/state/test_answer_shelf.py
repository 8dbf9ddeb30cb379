"""The thread that keeps answers: no call waits for it for long, and nothing of it raises."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from django.db import connections

from ollama_bridge.caches import CacheStore
from ollama_bridge.core.answers import Lookup
from ollama_bridge.core.limiter import Ticket
from ollama_bridge.state import answers, courier
from ollama_bridge.state.answers import AnswerShelf, Keeping
from tests.core.virtual import FakeClock

from .scripted import BOUND, ScriptedStore, await_, end_of, threads
from .stores import ALIAS, PREFIX, Backing

THREAD = "ollama_bridge.state.answers"


@dataclass
class AnswerStore(ScriptedStore):
    """Such a store that knows for how long it is to keep what, and does so if it is ``ready``."""

    seconds: dict[str, float] = field(default_factory=dict)
    ready: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ready.set()

    def set(self, key: str, value: str, seconds: float) -> None:
        assert self.ready.wait(BOUND)
        super().set(key, value, 0)
        self.seconds[key] = seconds


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    end_of(THREAD)


def connected() -> list[str]:
    """Return the databases to which this thread has connections."""
    opened = connections.all(initialized_only=True)
    return [each.alias for each in opened if each.connection is not None]


def call(ticket: Ticket) -> None:
    """Do as the router does."""
    ticket.granted, ticket.waits = True, False
    if ticket.wake is not None:
        ticket.wake()


class Shelf(AnswerShelf):
    """A shelf in virtual time."""

    def __init__(self, store: AnswerStore) -> None:
        self.time = FakeClock()
        super().__init__(store, self.time, call)

    def begin(self, key: str = "key") -> Lookup | None:
        return self.look(key, self.time.now)

    def find(self, key: str = "key") -> object:
        """Return what there is, "deaf" where that is not worth waiting for."""
        lookup = self.begin(key)
        if lookup is None:
            return "deaf"
        await_(lambda: not lookup.waits)
        return lookup.text

    def put(self, key: str = "key", text: str = "text", seconds: float = 60.0) -> None:
        self.keep(key, text, seconds, self.time.now)

    @property
    def owed(self) -> int:
        return len(self._owed)

    def settle(self) -> None:
        """Wait until it has nothing to do."""
        await_(lambda: not self._owed and self._busy_since is None and self._asked.empty())


@pytest.fixture
def store() -> Iterator[AnswerStore]:
    found = AnswerStore()
    yield found
    found.open.set()


@pytest.fixture
def shelf(store: AnswerStore) -> Iterator[Shelf]:
    found = Shelf(store)
    yield found
    store.open.set()
    found.leave()


def test_what_is_kept_is_found(shelf: Shelf, store: AnswerStore) -> None:
    assert shelf.find() is None
    shelf.put(seconds=12.5)
    shelf.settle()
    assert shelf.find() == "text"
    assert store.seconds == {"key": 12.5}
    assert store.log == ["get_many", "set", "get_many"]


def test_what_is_to_be_kept_is_found_at_once(shelf: Shelf, store: AnswerStore) -> None:
    store.open.clear()
    shelf.put()
    lookup = shelf.begin()
    assert lookup is not None
    assert (lookup.waits, lookup.text) == (False, "text")


def test_what_came_last_is_kept(shelf: Shelf, store: AnswerStore) -> None:
    store.open.clear()
    shelf.put(text="old")
    shelf.put(text="new")
    assert shelf.find() == "new"
    store.open.set()
    shelf.settle()
    assert store.values == {"key": "new"}
    assert shelf.find() == "new"


def test_many_looks_are_one_question_to_the_store(shelf: Shelf, store: AnswerStore) -> None:
    shelf.find()
    store.open.clear()
    first = shelf.begin("first")
    await_(lambda: store.count == 2)
    lookups = [shelf.begin(f"key {number}") for number in range(50)]
    store.open.set()
    await_(lambda: not any(each.waits for each in (first, *lookups) if each is not None))
    assert store.count == 3


def test_a_look_does_not_wait_for_what_is_to_be_kept(shelf: Shelf, store: AnswerStore) -> None:
    shelf.find()
    store.open.clear()
    shelf.begin("first")
    await_(lambda: store.count == 2)
    shelf.put()
    lookup = shelf.begin("other")
    assert lookup is not None
    granted = threading.Event()
    lookup.wake = granted.set
    store.ready.clear()
    store.open.set()
    assert granted.wait(BOUND)
    assert shelf.owed == 1
    store.ready.set()
    shelf.settle()


class TestAStoreThatHangs:
    def test_is_not_waited_for_any_more_after_50_ms(self, shelf: Shelf, store: AnswerStore) -> None:
        shelf.find()
        store.open.clear()
        shelf.begin()
        await_(lambda: store.count == 2)
        shelf.time.now += 0.049
        assert shelf.begin() is not None
        shelf.time.now += 0.002
        assert [shelf.begin() for _ in range(100)] == [None] * 100
        store.open.set()
        shelf.settle()
        assert shelf.find() is None

    def test_is_not_waited_for_where_its_thread_has_no_turn_either(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(threading.Thread, "start", lambda _: None)
        assert shelf.begin() is not None
        shelf.time.now += 0.049
        assert shelf.begin() is not None
        shelf.time.now += 0.002
        assert shelf.begin() is None
        shelf._thread = None

    def test_is_given_nothing_to_keep_after_a_second(
        self, shelf: Shelf, store: AnswerStore
    ) -> None:
        store.open.clear()
        shelf.put("first")
        await_(lambda: store.count == 1)
        shelf.time.now += 0.9
        shelf.put("second")
        shelf.time.now += 0.2
        shelf.put("third")
        assert shelf.owed == 2

    def test_keeps_nothing_longer_than_was_asked(self, shelf: Shelf, store: AnswerStore) -> None:
        store.open.clear()
        for key, seconds in (("short", 2.0), ("long", 60.0)):
            shelf.put(key, seconds=seconds)
        await_(lambda: store.count == 1)
        shelf.time.now += 0.9
        shelf.put("late", seconds=2.0)
        shelf.time.now += 1.6
        assert shelf.begin("short") is None, "it is too old"
        assert shelf.begin("late") is not None
        store.open.set()
        shelf.settle()
        assert store.seconds == {"short": 2.0, "long": 58.0, "late": 1.0}
        assert shelf.find("late") == "text"

    def test_keeps_nothing_that_is_too_old_by_then(self, shelf: Shelf, store: AnswerStore) -> None:
        store.open.clear()
        shelf.put("first")
        await_(lambda: store.count == 1)
        shelf.put(seconds=2.0)
        shelf.time.now += 2.5
        store.open.set()
        shelf.settle()
        assert store.seconds == {"first": 60.0}

    def test_lets_no_memory_grow(
        self, shelf: Shelf, store: AnswerStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(answers, "MOST_OWED", 100)
        store.open.clear()
        for number in range(10):
            shelf.put(f"key {number}", "x" * 30)
        assert shelf.owed == 3
        store.open.set()
        shelf.settle()
        shelf.put("later", "x" * 100)
        shelf.settle()
        assert len(store.values) == 4


class TestAStoreThatIsDown:
    def test_is_left_alone_for_1_2_4_and_at_last_30_seconds(
        self, shelf: Shelf, store: AnswerStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.down = True
        with caplog.at_level(logging.INFO, "ollama_bridge.state"):
            for rest in (1, 2, 4, 8, 16, 30, 30):
                assert shelf.find() is None
                shelf.settle()
                asked = store.count
                shelf.time.now += rest - 0.01
                assert shelf.find() == "deaf"
                shelf.put()
                assert (shelf.owed, store.count) == (0, asked)
                shelf.time.now += 0.02
            store.down = False
            assert shelf.find() is None
            shelf.settle()
        alone = "Cannot reach the cache of answers, going on without it: ConnectionError"
        assert caplog.messages == [alone, alone, "The cache of answers is back"]

    def test_loses_what_it_was_to_keep(self, shelf: Shelf, store: AnswerStore) -> None:
        store.open.clear()
        shelf.put("first")
        await_(lambda: store.count == 1)
        shelf.put("second")
        store.down = True
        store.open.set()
        shelf.settle()
        assert store.values == {}
        assert store.count == 1, "the second is not tried"


class TestTheThread:
    def test_is_not_there_before_somebody_asks(self, store: AnswerStore) -> None:
        shelf = Shelf(store)
        assert not threads(THREAD)
        shelf.leave()
        assert shelf.find() == "deaf"
        shelf.put()
        assert not threads(THREAD), "nor does it begin after the end"

    def test_keeps_what_is_owed_before_it_ends(self, shelf: Shelf, store: AnswerStore) -> None:
        shelf.put()
        shelf.leave()
        assert not threads(THREAD)
        assert store.values == {"key": "text"}
        assert store.hung_up.acquire(timeout=BOUND)
        assert shelf.find() == "deaf"

    def test_is_one_whoever_begins(self, shelf: Shelf) -> None:
        begun = threading.Barrier(8)

        def look() -> None:
            begun.wait(BOUND)
            shelf.find()

        callers = [threading.Thread(target=look) for _ in range(8)]
        for each in callers:
            each.start()
        for each in callers:
            each.join(BOUND)
        assert len(threads(THREAD)) == 1

    def test_does_not_begin_where_the_client_is_closed_in_that_moment(
        self, shelf: Shelf, store: AnswerStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begin = shelf._is_running

        def meanwhile() -> bool:
            shelf.leave()
            return begin()

        monkeypatch.setattr(shelf, "_is_running", meanwhile)
        assert shelf.find() == "deaf"
        assert threads(THREAD) == []
        assert store.count == 0

    def test_that_cannot_start_leaves_calls_alone(
        self, shelf: Shelf, store: AnswerStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", start)
        for _ in range(2):
            assert shelf.find() == "deaf"
            shelf.put()
        assert store.count == 0

    def test_hangs_up_when_nobody_asks(
        self, shelf: Shelf, store: AnswerStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(courier, "_IDLE", 0.02)
        for _ in range(2):
            shelf.find()
            assert store.hung_up.acquire(timeout=BOUND)

    def test_is_another_in_a_forked_child(self, shelf: Shelf, store: AnswerStore) -> None:
        store.open.clear()
        shelf.put("of the parent")
        await_(lambda: store.count == 1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # it is what is tested
            child = os.fork()
        if not child:
            code = 1
            try:
                shelf.after_fork()
                shelf._store = AnswerStore()
                shelf.put()
                code = 0 if shelf.find() == "text" and shelf.find("of the parent") is None else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_any_cache_will_do_and_the_caller_has_no_part_in_its_connections(
    backing: Backing,
) -> None:
    before = connected()
    store = CacheStore(ALIAS, PREFIX, "answer")
    shelf = AnswerShelf(store, time.monotonic, call)
    try:
        shelf.keep("key", "Öl & 水", 60.0, time.monotonic())
        await_(lambda: not shelf._owed)
        lookup = shelf.look("key", time.monotonic())
        assert lookup is not None
        await_(lambda: not lookup.waits)
        assert lookup.text == "Öl & 水"
        assert connected() == before
    finally:
        shelf.leave()
    assert backing.connections() == 0


def test_no_answer_is_in_what_a_report_shows() -> None:
    assert repr(Keeping("key", "canary", 0.0, 60.0)) == "Keeping(seconds=60.0)"
