"""Who asks, of all who ask the same: in any order of events."""

from __future__ import annotations

import gc
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from ollama_bridge import errors
from ollama_bridge.core.actions import Action, Send, Wait
from ollama_bridge.core.flights import Flights, Seat
from ollama_bridge.core.trip import Caching
from tests.core.machines import live, lives

from .memory import Asker, Memory
from .virtual import GOOD, MESSAGE, World, reply

BOOM = reply({"error": "boom"}, status=400)


def answer_to(who: str, **facts: Any) -> Any:
    """Return an answer that tells whom it is for."""
    return reply(GOOD | {"message": MESSAGE | {"content": who}} | facts)


class FlightMachine(RuleBasedStateMachine):
    """Callers who ask one of two questions, and servers, stores and callers that do as they like.

    ``alone`` are those whose leader's answer was for itself: they ask side by side.
    """

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.memory.shelf.slow = True
        self.askers: list[tuple[str, Asker]] = []
        self.closed: list[Asker] = []
        self.alone: set[Asker] = set()

    def those(self, kind: type[Action], of: str = "") -> list[tuple[str, Asker]]:
        found = [(who, asker) for who, asker in self.askers if isinstance(asker.action, kind)]
        return [(who, asker) for who, asker in found if not of or who == of]

    def followers(self, of: str = "") -> list[tuple[str, Asker]]:
        return [(who, asker) for who, asker in self.those(Wait, of) if asker.lookup is None]

    def looking(self, of: str = "") -> list[tuple[str, Asker]]:
        return [(who, asker) for who, asker in self.those(Wait, of) if asker.lookup is not None]

    def under_way(self) -> list[tuple[str, Asker]]:
        return self.those(Send) + self.those(Wait)

    def resume(self) -> None:
        """Let all go on who were woken, as their drivers do; but not those whose loop is closed."""
        going = True
        while going:
            going = False
            for _, asker in self.followers():
                if not asker.waiting.ticket.waits and asker not in self.closed:
                    going = True
                    asker.resumed()

    @rule(who=st.sampled_from("ab"), timeout=st.sampled_from([10.0, 60.0]))
    def ask(self, who: str, timeout: float) -> None:
        asker = self.memory.begin(who, timeout=timeout, caching=Caching(300.0, who))
        self.askers.append((who, asker))
        self.wake_later(asker)

    def wake_later(self, asker: Asker) -> None:
        asker.waiting.ticket.wake = lambda: None

    @precondition(lambda self: self.looking())
    @rule(data=st.data(), found=st.booleans())
    def look(self, data: st.DataObject, found: bool) -> None:
        who, asker = data.draw(st.sampled_from(self.looking()))
        if found and asker.lookup is not None:
            asker.lookup.text = self.memory.shelf.found(asker.lookup.key)
        asker.send(found)
        assert asker.is_asking or asker.reply == who
        self.resume()

    @precondition(lambda self: self.those(Send))
    @rule(data=st.data(), how=st.sampled_from(["well", "cut", "badly"]))
    def answer(self, data: st.DataObject, how: str) -> None:
        who, asker = data.draw(st.sampled_from(self.those(Send)))
        if how == "cut" and asker not in self.alone:
            self.alone.update(each for _, each in self.followers(who))
        answers = {"well": answer_to(who), "cut": answer_to(who, done_reason="length")}
        asker.send(answers.get(how, BOOM))
        assert isinstance(asker.error, errors.RequestRejected) if how == "badly" else asker.reply
        self.resume()

    @precondition(lambda self: self.under_way())
    @rule(data=st.data(), collected=st.booleans())
    def leave(self, data: st.DataObject, collected: bool) -> None:
        found = data.draw(st.sampled_from(self.under_way()))
        self.askers.remove(found)
        if collected:
            with self.memory.world.router.lock:  # it may come at any moment
                found[1].leave()
            self.memory.world.router.report()
        else:
            found[1].leave()
        self.resume()

    @precondition(lambda self: self.followers())
    @rule(data=st.data())
    def lose_the_loop(self, data: st.DataObject) -> None:
        _, asker = data.draw(st.sampled_from(self.followers()))

        def closed() -> None:
            raise RuntimeError("Event loop is closed")

        asker.waiting.ticket.wake = closed
        self.closed.append(asker)

    @precondition(lambda self: self.followers())
    @rule(data=st.data())
    def run_out_of_time(self, data: st.DataObject) -> None:
        _, asker = data.draw(st.sampled_from(self.followers()))
        if asker in self.closed:
            return
        time = self.memory.world.time
        time.now = max(time.now, asker.waiting.until)
        if asker.resumed().error is None:
            self.wake_later(asker)
        else:
            assert isinstance(asker.error, errors.Timeout)

    @invariant()
    def one_asks_for_all(self) -> None:
        for who in "ab":
            asking = [each for _, each in self.those(Send, who) if each not in self.alone]
            assert len(asking) + len(self.looking(who)) <= 1

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        for who in "ab":
            waiting = [each for _, each in self.followers(who) if each not in self.closed]
            if waiting:
                assert self.looking(who) or self.those(Send, who)

    @invariant()
    def nobody_has_anothers_answer(self) -> None:
        assert all(asker.reply in (None, who) for who, asker in self.askers)

    def teardown(self) -> None:
        for _, asker in self.askers:
            asker.leave()
        self.memory.world.router.report()
        assert self.memory.answers.flights.under_way == {}


@lives
def test_one_asks_for_all_and_nobody_waits_in_vain(lives: int) -> None:
    live(FlightMachine, lives, steps=40)


def test_an_interrupt_before_the_block_takes_no_turn_with_it() -> None:
    flights: Flights[str] = Flights(World().router)
    leader = Seat(flights, "key", is_streamed=False)
    follower = Seat(flights, "key", is_streamed=False)
    assert (leader.leads, follower.follows) == (True, True)
    del leader
    gc.collect()
    assert follower.leads
    del follower
    gc.collect()
    assert flights.under_way == {}


def test_a_leader_that_is_collected_while_another_sits_down_keeps_nobody_waiting() -> None:
    flights: Flights[str] = Flights(World().router)
    leaders = [Seat(flights, "key", is_streamed=True)]

    class Meanwhile(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            leaders.clear()
            return super().get(key, default)

    flights.under_way = Meanwhile(flights.under_way)
    with Seat(flights, "key", is_streamed=False) as seat:
        assert (seat.leads, seat.is_held_up) == (True, False)


def test_a_call_that_never_had_a_seat_leaves_none() -> None:
    seat: Seat[str] = Seat.__new__(Seat)
    del seat
    gc.collect()


def test_a_place_in_the_queue_is_given_up_but_not_ones_turn() -> None:
    flights: Flights[str] = Flights(World().router)
    with Seat(flights, "key", is_streamed=False) as leader:
        leader.quit()
        assert leader.leads
        with Seat(flights, "key", is_streamed=False) as follower:
            follower.quit()
            assert (follower.leads, follower.follows) == (False, False)
            assert flights.under_way == {}
            with Seat(flights, "key", is_streamed=False) as newcomer:
                assert newcomer.leads
                follower.share(None)
                leader.share("for all who still wait for it")
                assert newcomer.answer is None
