from __future__ import annotations

import gc
import threading

import pytest

from ollama_bridge import errors
from ollama_bridge.core import exchanges
from ollama_bridge.core.actions import FaultKind
from ollama_bridge.core.breaker import BreakerPolicy, Mode, State
from ollama_bridge.core.deadline import Deadline
from ollama_bridge.core.outcome import Blame
from ollama_bridge.core.retry import RetryPolicy
from ollama_bridge.core.visit import Visit, riding

from .virtual import World, delta, endpoint, last, reply, stream


def test_circuits_are_named_by_endpoint_and_model() -> None:
    world = World([endpoint("a"), endpoint("b")])
    assert list(world.router.named()) == ["a", "b"]
    world.chat(model="x")
    assert list(world.router.named()) == ["a", "a/x", "b"]
    assert world.router.named()["a/x"].model == "x"
    assert world.router.named()["a"].name == "a/m"


def test_an_unknown_circuit_is_a_key_error() -> None:
    world = World()
    with pytest.raises(KeyError):
        world.router.facts("nobody")
    with pytest.raises(KeyError):
        world.router.reset("nobody")
    with pytest.raises(KeyError):
        world.router.set_mode("nobody/m", Mode.DISABLED)


def test_the_mode_of_an_endpoint_applies_to_models_that_are_called_later() -> None:
    world = World([endpoint(retry=RetryPolicy(max_retries=0))])
    world.router.set_mode("default", Mode.DISABLED)
    world.default = reply({"error": "boom"}, status=500)
    for _ in range(9):
        with pytest.raises(errors.ServerFailed):
            world.chat(model="later")
    assert world.router.facts("default/later").mode is Mode.DISABLED


def test_one_model_can_be_reset_alone() -> None:
    world = World()
    world.router.set_mode("default/x", Mode.FORCED_OPEN)
    world.router.set_mode("default/y", Mode.FORCED_OPEN)
    world.router.reset("default/x")
    assert world.router.facts("default/x").state is State.CLOSED
    assert world.router.facts("default/y").state is State.OPEN


def test_the_names_of_models_do_not_grow_without_bound() -> None:
    world = World([endpoint(retry=RetryPolicy(max_retries=0))])
    world.script = [reply({"error": "boom"}, status=500)]
    with pytest.raises(errors.ServerFailed):
        world.chat(model="troubled")
    for number in range(1000):
        world.chat(model=f"m{number}")
    names = world.router.named()
    assert len(names) <= 257
    assert "default/troubled" in names, "a circuit with failures is kept"


def test_waits_of_two_open_circuits_are_told_as_the_longer_one() -> None:
    world = World([endpoint(retry=RetryPolicy(max_retries=0))])
    for step in [reply({"error": "boom"}, status=500)] * 5 + [FaultKind.REFUSED] * 5:
        world.script = [step]
        model = "m" if step is not FaultKind.REFUSED else "n"
        with pytest.raises(errors.OllamaBridgeError):
            world.chat(model=model)
    with pytest.raises(errors.CircuitOpen) as caught:
        world.chat()
    assert caught.value.retry_after == 5.0, "the endpoint opened later than the model"


def test_an_open_circuit_with_an_end_and_one_without_have_no_known_end() -> None:
    world = World([endpoint(retry=RetryPolicy(max_retries=0))])
    world.default = reply({"error": "boom"}, status=500)
    for _ in range(5):
        with pytest.raises(errors.ServerFailed):
            world.chat()
    world.router.set_mode("default/m", Mode.FORCED_OPEN)
    with pytest.raises(errors.CircuitOpen) as caught:
        world.chat()
    assert caught.value.retry_after is None


def test_events_are_reported_without_the_lock() -> None:
    world = World([endpoint(retry=RetryPolicy(max_retries=0))])
    held: list[bool] = []
    world.router.observe = lambda _: held.append(world.router.lock._is_owned())
    world.default = FaultKind.REFUSED
    for _ in range(5):
        with pytest.raises(errors.ConnectionFailed):
            world.chat()
    assert held
    assert not any(held)


def test_two_threads_report_each_event_once() -> None:
    world = World()
    for number in range(1000):
        world.router.tell(number)  # type: ignore[arg-type]  # any values will do
    seen: list[object] = []
    world.router.observe = seen.append
    threads = [threading.Thread(target=world.router.report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(1000))  # type: ignore[type-var]  # they are numbers


def test_a_forked_child_is_free_of_its_parents_lock_and_calls() -> None:
    world = World()
    place = world.router.place(world.router.default.endpoint)
    threading.Thread(target=world.router.lock.acquire).start()
    place.model("m").limiter.enter(0.0, 60.0)
    world.router.after_fork()
    assert place.model("m").limiter.in_flight == 0
    assert world.chat()


def test_a_collector_that_closes_a_call_inside_the_lock_does_not_dead_lock() -> None:
    world = probing()
    steps = world.flow(exchanges.whole)
    next(steps)
    breaker = world.router.place(world.router.default.endpoint).breaker
    with world.router.lock:
        steps.close()
        assert not breaker.admits(world.time.now), "nothing changes under the holder's feet"
    world.router.report()
    assert breaker.admits(world.time.now)
    assert world.router.place(world.router.default.endpoint).model("m").limiter.in_flight == 0


def test_a_visit_whose_end_was_interrupted_leaves_when_it_is_forgotten() -> None:
    world = probing()
    deadline = Deadline.after(60, now=world.time.now, usual=60)
    visit = Visit(world.router, world.router.default, deadline)
    visit.admit()
    place = world.router.place(world.router.default.endpoint)
    assert (place.model("m").limiter.in_flight, place.breaker.admits(world.time.now)) == (1, False)
    del visit
    gc.collect()
    assert (place.model("m").limiter.in_flight, place.breaker.admits(world.time.now)) == (0, True)


def probing() -> World:
    """Return a world whose next caller is the probe."""
    world = World()
    world.default = FaultKind.REFUSED
    for _ in range(5):
        with pytest.raises(errors.ConnectionFailed):
            world.chat()
    world.time.now += 5
    world.default = reply()
    return world


def test_a_call_inside_another_under_the_same_circuit_rides_with_it() -> None:
    world = probing()
    deadline = Deadline.after(60, now=world.time.now, usual=60)
    with Visit(world.router, world.router.default, deadline) as outer:
        outer.admit()
        token = riding.set(outer)
        try:
            assert world.chat(), "not refused by the probe that it is part of"
        finally:
            riding.reset(token)
        assert world.router.facts("default").state is State.HALF_OPEN, "and it settles nothing"
    assert world.router.facts("default").state is State.CLOSED


def test_a_stream_inside_another_call_under_the_same_circuit_proves_nothing_by_itself() -> None:
    world = probing()
    world.default = stream(delta("Water"), last())
    deadline = Deadline.after(60, now=world.time.now, usual=60)
    with Visit(world.router, world.router.default, deadline) as outer:
        token = riding.set(outer)
        try:
            deltas, answer = world.stream()
        finally:
            riding.reset(token)
        assert [piece.text for piece in deltas] == [answer] == ["Water"]
        assert world.router.facts("default").state is State.HALF_OPEN
    assert world.router.facts("default").state is State.CLOSED


def test_a_visit_that_never_began_settles_nothing() -> None:
    world = World()
    deadline = Deadline.after(60, now=1000.0, usual=60)
    with Visit(world.router, world.router.default, deadline) as visit:
        visit.prove()
        assert not visit.ticket.granted or visit.may_replay()
    assert world.router.facts("default").failures == 0


def test_an_outcome_that_was_settled_is_not_counted_again() -> None:
    world = World()
    deadline = Deadline.after(60, now=1000.0, usual=60)

    def fail() -> None:
        with Visit(world.router, world.router.default, deadline) as visit:
            visit.admit()
            visit.fail(Blame.ENDPOINT, "ValueError")
            visit.fail(Blame.ENDPOINT, "ValueError")
            raise errors.ConnectionFailed

    with pytest.raises(errors.ConnectionFailed):
        fail()
    assert world.router.facts("default").failures == 1


def test_a_failure_can_be_counted_against_the_model_alone() -> None:
    world = World()
    deadline = Deadline.after(60, now=1000.0, usual=60)
    with Visit(world.router, world.router.default, deadline) as visit:
        visit.admit()
        visit.fail(Blame.MODEL, "ValueError")
    assert world.router.facts("default").failures == 0
    assert world.router.facts("default/m").last_error == "ValueError"


def test_names_are_bounded_where_the_breaker_is_off_and_the_default_model_stays() -> None:
    world = World([endpoint(breaker=BreakerPolicy(enabled=False))])
    world.chat()
    for number in range(1000):
        world.chat(model=f"m{number}")
    assert len(world.router.named()) <= 257
    assert "default/m" in world.router.named()


def test_the_generation_of_a_target_never_goes_back() -> None:
    world = World([endpoint(retry=RetryPolicy(max_retries=0))])
    seen = [world.router.worse(world.router.default).generation]
    for step in [reply({"error": "x"}, status=500)] * 5 + [FaultKind.REFUSED] * 5:
        world.script = [step]
        with pytest.raises(errors.OllamaBridgeError):
            world.chat(model="m" if step is not FaultKind.REFUSED else "n")
        seen.append(world.router.worse(world.router.default).generation)
    world.router.reset("default")
    seen.append(world.router.worse(world.router.default).generation)
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]
