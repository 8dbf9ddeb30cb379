"""Answers that serve more than one call, in virtual time."""

from __future__ import annotations

import gc
import json
from functools import partial
from typing import Any

import pytest

from ollama_bridge import errors
from ollama_bridge.core.actions import Emit, FaultKind, TransportFault, Wait
from ollama_bridge.core.answers import LARGEST, Kept
from ollama_bridge.core.events import CallCancelled, CallFailed, CallRemembered
from ollama_bridge.core.exchanges import streamed
from ollama_bridge.core.retry import RetryPolicy
from ollama_bridge.core.routing import Route, plan_of
from ollama_bridge.core.strategies import STRATEGIES, Strategy
from ollama_bridge.core.trip import Caching
from ollama_bridge.core.types import ChatReply, Delta, Target, Usage

from .memory import Asker, Memory
from .virtual import GOOD, MESSAGE, World, delta, endpoint, last, reply, stream

BOOM = reply({"error": "boom"}, status=400)
TOOLS = reply(GOOD | {"message": MESSAGE | {"tool_calls": [{"function": {"name": "f"}}]}})
UNFIT = [
    pytest.param(TOOLS, id="tool calls"),
    pytest.param(reply(GOOD | {"done_reason": "length"}), id="cut by its length"),
    pytest.param(reply(GOOD | {"done_reason": "load"}), id="only loaded"),
    pytest.param(reply({**GOOD, "done_reason": ""}), id="ended for no reason"),
    pytest.param(reply(GOOD | {"message": MESSAGE | {"content": " \n"}}), id="empty"),
]


def until_asked(memory: Memory, asker: Asker) -> Asker:
    """Let the store's time pass, where it is slow."""
    while isinstance(asker.action, Wait):
        memory.world.time.now = asker.action.until
        asker.send(asker.action.ticket.granted)
    return asker


class TestAnAnswerThatIsKept:
    def test_serves_the_next_call_that_asks_the_same(self) -> None:
        memory = Memory()
        first, second = memory.chat(), memory.chat()
        assert (first.source, second.source) == ("ollama", "cache")
        assert first == second == "Water is wet."
        assert memory.requests == 1

    def test_comes_with_the_facts_of_the_call_that_it_serves(self) -> None:
        memory = Memory()
        memory.chat()
        memory.world.time.now += 100
        memory.shelf.slow = True
        asker = memory.begin()
        assert asker.lookup is not None
        asker.lookup.text = memory.shelf.found(asker.lookup.key)
        memory.world.time.now += 0.02
        asker.send(True)  # noqa: FBT003  # granted
        found = asker.reply
        assert found is not None
        assert found.latency == pytest.approx(0.02)
        assert (found.model, found.endpoint, found.done_reason) == ("m", "default", "stop")
        assert (found.usage, found.attempts, found.tool_calls) == (Usage(), (), ())
        assert (found.request_id, found.reliability, found.truncated) == ("r", "high", False)
        told = memory.world.events[-1]
        assert told == CallRemembered(
            seconds=found.latency, endpoint="default", model="m", request_id="r"
        )

    def test_has_what_the_model_thought(self) -> None:
        memory = Memory()
        memory.world.script = [reply(GOOD | {"message": MESSAGE | {"thinking": "Hm."}})]
        memory.chat()
        assert memory.chat().thinking == "Hm."

    def test_is_one_piece_of_a_stream(self) -> None:
        memory = Memory()
        thought = delta("", message={"thinking": "Hm."})
        memory.world.script = [stream(thought, delta("Wa"), delta("ter"), last())]
        pieces: list[Delta] = []
        assert memory.world.run(memory.steps(exchange=streamed), pieces) == "Water"
        assert pieces == ["", "Wa", "ter"]
        again = memory.stream()
        assert (again.delta, again.delta.thinking) == ("Water", "Hm.")
        again.send()
        assert again.reply == "Water"
        assert (again.reply.source, again.reply.thinking) == ("cache", "Hm.")

    def test_serves_chats_and_streams_alike(self) -> None:
        memory = Memory()
        memory.chat()
        asker = memory.stream()
        assert asker.delta == "Water is wet."
        asker.send()
        assert asker.reply == "Water is wet."

    def test_is_kept_for_as_long_as_the_caller_said(self) -> None:
        memory = Memory()
        memory.chat(caching=Caching(12.5, "x"))
        ((_, seconds),) = memory.shelf.kept.values()
        assert seconds == 12.5

    def test_is_not_kept_where_it_is_larger_than_stores_take(self) -> None:
        memory = Memory(World([endpoint(max_response_bytes=10**7)]))
        for size, number in ((LARGEST // 2, 0), (LARGEST // 3, 1)):
            memory.world.script = [reply(GOOD | {"message": MESSAGE | {"content": "é" * size}})]
            memory.chat(str(size))
            assert len(memory.shelf.kept) == number

    def test_is_not_looked_for_where_that_takes_too_long(self) -> None:
        memory = Memory()
        memory.chat()
        memory.shelf.deaf = True
        assert memory.chat().source == "ollama"

    def test_is_waited_for_no_longer_than_50_ms_or_the_deadline(self) -> None:
        memory = Memory()
        memory.shelf.slow = True
        for timeout, seconds in ((10.0, 0.05), (0.02, 0.02)):
            asker = memory.begin(timeout=timeout)
            assert asker.waiting.until == pytest.approx(memory.world.time.now + seconds)
            assert until_asked(memory, asker).is_asking
            asker.leave()


@pytest.mark.parametrize("answer", UNFIT)
def test_an_answer_that_is_for_its_own_call_is_not_kept(answer: Any) -> None:
    memory = Memory()
    memory.world.script = [answer]
    memory.chat()
    assert memory.shelf.kept == {}
    assert memory.chat().source == "ollama"
    assert memory.requests == 2


def test_nothing_is_kept_of_a_failure() -> None:
    memory = Memory()
    memory.world.script = [BOOM]
    with pytest.raises(errors.RequestRejected):
        memory.chat()
    assert memory.shelf.kept == {}
    assert memory.answers.flights.under_way == {}


def test_nothing_is_kept_of_a_stream_that_its_caller_has_cut() -> None:
    memory = Memory()
    memory.world.script = [stream(delta("Wa"), delta("ter"), last())]
    cut = memory.world.run(memory.steps(exchange=streamed, max_chunks=1))
    assert cut.truncated
    assert memory.shelf.kept == {}


def test_nothing_is_kept_of_a_fallback() -> None:
    assert Kept.of(ChatReply("Later.", source="fallback", done_reason="stop")) is None


class TestWhatIsKept:
    KEPT = Kept("Water is wet.", "Hm.", "m:latest", "default", "m")

    def test_survives_its_way_through_a_store(self) -> None:
        assert Kept.decode(self.KEPT.encode()) == self.KEPT

    def test_has_no_answer_in_its_repr(self) -> None:
        assert repr(self.KEPT) == "Kept(endpoint='default', model='m:latest')"

    @pytest.mark.parametrize(
        "text",
        [
            *(None, 5, b"{}", "", "{", "null", "[]", "{}", '"x"', "[" * 100_000),
            json.dumps(KEPT._asdict() | {"more": "x"}),
            json.dumps({**KEPT._asdict(), "text": 5}),
            json.dumps({**KEPT._asdict(), "text": ""}),
            json.dumps({**KEPT._asdict(), "thinking": None}),
            json.dumps({**KEPT._asdict(), "text": "\ud800"}),
            json.dumps([*KEPT]),
        ],
        ids=lambda text: repr(text)[:20],
    )
    def test_is_nothing_where_it_is_not_ours(self, text: object) -> None:
        assert Kept.decode(text) is None


class TestTheKey:
    def key(self, **facts: Any) -> str:
        memory = facts.pop("memory", None) or Memory()
        asker = memory.begin(**facts)
        asker.leave()
        key: str = memory.shelf.looked[-1]
        return key

    def test_is_a_hash_of_which_nothing_can_be_read(self) -> None:
        key = self.key(message="canary", caching=Caching(1.0, "user:canary"), sticky_key="canary")
        assert len(key) == 64
        assert int(key, 16)

    @pytest.mark.parametrize(
        "facts",
        [
            {"message": "ho"},
            {"caching": Caching(300.0, "user:1")},
            {"caching": Caching(60.0, "shared")},
            {"using": "default"},
            {"models": ("n",)},
            {"models": ("m", "n")},
            {"max_bytes": 5},
            {"request": {"options": {"seed": 1}}},
        ],
        ids=str,
    )
    def test_is_another_where_the_answer_may_be_another(self, facts: dict[str, Any]) -> None:
        assert self.key(**facts) != self.key()

    @pytest.mark.parametrize(
        "facts",
        [
            {"timeout": 5.0},
            {"batch": True},
            {"request": {"keep_alive": 5}},
            {"sticky_key": "ada"},
            {"max_chunks": 7},
        ],
        ids=str,
    )
    def test_is_the_same_where_the_answer_must_be_the_same(self, facts: dict[str, Any]) -> None:
        assert self.key(**facts) == self.key()

    def test_does_not_depend_on_the_order_of_options(self) -> None:
        one = {"seed": 1, "stop": ["x"], "nested": {1: "a", "b": 2}}
        other = dict(reversed(one.items()))
        assert self.key(request={"options": one}) == self.key(request={"options": other})

    def test_is_another_for_another_server_or_another_name_there(self) -> None:
        worlds = [
            World([endpoint()]),
            World([endpoint(base_url="http://other.test:11434")]),
            World([endpoint("other", base_url="http://default.test:11434")]),
            World([endpoint(model="n")]),
            World(plan=plan_of([endpoint(models={"m": "m:latest"})])),
        ]
        assert len({self.key(memory=Memory(world)) for world in worlds}) == len(worlds)

    @pytest.mark.parametrize(("name", "strategy"), STRATEGIES.items())
    def test_has_the_sticky_key_where_the_route_heeds_it(
        self, name: str, strategy: Strategy
    ) -> None:
        keys = {self.key(memory=routed(strategy), sticky_key=who) for who in ("ada", "grace")}
        assert len(keys) == (2 if name == "weighted" else 1)

    def test_has_the_sticky_key_where_a_site_has_a_strategy_of_its_own(self) -> None:
        def own(candidates: Any, draw: Any) -> Any:  # who knows
            return candidates

        keys = {self.key(memory=routed(own), sticky_key=who) for who in ("ada", "grace")}
        assert len(keys) == 2


def routed(strategy: Strategy) -> Memory:
    one, two = endpoint("one"), endpoint("two")
    route = Route(name="both", targets=(Target(one, "m"), Target(two, "m")), strategy=strategy)
    return Memory(World(plan=plan_of([one, two], [route])))


class TestCallsThatAskTheSameAtOnce:
    def test_share_one_request(self) -> None:
        memory = Memory()
        leader, *followers = [memory.begin() for _ in range(100)]
        assert leader.is_asking
        woken: list[int] = []
        for number, follower in enumerate(followers):
            follower.waiting.ticket.wake = partial(woken.append, number)
        leader.send(reply())
        assert woken == [*range(99)]
        for follower in followers:
            follower.send(follower.waiting.ticket.granted)
            assert follower.reply == "Water is wet."
            assert follower.reply.source == "cache"
        assert leader.reply is not None
        assert leader.reply.source == "ollama"
        assert len(memory.shelf.looked) == 1, "one look into the store serves all of them"
        assert memory.answers.flights.under_way == {}

    def test_do_not_share_across_scopes(self) -> None:
        memory = Memory()
        askers = [memory.begin(caching=Caching(300.0, f"user:{pk}")) for pk in (1, 2)]
        assert all(asker.is_asking for asker in askers)

    def test_do_not_wait_for_a_batch_which_waits_for_them(self) -> None:
        memory = Memory(World([endpoint(max_concurrency=1)]))
        other = memory.begin("another question")
        batch, chat, more = memory.begin(batch=True), memory.begin(), memory.begin(batch=True)
        other.leave()
        assert chat.resumed().is_asking
        chat.send(reply())
        assert memory.begin(batch=True).waiting.ticket.waits, "its leader waits for a slot"
        assert batch.resumed().is_asking
        batch.send(reply())
        assert more.resumed().reply == "Water is wet."

    def test_share_what_the_store_has_before_a_slow_reader_has_it(self) -> None:
        memory = Memory()
        memory.chat()
        memory.shelf.slow = True
        leader, follower = memory.stream(), memory.begin()
        assert leader.lookup is not None
        leader.lookup.text = memory.shelf.found(leader.lookup.key)
        leader.send(True)  # noqa: FBT003  # granted
        assert leader.delta == "Water is wet."
        assert follower.resumed().reply == "Water is wet."
        newcomer = memory.begin()
        assert newcomer.waiting.until == memory.world.time.now + 0.05, "it looks for itself"

    def test_fail_alone_and_the_longest_waiting_asks_next(self) -> None:
        memory = Memory()
        leader, second, third = (memory.begin() for _ in range(3))
        leader.send(BOOM)
        assert isinstance(leader.error, errors.RequestRejected)
        assert second.resumed().is_asking
        assert third.waiting.ticket.waits, "one at a time"
        second.send(reply())
        assert third.resumed().reply == "Water is wet."
        assert third.reply is not None
        assert third.reply.source == "cache"

    def test_each_have_their_own_error_where_all_fail(self) -> None:
        memory = Memory()
        askers = [memory.begin() for _ in range(4)]
        for asker in askers:
            if not asker.is_asking:
                asker.resumed()
            asker.send(BOOM)
        assert [type(asker.error) for asker in askers] == [errors.RequestRejected] * 4
        assert len({id(asker.error) for asker in askers}) == 4
        assert memory.answers.flights.under_way == {}

    @pytest.mark.parametrize("how", ["closed", "collected"])
    def test_go_on_where_the_leader_leaves(self, how: str) -> None:
        memory = Memory()
        askers = [memory.begin(), memory.begin()]
        follower = askers[1]
        if how == "closed":
            askers[0].leave()
        else:
            del askers[0]
            gc.collect()
        assert follower.resumed().is_asking
        follower.send(reply())
        assert follower.reply == "Water is wet."

    def test_go_on_where_one_in_the_queue_leaves(self) -> None:
        memory = Memory()
        leader, second, third = (memory.begin() for _ in range(3))
        second.leave()
        leader.leave()
        assert third.resumed().is_asking
        cancelled = [event for event in memory.world.events if isinstance(event, CallCancelled)]
        assert [(event.endpoint, event.model) for event in cancelled] == [("default", "m")] * 2

    def test_go_on_where_one_leaves_whose_turn_it_just_was(self) -> None:
        memory = Memory()
        leader, second, third = (memory.begin() for _ in range(3))
        leader.leave()
        assert second.waiting.ticket.granted
        second.leave()
        assert third.resumed().is_asking

    def test_go_on_where_the_next_one_waited_on_a_loop_that_is_closed(self) -> None:
        memory = Memory()
        leader, second, third = (memory.begin() for _ in range(3))

        def closed() -> None:
            raise RuntimeError("Event loop is closed")

        second.waiting.ticket.wake = closed
        leader.leave()
        assert third.resumed().is_asking
        second.leave()
        third.send(reply())
        assert memory.answers.flights.under_way == {}

    @pytest.mark.parametrize("answer", UNFIT)
    def test_ask_all_for_themselves_where_the_answer_is_for_its_own_call(self, answer: Any) -> None:
        memory = Memory()
        leader, second, third = (memory.begin() for _ in range(3))
        leader.send(answer)
        assert all(follower.resumed().is_asking for follower in (second, third))
        newcomer = memory.begin()
        assert newcomer.is_asking, "those who ask for themselves lead nobody"
        newcomer.leave()
        second.send(reply())
        third.send(answer)
        assert memory.begin().reply == "Water is wet.", "but what they were answered is kept"

    def test_have_the_time_that_each_of_them_was_given(self) -> None:
        memory = Memory()
        _leader, follower = memory.begin(timeout=60.0), memory.begin(timeout=20.0)
        assert follower.waiting.until == 1010.0
        until_asked(memory, follower)
        assert memory.world.time.now == 1020.0
        error = follower.error
        assert isinstance(error, errors.Timeout)
        assert (error.phase, error.endpoint, error.attempts) == ("total", "default", ())
        failed = memory.world.events[-1]
        assert isinstance(failed, CallFailed)
        assert (failed.seconds, failed.repeats, failed.error) == (20.0, 0, error)

    def test_ask_in_the_time_that_is_left_where_the_leader_fails_late(self) -> None:
        memory = Memory()
        leader, follower = memory.begin(), memory.begin(timeout=20.0)
        memory.world.time.now += 15
        leader.leave()
        assert follower.resumed().asking.until == 1020.0

    def test_leave_their_turn_to_others_where_no_time_is_left(self) -> None:
        memory = Memory()
        leader = memory.begin()
        hasty, other = memory.begin(timeout=20.0), memory.begin()
        memory.world.time.now += 20
        leader.leave()
        hasty.resumed()
        assert isinstance(hasty.error, errors.Timeout)
        assert other.resumed().is_asking

    def test_have_the_longest_limit_of_all_their_targets(self) -> None:
        one, two = endpoint("one", timeout=10.0), endpoint("two", timeout=40.0)
        route = Route(name="both", targets=(Target(one, "m"), Target(two, "m")))
        memory = Memory(World(plan=plan_of([one, two], [route])))
        _leader, follower = memory.begin(), memory.begin()
        assert follower.waiting.until == 1020.0

    def test_share_an_answer_that_comes_when_their_time_is_just_over(self) -> None:
        memory = Memory()
        leader, follower = memory.begin(), memory.begin(timeout=20.0)
        memory.world.time.now += 20
        leader.send(reply())
        assert follower.resumed().reply == "Water is wet."

    def test_are_refused_like_any_call_and_share_no_refusal(self) -> None:
        memory = Memory(World([endpoint(retry=RetryPolicy(max_retries=0))]))
        leader, follower = memory.begin(), memory.begin()
        leader.fail(TransportFault(FaultKind.REFUSED))
        assert isinstance(leader.error, errors.ConnectionFailed)
        assert follower.resumed().is_asking

    def test_are_at_their_end_with_the_store(self) -> None:
        memory = Memory()
        memory.answers.leave()
        assert memory.shelf.left

    def test_wait_for_nobody_after_a_fork(self) -> None:
        memory = Memory()
        leader, follower = memory.begin(), memory.begin()
        memory.answers.after_fork()
        newcomer = memory.begin()
        assert newcomer.is_asking
        leader.leave()
        follower.leave()
        assert newcomer.is_asking
        assert len(memory.answers.flights.under_way) == 1, "what is the parent's changes nothing"


class TestAStreamThatLeads:
    def test_goes_to_its_reader_as_usual_and_to_the_others_at_its_end(self) -> None:
        memory = Memory()
        leader, stream_, chat = memory.stream(), memory.stream(), memory.begin()
        memory.world.script = [stream(delta("Wa"), delta("ter"), last())]
        leader.send(memory.world.perform(leader.asking))
        pieces: list[str] = []
        while leader.action is not None:
            if isinstance(leader.action, Emit):
                pieces.append(leader.action.delta)
                assert stream_.waiting.ticket.waits
                assert chat.waiting.ticket.waits
            leader.send(memory.world.perform(leader.action))
        assert pieces == ["Wa", "ter"]
        assert stream_.resumed().delta == "Water"
        assert chat.resumed().reply == "Water"

    @pytest.mark.parametrize("first", ["stream", "begin"])
    @pytest.mark.parametrize("second", ["stream", "begin"])
    def test_holds_nobody_up_for_longer_than_half_of_the_time(
        self, first: str, second: str
    ) -> None:
        memory = Memory()
        leader, follower = getattr(memory, first)(), getattr(memory, second)()
        memory.world.time.now = follower.waiting.until
        assert memory.world.time.now == 1030.0
        follower.send(False)  # noqa: FBT003  # not granted
        if (first, second) == ("begin", "begin"):
            assert follower.waiting.until == 1060.0, "a chat comes to its end by itself"
            return
        assert follower.asking.until == 1060.0
        assert memory.begin().is_asking, "who comes now does not wait for it either"
        leader.leave()

    def test_still_shares_its_answer_with_who_waits_on(self) -> None:
        memory = Memory()
        leader, hasty, patient = memory.stream(), memory.begin(timeout=20.0), memory.begin()
        memory.world.time.now = hasty.waiting.until
        hasty.send(False)  # noqa: FBT003  # not granted
        assert hasty.is_asking
        hasty.send(reply())
        assert patient.resumed().reply == "Water is wet.", "or whoever is first"
        assert leader.is_asking
        leader.leave()

    def test_sends_nobody_away_whose_leader_it_is_not(self) -> None:
        memory = Memory()
        leader, hasty, patient = memory.stream(), memory.begin(timeout=20.0), memory.begin()
        memory.world.time.now = hasty.waiting.until
        hasty.send(False)  # noqa: FBT003  # not granted
        hasty.send(TOOLS)
        assert patient.waiting.ticket.waits
        leader.leave()
        assert patient.resumed().is_asking

    def test_is_led_by_a_chat_where_it_leaves(self) -> None:
        memory = Memory()
        leader, second, third = memory.stream(), memory.begin(), memory.begin()
        leader.leave()
        assert second.resumed().is_asking
        memory.world.time.now = third.waiting.until
        third.send(False)  # noqa: FBT003  # not granted
        assert third.waiting.until == 1060.0

    def test_begins_in_what_is_left_of_its_time_where_it_has_followed(self) -> None:
        memory = Memory()
        leader = memory.begin()
        followers = [
            memory.stream(),
            memory.stream(timeout=50.0),
            memory.stream(timeout=50.0, first_token_timeout=30.0),
        ]
        memory.world.time.now += 10
        leader.send(TOOLS)
        assert [each.resumed().asking.until for each in followers] == [1060.0, 1050.0, 1030.0]
        whole = followers[2]
        memory.world.script = [stream(delta("Wa"))]
        whole.send(memory.world.perform(whole.asking))
        whole.send(memory.world.perform(whole.reading))
        assert whole.delta == "Wa"
        memory.world.time.now = 1040.0
        whole.send()
        assert whole.reading.until == 1050.0, "the whole, from when it was asked"

    def test_that_is_left_at_its_only_piece_counts_as_cancelled(self) -> None:
        memory = Memory()
        memory.chat()
        asker = memory.stream()
        asker.leave()
        assert isinstance(memory.world.events[-1], CallCancelled)
