"""Circuits that processes share: one opening, one probe, operators who are obeyed everywhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from ollama_bridge import errors
from ollama_bridge.core import exchanges
from ollama_bridge.core.actions import Action, FaultKind, Flow, Send, Wait
from ollama_bridge.core.breaker import Mode, State
from ollama_bridge.core.events import CircuitFollowed, CircuitOpened
from ollama_bridge.state.exchange import KeepsNothingError

from .processes import DictStore, process, two
from .virtual import FakeClock, reply

if TYPE_CHECKING:
    from ollama_bridge.core.types import ChatReply

    from .virtual import World

REFUSED = FaultKind.REFUSED


def fail(world: World, times: int = 5) -> None:
    for _ in range(times):
        world.script = [REFUSED]
        with pytest.raises(errors.ConnectionFailed):
            world.chat()


def state(world: World, name: str = "default") -> tuple[State, int]:
    facts = world.router.facts(name)
    return facts.state, facts.generation


def begin(world: World) -> tuple[Flow[ChatReply], Action]:
    """Begin a chat, up to its request."""
    steps = world.flow(exchanges.whole)
    action = steps.send(None)
    while not isinstance(action, Send):
        action = steps.send(world.perform(action))
    return steps, action


def end(world: World, under_way: tuple[Flow[ChatReply], Action]) -> None:
    steps, action = under_way
    with pytest.raises(StopIteration):
        steps.send(world.perform(action))


@pytest.fixture(autouse=True)
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_bridge.core.retry.RetryPolicy.repeats", lambda *_: False)


def test_what_one_opens_is_open_for_the_other_at_its_next_look() -> None:
    one, other = two()
    other.chat()
    fail(one)
    other.time.now += 0.5
    with pytest.raises(errors.CircuitOpen) as caught:
        other.chat()
    assert state(other) == state(one) == (State.OPEN, 1)
    assert caught.value.retry_after == pytest.approx(5.0, abs=0.6)
    assert CircuitFollowed("default", State.OPEN, Mode.AUTO) in other.events


def test_two_that_open_in_the_same_moment_have_opened_once() -> None:
    one, other = two()
    one.home.late = other.home.late = True
    fail(one)
    fail(other)
    one.home.run()
    other.home.run()
    one.home.run()
    assert state(one) == state(other) == (State.OPEN, 1)
    assert one.router.facts("default").retry_after == other.router.facts("default").retry_after


def test_of_two_whose_open_time_is_over_one_probes() -> None:
    one, other = two()
    one.chat()
    other.chat()
    fail(one)
    other.home.run()
    one.time.now += 5.1
    probe = begin(one)
    assert state(one)[0] is State.HALF_OPEN
    with pytest.raises(errors.CircuitOpen):
        other.chat()
    assert len(other.sent) == 1, "its first chat, and no probe"
    end(one, probe)
    other.home.run()
    assert state(one) == state(other) == (State.CLOSED, 3)
    other.chat()


def test_of_two_that_claim_the_probe_in_the_same_moment_the_first_has_it() -> None:
    one, other = two()
    one.chat()
    other.chat()
    fail(one)
    other.home.run()
    one.time.now += 5.1
    one.home.next = other.home.next = one.time.now + 9  # neither hears of the other before
    probe = begin(one)
    with pytest.raises(errors.CircuitOpen):
        other.chat()
    end(one, probe)
    assert state(one) == (State.CLOSED, 3)


def test_a_probe_that_is_given_up_is_free_for_the_other() -> None:
    one, other = two()
    other.chat()
    fail(one)
    other.home.run()
    one.time.now += 5.1
    probe = begin(one)
    probe[0].close()
    other.chat()
    one.home.run()
    assert state(one)[0] is state(other)[0] is State.CLOSED


def test_a_prober_that_was_killed_blocks_nobody_longer_than_its_lease() -> None:
    one, other = two()
    other.chat()
    fail(one)
    other.home.run()
    one.time.now += 5.1
    probe = begin(one)
    other.time.now += 0.5
    with pytest.raises(errors.CircuitOpen):
        other.chat()
    other.time.now += 60 + 5.1
    assert other.chat()
    assert state(other)[0] is State.CLOSED
    probe[0].close()


def test_a_probe_waits_for_the_word_of_the_others_only_shortly_and_then_stands_back() -> None:
    one, other = two()
    fail(one)
    one.time.now += 5.1
    one.home.late = True
    one.home.next = one.time.now + 9
    began = one.time.now
    with pytest.raises(errors.CircuitOpen) as caught:
        one.chat()
    assert one.time.now - began == pytest.approx(0.05)
    assert isinstance(one.actions[-1], Wait)
    assert caught.value.retry_after == 1.0
    one.home.late = False
    assert one.chat()
    other.home.run()
    assert state(one)[0] is state(other)[0] is State.CLOSED


def test_without_the_store_each_goes_on_alone() -> None:
    one, other = two()
    one.home.deaf = other.home.deaf = True
    fail(one)
    assert other.chat()
    one.time.now += 5.1
    assert one.chat()
    assert state(one)[0] is state(other)[0] is State.CLOSED


def test_a_store_that_forgot_everything_is_told_again() -> None:
    store = DictStore()
    one, other = two(store)
    other.chat()
    fail(one)
    store.values.clear()
    one.home.run()
    assert state(one) == (State.OPEN, 1)
    other.home.run()
    assert state(other) == (State.OPEN, 1)


def test_a_success_under_a_closed_circuit_writes_nothing() -> None:
    store = DictStore()
    one, other = two(store)
    for _ in range(50):
        one.chat()
        other.chat()
    assert set(store.log) == {"get_many"}
    seconds = one.time.now - 1000.0
    assert store.log.count("get_many") <= 2 * (2 * seconds + 2), "two a second, two processes"


def test_a_new_process_knows_what_the_others_know_before_its_first_call() -> None:
    store, time = DictStore(), FakeClock()
    one = process(store, time, "one")
    one.chat()
    for _ in range(5):
        one.script = [reply({"error": "boom"}, status=500)]
        with pytest.raises(errors.ServerFailed):
            one.chat()
    assert state(one, "default/m") == (State.OPEN, 1)
    later = process(store, time, "later")
    with pytest.raises(errors.CircuitOpen):
        later.chat()
    assert not later.sent


def test_what_an_operator_wants_holds_whatever_others_tell_in_the_same_moment() -> None:
    one, other = two()
    other.chat()
    other.home.late = True
    fail(one)
    other.router.set_mode("default", Mode.FORCED_OPEN)
    other.home.late = False
    other.home.run()
    one.home.run()
    assert one.router.facts("default").mode is other.router.facts("default").mode
    assert one.router.facts("default").mode is Mode.FORCED_OPEN
    one.router.reset("default")
    other.home.run()
    assert state(one) == state(other)
    assert other.router.facts("default").mode is Mode.AUTO
    assert other.chat()


def test_who_waits_for_a_slot_looks_again_when_another_process_opens_the_circuit() -> None:
    one, other = two(max_concurrency=1)
    first, _ = begin(other)
    second = other.flow(exchanges.whole)
    waiting = second.send(None)
    assert isinstance(waiting, Wait)
    fail(one)
    other.home.run()
    assert not waiting.ticket.waits
    with pytest.raises(errors.CircuitOpen):
        second.send(waiting.ticket.granted)
    first.close()


def test_an_opening_is_reported_by_who_found_it() -> None:
    one, other = two()
    other.chat()
    fail(one)
    other.home.run()
    assert [type(event) for event in one.events].count(CircuitOpened) == 1
    assert [type(event) for event in other.events].count(CircuitOpened) == 0


def test_what_nobody_can_read_is_written_over() -> None:
    store = DictStore()
    one, other = two(store)
    other.chat()
    fail(one)
    (newest,) = (key for key in store.values if key.endswith(":1"))
    one.time.now += 5.1
    store.values[newest[:-1] + "2"] = "garbage"
    assert one.chat()
    other.home.run()
    assert state(one) == state(other) == (State.CLOSED, 3)


class _Busy(DictStore):
    """Keeps nothing for some time, and does not fail either: as SQLite while others write."""

    times: float = math.inf

    def add(self, key: str, value: str, seconds: int) -> bool:
        self.times -= 1
        return self.times < 0 and super().add(key, value, seconds)


def test_a_store_that_keeps_nothing_is_one_that_fails() -> None:
    one, _ = two(_Busy())
    one.home.late = True
    fail(one)
    with pytest.raises(KeepsNothingError):
        one.home.run()
    assert one.router.sharing.untold


def test_a_store_that_is_busy_is_asked_again_soon() -> None:
    store = _Busy()
    store.times = 2
    one, other = two(store)
    other.chat()
    fail(one)
    other.home.run()
    assert state(one) == state(other) == (State.OPEN, 1)
    assert not one.router.sharing.untold


def test_what_is_told_of_a_circuit_that_was_forgotten_or_moved_on_changes_nothing() -> None:
    one, other = two()
    other.chat()
    fail(one)
    told = one.router.sharing.snapshot("default")
    assert told is not None
    other.router.reset("default")
    other.router.sharing.adopt("default", told)
    other.router.sharing.adopt("default/forgotten", told)
    other.router.sharing.adopt("gone", told)
    assert other.router.sharing.snapshot("default/forgotten") is None
    assert other.router.facts("default").mode is Mode.AUTO
    assert state(other)[0] is State.CLOSED
