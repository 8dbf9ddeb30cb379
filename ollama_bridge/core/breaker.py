"""The circuit breaker: a state machine without clock, lock or I/O.

Rules:

1. ``state`` moves only when a caller is admitted or reports an outcome; reading it moves nothing.
2. Every transition, reset and change of mode bumps ``generation``. An outcome that was admitted
   before it changes nothing: late results cannot close or open a circuit.
3. Half-open admits one probe, under a lease. A probe that ends without an outcome (cancelled) gives
   the lease back, one that is killed lets it expire; either way the next caller probes.
4. ``mode`` lies over the automatic state and keeps it: ``auto``, ``forced_open``, ``disabled``.
5. Refusals are never recorded.
6. Processes share a circuit by its generations: each is a ``Snapshot``, of which one is told to
   all. Who made the same generation in the same moment, or missed some, adopts it instead.

The caller holds the lock, and passes ``now`` from a monotonic clock, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from .events import CircuitClosed, CircuitFollowed, CircuitOpened, CircuitProbing

if TYPE_CHECKING:
    from collections.abc import Callable

    from .events import Event

LONGEST_LEASE = 120.0
LEASE_GRACE = 5.0
RAMP, FIRST_SHARE = 30.0, 0.25
_NEVER = float("-inf")
_SETTLED = -1


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Mode(StrEnum):
    AUTO = "auto"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


# Looked up once: on Python 3.11 a member of an enum costs more than most of what is done with it.
_CLOSED, _OPEN, _HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
_AUTO, _FORCED_OPEN, _DISABLED = Mode.AUTO, Mode.FORCED_OPEN, Mode.DISABLED


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a circuit opens, and for how long. Times are in seconds."""

    enabled: bool = True
    failure_threshold: int = 5
    open_seconds: float = 5.0
    recovery_timeout: float = 60.0
    window: float = 60.0
    window_visits: int = 20
    window_ratio: float = 0.5


class Snapshot(NamedTuple):
    """A circuit as one process tells it to others.

    ``seconds`` are left of its open time, or of the lease of its probe if there is one: they
    travel, since the clocks of two machines are never compared.
    """

    generation: int
    state: State
    seconds: float
    leased: bool
    mode: Mode
    openings: int
    failures: int
    last_error: str


class Permit:
    """An admission, to be settled exactly once; settling it again changes nothing."""

    __slots__ = ("move",)

    def __init__(self, move: int) -> None:
        self.move = move


class Window:
    """Counts of good and bad visits in the last ``seconds``, in ten buckets."""

    BUCKETS = 10

    __slots__ = ("_bad", "_epoch", "_epochs", "_good", "_slot", "_width")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / self.BUCKETS
        self.clear()

    def clear(self) -> None:
        self._epoch = -self.BUCKETS
        self._slot = 0
        self._epochs = [-self.BUCKETS] * self.BUCKETS
        self._good = [0] * self.BUCKETS
        self._bad = [0] * self.BUCKETS

    def add_good(self, now: float) -> None:
        if int(now / self._width) != self._epoch:
            self._turn(now)
        self._good[self._slot] += 1

    def add_bad(self, now: float) -> None:
        self._turn(now)
        self._bad[self._slot] += 1

    def take_back_bad(self, now: float) -> None:
        """Forget the last bad visit, where it is still of the window."""
        oldest = int(now / self._width) - self.BUCKETS
        live = [slot for slot, epoch in enumerate(self._epochs) if epoch > oldest]
        latest = max((s for s in live if self._bad[s]), key=self._epochs.__getitem__, default=None)
        if latest is not None:
            self._bad[latest] -= 1

    def totals(self, now: float) -> tuple[int, int]:
        """Return (bad visits, all visits) of the window that ends now."""
        oldest = int(now / self._width) - self.BUCKETS
        live = [slot for slot, epoch in enumerate(self._epochs) if epoch > oldest]
        bad = sum(self._bad[slot] for slot in live)
        return bad, bad + sum(self._good[slot] for slot in live)

    def _turn(self, now: float) -> None:
        """Make the bucket of now the one that is counted in, and empty it if it is older."""
        self._epoch = epoch = int(now / self._width)
        self._slot = slot = epoch % self.BUCKETS
        if self._epochs[slot] != epoch:
            self._epochs[slot], self._good[slot], self._bad[slot] = epoch, 0, 0


class Breaker:
    """One circuit.

    ``random()`` is uniform in [0, 1) and only ever shortens an open time. ``report`` is told of
    transitions while the lock is held, so it may only take note; so may ``moved``, which is told
    of every new generation that was made here.

    Attributes:
        generation: counts the circuit's moves, in all processes that share it.
        closed_at: when it has closed after having been open, long ago if it never was.
    """

    __slots__ = (
        "_leased",
        "_move_count",
        "_moved",
        "_openings",
        "_policy",
        "_random",
        "_records_nothing",
        "_report",
        "_state",
        "_until",
        "_window",
        "closed_at",
        "failures",
        "generation",
        "last_error",
        "mode",
        "name",
        "passes",
    )

    def __init__(
        self,
        name: str,
        policy: BreakerPolicy,
        random: Callable[[], float],
        report: Callable[[Event], None],
        moved: Callable[[Breaker], None] = lambda _: None,
    ) -> None:
        self.name = name
        self._policy = policy
        self._random = random
        self._report = report
        self._moved = moved
        self._move_count = 0  # of this process: no two adopted or made here are taken for one
        self._window = Window(policy.window)
        self._state = _CLOSED
        self._until = 0.0  # end of the open time, or of the probe's lease
        self._leased = False
        self._openings = 0
        self.closed_at = _NEVER
        self.failures = 0
        self.generation = 0
        self.last_error = ""
        self.mode = _AUTO if policy.enabled else _DISABLED
        # Kept for every call to read: what mode and state come to until the next transition.
        self.passes = True
        self._records_nothing = self.mode is _DISABLED

    @property
    def state(self) -> State:
        if self.mode is _AUTO:
            return self._state
        return _OPEN if self.mode is _FORCED_OPEN else _CLOSED

    @property
    def is_quiet(self) -> bool:
        """Whether it is closed without failures, so that little is lost with it."""
        return self._state is _CLOSED and not self.failures

    def admits(self, now: float) -> bool:
        """Tell whether a caller would be admitted now. A pure read."""
        if self.passes:
            return True
        if self.mode is _FORCED_OPEN:
            return False
        # Open until its time is over; half-open unless a probe is under way, within its lease.
        is_held = self._state is _OPEN or self._leased
        return not is_held or now >= self._until

    def retry_after(self, now: float) -> float | None:
        """Return the seconds until a try makes sense, or None where that is not known.

        While a probe is under way nobody knows how long it takes, so this says one open time
        at most, rather than the whole of its lease.
        """
        if self.mode is not _AUTO or self._state is _CLOSED:
            return None
        left = max(0.0, self._until - now)
        if self._state is _OPEN:
            return left
        return min(left, self._policy.open_seconds) if self._leased else 0.0

    def admit(self, now: float, left: float) -> Permit:
        """Admit a caller who has ``left`` seconds; only where ``admits(now)`` is true.

        Under an open or half-open circuit this caller is the probe.
        """
        if not self.passes:
            if self._state is _OPEN:
                self._report(CircuitProbing(circuit=self.name))
            self._move(_HALF_OPEN, now + min(left, LONGEST_LEASE) + LEASE_GRACE, leased=True)
        return Permit(_SETTLED if self._records_nothing else self._move_count)

    def is_current(self, permit: Permit) -> bool:
        """Tell whether this permit still admits; where nothing is recorded any does."""
        return self._records_nothing or permit.move == self._move_count

    def succeed(self, permit: Permit, now: float) -> None:
        current, permit.move = permit.move == self._move_count, _SETTLED
        if not current:
            return
        if self.passes:
            self.failures = 0
            self._window.add_good(now)
        else:
            self._close(now)
            self._report(CircuitClosed(circuit=self.name))

    def fail(self, permit: Permit, now: float, error: str) -> None:
        if not self._settle(permit):
            return
        self.failures += 1
        self.last_error = error
        if self._state is _HALF_OPEN:
            self._open(now, self.failures)
            return
        self._window.add_bad(now)
        if failed := self._tripped_by(now):
            if now - self.closed_at >= self._policy.window:
                self._openings = 0
            self._open(now, failed)

    def forgive(self, move: int, now: float) -> None:
        """Forget a failure under a permit of this ``move``: the same call was answered after all.

        Where the circuit has moved since, for this failure perhaps, nothing changes.
        """
        if move == self._move_count and self.passes:
            self._window.take_back_bad(now)

    def release(self, permit: Permit) -> None:
        """Settle without an outcome: cancelled, or neither good nor bad."""
        if self._settle(permit) and self._state is _HALF_OPEN:
            self._move(_HALF_OPEN, 0.0)

    def ramp(self, now: float) -> float:
        """Return the share of calls that is good for it: after it has closed, less for a while.

        Slow start as of load balancers: from ``FIRST_SHARE`` to 1 in ``RAMP`` seconds.
        """
        since = now - self.closed_at
        if since >= RAMP or not self.passes:
            return 1.0
        return FIRST_SHARE + (1.0 - FIRST_SHARE) * since / RAMP

    def followed(self, now: float) -> Event:  # noqa: ARG002  # others tell for how long
        """Return the report that another process has moved it."""
        return CircuitFollowed(circuit=self.name, state=self.state, mode=self.mode)

    def forget_probe(self) -> None:
        """Let the next caller probe: whoever holds the lease will not be heard of again."""
        self._leased = False

    def reset(self, now: float) -> None:
        """Return to ``auto`` and closed, with nothing remembered but the last error."""
        self.mode = _AUTO if self._policy.enabled else _DISABLED
        self._openings = 0
        self._close(now)
        self.closed_at = _NEVER

    def set_mode(self, mode: Mode) -> None:
        self.mode = mode
        self._move(self._state, self._until)

    def begin_in(self, mode: Mode) -> None:
        """Begin in a mode; nothing has moved yet."""
        self.mode = mode
        self._become(self._state, self._until, leased=False)

    def snapshot(self, now: float) -> Snapshot:
        """Return what other processes are to know."""
        return Snapshot(
            generation=self.generation,
            state=self._state,
            seconds=max(0.0, self._until - now),
            leased=self._leased,
            mode=self.mode,
            openings=self._openings,
            failures=self.failures,
            last_error=self.last_error,
        )

    def adopt(self, told: Snapshot, now: float) -> None:
        """Be as another process has told; every permit of before is void."""
        self.mode = told.mode
        self.generation = told.generation
        self.failures = told.failures
        self.last_error = told.last_error
        self._openings = told.openings
        self._window.clear()
        if told.state is _CLOSED and self._state is not _CLOSED:
            self.closed_at = now
        self._become(told.state, now + told.seconds, leased=told.leased)

    def _settle(self, permit: Permit) -> bool:
        current = permit.move == self._move_count
        permit.move = _SETTLED
        return current

    def _tripped_by(self, now: float) -> int:
        """Return the number of failures that is too many, 0 if they are not."""
        if self.failures >= self._policy.failure_threshold:
            return self.failures
        bad, visits = self._window.totals(now)
        too_many = (
            visits >= self._policy.window_visits and bad >= self._policy.window_ratio * visits
        )
        return bad if too_many else 0

    def _open(self, now: float, failures: int) -> None:
        longest = self._policy.recovery_timeout
        # 2.0 ** 64 open times are longer than any longest; beyond 1023 the power would overflow.
        full = min(longest, self._policy.open_seconds * 2.0 ** min(self._openings, 64))
        self._openings += 1
        seconds = full * (1.0 - self._random() / 2.0)
        self._move(_OPEN, now + seconds)
        self._report(
            CircuitOpened(
                circuit=self.name,
                failures=failures,
                seconds=seconds,
                last_error=self.last_error,
            )
        )

    def _close(self, now: float) -> None:
        self._move(_CLOSED, 0.0)
        self.closed_at = now
        self.failures = 0
        self._window.clear()

    def _move(self, state: State, until: float, *, leased: bool = False) -> None:
        self.generation += 1
        self._become(state, until, leased=leased)
        self._moved(self)

    def _become(self, state: State, until: float, *, leased: bool) -> None:
        self._move_count += 1
        self._state = state
        self._until = until
        self._leased = leased
        is_closed = self.mode is _AUTO and state is _CLOSED
        self._records_nothing = self.mode is _DISABLED
        self.passes = is_closed or self._records_nothing
