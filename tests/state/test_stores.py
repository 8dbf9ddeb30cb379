"""What every store does alike, so that no rule of the circuits knows which one it is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from ollama_bridge import CircuitOpen
from ollama_bridge.caches import CacheStore
from ollama_bridge.core.breaker import Mode, Snapshot, State
from ollama_bridge.core.retry import RetryPolicy
from ollama_bridge.state.letters import Letter, decode, encode
from tests.core.processes import DictStore, two
from tests.core.test_sharing import begin, end, fail, state

from .stores import ALIAS, PREFIX, Backing

THREADS = 8
KEYS = [f"key:{number}" for number in range(10)]
LETTER = Letter(
    "läufer-1",
    Snapshot(
        7,
        State.HALF_OPEN,
        12.5,
        leased=True,
        mode=Mode.AUTO,
        openings=3,
        failures=5,
        last_error="connection_failed",
    ),
    1_790_000_000,
)


def in_threads(store: CacheStore, work: Callable[[int], object]) -> list[object]:
    """Do some work in many threads at once, each with connections of its own."""
    ready = Barrier(THREADS)

    def begin(number: int) -> object:
        try:
            ready.wait()
            return work(number)
        finally:
            store.hang_up()

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def test_of_many_threads_that_add_a_key_exactly_one_wins(backing: Backing) -> None:
    store = backing.store
    added = in_threads(store, lambda number: [store.add(key, f"{number}", 60) for key in KEYS])
    found = store.get_many(KEYS)
    for key, each in zip(KEYS, zip(*added, strict=True), strict=True):
        assert sum(each) == 1
        assert found[key] == str(each.index(True))


def test_what_is_there_is_not_added_again(backing: Backing) -> None:
    assert backing.store.add("key", "first", 60) is True
    assert backing.store.add("key", "second", 60) is False
    assert backing.store.get("key") == "first"


def test_what_is_set_replaces_what_was_there(backing: Backing) -> None:
    backing.store.set("key", "old", 60)
    backing.store.set("key", "new", 60)
    assert backing.store.get("key") == "new"


def test_many_keys_are_read_at_once_and_those_that_are_missing_are_left_out(
    backing: Backing,
) -> None:
    backing.store.set("one", "1", 60)
    backing.store.add("two", "2", 60)
    assert backing.store.get_many(["one", "two", "three"]) == {"one": "1", "two": "2"}
    assert backing.store.get_many([]) == {}
    assert backing.store.get("three") is None


def test_another_prefix_is_another_store(backing: Backing) -> None:
    other = CacheStore(ALIAS, "theirs")
    backing.store.set("key", "ours", 60)
    assert other.get("key") is None
    assert other.get_many(["key"]) == {}
    assert other.add("key", "theirs", 60)
    assert backing.store.get("key") == "ours"


def test_hanging_up_leaves_no_connection_and_the_next_use_makes_another(backing: Backing) -> None:
    store = backing.store
    for _ in range(2):
        store.add("key", "value", 60)
        assert store.get("key") == "value"
        store.hang_up()
        assert backing.connections() == 0
    in_threads(store, lambda _: store.get("key"))
    assert backing.connections() == 0


def test_letters_arrive_as_they_were_written(backing: Backing) -> None:
    backing.store.add("key", encode(LETTER), 60)
    assert decode(backing.store.get("key")) == LETTER
    assert decode(backing.store.get_many(["key"])["key"]) == LETTER


def test_two_processes_open_once_and_probe_once(backing: Backing) -> None:
    one, other = two(backing.store, retry=RetryPolicy(max_retries=0))
    one.chat()
    other.chat()
    one.home.late = other.home.late = True
    fail(one)
    fail(other)
    one.home.run()
    other.home.run()
    one.home.late = other.home.late = False
    assert state(one) == state(other) == (State.OPEN, 1)
    one.time.now += 5.1
    one.home.next = other.home.next = one.time.now + 9  # neither hears of the other before
    probe = begin(one)
    with pytest.raises(CircuitOpen):
        other.chat()
    end(one, probe)
    other.home.run()
    assert state(one) == state(other) == (State.CLOSED, 3)


def test_circuits_and_answers_share_no_key(backing: Backing) -> None:
    answers = CacheStore(ALIAS, PREFIX, "answer")
    backing.store.set("key", "circuit", 60)
    answers.set("key", "answer", 60.0)
    assert backing.store.get("key") == "circuit"
    assert answers.get_many(["key", "other"]) == {"key": "answer"}


def test_the_simplest_store_of_other_tests_does_the_same() -> None:
    store = DictStore()
    assert store.add("key", "first", 60)
    assert not store.add("key", "second", 60)
    assert not store.add("key", "first", 60)
    store.set("key", "new", 60)
    assert store.get_many(["key", "other"]) == {"key": "new"}
    assert store.get("other") is None
