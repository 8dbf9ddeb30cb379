"""How a call goes round its targets, in virtual time."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import cycle
from random import Random
from typing import Any

import pytest

from ollama_bridge import errors
from ollama_bridge.circuits import breaker_of
from ollama_bridge.core import exchanges
from ollama_bridge.core.actions import FaultKind, Send
from ollama_bridge.core.breaker import Mode, State
from ollama_bridge.core.events import (
    AttemptRepeated,
    CallCancelled,
    CallFailed,
    CallFailedOver,
    CallRefused,
    ModelSkipped,
    StrategyFailed,
)
from ollama_bridge.core.limiter import Limiter
from ollama_bridge.core.retry import RetryPolicy
from ollama_bridge.core.routing import plan_of
from ollama_bridge.core.stats import Stats
from ollama_bridge.core.strategies import STRATEGIES
from ollama_bridge.core.types import Delta, Target

from .virtual import Step, World, delta, endpoint, everywhere, last, reply, stream

REFUSED = FaultKind.REFUSED
BROKEN = reply({"error": "boom"}, status=500)
GATEWAY = reply(b"", status=502)
SLOWLY = RetryPolicy(jitter="none")  # 1, 2, 4 s


def world_of(*names: str, **facts: Any) -> World:
    return World([endpoint(name, **facts) for name in names or ("a", "b")])


def codes(attempts: tuple[Any, ...]) -> list[str]:
    return [f"{attempt.endpoint}:{attempt.code}" for attempt in attempts]


def told(world: World, kind: type) -> list[Any]:
    return [event for event in world.events if isinstance(event, kind)]


class TestACallWhoseFirstEndpointFails:
    @pytest.mark.parametrize(
        ("step", "code"),
        [
            (REFUSED, "connection_failed"),
            (FaultKind.CONNECT_TIMEOUT, "timeout"),
            (FaultKind.TLS, "connection_failed"),
            (GATEWAY, "upstream_failed"),
            (BROKEN, "upstream_failed"),
            (reply(b"<html>"), "invalid_reply"),
            (reply({"error": "unauthorized"}, status=401), "upstream_auth"),
            (reply({"error": "too many concurrent requests"}, status=429), "rate_limited"),
            (reply({"error": "you have reached your weekly usage limit"}, status=429),
             "quota_exhausted"),
            (reply({"error": "model 'm' not found"}, status=404), "model_not_found"),
            (reply({"error": "server busy, please try again. maximum pending requests exceeded"},
                   status=503), "overloaded"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )  # fmt: skip
    def test_is_answered_by_the_next_at_once(self, step: Step, code: str) -> None:
        world = world_of(retry=SLOWLY)
        world.always["a"] = step
        found = world.chat()
        assert (found.endpoint, codes(found.attempts)) == ("b", [f"a:{code}", "b:"])
        assert world.slept == []

    def test_says_so(self) -> None:
        world = world_of()
        world.always["a"] = GATEWAY
        world.chat()
        (hop,) = told(world, CallFailedOver)
        assert (hop.error.endpoint, hop.to.name, hop.was_sent) == ("a", "b/m", True)

    def test_is_not_answered_by_the_next_where_the_request_is_to_blame(self) -> None:
        world = world_of()
        world.always["a"] = reply({"error": "invalid format: x"}, status=400)
        with pytest.raises(errors.RequestRejected):
            world.chat()
        assert world.asked == ["a/m"]

    def test_is_repeated_there_first_where_the_settings_say_so(self) -> None:
        world = world_of(retry=RetryPolicy(jitter="none", retries_before_failover=2))
        world.always["a"] = BROKEN
        world.chat()
        assert world.asked == ["a/m", "a/m", "a/m", "b/m"]
        assert world.slept == [1.0, 2.0]

    def test_never_repeats_there_more_often_than_it_may_at_all(self) -> None:
        policy = RetryPolicy(jitter="none", retries_before_failover=5, max_retries=1)
        world = world_of(retry=policy)
        world.always = {"a": BROKEN, "b": BROKEN}
        with pytest.raises(errors.ServerFailed):
            world.chat()
        assert world.asked == ["a/m", "a/m", "b/m", "b/m"]

    def test_keeps_to_its_one_deadline(self) -> None:
        world = world_of("a", "b", "c")
        world.seconds = 25.0
        world.default = GATEWAY
        with pytest.raises(errors.ServerFailed):
            world.chat(timeout=60.0)
        assert world.asked == ["a/m", "b/m", "c/m"]
        assert all(action.until == 1060.0 for action in world.sent)

    def test_leaves_an_endpoint_with_a_limit_of_its_own_when_that_is_over(self) -> None:
        world = World([endpoint("a", timeout=10.0), endpoint("b")])
        world.always["a"] = FaultKind.SILENT
        found = world.chat()
        assert codes(found.attempts) == ["a:timeout", "b:"]
        assert found.latency == pytest.approx(10.1)
        assert world.router.facts("a").failures == 1

    def test_leaves_it_then_whatever_the_caller_grants(self) -> None:
        world = World([endpoint("a", timeout=10.0), endpoint("b")])
        world.always["a"] = FaultKind.SILENT
        assert world.chat(timeout=30.0).latency == pytest.approx(10.1)
        assert world.chat(timeout=90.0).latency == pytest.approx(10.1)
        with pytest.raises(errors.Timeout):
            world.chat(timeout=5.0)

    def test_has_all_that_the_caller_grants_where_no_other_has_more(self) -> None:
        world = World([endpoint("a"), endpoint("b")])
        world.chat(timeout=90.0)
        assert world.sent[-1].until == 1090.0

    def test_has_the_longest_of_the_limits_as_a_whole(self) -> None:
        world = World([endpoint("a", timeout=10.0), endpoint("b", timeout=120.0)])
        world.always["a"] = FaultKind.SILENT
        world.chat()
        assert [action.until for action in world.sent] == [1010.0, 1120.0]

    def test_is_a_failed_visit_there(self) -> None:
        world = world_of()
        world.always["a"] = GATEWAY
        for _ in range(5):
            world.chat()
        assert world.router.facts("a").state is State.OPEN
        assert world.router.facts("b").state is State.CLOSED


class TestACallThatFailsEverywhere:
    def test_goes_round_again_after_a_pause(self) -> None:
        world = world_of(retry=SLOWLY)
        world.script = [GATEWAY, GATEWAY, GATEWAY, reply()]
        assert world.chat().endpoint == "b"
        assert world.asked == ["a/m", "b/m", "a/m", "b/m"]
        assert world.slept == [1.0]
        assert [event.number for event in told(world, AttemptRepeated)] == [1]

    def test_tries_each_as_often_as_it_may_be(self) -> None:
        world = world_of(retry=SLOWLY)
        world.default = GATEWAY
        with pytest.raises(errors.ServerFailed):
            world.chat()
        assert world.asked == ["a/m", "b/m"] * 4
        assert world.slept == [1.0, 2.0, 4.0]
        assert isinstance(world.events[-1], CallFailed)
        assert world.events[-1].repeats == 3

    def test_counts_once_against_each(self) -> None:
        world = world_of(retry=SLOWLY)
        world.default = GATEWAY
        with pytest.raises(errors.ServerFailed):
            world.chat()
        assert [world.router.facts(name).failures for name in "ab"] == [1, 1]

    def test_goes_back_only_where_that_is_worth_it(self) -> None:
        world = world_of(retry=SLOWLY)
        world.always = {"a": reply(b"unauthorized", status=401), "b": GATEWAY}
        with pytest.raises(errors.AllEndpointsFailed):
            world.chat()
        assert world.asked == ["a/m", *["b/m"] * 4]

    def test_goes_back_first_where_it_may_be_soonest(self) -> None:
        world = world_of(retry=RetryPolicy(jitter="none", initial_delay=4.0))
        world.script = [reply(b"", status=503, headers={"Retry-After": "3"}), GATEWAY]
        world.chat()
        assert world.slept == pytest.approx([2.9])
        assert world.asked == ["a/m", "b/m", "a/m"]

    def test_waits_for_a_pause_that_ends_later_than_the_first(self) -> None:
        world = world_of(retry=SLOWLY)
        world.script = [reply({"error": "x"}, status=429, headers={"Retry-After": "3"}), BROKEN]
        world.always["b"] = BROKEN
        assert world.chat().endpoint == "a"
        assert world.slept[0] == 1.0
        assert sum(world.slept) == pytest.approx(3.0, abs=0.3)

    def test_keeps_a_pause_that_only_one_has_asked_for(self) -> None:
        world = world_of(retry=SLOWLY)
        later = reply({"error": "boom"}, status=500, headers={"Retry-After": "6"})
        world.script = [later, *[GATEWAY] * 3, reply()]
        assert world.chat().endpoint == "a"
        assert world.slept == pytest.approx([1.0, 2.0, 2.7])
        assert world.asked == ["a/m", "b/m", "b/m", "b/m", "a/m"]

    @pytest.mark.parametrize(("seconds", "slept"), [(3.0, [1.9, 3.0]), (300.0, [1.9])])
    def test_waits_on_where_others_are_told_of_a_longer_pause_that_fits(
        self, seconds: float, slept: list[float]
    ) -> None:
        world = world_of()
        pause = reply({"error": "busy"}, status=429, headers={"Retry-After": "2"})
        world.script = [pause, pause, reply()]

        def others() -> None:
            world.on_sleep = lambda: None
            for name in "ab":
                world.router.cool_down(name, seconds, "rate_limited")

        world.on_sleep = others
        if len(slept) > 1:
            assert world.chat().endpoint == "a"
        else:
            with pytest.raises(errors.RateLimited) as caught:
                world.chat()
            assert caught.value.retry_after == pytest.approx(seconds)
        assert world.slept == pytest.approx(slept)

    def test_tells_what_failed_where_another_visit_is_refused_and_nothing_sent(self) -> None:
        world = world_of(retry=SLOWLY)
        world.default = GATEWAY

        def operator() -> None:
            for name in "ab":
                world.router.set_mode(name, Mode.FORCED_OPEN)

        world.on_sleep = operator
        with pytest.raises(errors.ServerFailed) as caught:
            world.chat()
        assert codes(caught.value.attempts)[2:] == ["a:circuit_open", "b:circuit_open"]
        assert world.asked == ["a/m", "b/m"]
        places = [world.router.place(found) for found in world.endpoints]
        assert [place.budget.tokens for place in places] == [100.0, 100.0]

    def test_goes_on_where_one_of_them_refuses_another_visit(self) -> None:
        world = world_of(retry=SLOWLY)
        world.script = [GATEWAY, GATEWAY, GATEWAY, reply()]
        world.on_sleep = lambda: world.router.set_mode("a", Mode.FORCED_OPEN)
        assert world.chat().endpoint == "b"
        assert world.asked == ["a/m", "b/m", "b/m", "b/m"]

    def test_is_not_hammered_where_it_says_at_once_each_time(self) -> None:
        world = World([endpoint(retry=SLOWLY)])
        world.default = reply(b"", status=503, headers={"Retry-After": "0"})
        with pytest.raises(errors.ServerFailed):
            world.chat()
        assert world.slept == [1.0, 2.0, 4.0]

    def test_spends_from_each_endpoints_budget(self) -> None:
        world = world_of(retry=SLOWLY)
        for name in "ab":
            world.router.place(world.router.plan.routes[name].targets[0].endpoint).budget.tokens = 1
        world.default = GATEWAY
        with pytest.raises(errors.ServerFailed):
            world.chat()
        assert world.asked == ["a/m", "b/m"] * 2

    def test_does_not_begin_what_cannot_end_in_time(self) -> None:
        world = world_of(retry=SLOWLY)
        world.default = GATEWAY
        with pytest.raises(errors.ServerFailed):
            world.chat(timeout=1.2)
        assert world.asked == ["a/m", "b/m"]

    def test_ends_when_its_time_is_over(self) -> None:
        world = world_of()
        world.default = FaultKind.SILENT
        with pytest.raises(errors.Timeout) as caught:
            world.chat()
        assert codes(caught.value.attempts) == ["a:timeout"]

    def test_raises_the_class_of_error_that_all_had(self) -> None:
        world = world_of(retry=RetryPolicy(max_retries=0))
        world.default = REFUSED
        with pytest.raises(errors.ConnectionFailed) as caught:
            world.chat()
        assert codes(caught.value.attempts) == ["a:connection_failed", "b:connection_failed"]

    def test_raises_one_error_that_tells_of_each_where_they_differ(self) -> None:
        world = world_of(retry=RetryPolicy(max_retries=0))
        world.always = {"a": REFUSED, "b": GATEWAY}
        with pytest.raises(errors.AllEndpointsFailed) as caught:
            world.chat()
        error = caught.value
        assert "a: Cannot connect to Ollama at http://a.test:11434" in str(error)
        assert "b: A proxy did not reach Ollama at http://b.test:11434" in str(error)
        assert codes(error.attempts) == ["a:connection_failed", "b:upstream_failed"]
        assert isinstance(error.__cause__, errors.ServerFailed)

    def test_names_every_command_where_no_endpoint_has_the_model(self) -> None:
        plan = plan_of(
            endpoints := [endpoint("a", model="x"), endpoint("b", model="y")],
            [everywhere(*endpoints)],
        )
        world = World(plan=plan)
        world.default = reply({"error": "model not found"}, status=404)
        with pytest.raises(errors.ModelNotFound) as caught:
            world.chat()
        assert str(caught.value) == (
            "a: Model x not found. Run: ollama pull x; b: Model y not found. Run: ollama pull y"
        )

    @pytest.mark.parametrize("apart", [0.0, 0.1, 1.0, 10.0])
    def test_at_every_odd_attempt_is_answered_always(self, apart: float) -> None:
        world = world_of()
        for name in "ab":
            world.always[name] = partial(next, cycle([GATEWAY, reply()]))
        for _ in range(1000):
            assert world.chat()
            world.time.now += apart

    @pytest.mark.parametrize("seed", range(20))
    def test_half_of_the_time_at_random_is_answered_nearly_always(self, seed: int) -> None:
        world = world_of()
        random = Random(seed)
        for name in "ab":
            world.always[name] = lambda: GATEWAY if random.random() < 0.5 else reply()
        answered = 0
        for _ in range(500):
            with suppress(errors.OllamaBridgeError):
                answered += bool(world.chat())
        assert answered > 450


class TestWhatIsHeldBack:
    def open_up(self, world: World, *names: str) -> None:
        for name in names:
            world.router.set_mode(name, Mode.FORCED_OPEN)

    def fail(self, world: World, name: str) -> None:
        world.always[name] = GATEWAY
        while world.router.facts(name).state is State.CLOSED:
            world.chat(using=name, timeout=0.5) if False else self._one(world, name)
        del world.always[name]

    def _one(self, world: World, name: str) -> None:
        with pytest.raises(errors.ServerFailed):
            world.chat(using=name, timeout=0.5)

    def test_is_not_asked_and_the_answer_says_why(self) -> None:
        world = world_of()
        self.fail(world, "a")
        world.actions.clear()
        found = world.chat()
        assert codes(found.attempts) == ["a:circuit_open", "b:"]
        assert world.asked == ["b/m"]
        assert not told(world, CallFailedOver)[-1].was_sent

    def test_is_tried_again_when_its_time_is_over(self) -> None:
        world = world_of()
        self.fail(world, "a")
        world.time.now += 5
        assert world.chat().endpoint == "a"
        assert world.router.facts("a").state is State.CLOSED

    def test_costs_a_call_nothing_but_a_hop_where_its_probe_fails(self) -> None:
        world = world_of()
        self.fail(world, "a")
        world.time.now += 5
        world.always["a"] = REFUSED
        found = world.chat()
        assert codes(found.attempts) == ["a:connection_failed", "b:"]
        assert world.router.facts("a").state is State.OPEN

    def test_everywhere_is_refused_at_once_with_the_smallest_wait(self) -> None:
        world = world_of()
        self.fail(world, "a")
        world.time.now += 2
        self.fail(world, "b")
        world.actions.clear()
        now = world.time.now
        with pytest.raises(errors.CircuitOpen) as caught:
            world.chat()
        assert caught.value.retry_after == world.router.facts("a").retry_after
        assert (world.actions, world.time.now) == ([], now)
        assert isinstance(world.events[-1], CallRefused)
        assert codes(caught.value.attempts) == ["a:circuit_open", "b:circuit_open"]

    def test_and_what_fails_are_told_together(self) -> None:
        world = world_of(retry=RetryPolicy(max_retries=0))
        self.fail(world, "a")
        world.always["b"] = REFUSED
        with pytest.raises(errors.AllEndpointsFailed) as caught:
            world.chat()
        assert codes(caught.value.attempts) == ["a:circuit_open", "b:connection_failed"]

    def test_a_full_queue_is_passed_by(self) -> None:
        world = World([endpoint("a", max_concurrency=1, max_waiting=0), endpoint("b")])
        steps = world.flow(exchanges.whole)
        next(steps)
        found = world.chat()
        assert codes(found.attempts) == ["a:overloaded", "b:"]
        steps.close()


class TestAStream:
    def test_goes_elsewhere_before_its_first_piece(self) -> None:
        world = world_of()
        world.script = [stream({"error": "boom"}), stream(delta("Water"), last())]
        deltas, found = world.stream()
        assert (deltas, found.endpoint) == ([Delta("Water")], "b")
        assert codes(found.attempts) == ["a:upstream_failed", "b:"]

    def test_goes_nowhere_after_it(self) -> None:
        world = world_of()
        world.script = [stream(delta("Water"), {"error": "boom"})]
        with pytest.raises(errors.StreamInterrupted) as caught:
            world.stream()
        assert caught.value.partial == "Water"
        assert world.asked == ["a/m"]

    def test_leaves_a_silent_endpoint_when_its_own_time_for_a_first_piece_is_over(self) -> None:
        world = World([endpoint("a", first_token_timeout=3.0), endpoint("b")])
        world.script = [FaultKind.SILENT, stream(delta("Water"), last())]
        _, found = world.stream()
        assert codes(found.attempts) == ["a:timeout", "b:"]
        assert found.latency == pytest.approx(3.1)


class TestModels:
    def test_that_a_call_names_replace_those_of_all_targets(self) -> None:
        world = world_of()
        world.always["a"] = GATEWAY
        world.chat(model="x")
        assert world.asked == ["a/x", "b/x"]

    def test_are_tried_in_order_on_all_endpoints(self) -> None:
        world = world_of()
        world.default = GATEWAY
        with pytest.raises(errors.ServerFailed):
            world.chat(models=("x", "y"), timeout=0.5)
        assert world.asked == ["a/x", "b/x", "a/y", "b/y"]

    def test_have_names_of_their_own_at_an_endpoint(self) -> None:
        world = World(
            [
                endpoint("a", models={"big": "gpt-oss:120b"}, model="big"),
                endpoint("cloud", is_cloud=True),
            ]
        )
        world.always["a"] = GATEWAY
        world.chat(model="big")
        world.chat(models=("gpt-oss:120b-cloud",))
        assert world.asked == ["a/gpt-oss:120b", "cloud/big", "a/gpt-oss:120b-cloud",
                               "cloud/gpt-oss:120b"]  # fmt: skip

    def test_that_an_endpoint_has_not_got_are_looked_for_there_last(self) -> None:
        world = world_of("a", "b")
        missing = reply({"error": "model 'm' not found"}, status=404)
        world.always["a"] = missing
        for _ in range(3):
            assert world.chat().endpoint == "b"
        assert world.asked == ["a/m", "b/m", "b/m", "b/m"]
        assert told(world, ModelSkipped) == [ModelSkipped("a", "m")]
        world.always["b"] = GATEWAY
        with pytest.raises(errors.AllEndpointsFailed):
            world.chat(timeout=0.5)
        assert world.asked[-2:] == ["b/m", "a/m"]

    def test_that_were_missing_are_tried_again_after_a_while(self) -> None:
        world = world_of("a", "b")
        world.script = [reply({"error": "model 'm' not found"}, status=404)]
        world.chat()
        world.time.now += 30
        assert world.chat().endpoint == "a"

    def test_that_a_server_lists_are_known_without_asking(self) -> None:
        world = world_of("a", "b")
        world.router.learn_models("a", frozenset({"other:latest"}), frozenset())
        assert world.chat().endpoint == "b"
        world.router.learn_models("a", frozenset({"m:latest"}), frozenset({"m:latest"}))
        assert world.chat().endpoint == "a"
        assert len(told(world, ModelSkipped)) == 1
        world.router.learn_models("a", frozenset(), frozenset())
        world.chat()
        assert len(told(world, ModelSkipped)) == 2


class TestARoute:
    def plan(self, **facts: Any) -> Any:
        endpoints = [endpoint(name) for name in "abc"]
        return plan_of(endpoints, [everywhere(*endpoints[:2], name="two", **facts)])

    def test_or_an_endpoint_serves_who_names_it(self) -> None:
        world = World(plan=self.plan())
        assert world.chat().endpoint == "a"
        assert world.chat(using="c").endpoint == "c"
        world.always["a"] = GATEWAY
        assert world.chat(using="two").endpoint == "b"
        with pytest.raises(errors.ServerFailed):
            world.chat(using="a", timeout=0.5)

    def test_asks_its_strategy_for_the_order_of_what_is_ready(self) -> None:
        seen: list[Any] = []

        def backwards(candidates: Any, draw: Any) -> Any:
            seen.append(([each.target.name for each in candidates], draw.turn, draw.key))
            return reversed(candidates)

        world = World(plan=self.plan(strategy=backwards))
        assert world.chat(sticky_key="k").endpoint == "b"
        world.router.cool_down("b", 60, "rate_limited")
        assert codes(world.chat().attempts) == ["b:rate_limited", "a:"]
        assert seen == [(["a/m", "b/m"], 0, "k")]

    @pytest.mark.parametrize(
        ("wrong", "kind"), [([], "TypeError"), (None, "TypeError"), (["a"], "AttributeError")]
    )
    def test_whose_strategy_returns_nonsense_goes_as_the_settings_list_them(
        self, wrong: Any, kind: str
    ) -> None:
        world = World(plan=self.plan(strategy=lambda *_: wrong))
        world.router.cool_down("b", 60, "rate_limited")
        assert world.chat().endpoint == "a", "one is no choice"
        world.router.end_cooldown("b")
        assert world.chat().endpoint == "a"
        (event,) = told(world, StrategyFailed)
        assert event.route == "two"
        assert event.error.startswith(f"{kind} in ")

    def test_whose_strategy_fails_says_so_once_a_minute_and_not_for_whom(self) -> None:
        def nearest(_: Any, draw: Any) -> Any:
            raise LookupError(draw.key)

        world = World(plan=self.plan(strategy=nearest))
        for _ in range(3):
            assert world.chat(sticky_key="ada").endpoint == "a"
        assert [event.error[:25] for event in told(world, StrategyFailed)] == [
            "LookupError in nearest, l"
        ]
        assert "ada" not in told(world, StrategyFailed)[0].error
        world.time.now += 60
        world.chat()
        assert len(told(world, StrategyFailed)) == 2

    def test_knows_what_its_strategy_is_to_weigh(self) -> None:
        found: list[Any] = []
        a = endpoint("a", weight=2.0, prices={"m": _price(1, 2)}, is_cloud=True)
        b = endpoint("b", max_concurrency=1)

        def look(candidates: Any, _: Any) -> Any:
            found[:] = [each[1:] for each in candidates]
            return candidates

        world = World(plan=plan_of([a, b], [everywhere(a, b, strategy=look)]))
        world.chat()
        assert found == [(2.0, 1.0, 0, True, 3.0), (1.0, 1.0, 0, False, 0.0)]
        steps = world.flow(exchanges.whole, using="b")
        next(steps)
        world.router.place(b).model("m").limiter.enter(0.0, 60.0)
        world.chat()
        assert found[1] == (1.0, 1.0, 2, True, 0.0)
        assert isinstance(world.router.place(b).model("m").limiter, Limiter)
        steps.close()

    def test_may_have_weights_of_its_own(self) -> None:
        found: list[float] = []

        def look(candidates: Any, _: Any) -> Any:
            found[:] = [each.weight for each in candidates]
            return candidates

        world = World(plan=self.plan(strategy=look, weights=(9.0, 1.0)))
        world.chat()
        assert found == [9.0, 1.0]
        world.chat(model="x")
        assert found == [9.0, 1.0]

    def test_with_affinity_prefers_what_has_the_model_in_memory(self) -> None:
        world = World(plan=self.plan(affinity=True))
        world.router.learn_models("b", frozenset({"m:latest"}), frozenset({"m:latest"}))
        assert world.chat().endpoint == "b"

    def test_after_a_recovery_has_a_ramp(self) -> None:
        ramps: list[float] = []

        def look(candidates: Any, _: Any) -> Any:
            ramps.append(min(each.ramp for each in candidates))
            return candidates

        world = World(plan=self.plan(strategy=look))
        world.always["a"] = GATEWAY
        for _ in range(5):
            world.chat()
        world.time.now += 5
        del world.always["a"]
        ramps.clear()
        world.seconds = 0.0
        for _ in range(4):
            world.chat()
            world.time.now += 15
        assert ramps == pytest.approx([1.0, 0.25 + 0.75 / 2, 1.0, 1.0])

    def test_names_its_targets_in_errors_without_a_request(self) -> None:
        world = World(plan=self.plan())
        target = Target(world.router.plan.endpoints[0], "m")
        world.router.heed(target, errors.CircuitOpen(retry_after=5))
        assert world.router.cooldown(target.endpoint) == 0


def _price(prompt: float, completion: float) -> Any:
    from ollama_bridge.core.types import Price  # noqa: PLC0415

    return Price(prompt, completion)


def test_hops_are_counted_where_they_begin() -> None:
    world = world_of()
    stats = Stats()
    world.router.observe = stats.note
    world.always["a"] = GATEWAY
    world.chat()
    endpoints = stats.to_dict({})["endpoints"]
    assert (endpoints["a"]["failovers"], endpoints["b"]["failovers"]) == (1, 0)
    assert (endpoints["a"]["total_requests"], endpoints["b"]["total_requests"]) == (0, 1)


def exhausted(world: World, name: str) -> float:
    place = world.router.place(world.router.plan.routes[name].targets[0].endpoint)
    return place.budget.tokens


class TestSeveralEndpointsAreNeverWorseThanOne:
    def test_a_call_under_a_circuit_that_hopped_is_a_failure_of_the_first(self) -> None:
        world = world_of(retry=RetryPolicy(max_retries=0))
        world.always["a"] = REFUSED
        breaker = breaker_of(lambda: world.router)
        for _ in range(5):
            assert breaker.call(world.chat)
        assert world.router.facts("a").state is State.OPEN
        world.time.now += 100
        with suppress(errors.CircuitOpen):
            breaker.call(world.chat)
        assert world.router.facts("a").state is State.OPEN

    def test_a_call_under_a_circuit_that_came_back_is_none(self) -> None:
        world = world_of(retry=SLOWLY)
        world.script = [GATEWAY, GATEWAY, reply()]
        assert breaker_of(lambda: world.router).call(world.chat)
        assert world.router.facts("a").failures == 0

    def test_a_lap_takes_tokens_only_where_it_asks(self) -> None:
        world = world_of(retry=SLOWLY)
        for _ in range(20):
            world.script = [GATEWAY, GATEWAY, reply()]
            assert world.chat().endpoint == "a"
        assert (exhausted(world, "a"), exhausted(world, "b")) == (100.0, 100.0)

    def test_an_answer_gives_back_all_that_its_repeats_have_cost(self) -> None:
        world = world_of(retry=SLOWLY)
        world.script = [GATEWAY, GATEWAY, GATEWAY, GATEWAY, reply()]
        world.chat()
        assert exhausted(world, "a") == 100.0
        assert exhausted(world, "b") == pytest.approx(99.0)

    def test_an_endpoint_without_tokens_is_not_asked_again(self) -> None:
        world = world_of(retry=SLOWLY)
        world.router.place(world.router.plan.routes["a"].targets[0].endpoint).budget.tokens = 0.0
        world.script = [GATEWAY, GATEWAY, reply()]
        assert world.chat().endpoint == "b"

    def test_a_token_that_is_taken_during_the_pause_is_nobodys(self) -> None:
        world = world_of(retry=SLOWLY)
        place = world.router.place(world.router.plan.routes["a"].targets[0].endpoint)
        world.on_sleep = lambda: setattr(place.budget, "tokens", 0.0)
        world.script = [GATEWAY, GATEWAY, reply()]
        assert world.chat().endpoint == "b"

    def test_several_models_of_a_dead_server_are_one_failure_of_it(self) -> None:
        world = world_of(retry=RetryPolicy(max_retries=0))
        world.default = REFUSED
        with pytest.raises(errors.ConnectionFailed):
            world.chat(models=("v", "w", "x", "y", "z"))
        assert [world.router.facts(name).failures for name in "ab"] == [1, 1]

    def test_turns_are_taken_by_calls_however_many_models_they_name(self) -> None:
        endpoints = [endpoint(name) for name in "ab"]
        route = everywhere(*endpoints, strategy=STRATEGIES["round_robin"])
        world = World(plan=plan_of(endpoints, [route]))
        asked = [world.chat(models=("x", "y")).endpoint for _ in range(4)]
        assert asked == ["a", "b", "a", "b"]

    def test_a_model_with_two_names_is_asked_for_once(self) -> None:
        world = world_of(retry=RetryPolicy(max_retries=0), models={"x": "m", "y": "m"})
        world.default = GATEWAY
        with pytest.raises(errors.ServerFailed):
            world.chat(models=("x", "y"))
        assert world.asked == ["a/m", "b/m"]

    def test_a_busy_endpoint_is_waited_for_only_as_long_as_others_have_time(self) -> None:
        world = World([endpoint("a", max_concurrency=1), endpoint("b")])
        holder = world.flow(exchanges.whole, using="a")
        next(holder)
        began = world.time.now
        found = world.chat()
        assert codes(found.attempts) == ["a:overloaded", "b:"]
        assert world.time.now - began == pytest.approx(30.1)
        holder.close()

    def test_a_stream_has_time_to_begin_at_each(self) -> None:
        world = World([endpoint(name, first_token_timeout=5.0) for name in "ab"])
        world.script = [FaultKind.SILENT, stream(delta("Water"), last())]
        _, found = world.stream()
        assert codes(found.attempts) == ["a:timeout", "b:"]

    @pytest.mark.parametrize("timeout", [50.0, 61.0])
    def test_a_stream_that_is_granted_a_whole_has_time_to_begin_at_each(
        self, timeout: float
    ) -> None:
        world = World([endpoint(name, first_token_timeout=5.0) for name in "ab"])
        world.script = [FaultKind.SILENT, stream(delta("Water"), last())]
        _, found = world.stream(timeout=timeout)
        assert codes(found.attempts) == ["a:timeout", "b:"]
        assert found.latency == pytest.approx(5.1)

    def test_a_stream_has_the_time_to_begin_that_its_caller_grants_whatever_is_usual(self) -> None:
        world = World([endpoint(name, first_token_timeout=5.0) for name in "ab"])
        world.default = FaultKind.SILENT
        with pytest.raises(errors.Timeout):
            world.stream(first_token_timeout=30.0)
        assert world.time.now == pytest.approx(1030.0)

    def test_a_stream_has_no_more_than_its_caller_grants(self) -> None:
        world = World([endpoint(name, first_token_timeout=5.0) for name in "ab"])
        world.default = FaultKind.SILENT
        with pytest.raises(errors.Timeout) as caught:
            world.stream(first_token_timeout=3.0)
        assert caught.value.phase == "first_token"
        assert world.time.now == pytest.approx(1003.0)

    @pytest.mark.parametrize(
        "step",
        [
            reply(b"<html>", status=404),
            reply(b"", status=405),
            reply(b"", status=413),
            reply({"error": "payment required"}, status=402),
            reply({"error": '"m" does not support tools'}, status=400),
            reply({"error": "the prompt exceeds the context length"}, status=400),
        ],
        ids=str,
    )  # fmt: skip
    def test_what_one_endpoint_does_not_take_another_may(self, step: Step) -> None:
        world = world_of()
        world.always["a"] = step
        assert world.chat().endpoint == "b"

    def test_a_cancelled_call_is_told_of_where_it_was(self) -> None:
        world = world_of()
        world.always["a"] = GATEWAY
        steps = world.flow(exchanges.whole)
        action = next(steps)
        while not (isinstance(action, Send) and action.endpoint.name == "b"):
            action = steps.send(world.perform(action))
        steps.close()
        (left,) = told(world, CallCancelled)
        assert left.endpoint == "b"

    def test_a_model_that_nobody_has_is_not_looked_for_before_one_that_is_there(self) -> None:
        world = world_of()
        missing = reply({"error": "model 'x' not found"}, status=404)
        world.script = [missing, missing]
        assert world.chat(models=("x", "y")).endpoint == "a"
        world.actions.clear()
        world.chat(models=("x", "y"))
        assert world.asked == ["a/y"]
