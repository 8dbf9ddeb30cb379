"""Endpoints that are left alone because they said so, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_bridge import errors
from ollama_bridge.circuits import breaker_of
from ollama_bridge.core import exchanges
from ollama_bridge.core.actions import FaultKind, Send, Sleep, Wait
from ollama_bridge.core.breaker import BreakerPolicy, Mode, State
from ollama_bridge.core.cooldown import LONGEST, endpoint_of
from ollama_bridge.core.events import CooldownBegan, CooldownEnded, CooldownProbed
from ollama_bridge.core.quota import Quota
from ollama_bridge.core.retry import RetryPolicy

from .processes import two
from .virtual import World, delta, endpoint, last, reply, stream

GRANTED = True
USED_UP = reply({"error": "you (u) have reached your weekly usage limit"}, status=429)
CONCURRENT = reply({"error": "too many concurrent requests"}, status=429)


def pause(seconds: int) -> Any:
    headers = {"Retry-After": str(seconds)}
    return reply({"error": "slow down"}, status=429, headers=headers)


def began(code: str, seconds: float) -> CooldownBegan:
    about: Any = pytest.approx(seconds)
    return CooldownBegan("default", code, about)


def told(world: World) -> list[Any]:
    kinds = CooldownBegan, CooldownProbed, CooldownEnded
    return [event for event in world.events if isinstance(event, kinds)]


def cooling(world: World, name: str = "default") -> float:
    return world.router.cooldown(world.router.place(_endpoint(world, name)).endpoint)


def _endpoint(world: World, name: str) -> Any:
    return next(each for each in world.router.plan.endpoints if each.name == name)


def hear_of(world: World, kind: type[errors.RateLimited], seconds: int) -> None:
    """Let a reply of the server say so."""
    world.router.heed(world.router.default, kind(status=429, retry_after=seconds))


def two_that_know() -> tuple[World, World]:
    """Return two processes that have both called, and so hear of the endpoint."""
    one, other = two()
    one.chat()
    other.chat()
    return one, other


def use_up(world: World, **facts: Any) -> None:
    world.default = USED_UP
    with pytest.raises(errors.QuotaExhausted):
        world.chat(**facts)
    world.default = reply()
    world.actions.clear()


class TestAnAllowanceThatIsUsedUp:
    def test_is_heeded_for_ten_minutes_where_nobody_says_until_when(self) -> None:
        world = World()
        world.default = USED_UP
        with pytest.raises(errors.QuotaExhausted) as caught:
            world.chat()
        assert caught.value.retry_after == 600
        assert cooling(world) == pytest.approx(600)
        assert told(world) == [began("quota_exhausted", 600)]
        assert len(world.sent) == 1

    def test_is_heeded_for_as_long_as_the_settings_say(self) -> None:
        world = World([endpoint(cooldown_seconds=90.0)])
        use_up(world)
        assert cooling(world) == pytest.approx(90)

    def test_is_heeded_until_the_reset_that_is_known(self) -> None:
        world = World()
        world.router.learn_quota("default", Quota("balance", 1.0, world.time.now + 7200))
        use_up(world)
        assert cooling(world) == pytest.approx(7199.9)

    def test_is_another_one_than_that_of_which_enough_is_left(self) -> None:
        world = World()
        world.router.learn_quota("default", Quota("counted", 0.5, world.time.now + 7200))
        use_up(world)
        assert cooling(world) == pytest.approx(600)

    def test_is_heeded_until_a_reset_that_is_learnt_later(self) -> None:
        world = World()
        use_up(world)
        world.router.learn_quota("default", Quota("balance", 1.0, world.time.now + 7200))
        assert cooling(world) == pytest.approx(7200)
        world.router.learn_quota("default", Quota("balance", 1.0, world.time.now + 60))
        assert cooling(world) == pytest.approx(7200)

    def test_is_heeded_for_a_month_at_most(self) -> None:
        world = World()
        world.router.cool_down("default", 10 * LONGEST, "quota_exhausted")
        assert cooling(world) == LONGEST

    def test_refuses_calls_without_a_request_and_says_why(self) -> None:
        world = World()
        use_up(world)
        world.time.now += 100
        with pytest.raises(errors.QuotaExhausted) as caught:
            world.chat()
        assert str(caught.value) == (
            "The account at http://default.test:11434 has used up its allowance. Next try in 500 s"
        )
        assert caught.value.retry_after == pytest.approx(500)
        assert world.sent == []

    def test_is_no_failure(self) -> None:
        world = World()
        use_up(world)
        facts = world.router.worse(world.router.default)
        assert (facts.state, facts.failures) == (State.CLOSED, 0)

    def test_lets_one_call_try_when_it_should_be_back(self) -> None:
        world = World()
        use_up(world)
        world.time.now += 600
        probe = world.flow(exchanges.whole)
        next(probe)
        with pytest.raises(errors.QuotaExhausted) as caught:
            world.chat()
        assert 0 < (caught.value.retry_after or 0) <= 5
        with pytest.raises(StopIteration):
            probe.send(reply())
        assert world.chat()
        assert told(world)[1:] == [CooldownProbed("default"), CooldownEnded("default")]

    def test_begins_anew_where_that_one_is_told_so_again(self) -> None:
        world = World()
        use_up(world)
        for _ in range(3):
            world.time.now += 600
            use_up(world)
            with pytest.raises(errors.QuotaExhausted):
                world.chat()
            assert world.sent == []

    def test_is_tried_by_the_next_where_that_one_learnt_nothing(self) -> None:
        world = World([endpoint(retry=RetryPolicy(max_retries=0))])
        use_up(world)
        world.time.now += 600
        world.script = [FaultKind.REFUSED]
        with pytest.raises(errors.ConnectionFailed):
            world.chat()
        cancelled = world.flow(exchanges.whole)
        next(cancelled)
        cancelled.close()
        assert world.chat()

    def test_is_over_for_a_server_that_answers_anything_else(self) -> None:
        world = World()
        use_up(world)
        world.time.now += 600
        world.script = [reply({"error": "model 'm' not found"}, status=404)]
        with pytest.raises(errors.ModelNotFound):
            world.chat()
        assert told(world)[-1] == CooldownEnded("default")

    def test_is_over_with_the_first_good_piece_of_a_stream(self) -> None:
        world = World()
        use_up(world)
        world.time.now += 600
        world.script = [stream(delta("Water"), delta("."), last())]
        steps = world.flow(exchanges.streamed)
        action = next(steps)
        while not isinstance(told(world)[-1], CooldownEnded):
            action = steps.send(world.perform(action))
        assert world.chat()
        steps.close()

    def test_is_found_by_those_who_wait_for_a_slot(self) -> None:
        world = World([endpoint(max_concurrency=1)])
        first, second = world.flow(exchanges.whole), world.flow(exchanges.whole)
        next(first)
        next(second)
        with pytest.raises(errors.QuotaExhausted):
            first.send(USED_UP)
        with pytest.raises(errors.QuotaExhausted) as caught:
            second.send(GRANTED)
        assert caught.value.status is None
        assert len(world.sent) == 0

    def test_lets_only_one_of_those_who_wait_try_when_it_should_be_back(self) -> None:
        world = World([endpoint(max_concurrency=1)])
        holder, waiter = world.flow(exchanges.whole), world.flow(exchanges.whole)
        next(holder)
        next(waiter)
        world.router.cool_down("default", 0.0, "quota_exhausted")
        with pytest.raises(StopIteration):
            holder.send(reply())
        waiter.send(GRANTED)
        world.router.place(world.router.default.endpoint).model("m").limiter.dismiss()
        assert told(world)[-1] == CooldownProbed("default")
        waiter.close()

    def test_keeps_what_sleeps_before_a_repeat_from_the_server_too(self) -> None:
        world = World([endpoint(retry=RetryPolicy(jitter="none"))])
        sleeper = world.flow(exchanges.whole)
        next(sleeper)
        assert isinstance(sleeper.send(reply(b"", status=502)), Sleep)
        world.router.cool_down("default", 0.0, "quota_exhausted")
        other = world.flow(exchanges.whole)
        next(other)
        assert isinstance(sleeper.send(None), Sleep)
        other.close()
        assert isinstance(sleeper.send(None), Send)
        sleeper.close()

    def test_ends_with_a_reset_and_with_no_mode(self) -> None:
        world = World()
        use_up(world)
        world.router.set_mode("default", Mode.DISABLED)
        with pytest.raises(errors.QuotaExhausted):
            world.chat()
        world.router.reset("default")
        assert world.chat()
        assert told(world)[-1] == CooldownEnded("default")
        world.router.place(world.router.default.endpoint).cooldown.set_mode(Mode.FORCED_OPEN)
        assert world.chat()

    def test_does_not_touch_other_endpoints(self) -> None:
        world = World([endpoint("cloud"), endpoint("local")])
        world.always["cloud"] = USED_UP
        for _ in range(5):
            assert world.chat().endpoint == "local"
        assert [found.endpoint.name for found in world.sent].count("cloud") == 1


class TestAPauseThatTheServerAsksFor:
    def test_ends_for_all_at_once(self) -> None:
        world = World([endpoint(retry=RetryPolicy(max_retries=0))])
        world.script = [pause(90)]
        with pytest.raises(errors.RateLimited):
            world.chat()
        with pytest.raises(errors.RateLimited, match=r"asked for a pause\. Next try in 90 s"):
            world.chat()
        world.time.now += 90
        flows = [world.flow(exchanges.whole) for _ in range(5)]
        for steps in flows:
            next(steps)
        assert told(world) == [began("rate_limited", 90), CooldownEnded("default")]
        for steps in flows:
            steps.close()

    def test_is_none_where_it_names_no_time(self) -> None:
        world = World([endpoint(retry=RetryPolicy(jitter="none"))])
        world.script = [CONCURRENT]
        assert world.chat()
        assert world.slept == [1.0]
        assert told(world) == []

    def test_becomes_one_of_an_allowance_and_never_the_other_way_round(self) -> None:
        world = World()
        hear_of(world, errors.RateLimited, 60)
        hear_of(world, errors.QuotaExhausted, 10)
        assert told(world)[-1] == began("quota_exhausted", 60)
        hear_of(world, errors.RateLimited, 90)
        assert told(world)[-1] == began("quota_exhausted", 90)
        hear_of(world, errors.RateLimited, 30)
        assert len(told(world)) == 3


class TestOfTwoProcesses:
    def test_one_tells_the_other(self) -> None:
        one, other = two()
        other.chat()
        use_up(one)
        other.time.now += 0.5
        with pytest.raises(errors.QuotaExhausted):
            other.chat()
        (event,) = told(other)
        assert (event.code, event.is_told) == ("quota_exhausted", True)
        assert event.seconds == pytest.approx(599.5, abs=1)
        assert len(other.sent) == 1

    def test_one_tries_when_it_should_be_back(self) -> None:
        one, other = two()
        other.chat()
        use_up(one)
        other.time.now += 0.5
        with pytest.raises(errors.QuotaExhausted):
            other.chat()
        one.time.now += 600
        probe = one.flow(exchanges.whole)
        action = next(probe)
        while not isinstance(action, Send):
            action = probe.send(one.perform(action))
        with pytest.raises(errors.QuotaExhausted):
            other.chat()
        assert told(other)[-1] == CooldownProbed("default")
        with pytest.raises(StopIteration):
            probe.send(reply())
        one.time.now += 0.5
        assert other.chat()
        assert told(other)[-1] == CooldownEnded("default", is_told=True)

    def test_a_reset_of_one_is_one_of_both(self) -> None:
        one, other = two()
        other.chat()
        use_up(one)
        one.time.now += 0.5
        with pytest.raises(errors.QuotaExhausted):
            other.chat()
        other.router.reset("default")
        one.time.now += 0.5
        assert one.chat()

    def test_the_longer_cooldown_holds_where_both_begin_one_in_the_same_moment(self) -> None:
        one, other = two_that_know()
        one.home.late = other.home.late = True
        hear_of(one, errors.QuotaExhausted, 60)
        hear_of(other, errors.QuotaExhausted, 90)
        one.home.run()
        other.home.run()
        other.home.run()
        one.home.run()
        assert [cooling(each) for each in (one, other)] == pytest.approx([90, 90])


def test_the_circuits_of_an_endpoint_are_known_by_its_name() -> None:
    names = ["cloud", "cloud/gpt-oss:120b", "cloud:cooldown", "cloud/x:cooldown"]
    assert {endpoint_of(name) for name in names} == {"cloud"}


class TestWhatNeverHappens:
    def test_a_reset_is_undone_by_who_began_the_cooldown_in_the_same_moment(self) -> None:
        one, other = two_that_know()
        one.home.late = other.home.late = True
        for each in (one, other):
            hear_of(each, errors.QuotaExhausted, 600)
        for each in (other, one, other, one):
            each.home.run()
        one.home.late = other.home.late = False
        one.time.now += 60
        other.router.reset("default")
        one.time.now += 1
        assert one.chat()
        assert other.chat()

    def test_a_cooldown_of_long_ago_comes_back_with_a_store_that_was_away(self) -> None:
        one, other = two_that_know()
        one.home.deaf = True
        hear_of(one, errors.QuotaExhausted, 60)
        one.time.now += 61
        one.chat()
        for _ in range(6):
            hear_of(other, errors.RateLimited, 1)
            other.time.now += 2
            other.chat()
        one.time.now += 1000
        one.home.deaf = False
        one.home.run()
        assert [cooling(each) for each in (one, other)] == [0, 0]
        assert one.chat()

    def test_a_long_cooldown_is_shortened_by_who_did_not_know_of_it(self) -> None:
        one, other = two_that_know()
        one.home.late = True
        hear_of(other, errors.QuotaExhausted, 3600)
        hear_of(one, errors.RateLimited, 1)
        hear_of(one, errors.RateLimited, 2)
        for each in (one, other, one, other):
            each.home.run()
        assert [cooling(each) for each in (one, other)] == pytest.approx([3600, 3600])

    def test_a_reset_does_nothing_to_a_cooldown_of_which_its_process_has_not_heard(self) -> None:
        one, other = two_that_know()
        use_up(one)
        other.router.reset("default")
        one.time.now += 1
        assert one.chat()
        assert other.chat()

    def test_a_process_that_begins_late_begins_a_cooldown_anew(self) -> None:
        one, other = two()
        use_up(one)
        one.time.now += 500
        with pytest.raises(errors.QuotaExhausted) as caught:
            other.chat()
        assert caught.value.retry_after == pytest.approx(100, abs=2)

    @pytest.mark.parametrize("enabled", [True, False])
    def test_an_endpoint_is_lost_where_its_circuits_are_disabled(self, enabled: bool) -> None:
        world = World([endpoint(breaker=BreakerPolicy(enabled=enabled))])
        use_up(world)
        world.router.set_mode("default", Mode.DISABLED)
        for _ in range(3):
            world.time.now += 601
            assert world.chat()

    def test_a_circuit_call_is_refused_by_its_own_probe(self) -> None:
        world = World()
        use_up(world)
        world.time.now += 601
        assert breaker_of(lambda: world.router).call(world.chat)
        assert world.chat()

    def test_a_circuit_call_is_refused_by_its_own_probe_after_a_wait(self) -> None:
        world = World([endpoint(max_concurrency=1)])
        use_up(world)
        world.time.now += 601
        limiter = world.router.place(world.router.default.endpoint).model("m").limiter

        def ask() -> str:
            holder = limiter.enter(world.time.now, 60.0)
            assert holder is not None
            steps = world.flow(exchanges.whole)
            assert isinstance(next(steps), Wait)
            ticket = limiter.leave(holder, world.time.now)
            assert ticket is not None
            assert isinstance(steps.send(GRANTED), Send)
            with pytest.raises(StopIteration):
                steps.send(reply())
            return "answered"

        assert breaker_of(lambda: world.router).call(ask) == "answered"

    def test_a_good_answer_that_was_the_last_of_an_allowance_begins_a_cooldown(self) -> None:
        world = World([endpoint(api_key="k")])
        use_up(world)
        world.time.now += 601
        headers = {"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "0",
                   "X-RateLimit-Reset": "900"}  # fmt: skip
        world.script = [reply(headers=headers)]
        assert world.chat()
        assert world.chat()

    def test_a_probe_that_another_process_has_is_told_as_an_open_circuit(self) -> None:
        one, other = two()
        other.chat()
        use_up(one)
        one.time.now += 601
        one.home.late = True
        with pytest.raises(errors.QuotaExhausted):
            one.chat()

    def test_a_server_that_fails_is_left_alone_for_longer_than_a_circuit_would_be(self) -> None:
        world = World([endpoint(retry=RetryPolicy(max_retries=0))])
        world.script = [reply(b"", status=503, headers={"Retry-After": "86400"})]
        with pytest.raises(errors.ServerFailed):
            world.chat()
        assert cooling(world) == pytest.approx(60)


def test_an_allowance_may_come_back_in_days_and_a_limit_of_requests_within_one() -> None:
    world = World([endpoint(retry=RetryPolicy(max_retries=0))])
    days = {"Retry-After": str(3 * 86_400)}
    world.default = reply({"error": "x"}, status=429, headers=days)
    with pytest.raises(errors.RateLimited):
        world.chat()
    assert cooling(world) == pytest.approx(86_400)
    world.router.reset("default")
    text = {"error": "you have reached your weekly usage limit"}
    world.default = reply(text, status=429, headers=days)
    with pytest.raises(errors.QuotaExhausted):
        world.chat()
    assert cooling(world) == pytest.approx(3 * 86_400)
