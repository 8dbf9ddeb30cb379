"""The circuit breaker against a naive model, in any order of events."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from ollama_bridge.core.breaker import (
    LEASE_GRACE,
    LONGEST_LEASE,
    Breaker,
    BreakerPolicy,
    Mode,
    Permit,
    State,
)
from tests.core.machines import live, lives

POLICY = BreakerPolicy(failure_threshold=3, open_seconds=5, recovery_timeout=60, window_visits=6)


class BreakerMachine(RuleBasedStateMachine):
    """Keeps a list of what happened since the last transition, and expects what follows from it."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.breaker = Breaker("e", POLICY, self._random, lambda _: None)
        self.random = 0.0
        self.visits: list[tuple[float, bool]] = []  # (when, bad) since it closed
        self.prober: Permit | None = None
        self.lease_end = 0.0
        self.open_until = 0.0
        self.generation = 0

    def _random(self) -> float:
        return self.random

    @rule(seconds=st.floats(0, 130), random=st.floats(0, 0.999))
    def tick(self, seconds: float, random: float) -> None:
        before = (self.breaker.state, self.breaker.generation)
        self.now += seconds
        self.random = random
        self.breaker.retry_after(self.now)
        assert (self.breaker.state, self.breaker.generation) == before, "time alone moved it"

    @rule(target=permits, left=st.floats(0, 300))
    def acquire(self, left: float) -> tuple[Permit, int]:
        was = self.breaker.state
        admits = self.breaker.admits(self.now)
        if was is State.CLOSED:
            assert admits
        if was is State.OPEN:
            assert admits == (self.breaker.mode is Mode.AUTO and self.now >= self.open_until), (
                "an open circuit admits when its time is over, and only then"
            )
        if was is State.HALF_OPEN:
            probing = self.prober is not None and self.now < self.lease_end
            assert admits != probing, "one probe, and never none for ever"
        if not admits:
            return Permit(-1), -2
        permit = self.breaker.admit(self.now, left)
        if was is not State.CLOSED:
            assert self.breaker.state is State.HALF_OPEN
            self.prober = permit
            self.lease_end = self.now + min(left, LONGEST_LEASE) + LEASE_GRACE
        return permit, permit.move

    @rule(held=consumes(permits), twice=st.booleans())
    def succeed(self, held: tuple[Permit, int], *, twice: bool) -> None:
        permit, generation = held
        counts = self._counts(generation)
        was = self.breaker.state
        self.breaker.succeed(permit, self.now)
        if twice:
            self.breaker.fail(permit, self.now, "late")
        if not counts:
            assert self.breaker.state is was
        elif was is State.HALF_OPEN:
            assert self.breaker.state is State.CLOSED
            self._closed()
        elif self.breaker.mode is Mode.AUTO:
            self.visits.append((self.now, False))

    @rule(held=consumes(permits), twice=st.booleans())
    def fail(self, held: tuple[Permit, int], *, twice: bool) -> None:
        permit, generation = held
        counts = self._counts(generation)
        was = self.breaker.state
        self.breaker.fail(permit, self.now, "connection_failed")
        if counts and was is State.CLOSED:
            self.visits.append((self.now, True))
            assert (self.breaker.state is State.OPEN) == self._should_trip()
        if counts and self.breaker.state is State.OPEN:
            self._opened()
        if twice:
            self.breaker.succeed(permit, self.now)
        if not counts:
            assert self.breaker.state is was

    @rule(held=consumes(permits))
    def cancel(self, held: tuple[Permit, int]) -> None:
        permit, generation = held
        counts = self._counts(generation)
        was = self.breaker.state
        self.breaker.release(permit)
        assert self.breaker.state is was, "a cancel is neutral"
        if permit is self.prober and counts:
            self.prober = None

    @rule(held=consumes(permits))
    def kill(self, held: tuple[Permit, int]) -> None:
        """Never settle it: the process died."""

    @rule(mode=st.sampled_from([Mode.FORCED_OPEN, Mode.DISABLED]))
    def set_mode(self, mode: Mode) -> None:
        self.breaker.set_mode(mode)
        self.prober = None

    @rule()
    @precondition(lambda self: self.breaker.mode is not Mode.AUTO)
    def set_auto(self) -> None:
        self.breaker.set_mode(Mode.AUTO)

    @rule()
    def reset(self) -> None:
        self.breaker.reset(self.now)
        assert (self.breaker.state, self.breaker.mode) == (State.CLOSED, Mode.AUTO)
        self._closed()

    @invariant()
    def generation_never_goes_back(self) -> None:
        assert self.breaker.generation >= self.generation
        self.generation = self.breaker.generation

    @invariant()
    def a_refusal_says_when_to_come_back(self) -> None:
        after = self.breaker.retry_after(self.now)
        if self.breaker.mode is Mode.AUTO and not self.breaker.admits(self.now):
            assert after is not None
            assert 0 < after <= POLICY.recovery_timeout
        if self.breaker.mode is not Mode.AUTO or self.breaker.state is State.CLOSED:
            assert after is None

    @invariant()
    def the_mode_lies_over_the_state(self) -> None:
        if self.breaker.mode is Mode.FORCED_OPEN:
            assert self.breaker.state is State.OPEN
            assert not self.breaker.admits(self.now)
        if self.breaker.mode is Mode.DISABLED:
            assert self.breaker.state is State.CLOSED
            assert self.breaker.admits(self.now)

    def _counts(self, generation: int) -> bool:
        return generation == self.breaker.generation

    def _closed(self) -> None:
        self.visits = []
        self.prober = None

    def _opened(self) -> None:
        after = self.breaker.retry_after(self.now)
        assert after is not None
        assert POLICY.open_seconds / 2 <= after <= POLICY.recovery_timeout
        self.open_until = self.now + after
        self.visits = []
        self.prober = None

    def _should_trip(self) -> bool:
        recent = [bad for _, bad in self.visits][-POLICY.failure_threshold :]
        if len(recent) == POLICY.failure_threshold and all(recent):
            return True
        oldest = int(self.now / 6) - 10
        window = [bad for when, bad in self.visits if int(when / 6) > oldest]
        return len(window) >= POLICY.window_visits and 2 * sum(window) >= len(window)


@lives
def test_the_breaker_agrees_with_its_model_in_any_order_of_events(lives: int) -> None:
    live(BreakerMachine, lives, steps=50)
