"""Slots: a queue in two lanes, in virtual time."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ollama_bridge.core.limiter import Limiter, Ticket
from tests.core.machines import live, lives

LONG = 1e9


def entered(limiter: Limiter, *, batch: bool = False, now: float = 0.0) -> Ticket:
    ticket = limiter.enter(now, LONG, batch=batch)
    assert ticket is not None
    return ticket


def used(limiter: Limiter, seconds: float) -> None:
    """Let a slot be held for a while, so that the limiter knows how long that takes."""
    entered(limiter).leave(seconds)


class TestWithoutALimit:
    def test_everybody_is_let_in(self) -> None:
        limiter = Limiter()
        tickets = [entered(limiter) for _ in range(1000)]
        assert all(ticket.granted for ticket in tickets)
        assert limiter.in_flight == 1000

    def test_nothing_is_known_of_delays(self) -> None:
        limiter = Limiter()
        used(limiter, 5.0)
        assert limiter.delay(5.0) == 0.0
        assert limiter.retry_after(5.0) is None


class TestTheQueue:
    def test_is_first_come_first_served(self) -> None:
        limiter = Limiter(1)
        tickets = [entered(limiter) for _ in range(5)]
        served = [tickets[0]]
        while (following := served[-1].leave(1.0)) is not None:
            served.append(following)
        assert served == tickets

    def test_lets_nobody_barge_in(self) -> None:
        limiter = Limiter(1)
        first, second = entered(limiter), entered(limiter)
        assert first.leave(1.0) is second
        assert not entered(limiter).granted

    def test_serves_batches_behind_all_others(self) -> None:
        limiter = Limiter(1)
        first = entered(limiter, batch=True)
        batch = entered(limiter, batch=True)
        visitor = entered(limiter)
        assert first.leave(1.0) is visitor
        assert visitor.leave(1.0) is batch

    def test_that_is_full_of_batches_keeps_no_visitor_out(self) -> None:
        limiter = Limiter(1, most_waiting=1)
        entered(limiter)
        entered(limiter, batch=True)
        assert limiter.enter(0.0, LONG, batch=True) is None
        assert limiter.enter(0.0, LONG) is not None
        assert limiter.enter(0.0, LONG) is None

    def test_may_be_forbidden(self) -> None:
        limiter = Limiter(2, most_waiting=0)
        entered(limiter)
        entered(limiter)
        assert limiter.enter(0.0, LONG) is None

    def test_can_be_sent_away(self) -> None:
        limiter = Limiter(1)
        first, second, third = (entered(limiter, batch=batch) for batch in (False, True, False))
        assert limiter.dismiss() == [third, second]
        assert not any(ticket.waits or ticket.granted for ticket in (second, third))
        assert first.leave(1.0) is None
        assert (limiter.in_flight, limiter.waiting) == (0, 0)


class TestLeaving:
    def test_twice_is_leaving_once(self) -> None:
        limiter = Limiter(1)
        first, second, third = (entered(limiter) for _ in range(3))
        assert first.leave(1.0) is second
        assert first.leave(1.0) is None
        assert second.leave(1.0) is third

    def test_the_queue_costs_nobody_a_slot(self) -> None:
        limiter = Limiter(1)
        first, second, third = (entered(limiter) for _ in range(3))
        assert second.leave(0.5) is None
        assert not second.waits
        assert first.leave(1.0) is third

    def test_in_the_moment_of_the_grant_passes_the_slot_on(self) -> None:
        limiter = Limiter(1)
        first, second, third = (entered(limiter) for _ in range(3))
        assert first.leave(1.0) is second
        assert second.leave(1.0) is third

    def test_without_a_queue_is_nothing(self) -> None:
        assert Ticket().leave(1.0) is None


class TestTheDelay:
    def test_is_not_known_before_anybody_has_left(self) -> None:
        limiter = Limiter(1)
        entered(limiter)
        assert limiter.delay(1.0) is None
        assert limiter.retry_after(1.0) is None
        assert limiter.enter(1.0, 0.001) is not None

    @pytest.mark.parametrize(("ahead", "delay"), [(0, 7.0), (1, 9.0), (2, 17.0), (3, 19.0)])
    def test_is_the_rest_of_the_holder_whose_slot_it_is(self, ahead: int, delay: float) -> None:
        limiter = Limiter(2)
        used(limiter, 10.0)
        entered(limiter, now=10.0)
        entered(limiter, now=12.0)
        for _ in range(ahead):
            entered(limiter, now=13.0)
        assert limiter.delay(13.0) == delay

    def test_of_batches_counts_everybody(self) -> None:
        limiter = Limiter(1)
        used(limiter, 10.0)
        for _ in range(2):
            entered(limiter, now=10.0)
        entered(limiter, now=10.0, batch=True)
        assert limiter.delay(10.0) == 20.0
        assert limiter.delay(10.0, batch=True) == 30.0

    def test_follows_the_calls_of_late(self) -> None:
        limiter = Limiter(1)
        for seconds in [1.0] + [5.0] * 30:
            used(limiter, seconds)
        entered(limiter)
        assert limiter.delay(0.0) == pytest.approx(5.0, abs=0.01)

    def test_soon_forgets_one_call_that_had_to_load_its_model(self) -> None:
        limiter = Limiter(1)
        for seconds in [40.0] + [0.5] * 6:
            used(limiter, seconds)
        entered(limiter)
        assert limiter.delay(0.0) == pytest.approx(0.5, abs=1)

    def test_of_a_call_that_takes_longer_than_others_may_end_any_moment(self) -> None:
        limiter = Limiter(1)
        used(limiter, 10.0)
        entered(limiter)
        assert limiter.delay(15.0) == 0.0
        assert limiter.retry_after(15.0) == 10.0

    def test_that_is_too_long_is_a_refusal(self) -> None:
        limiter = Limiter(1)
        used(limiter, 10.0)
        entered(limiter, now=10.0)
        assert limiter.enter(12.0, 7.9) is None
        assert limiter.retry_after(12.0) == 8.0
        assert limiter.enter(12.0, 8.1) is not None

    def test_is_true_for_who_comes_back_after_it(self) -> None:
        limiter = Limiter(1)
        used(limiter, 10.0)
        first, second = entered(limiter, now=10.0), entered(limiter, now=10.0)
        assert limiter.enter(15.0, 1.0) is None
        after = limiter.retry_after(15.0)
        assert after == 15.0
        first.leave(20.0)
        second.leave(30.0)
        assert entered(limiter, now=15.0 + after).granted


class LimiterModel(RuleBasedStateMachine):
    """Two lanes as plain lists; whatever callers do, in whatever order, the limiter agrees."""

    LIMIT, MOST = 3, 4

    def __init__(self) -> None:
        super().__init__()
        self.limiter = Limiter(self.LIMIT, self.MOST)
        self.now = 0.0
        self.held: list[Ticket] = []
        self.lanes: dict[bool, deque[Ticket]] = {False: deque(), True: deque()}
        self.gone: list[Ticket] = []

    @rule(batch=st.booleans(), left=st.sampled_from([0.0, 1.0, LONG]))
    def enter(self, batch: bool, left: float) -> None:
        delay = self.limiter.delay(self.now, batch=batch)
        ahead = len(self.lanes[False]) + (len(self.lanes[True]) if batch else 0)
        ticket = self.limiter.enter(self.now, left, batch=batch)
        if len(self.held) < self.LIMIT:
            assert ticket is not None
            assert ticket.granted
            self.held.append(ticket)
        elif ahead >= self.MOST or (delay is not None and delay > left):
            assert ticket is None
        else:
            assert ticket is not None
            assert ticket.waits
            self.lanes[batch].append(ticket)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how_often=st.integers(1, 3))
    def leave_slots(self, data: st.DataObject, how_often: int) -> None:
        """Also in the tick of the grant: the granted one may be the next who leaves."""
        ticket = data.draw(st.sampled_from(self.held))
        for _ in range(how_often):
            self.held.remove(ticket)
            self.gone.append(ticket)
            following = ticket.leave(self.now)
            lane = self.lanes[False] or self.lanes[True]
            assert following is (lane.popleft() if lane else None)
            if following is None:
                return
            assert following.granted
            self.held.append(following)
            ticket = following

    @precondition(lambda self: self.lanes[False] or self.lanes[True])
    @rule(data=st.data())
    def leave_queue(self, data: st.DataObject) -> None:
        waiting = [*self.lanes[False], *self.lanes[True]]
        ticket = data.draw(st.sampled_from(waiting))
        assert ticket.leave(self.now) is None
        for lane in self.lanes.values():
            if ticket in lane:
                lane.remove(ticket)
        self.gone.append(ticket)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def leave_again(self, data: st.DataObject) -> None:
        assert data.draw(st.sampled_from(self.gone)).leave(self.now) is None

    @rule()
    def dismiss(self) -> None:
        assert self.limiter.dismiss() == [*self.lanes[False], *self.lanes[True]]
        for lane in self.lanes.values():
            self.gone.extend(lane)
            lane.clear()

    @rule(seconds=st.floats(0.0, 30.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def no_slot_is_lost_and_none_too_many(self) -> None:
        assert self.limiter.in_flight == len(self.held) <= self.LIMIT
        assert all(ticket.granted and not ticket.waits for ticket in self.held)

    @invariant()
    def nobody_waits_while_a_slot_is_free(self) -> None:
        waiting = [*self.lanes[False], *self.lanes[True]]
        assert self.limiter.waiting == len(waiting)
        assert all(ticket.waits and not ticket.granted for ticket in waiting)
        assert not waiting or len(self.held) == self.LIMIT

    @invariant()
    def who_is_gone_has_nothing(self) -> None:
        assert not any(ticket.granted or ticket.waits for ticket in self.gone)


@lives
def test_the_limiter_agrees_with_its_model(lives: int) -> None:
    live(LimiterModel, lives, steps=40)
