"""Calls that wait for their turn, in virtual time."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ollama_bridge import errors
from ollama_bridge.core import exchanges
from ollama_bridge.core.actions import FaultKind, Flow, Send, Sleep, TransportFault, Wait
from ollama_bridge.core.breaker import Mode
from ollama_bridge.core.deadline import Clock, Deadline
from ollama_bridge.core.places import ModelPlace
from ollama_bridge.core.types import ChatReply
from ollama_bridge.core.visit import Visit

from .virtual import World, endpoint, reply

BROKEN = reply({"error": "boom"}, status=503)


def limited(limit: int = 1, **facts: Any) -> World:
    return World([endpoint(max_concurrency=limit, **facts)])


def at(world: World, model: str = "m") -> ModelPlace:
    return world.router.place(world.router.default.endpoint).model(model)


def begun(world: World, **facts: Any) -> tuple[Flow[ChatReply], Send | Wait]:
    """Return a call under way, and what it does first."""
    steps = world.flow(exchanges.whole, **facts)
    action = next(steps)
    assert isinstance(action, Send | Wait)
    return steps, action


def answer(steps: Flow[ChatReply]) -> ChatReply:
    with pytest.raises(StopIteration) as end:
        steps.send(reply())
    found: ChatReply = end.value.value
    return found


def test_a_call_waits_for_its_turn_until_its_deadline() -> None:
    world = limited()
    first, _ = begun(world)
    second, wait = begun(world, timeout=20.0)
    assert isinstance(wait, Wait)
    assert wait.until == 1020.0
    woken: list[str] = []
    wait.ticket.wake = lambda: woken.append("second")
    answer(first)
    assert woken == ["second"]
    its_turn = True
    assert isinstance(second.send(its_turn), Send)
    answer(second)
    assert at(world).limiter.in_flight == 0


def test_each_model_has_its_own_slots() -> None:
    world = limited()
    first, _ = begun(world)
    other, action = begun(world, model="n")
    assert isinstance(action, Send)
    first.close()
    other.close()


def test_calls_of_a_batch_wait_behind_all_others() -> None:
    world = limited()
    first, _ = begun(world)
    _batch, batch_wait = begun(world, batch=True)
    _visitor, visitor_wait = begun(world)
    assert isinstance(batch_wait, Wait)
    assert isinstance(visitor_wait, Wait)
    answer(first)
    assert visitor_wait.ticket.granted
    assert batch_wait.ticket.waits


def test_a_call_that_gets_no_turn_in_time_is_overloaded() -> None:
    world = limited()
    _first, _ = begun(world)
    with pytest.raises(
        errors.Overloaded, match=r"Too many calls wait for default/m\. Send"
    ) as told:
        world.chat(timeout=10.0)
    assert world.time.now == 1010.0
    assert world.sent == []
    assert told.value.retry_after is None
    assert [a.code for a in told.value.attempts] == ["overloaded"]
    assert at(world).limiter.waiting == 0


def test_a_wait_that_cannot_end_in_time_is_refused_at_once_and_says_when() -> None:
    world = limited()
    world.seconds = 8.0
    world.chat()
    _first, _ = begun(world)
    world.time.now += 3.0
    before = world.time.now
    with pytest.raises(errors.Overloaded) as told:
        world.chat(timeout=4.9)
    assert world.time.now == before
    assert told.value.retry_after == pytest.approx(5.0)
    assert "The next turn is in about 5 s. Send fewer at once" in str(told.value)
    steps, wait = begun(world, timeout=5.1)
    assert isinstance(wait, Wait)
    steps.close()


def test_more_than_may_wait_are_refused() -> None:
    world = limited(max_waiting=1)
    _first, _ = begun(world)
    _second, _ = begun(world)
    with pytest.raises(errors.Overloaded):
        world.chat()
    assert at(world).limiter.waiting == 1


def test_a_refused_call_moves_no_circuit_and_earns_no_retry() -> None:
    world = limited(max_waiting=0)
    _first, _ = begun(world)
    budget = world.router.place(world.router.default.endpoint).budget
    budget.tokens = 1.0
    for _ in range(10):
        with pytest.raises(errors.Overloaded):
            world.chat()
    assert world.router.facts("default").failures == 0
    assert budget.tokens == 1.0


def opened(world: World) -> None:
    for _ in range(5):
        with pytest.raises(errors.ConnectionFailed):
            world.chat(model="other")


@pytest.mark.parametrize(
    "shut",
    [opened, lambda world: world.router.set_mode("default", Mode.FORCED_OPEN)],
    ids=["by failures", "by an operator"],
)
def test_opening_a_circuit_sends_away_who_waits_under_it(shut: Callable[[World], None]) -> None:
    world = limited()
    world.default = FaultKind.REFUSED
    first, _ = begun(world)
    second, wait = begun(world)
    assert isinstance(wait, Wait)
    woken: list[str] = []
    wait.ticket.wake = lambda: woken.append("second")
    shut(world)
    assert woken == ["second"]
    assert not wait.ticket.waits
    with pytest.raises(errors.CircuitOpen) as told:
        second.send(wait.ticket.granted)
    assert [a.code for a in told.value.attempts] == ["circuit_open"]
    first.close()
    assert at(world).limiter.in_flight == 0


def test_who_was_sent_away_queues_again_where_the_circuit_closed_meanwhile() -> None:
    world = limited()
    first, _ = begun(world)
    second, wait = begun(world)
    assert isinstance(wait, Wait)
    world.router.set_mode("default", Mode.FORCED_OPEN)
    world.router.reset("default")
    again = second.send(wait.ticket.granted)
    assert isinstance(again, Wait)
    answer(first)
    assert again.ticket.granted
    second.close()


def test_a_pause_that_a_server_asked_for_holds_for_those_who_wait() -> None:
    world = limited(retry=endpoint().retry)
    first, _ = begun(world)
    second, wait = begun(world)
    assert isinstance(wait, Wait)
    slow = reply({"error": "slow down"}, status=429, headers={"Retry-After": "900"})
    with pytest.raises(errors.RateLimited):
        first.send(slow)
    with pytest.raises(errors.RateLimited) as told:
        second.send(wait.ticket.granted)
    assert told.value.retry_after == pytest.approx(900)
    assert len(told.value.attempts) == 1
    assert at(world).limiter.in_flight == 0


def test_the_slot_is_given_to_the_next_before_a_sleep() -> None:
    world = limited()
    first, _ = begun(world)
    second, wait = begun(world)
    assert isinstance(wait, Wait)
    assert isinstance(first.send(BROKEN), Sleep)
    assert wait.ticket.granted
    again = first.send(None)
    assert isinstance(again, Wait)
    its_turn = True
    assert isinstance(second.send(its_turn), Send)
    answer(second)
    assert again.ticket.granted
    assert isinstance(first.send(its_turn), Send)
    answer(first)


def test_a_repeat_that_gets_no_turn_tells_what_failed() -> None:
    world = limited(max_waiting=1)
    first, _ = begun(world)
    _second, wait = begun(world)
    assert isinstance(wait, Wait)
    assert isinstance(first.send(BROKEN), Sleep)
    _third, _ = begun(world)
    with pytest.raises(errors.ServerFailed) as told:
        first.send(None)
    assert told.value.status == 503


def test_a_slot_whose_owner_is_gone_with_its_event_loop_goes_to_the_next() -> None:
    world = limited()
    first, _ = begun(world)
    waits = [begun(world) for _ in range(3)]

    def closed() -> None:
        raise RuntimeError("Event loop is closed")

    for _, wait in waits[:2]:
        assert isinstance(wait, Wait)
        wait.ticket.wake = closed
    _, last = waits[2]
    assert isinstance(last, Wait)
    answer(first)
    assert last.ticket.granted
    assert at(world).limiter.in_flight == 1
    last.ticket.wake = closed
    world.router.wake(last.ticket)
    world.router.report()
    assert at(world).limiter.in_flight == 0


def test_a_slot_that_is_granted_before_the_call_looks_is_not_used_without_permits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = limited()
    first, _ = begun(world)

    def meanwhile() -> None:
        """Another thread, right after the call has queued."""
        monkeypatch.undo()
        answer(first)
        world.router.set_mode("default", Mode.FORCED_OPEN)

    world.router.is_pending = True
    monkeypatch.setattr(world.router, "report", meanwhile)
    with pytest.raises(errors.CircuitOpen):
        world.chat()
    assert at(world).limiter.in_flight == 0


def test_a_wait_that_ends_a_little_early_costs_nobody_a_slot() -> None:
    world = limited()
    first, _ = begun(world)
    second, wait = begun(world)
    assert isinstance(wait, Wait)
    world.time.now = wait.until - 1e-6
    again = second.send(wait.ticket.granted)
    assert isinstance(again, Wait)
    assert again.ticket is wait.ticket
    world.time.now = again.until
    with pytest.raises(errors.Overloaded):
        second.send(again.ticket.granted)
    answer(first)
    assert (at(world).limiter.in_flight, at(world).limiter.waiting) == (0, 0)


class Collecting:
    """A clock: who reads it under the lock has the collector close an abandoned call there."""

    def __init__(self, world: World, abandoned: Flow[ChatReply]) -> None:
        self._world = world
        self._abandoned = [abandoned]
        world.router.clock = Clock(self, world.time)

    def __call__(self) -> float:
        if self._abandoned and self._world.router.lock._is_owned():
            self._abandoned.pop().close()
        return self._world.time.now


def test_a_slot_that_the_collector_gives_back_inside_a_refused_call_is_free_for_the_next() -> None:
    world = limited(max_waiting=0)
    first, _ = begun(world)
    Collecting(world, first)
    with pytest.raises(errors.Overloaded):
        world.chat()
    assert world.chat()


def test_a_probe_that_the_collector_closes_inside_a_refused_call_blocks_nobody() -> None:
    world = World()
    world.default = FaultKind.REFUSED
    opened(world)
    world.default = reply()
    world.time.now += 60
    probe, _ = begun(world)
    Collecting(world, probe)
    with pytest.raises(errors.CircuitOpen):
        world.chat()
    assert world.chat()


def test_a_waker_that_fails_leaves_the_others_to_be_woken() -> None:
    world = limited()
    _first, _ = begun(world)
    waits = [begun(world) for _ in range(3)]
    woken: list[int] = []

    def fail() -> None:
        raise KeyboardInterrupt

    for number, (_, wait) in enumerate(waits):
        assert isinstance(wait, Wait)
        wait.ticket.wake = partial(woken.append, number) if number else fail
    with pytest.raises(KeyboardInterrupt):
        world.router.set_mode("default", Mode.FORCED_OPEN)
    world.router.report()
    assert woken == [1, 2]


def test_a_place_in_the_queue_that_is_forgotten_is_left() -> None:
    world = limited()
    first, _ = begun(world)
    deadline = Deadline.after(60, now=world.time.now, usual=60)
    visit = Visit(world.router, world.router.default, deadline)
    assert visit.ticket.waits
    del visit
    gc.collect()
    assert at(world).limiter.waiting == 0
    first.close()


def test_a_model_with_calls_under_way_is_not_forgotten() -> None:
    world = limited()
    first, _ = begun(world, model="busy")
    for number in range(600):
        world.chat(model=f"m{number}")
    assert at(world, "busy").limiter.in_flight == 1
    first.close()
    assert at(world, "busy").limiter.in_flight == 0


class Crowd:
    """Calls under way at one model; a step begins, ends, fails, cancels or moves some."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.calls: list[tuple[Flow[ChatReply], Any]] = []
        self.ends = 0

    def step(self) -> None:
        if len(self.calls) < 15:
            steps = self.world.flow(exchanges.whole, batch=self.chance.random() < 0.3)
            self.keep(steps, lambda: next(steps))  # refused, where it is full or a circuit is open
        if self.calls:
            steps, action = self.calls.pop(self.chance.randrange(len(self.calls)))
            if self.chance.random() < 0.4:  # also one that was granted its slot just now
                steps.close()
                self.ends += 1
            else:
                self.keep(steps, lambda: self.move(steps, action))

    def keep(self, steps: Flow[ChatReply], move: Callable[[], Any]) -> None:
        try:
            self.calls.append((steps, move()))
        except (StopIteration, errors.OllamaBridgeError):
            self.ends += 1

    def move(self, steps: Flow[ChatReply], action: Any) -> Any:
        match action:
            case Wait():
                waits = action.ticket.waits
                return action if waits else steps.send(action.ticket.granted)
            case Sleep():
                return steps.send(None)
        rejected = reply({"error": "no"}, status=400)
        outcome = self.chance.choice([reply(), BROKEN, rejected, FaultKind.DROPPED])
        if isinstance(outcome, FaultKind):
            return steps.throw(TransportFault(outcome))
        return steps.send(outcome)

    def leave(self) -> None:
        for steps, _ in self.calls:
            steps.close()


def test_no_slot_is_lost_after_ten_thousand_random_cancels_and_errors() -> None:
    world = limited(2, max_waiting=20)
    crowd = Crowd(world, random.Random(2))
    limiter = at(world).limiter
    while crowd.ends < 10_000:
        world.time.now += crowd.chance.random()
        crowd.step()
        assert limiter.in_flight <= 2
        assert limiter.in_flight == 2 or not limiter.waiting
    crowd.leave()
    assert (limiter.in_flight, limiter.waiting) == (0, 0)
    assert not world.router._woken


def test_a_call_that_was_never_sent_is_not_said_to_have_begun() -> None:
    world = limited(max_waiting=0)
    _first, _ = begun(world)
    world.events.clear()
    with pytest.raises(errors.Overloaded):
        world.chat()
    assert [type(event).__name__ for event in world.events] == ["CallRefused"]
