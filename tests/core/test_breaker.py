from __future__ import annotations

import threading
import time

import pytest

from ollama_bridge.core.breaker import Breaker, BreakerPolicy, Mode, State, Window
from ollama_bridge.core.events import CircuitClosed, CircuitOpened, CircuitProbing, Event


class Circuit(Breaker):
    """A breaker with a clock of its own, for tests that read as stories."""

    __slots__ = ("events", "now")

    def __init__(self, random: float = 0.0, **policy: object) -> None:
        self.now = 1000.0
        self.events: list[Event] = []
        super().__init__(
            "e",
            BreakerPolicy(**policy),  # type: ignore[arg-type]  # any of its fields
            lambda: random,
            self.events.append,
        )

    def shows(self) -> State:
        """Return the state, anew each time: a checker takes an attribute for unchanged."""
        return self.state

    def visit(self, *, good: bool, seconds: float = 0.0) -> None:
        permit = self.admit(self.now, 60)
        self.now += seconds
        if good:
            self.succeed(permit, self.now)
        else:
            self.fail(permit, self.now, "connection_failed")

    def open(self) -> None:
        for _ in range(5):
            self.visit(good=False)
        assert self.state is State.OPEN

    def wait(self) -> None:
        after = self.retry_after(self.now)
        assert after is not None
        self.now += after


def test_it_opens_at_the_fifth_failed_visit_in_a_row() -> None:
    circuit = Circuit()
    for _ in range(4):
        circuit.visit(good=False)
    assert (circuit.shows(), circuit.failures) == (State.CLOSED, 4)
    circuit.visit(good=False)
    assert circuit.shows() is State.OPEN
    assert not circuit.admits(circuit.now)
    assert circuit.last_error == "connection_failed"


def test_a_success_between_starts_the_count_afresh() -> None:
    circuit = Circuit()
    for good in [False] * 4 + [True] + [False] * 4:
        circuit.visit(good=good)
    assert circuit.shows() is State.CLOSED


def test_it_opens_when_half_of_twenty_visits_in_a_minute_failed() -> None:
    circuit = Circuit()
    for good in [True, False] * 9 + [True]:
        circuit.visit(good=good)
    assert circuit.shows() is State.CLOSED, "nineteen visits are too few"
    circuit.visit(good=False)
    assert circuit.shows() is State.OPEN
    opened = circuit.events[-1]
    assert isinstance(opened, CircuitOpened)
    assert opened.failures == 10, "not the one in a row"


def test_a_forked_child_may_probe_though_its_parent_does() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    circuit.admit(circuit.now, 60)
    circuit.forget_probe()
    assert circuit.admits(circuit.now)


def test_failures_older_than_the_window_are_forgotten() -> None:
    circuit = Circuit()
    for good in [True, False] * 9:
        circuit.visit(good=good)
    circuit.now += 61
    for good in [True, False]:
        circuit.visit(good=good)
    assert circuit.shows() is State.CLOSED


def test_the_window_counts_a_bucket_only_while_it_is_in_the_window() -> None:
    window = Window(60.0)
    window.add_bad(0.0)
    window.add_good(59.0)
    assert window.totals(59.9) == (1, 2)
    assert window.totals(60.0) == (0, 1)
    window.add_bad(60.0)  # takes over the oldest bucket
    assert window.totals(60.0) == (1, 2)


@pytest.mark.parametrize(("random", "shares"), [(0.0, [5, 10, 20, 40, 60, 60]), (0.999, None)])
def test_the_open_time_doubles_and_jitter_only_shortens_it(
    random: float, shares: list[float] | None
) -> None:
    circuit = Circuit(random=random)
    circuit.open()
    times = []
    for full in [5, 10, 20, 40, 60, 60]:
        after = circuit.retry_after(circuit.now)
        assert after is not None
        assert full / 2 <= after <= full
        times.append(after)
        circuit.wait()
        circuit.visit(good=False)
    if shares:
        assert times == shares


def test_a_thousand_failed_probes_do_not_overflow_the_open_time() -> None:
    circuit = Circuit()
    circuit.open()
    for _ in range(1100):
        circuit.wait()
        circuit.visit(good=False)
    assert circuit.retry_after(circuit.now) == 60


@pytest.mark.parametrize(("closed_for", "expected"), [(59.0, 10.0), (60.0, 5.0)])
def test_the_doubling_starts_afresh_only_after_a_minute_closed(
    closed_for: float, expected: float
) -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    circuit.visit(good=True)
    assert circuit.shows() is State.CLOSED
    circuit.now += closed_for
    circuit.open()
    assert circuit.retry_after(circuit.now) == expected


def test_it_stays_open_until_a_caller_probes() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.now += 3600
    assert circuit.shows() is State.OPEN
    assert circuit.retry_after(circuit.now) == 0
    circuit.admit(circuit.now, 60)
    assert circuit.shows() is State.HALF_OPEN


def test_while_one_probes_others_are_refused_with_at_most_one_open_time_to_wait() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    circuit.admit(circuit.now, 60)
    assert not circuit.admits(circuit.now)
    assert circuit.retry_after(circuit.now) == 5


def test_a_cancelled_probe_lets_the_next_caller_probe_at_once() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    circuit.release(circuit.admit(circuit.now, 60))
    assert (circuit.shows(), circuit.retry_after(circuit.now)) == (State.HALF_OPEN, 0)
    circuit.visit(good=True)
    assert circuit.shows() is State.CLOSED


def test_a_killed_probe_blocks_nobody_for_longer_than_its_lease() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    circuit.admit(circuit.now, 10)
    circuit.now += 14.9
    assert not circuit.admits(circuit.now)
    circuit.now += 0.1
    assert circuit.admits(circuit.now)


def test_a_lease_is_never_longer_than_two_minutes_and_its_grace() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    circuit.admit(circuit.now, 10_000)
    circuit.now += 125
    assert circuit.admits(circuit.now)


def test_a_late_probe_whose_lease_was_taken_over_decides_nothing() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    late = circuit.admit(circuit.now, 10)
    circuit.now += 15
    circuit.admit(circuit.now, 10)
    circuit.succeed(late, circuit.now)
    assert circuit.shows() is State.HALF_OPEN


def test_reset_closes_and_returns_to_auto_and_forgets_the_doubling() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    circuit.visit(good=False)
    circuit.set_mode(Mode.FORCED_OPEN)
    circuit.reset(circuit.now)
    assert (circuit.shows(), circuit.mode, circuit.failures) == (State.CLOSED, Mode.AUTO, 0)
    circuit.open()
    assert circuit.retry_after(circuit.now) == 5


def test_forced_open_refuses_without_an_end_and_keeps_the_state_below() -> None:
    circuit = Circuit()
    circuit.set_mode(Mode.FORCED_OPEN)
    assert (circuit.shows(), circuit.admits(circuit.now)) == (State.OPEN, False)
    assert circuit.retry_after(circuit.now) is None
    circuit.set_mode(Mode.AUTO)
    assert circuit.shows() is State.CLOSED


def test_disabled_admits_all_and_records_nothing() -> None:
    circuit = Circuit()
    circuit.set_mode(Mode.DISABLED)
    for _ in range(20):
        circuit.visit(good=False)
    assert (circuit.shows(), circuit.failures) == (State.CLOSED, 0)


def test_a_breaker_that_the_settings_switch_off_stays_off_after_a_reset() -> None:
    circuit = Circuit(enabled=False)
    for _ in range(20):
        circuit.visit(good=False)
    circuit.reset(circuit.now)
    assert (circuit.mode, circuit.failures) == (Mode.DISABLED, 0)


def test_each_transition_is_reported_and_bumps_the_generation() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    circuit.visit(good=True)
    kinds = [type(event) for event in circuit.events]
    assert kinds == [CircuitOpened, CircuitProbing, CircuitClosed]
    assert circuit.generation == 3
    assert circuit.events[0] == CircuitOpened(
        circuit="e", failures=5, seconds=5.0, last_error="connection_failed"
    )


def test_a_closed_circuit_without_failures_is_quiet() -> None:
    assert Circuit().is_quiet


def test_a_circuit_with_failures_is_not_quiet() -> None:
    troubled = Circuit()
    troubled.visit(good=False)
    assert not troubled.is_quiet


# The seven bugs of other libraries (see docs of pybreaker, circuitbreaker, purgatory, aiobreaker).


def test_bug_1_calls_are_not_serialised_by_the_breaker() -> None:
    """pybreaker holds its lock over the call: twenty calls of 0.1 s take 2 s."""
    circuit, lock = Circuit(), threading.Lock()
    together = threading.Barrier(20, timeout=10)

    def call() -> None:
        with lock:
            permit = circuit.admit(time.monotonic(), 60)
        together.wait()  # breaks if any call waits for another to end
        with lock:
            circuit.succeed(permit, time.monotonic())

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not together.broken


@pytest.mark.parametrize("state", [State.CLOSED, State.HALF_OPEN])
def test_bugs_2_3_and_5_a_cancel_neither_opens_nor_closes(state: State) -> None:
    """pybreaker opens on KeyboardInterrupt and GeneratorExit, circuitbreaker closes on a cancel."""
    circuit = Circuit()
    for _ in range(4):
        circuit.visit(good=False)
    if state is State.HALF_OPEN:
        circuit.visit(good=False)
        circuit.wait()
    circuit.release(circuit.admit(circuit.now, 60))
    assert circuit.shows() is state


def test_bug_4_only_one_of_many_callers_probes() -> None:
    """pybreaker with Redis admits a probe in each process, circuitbreaker every caller."""
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    admitted = 0
    for _ in range(20):
        if circuit.admits(circuit.now):
            circuit.admit(circuit.now, 60)
            admitted += 1
    assert admitted == 1


def test_bug_5_a_late_success_does_not_close_an_open_circuit() -> None:
    """circuitbreaker: a call that began before the opening closes the circuit when it ends."""
    circuit = Circuit()
    late = circuit.admit(circuit.now, 60)
    circuit.open()
    circuit.succeed(late, circuit.now)
    assert circuit.shows() is State.OPEN


def test_bug_6_the_state_is_decided_from_what_was_counted_not_from_a_snapshot() -> None:
    """purgatory counts in one place and decides by another: parallel failures do not open."""
    circuit = Circuit()
    permits = [circuit.admit(circuit.now, 60) for _ in range(5)]
    for permit in permits:
        circuit.fail(permit, circuit.now, "timeout")
    assert circuit.shows() is State.OPEN
    assert circuit.generation == 1, "and it opens once"


# Bug 7 (the `exclude` of pybreaker and aiobreaker swallows every error where an exception class
# has a metaclass of its own) cannot occur in a breaker that is told an outcome. test_outcome.py
# holds the table of outcomes against every class of error.


class TestAFailureThatIsForgiven:
    def test_counts_no_more(self) -> None:
        found = Breaker("a", BreakerPolicy(failure_threshold=100), lambda: 0.0, lambda _: None)
        permits = [found.admit(0.0, 60.0) for _ in range(20)]
        move = permits[0].move
        for permit in permits[:10]:
            found.succeed(permit, 0.0)
        for permit in permits[10:19]:
            found.fail(permit, 0.0, "timeout")
        found.forgive(move, 0.0)
        found.fail(permits[19], 0.0, "timeout")
        assert found.state is State.CLOSED

    def test_of_long_ago_is_forgotten_anyhow(self) -> None:
        found = Breaker("a", BreakerPolicy(), lambda: 0.0, lambda _: None)
        permit = found.admit(0.0, 60.0)
        move = permit.move
        found.fail(permit, 0.0, "timeout")
        found.forgive(move, 1000.0)
        assert found.failures == 1

    def test_does_not_close_what_it_has_opened(self) -> None:
        found = Breaker("a", BreakerPolicy(failure_threshold=1), lambda: 0.0, lambda _: None)
        permit = found.admit(0.0, 60.0)
        move = permit.move
        found.fail(permit, 0.0, "timeout")
        found.forgive(move, 0.0)
        assert found.state is State.OPEN
