"""How a call goes, in virtual time."""

from __future__ import annotations

import pytest

from ollama_bridge import errors
from ollama_bridge.core import exchanges
from ollama_bridge.core.actions import (
    FaultKind,
    Send,
    Sleep,
    TransportFault,
)
from ollama_bridge.core.breaker import BreakerPolicy, Mode, State
from ollama_bridge.core.events import AttemptRepeated, CallAnswered, CallFailed, CallRefused
from ollama_bridge.core.retry import RetryPolicy

from .virtual import GOOD, World, endpoint, reply

BUSY = {"error": "server busy, please try again.  maximum pending requests exceeded"}
BROKEN = reply({"error": "boom"}, status=503)
REFUSED = FaultKind.REFUSED


def test_a_call_is_answered_with_its_facts() -> None:
    world = World()
    answer = world.chat()
    assert answer == "Water is wet."
    assert (answer.endpoint, answer.model, answer.request_id) == ("default", "m", "r")
    assert (answer.done_reason, answer.usage.completion_tokens) == ("stop", 4)
    assert answer.latency == pytest.approx(0.1)
    assert [attempt.code for attempt in answer.attempts] == [""]
    assert [type(event).__name__ for event in world.events] == ["CallStarted", "CallAnswered"]


def test_what_fails_for_a_passing_reason_is_repeated_with_backoff() -> None:
    world = World()
    world.script = [BROKEN, REFUSED, reply()]
    answer = world.chat()
    assert world.slept == [1.0, 2.0]
    assert [a.code for a in answer.attempts] == ["upstream_failed", "connection_failed", ""]
    assert [a.status for a in answer.attempts] == [503, None, 200]
    repeated = [event for event in world.events if isinstance(event, AttemptRepeated)]
    assert [(e.number, e.most, e.delay) for e in repeated] == [(1, 4, 1.0), (2, 4, 2.0)]


def test_a_server_that_always_fails_sees_one_attempt_and_the_retries() -> None:
    world = World()
    world.default = BROKEN
    with pytest.raises(errors.ServerFailed) as caught:
        world.chat()
    assert len(world.sent) == len(caught.value.attempts) == 4
    failed = world.events[-1]
    assert isinstance(failed, CallFailed)
    assert failed.repeats == 3


@pytest.mark.parametrize(
    "step",
    [
        FaultKind.SILENT,
        FaultKind.SLOW,
        FaultKind.TLS,
        FaultKind.GARBLED,
        FaultKind.TOO_LARGE,
        reply({"error": "x"}, status=400),
        reply({"error": "model 'm' not found"}, status=404),
        reply({"error": 'option "seed" must be of type integer'}, status=500),
        reply({"error": "you have reached your session usage limit"}, status=429),
        reply({"error": "boom"}),
        reply(b"<html>"),
    ],
    ids=repr,
)
def test_what_cannot_get_better_is_not_repeated(step: object) -> None:
    world = World()
    world.script = [step]  # type: ignore[list-item]  # parametrised
    with pytest.raises(errors.OllamaBridgeError):
        world.chat()
    assert len(world.sent) == 1


def test_a_dropped_connection_is_replayed_once_at_once_and_for_free() -> None:
    world = World()
    world.script = [FaultKind.DROPPED, reply()]
    answer = world.chat()
    assert [getattr(action, "fresh", None) for action in world.sent] == [False, True]
    assert world.slept == []
    assert [a.code for a in answer.attempts] == [""]


def test_a_second_drop_of_the_same_call_costs_a_retry() -> None:
    world = World()
    world.script = [FaultKind.DROPPED, FaultKind.DROPPED, FaultKind.DROPPED, reply()]
    world.chat()
    assert world.slept == [1.0, 2.0]
    assert [send.fresh for send in world.sent] == [False, True, False, False]


def test_retry_after_is_waited_for_if_it_fits_into_the_deadline() -> None:
    world = World()
    world.script = [reply({"error": "slow down"}, status=429, headers={"Retry-After": "20"})]
    world.chat()
    assert world.slept == [20.0]


def test_retry_after_that_does_not_fit_is_raised_at_once_and_the_endpoint_cools_down() -> None:
    world = World()
    world.script = [reply({"error": "slow down"}, status=429, headers={"Retry-After": "90"})]
    with pytest.raises(errors.RateLimited) as caught:
        world.chat()
    assert caught.value.retry_after == 90
    assert world.slept == []
    world.time.now += 30
    with pytest.raises(errors.RateLimited) as refused:
        world.chat()
    assert refused.value.retry_after == pytest.approx(60, abs=0.2)
    assert len(world.sent) == 1, "refused without a request"
    assert isinstance(world.events[-1], CallRefused)
    assert [a.code for a in refused.value.attempts] == ["rate_limited"]
    world.time.now += 60
    world.chat()


def test_a_cooldown_is_never_made_shorter() -> None:
    world = World()
    limited = {"error": "slow down"}
    world.script = [reply(limited, status=429, headers={"Retry-After": "90"})]
    with pytest.raises(errors.RateLimited):
        world.chat()
    target = world.router.default
    left = world.router.cooldown(target.endpoint)
    world.router.heed(target, errors.QuotaExhausted(status=429, retry_after=10))
    assert world.router.cooldown(target.endpoint) == left
    world.router.heed(target, errors.QuotaExhausted(status=429, retry_after=600))
    assert world.router.cooldown(target.endpoint) == pytest.approx(600)
    with pytest.raises(errors.QuotaExhausted):
        world.chat()


@pytest.mark.parametrize("seconds", [59.5, 58.5])
def test_no_repeat_is_begun_that_the_deadline_would_cut_off(seconds: float) -> None:
    world = World(seconds=seconds)
    world.default = BROKEN
    with pytest.raises(errors.ServerFailed):
        world.chat()
    assert len(world.sent) == 1


@pytest.mark.parametrize("status", [400, 404, 500])
def test_only_429_and_503_ask_the_whole_endpoint_for_a_pause(status: int) -> None:
    world = World([endpoint(retry=RetryPolicy(max_retries=0))])
    world.script = [reply({"error": "x"}, status=status, headers={"Retry-After": "900"})]
    with pytest.raises(errors.OllamaBridgeError):
        world.chat()
    assert world.chat()


def test_an_operators_reset_ends_a_cooldown() -> None:
    world = World()
    world.script = [reply({"error": "slow"}, status=429, headers={"Retry-After": "900"})]
    with pytest.raises(errors.RateLimited):
        world.chat()
    world.router.reset("default")
    assert world.chat()


def test_a_cooldown_that_began_during_a_sleep_ends_the_call_with_what_failed() -> None:
    world = World()
    steps = world.flow(exchanges.whole)
    next(steps)
    assert isinstance(steps.throw(TransportFault(FaultKind.REFUSED)), Sleep)
    world.script = [reply({"error": "slow"}, status=429, headers={"Retry-After": "900"})]
    with pytest.raises(errors.RateLimited):
        world.chat()
    with pytest.raises(errors.ConnectionFailed) as caught:
        steps.send(None)
    assert caught.value.retry_after == pytest.approx(900, abs=1)


def test_a_cooldown_that_others_made_longer_is_slept_through_if_it_fits() -> None:
    world = World()
    steps = world.flow(exchanges.whole)
    next(steps)
    assert isinstance(steps.throw(TransportFault(FaultKind.REFUSED)), Sleep)
    limited = reply({"error": "slow"}, status=429, headers={"Retry-After": "10"})
    world.router.place(world.router.default.endpoint).budget.tokens = 0.0
    world.script = [limited]
    with pytest.raises(errors.RateLimited):
        world.chat()
    again = steps.send(None)
    assert isinstance(again, Sleep)
    assert again.seconds == pytest.approx(10, abs=0.2)
    world.time.now += 10
    assert isinstance(steps.send(None), Send)
    steps.close()


def test_every_attempt_ends_by_the_one_deadline_of_the_call() -> None:
    world = World()
    world.script = [BROKEN, BROKEN]
    world.chat(timeout=10.0)
    assert {send.until for send in world.sent} == {1010.0}


def test_an_empty_retry_budget_ends_the_call_with_what_failed() -> None:
    world = World()
    world.default = BROKEN
    world.router.place(world.router.default.endpoint).budget.tokens = 1.5
    with pytest.raises(errors.ServerFailed):
        world.chat()
    assert len(world.sent) == 2


def test_the_slot_is_given_back_before_every_sleep() -> None:
    world = World()
    world.script = [BROKEN, reply()]
    place = world.router.place(world.router.default.endpoint)
    seen: list[int] = []
    world.on_sleep = lambda: seen.append(place.model("m").limiter.in_flight)
    world.chat()
    assert seen == [0]
    assert place.model("m").limiter.in_flight == 0


def test_an_answer_that_is_not_done_is_invalid_and_keeps_what_came() -> None:
    world = World()
    world.script = [reply({**GOOD, "done": False})]
    with pytest.raises(errors.InvalidReply, match="without saying that it is done") as caught:
        world.chat()
    assert caught.value.partial == "Water is wet."


def test_a_reply_of_another_shape_is_invalid() -> None:
    world = World()
    world.script = [reply({"response": "of generate"})]
    with pytest.raises(errors.InvalidReply, match="no reply of Ollama's"):
        world.chat()


def test_full_jitter_takes_its_chance_from_the_router() -> None:
    world = World([endpoint(retry=RetryPolicy(jitter="full"))])
    world.router.random = lambda: 0.25
    world.script = [BROKEN, BROKEN]
    world.chat()
    assert world.slept == [0.25, 0.5]


# The breaker's view of a call.


def fail_visits(world: World, count: int = 5) -> None:
    for _ in range(count):
        with pytest.raises(errors.OllamaBridgeError) as caught:
            world.chat()
        assert not isinstance(caught.value, errors.CircuitOpen), "it was not even tried"


def test_five_failed_visits_open_the_circuit_and_the_sixth_is_refused_at_once() -> None:
    world = World()
    world.default = REFUSED
    fail_visits(world)
    asked = len(world.sent)
    assert asked == 20, "each visit with all its attempts counts once"
    with pytest.raises(errors.CircuitOpen) as caught:
        world.chat()
    assert len(world.sent) == asked
    assert caught.value.retry_after == 5.0
    assert str(caught.value) == ("Circuit breaker is OPEN - service unavailable. Next try in 5 s")


def test_a_flaky_server_is_survived_and_not_cut_off() -> None:
    world = World()
    for _ in range(50):
        world.script = [BROKEN, reply()]
        world.chat()
    assert world.router.worse(world.router.default).state is State.CLOSED


def test_the_first_call_after_the_open_time_probes_and_closes() -> None:
    world = World()
    world.default = REFUSED
    fail_visits(world)
    world.time.now += 5
    world.default = reply()
    world.chat()
    assert world.router.worse(world.router.default).state is State.CLOSED


def test_a_model_that_fails_does_not_cut_off_another() -> None:
    world = World()
    world.default = reply({"error": "boom"}, status=500)
    fail_visits(world)
    with pytest.raises(errors.CircuitOpen):
        world.chat()
    world.default = reply()
    assert world.chat(model="other")
    assert world.router.facts("default").state is State.CLOSED
    assert world.router.facts("default/m").state is State.OPEN


@pytest.mark.parametrize(
    "step",
    [
        reply({"error": "model 'm' not found"}, status=404),
        reply({"error": "slow down"}, status=429),
        reply(BUSY, status=503),
        reply({"error": 'option "seed" must be of type integer'}, status=500),
        reply(b"unauthorized", status=401),
    ],
    ids=repr,
)
def test_what_is_not_the_servers_failure_never_opens_the_circuit(step: object) -> None:
    world = World([endpoint(retry=RetryPolicy(max_retries=0))])
    world.default = step  # type: ignore[assignment]  # parametrised
    fail_visits(world, 30)
    assert world.router.worse(world.router.default).state is State.CLOSED


def test_a_timeout_that_the_settings_grant_counts_and_an_impatient_callers_does_not() -> None:
    world = World()
    world.default = FaultKind.SILENT
    for _ in range(10):
        with pytest.raises(errors.Timeout):
            world.chat(timeout=59.0)
    assert world.router.worse(world.router.default).failures == 0
    fail_visits(world)
    assert world.router.worse(world.router.default).state is State.OPEN


def test_a_connect_timeout_counts_if_there_was_time_for_it() -> None:
    world = World([endpoint(retry=RetryPolicy(max_retries=0))])
    world.default = FaultKind.CONNECT_TIMEOUT
    with pytest.raises(errors.Timeout, match="no answer in time"):
        world.chat(timeout=2.0)
    assert world.router.facts("default").failures == 0
    with pytest.raises(errors.Timeout) as caught:
        world.chat(timeout=20.0)
    assert caught.value.phase == "connect"
    assert world.router.facts("default").failures == 1


def test_a_cancelled_call_is_neutral_and_leaves_nothing_behind() -> None:
    world = World()
    steps = world.flow(exchanges.whole)
    assert isinstance(next(steps), Send)
    steps.close()
    place = world.router.place(world.router.default.endpoint)
    assert place.model("m").limiter.in_flight == 0
    assert world.router.facts("default").failures == 0


def test_a_cancelled_probe_gives_its_lease_back() -> None:
    world = World()
    world.default = REFUSED
    fail_visits(world)
    world.time.now += 5
    steps = world.flow(exchanges.whole)
    next(steps)
    with pytest.raises(errors.CircuitOpen):
        world.chat()
    steps.close()
    world.default = reply()
    assert world.chat()


def test_a_circuit_that_opens_during_a_sleep_ends_the_call_with_what_failed() -> None:
    world = World()
    steps = world.flow(exchanges.whole)
    next(steps)
    world.default = REFUSED
    fail_visits(world)
    assert isinstance(steps.throw(TransportFault(FaultKind.REFUSED)), Sleep)
    with pytest.raises(errors.ConnectionFailed):
        steps.send(None)


def test_a_call_that_slept_through_an_outage_goes_on_under_a_new_permit() -> None:
    world = World()
    steps = world.flow(exchanges.whole)
    next(steps)
    world.default = REFUSED
    fail_visits(world)
    world.time.now += 5
    world.default = reply()
    world.chat()
    world.script = []
    assert isinstance(steps.throw(TransportFault(FaultKind.REFUSED)), Sleep)
    assert isinstance(steps.send(None), Send)
    with pytest.raises(StopIteration):
        steps.send(reply())


def test_a_probe_is_not_refused_by_its_own_lease_when_it_goes_on_after_a_sleep() -> None:
    world = World()
    world.default = REFUSED
    fail_visits(world)
    world.time.now += 5
    steps = world.flow(exchanges.whole)
    next(steps)
    world.router.reset("default/m")  # makes one of its two permits stale
    assert isinstance(steps.throw(TransportFault(FaultKind.REFUSED)), Sleep)
    assert isinstance(steps.send(None), Send)
    steps.close()


def test_each_call_earns_a_fifth_of_a_retry_and_success_gives_all_back() -> None:
    world = World()
    budget = world.router.place(world.router.default.endpoint).budget
    budget.tokens = 5.0
    world.script = [BROKEN, BROKEN, reply()]
    world.chat()
    assert budget.tokens == pytest.approx(5.2)
    world.default = BROKEN
    with pytest.raises(errors.ServerFailed):
        world.chat()
    assert budget.tokens == pytest.approx(5.2 + 0.2 - 3)


def test_forced_open_says_that_an_operator_did_it() -> None:
    world = World()
    world.chat()
    world.router.set_mode("default", Mode.FORCED_OPEN)
    with pytest.raises(errors.CircuitOpen, match="An operator has opened it") as caught:
        world.chat(model="never called before")
    assert caught.value.retry_after is None
    world.router.reset("default")
    assert world.chat()


def test_a_breaker_that_is_switched_off_never_refuses() -> None:
    world = World([endpoint(breaker=BreakerPolicy(enabled=False))])
    world.default = REFUSED
    fail_visits(world, 20)


# Several endpoints. The settings know one yet, the flow does not mind.


def test_the_next_endpoint_is_tried_without_a_wait() -> None:
    once = RetryPolicy(max_retries=0)
    world = World([endpoint("a", retry=once), endpoint("b", retry=once)])
    world.script = [REFUSED]
    answer = world.chat()
    assert answer.endpoint == "b"
    assert [(a.endpoint, a.code) for a in answer.attempts] == [
        ("a", "connection_failed"),
        ("b", ""),
    ]
    assert world.slept == []


def test_when_all_fail_alike_that_error_is_raised_with_the_smallest_wait() -> None:
    world = World([endpoint("a"), endpoint("b")])
    limited = {"error": "slow down"}
    world.script = [
        reply(limited, status=429, headers={"Retry-After": "90"}),
        reply(limited, status=429, headers={"Retry-After": "70"}),
    ]
    with pytest.raises(errors.RateLimited) as caught:
        world.chat()
    assert caught.value.retry_after == 70
    assert [a.endpoint for a in caught.value.attempts] == ["a", "b"]


def test_when_they_fail_differently_one_error_tells_each() -> None:
    once = RetryPolicy(max_retries=0)
    world = World([endpoint("a", retry=once), endpoint("b", retry=once)])
    world.script = [REFUSED, BROKEN]
    with pytest.raises(errors.AllEndpointsFailed) as caught:
        world.chat()
    assert isinstance(caught.value.__cause__, errors.ServerFailed)
    assert caught.value.retry_after is None
    assert "a: Cannot connect" in str(caught.value)
    assert "b: Ollama at" in str(caught.value)


def test_a_fault_of_the_request_is_not_taken_elsewhere() -> None:
    world = World([endpoint("a"), endpoint("b")])
    world.script = [reply({"error": "x"}, status=400)]
    with pytest.raises(errors.RequestRejected):
        world.chat()
    assert len(world.sent) == 1


def test_an_endpoint_that_got_the_rest_of_the_time_is_not_blamed_for_its_end() -> None:
    once = RetryPolicy(max_retries=0)
    world = World([endpoint("a", retry=once), endpoint("b", retry=once)], seconds=40.0)
    world.script = [BROKEN, FaultKind.SILENT]
    with pytest.raises(errors.AllEndpointsFailed):
        world.chat()
    assert world.router.facts("a").failures == 1
    assert world.router.facts("b").failures == 0


def test_no_endpoint_is_tried_when_the_time_is_over() -> None:
    world = World([endpoint("a"), endpoint("b")])
    world.script = [FaultKind.SILENT]
    with pytest.raises(errors.Timeout):
        world.chat()
    assert len(world.sent) == 1


def test_answered_calls_are_reported_with_their_seconds() -> None:
    world = World()
    world.chat()
    answered = world.events[-1]
    assert isinstance(answered, CallAnswered)
    assert answered.seconds == pytest.approx(0.1)
