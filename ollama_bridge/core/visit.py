"""One call's stay at one endpoint."""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, NoReturn, Self

from ..errors import CircuitOpen, OllamaBridgeError, Overloaded, Timeout
from .breaker import State
from .limiter import Limiter
from .outcome import Blame, blame
from .places import refusal_sentence, refuse_open

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from .breaker import Breaker, Permit
    from .deadline import Deadline
    from .limiter import Ticket
    from .places import Place
    from .router import Router
    from .types import Target

# A caller who has waited elsewhere may leave an endpoint too little time to be blamed for it.
_FAIR_SHARE = 0.5
_USUAL = 2  # circuits of a visit: while its endpoint cools down there is one more

# The visit under whose permits a caller's own code runs, see ``CircuitBreaker.call``.
riding: ContextVar[Visit | None] = ContextVar("ollama_bridge.riding", default=None)


class Past:
    """What the visits of one call have done to places, so that the call counts once at each.

    Attributes:
        blamed: the circuits that were told of a failure, and the move that their permit was of.
        repeats: how many tokens of the retry budgets of places it has taken.
    """

    __slots__ = ("blamed", "repeats")

    def __init__(self) -> None:
        self.blamed: dict[Breaker, int] = {}
        self.repeats: dict[Place, int] = {}

    @property
    def has_failed(self) -> bool:
        return bool(self.blamed or self.repeats)

    def repeat(self, place: Place) -> None:
        self.repeats[place] = self.repeats.get(place, 0) + 1

    def did_not_repeat(self, place: Place) -> None:
        self.repeats[place] -= 1

    def forgive(self, place: Place, circuits: Sequence[Breaker], now: float) -> None:
        """Take back what was held against a place that has answered in the end."""
        place.budget.refund(self.repeats.pop(place, 0))
        for circuit in circuits:
            if circuit in self.blamed:
                circuit.forgive(self.blamed.pop(circuit), now)


class Visit:
    """A slot, the permits of two circuits, and one outcome for all attempts together.

    Use it as a context manager: however the block ends, each permit is settled exactly once and the
    slot is given back. An ``OllamaBridgeError`` counts as ``blame`` says; a cancel, or any other
    end, is neutral. Nothing in here blocks, so that a generator which is being closed may leave.

    Inside ``CircuitBreaker.call`` a visit to the same endpoint rides on the permits of that call,
    which counts the outcome: it would else be refused by its own probe, and count everything twice.

    ``past`` is what the same call has done elsewhere, and here before: it counts once at each
    place, and as answered where it was in the end. It waits for a slot until ``turn_until``.

    ``batch`` puts it into the lane behind all others; without ``slotted`` it takes no slot: a
    caller's own function, whose calls of the bridge take theirs.

    Raises:
        CircuitOpen, RateLimited, QuotaExhausted, Overloaded: at entry, refused without a request.
    """

    __slots__ = (
        "_batch",
        "_circuits",
        "_excused",
        "_found",
        "_limiter",
        "_longest_wait",
        "_may_replay",
        "_outer",
        "_past",
        "_patience",
        "_permits",
        "_place",
        "_ridden",
        "_router",
        "admitted",
        "deadline",
        "is_probe",
        "target",
        "ticket",
        "turn_until",
    )

    ticket: Ticket
    _place: Place

    def __init__(
        self,
        router: Router,
        target: Target,
        deadline: Deadline,
        *,
        batch: bool = False,
        slotted: bool = True,
        past: Past | None = None,
        longest_wait: float | None = None,
    ) -> None:
        place = router.place(target.endpoint)
        outer = riding.get()
        if outer is not None and outer._place is not place:  # noqa: SLF001  # our own
            outer = None
        try:
            with router.lock:
                now = router.clock.monotonic()
                found = place.models.get(target.model) or place.begin(target.model)
                endpoint, model = place.breaker, found.breaker
                circuits: tuple[Breaker, ...] = (endpoint, model)
                if outer is None:
                    if not place.cooldown.passes:
                        place.refuse_cooling(target, now)
                        circuits = place.circuits(found)
                    if not (endpoint.passes and model.passes):
                        refuse_open(target, circuits, now)
                self.target = target
                self.admitted = False
                self.is_probe = False
                self._router = router
                self._place = place
                self._circuits = circuits
                self._found = found
                self._past = past
                self._outer = outer
                self._ridden: OllamaBridgeError | None = None
                self._limiter = found.limiter if slotted else Limiter()
                self.deadline = deadline
                self._batch = batch
                self._permits: tuple[Permit, ...] | None = None
                self._patience = 0.0
                self._may_replay = True
                self._excused = False
                self._longest_wait = longest_wait
                left = deadline.left(now)
                self.ticket = self._ticket(now, left)
                if self.ticket.granted:
                    self._take(now, left)
        finally:
            if router.is_pending:  # mostly not, and every call comes by here
                router.report()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._router.soon(self._leave, error)

    def __del__(self) -> None:
        """Leave, if an interrupt kept the block from doing so."""
        ticket = getattr(self, "ticket", None)
        if ticket is not None and (ticket.granted or ticket.waits or self._permits):
            self._router.soon(self._leave, GeneratorExit())

    def admit(self) -> None:
        """Take the permits, or keep them while they still count; with a granted slot.

        Raises:
            CircuitOpen, RateLimited, QuotaExhausted: refused, for what happened since.
        """
        with self._router.lock:
            now = self._router.clock.monotonic()
            self._check(now)
            self._take(now, self.deadline.left(now))
        self._router.report()

    def pause(self) -> None:
        """Give the slot back, before a sleep."""
        with self._router.lock:
            self._give_back(self._router.clock.monotonic())
        self._router.report()

    def resume(self) -> None:
        """Queue for a slot again: after a sleep, or sent away because a circuit opened.

        Raises:
            CircuitOpen, RateLimited, QuotaExhausted, Overloaded: refused.
        """
        try:
            with self._router.lock:
                if not (self.ticket.waits or self.ticket.granted):  # a wait may end early
                    self._queue(self._router.clock.monotonic())
        finally:
            self._router.report()

    def give_up(self) -> Overloaded:
        """Return the error of a call whose time is over before its turn has come."""
        with self._router.lock:
            now = self._router.clock.monotonic()
            self._give_back(now)
            error = self._overloaded(now)
        self._router.report()
        return error

    def prove(self) -> None:
        """Let a probe decide at its first good byte: the circuits close for everybody.

        What becomes of the rest of the answer is an outcome of its own, under new permits. A good
        answer whose circuit others have opened meanwhile goes on, and counts for nothing.
        """
        with self._router.lock:
            now = self._router.clock.monotonic()
            is_closed = all(found.state is State.CLOSED for found in self._circuits)
            if not is_closed and self._outer is None:
                self._settle(None, now)
                if all(found.passes for found in self._circuits):
                    self._take(now, self.deadline.left(now))
        self._router.report()

    def is_unconfirmed(self) -> bool:
        """Tell whether this visit probes a circuit that others may probe too, for all it knows."""
        if not self.is_probe:
            return False
        with self._router.lock:
            return self._router.sharing.is_claim(self._circuits) or not self._is_admitted()

    def stand_back(self) -> NoReturn:
        """Leave the probe to whoever has it.

        Raises:
            CircuitOpen, RateLimited, QuotaExhausted: always one of them.
        """
        with self._router.lock:
            self._release()
        self._router.report()
        target, cooldown = self.target, self._place.cooldown
        if cooldown in self._circuits and not cooldown.passes:
            raise self._place.refusal(target, 1.0)
        raise CircuitOpen(
            refusal_sentence(1.0),
            endpoint=target.endpoint.name,
            model=target.model,
            retry_after=1.0,
        )

    def excuse(self) -> None:
        """Hold no timeout against the endpoint from here on: the limit is the caller's own."""
        self._excused = True

    def fail(self, whom: Blame, error: str) -> None:
        """Report a failure of the caller's own code; the end of the block then adds nothing."""
        with self._router.lock:
            if self._permits is not None:
                now = self._router.clock.monotonic()
                pairs = zip(self._circuits, self._permits, strict=True)
                of_endpoint, of_model, *_ = pairs
                found, permit = of_model if whom is Blame.MODEL else of_endpoint
                found.fail(permit, now, error)
                self._release()
        self._router.report()

    def may_repeat(self) -> bool:
        """Take a token of the endpoint's retry budget; False where none is left."""
        taken = self._router.may_repeat(self.target)
        if taken and self._past is not None:
            self._past.repeat(self._place)
        return taken

    def may_replay(self) -> bool:
        """Tell, once, that a dropped connection may be replaced for free."""
        may, self._may_replay = self._may_replay, False
        return may

    def _check(self, now: float) -> None:
        """Refuse to go on, unless the endpoint is ready, and the permits count or can be had anew.

        Raises:
            CircuitOpen, RateLimited, QuotaExhausted: refused.
        """
        place = self._place
        if not place.cooldown.passes and not self._is_admitted_by(place.cooldown):
            place.refuse_cooling(self.target, now)
            if not place.cooldown.passes:
                self._release()  # to be had again together with a permit of the cooldown
        if not self._is_admitted():
            self._release()
            self._circuits = place.circuits(self._found)
            refuse_open(self.target, self._circuits, now)

    def _queue(self, now: float) -> None:
        self._check(now)
        self.ticket = self._ticket(now, self.deadline.left(now))

    def _ticket(self, now: float, left: float) -> Ticket:
        wait = left if self._longest_wait is None else min(left, self._longest_wait)
        self.turn_until = now + wait
        return self._limiter.enter(now, wait, batch=self._batch) or self._full(now)

    def _full(self, now: float) -> NoReturn:
        raise self._overloaded(now)

    def _take(self, now: float, left: float) -> None:
        if not self.admitted:
            self.admitted = True
            if self._past is None or self._place not in self._past.repeats:
                self._place.budget.earn()
        self._patience = left
        self._found.is_warm = True
        if self._permits is None and self._outer is None:
            circuits = self._circuits
            endpoint, model = circuits[0], circuits[1]
            if len(circuits) == _USUAL and endpoint.passes and model.passes:
                self.is_probe = False
                self._permits = endpoint.admit(now, left), model.admit(now, left)
            else:
                self.is_probe = not all(found.passes for found in circuits)
                self._permits = tuple(found.admit(now, left) for found in circuits)

    def _overloaded(self, now: float) -> Overloaded:
        return overloaded(self.target, self._limiter.retry_after(now, batch=self._batch))

    def _leave(self, error: BaseException | None) -> None:
        now = self._router.clock.monotonic()
        self._give_back(now)
        self._settle(error, now)

    def _give_back(self, now: float) -> None:
        following = self._limiter.leave(self.ticket, now)
        if following is not None:
            self._router.wake(following)

    def _is_admitted(self) -> bool:
        if self._permits is None:
            return self._outer is not None
        return all(map(_is_current, self._circuits, self._permits))

    def _is_admitted_by(self, circuit: Breaker) -> bool:
        if self._outer is not None:
            return self._outer._is_admitted_by(circuit)  # noqa: SLF001  # our own
        return circuit in self._circuits and self._is_admitted()

    def _settle(self, error: BaseException | None, now: float) -> None:
        if self._outer is not None and (error is None or isinstance(error, OllamaBridgeError)):
            self._outer._ridden = error  # noqa: SLF001  # our own: it counts for both
        if self._permits is None:
            return
        if error is None and self._ridden is None:
            self._succeed(self._permits, now)
            return
        failure = error or self._ridden
        if isinstance(failure, OllamaBridgeError):
            self._blame(failure, self._permits, now)
        self._release()

    def _succeed(self, permits: Sequence[Permit], now: float) -> None:
        self._permits = None
        circuits = self._circuits
        circuits[0].succeed(permits[0], now)
        circuits[1].succeed(permits[1], now)
        if len(permits) > _USUAL:
            circuits[2].succeed(permits[2], now)
        self._place.refused_until = 0.0
        if self._found.missing_until:
            self._found.missing_until, self._found.was_told = 0.0, False
        if self._past is not None and self._past.has_failed:
            self._past.forgive(self._place, circuits, now)

    def _blame(self, error: OllamaBridgeError, permits: Sequence[Permit], now: float) -> None:
        (endpoint, of_endpoint), (model, of_model), *of_cooldown = zip(
            self._circuits, permits, strict=True
        )
        whom = blame(error, patient=self._is_patient(error))
        if whom is Blame.ENDPOINT:
            self._fail(endpoint, of_endpoint, now, error.code)
        elif whom is not Blame.NOBODY:
            endpoint.succeed(of_endpoint, now)
            for cooldown, permit in of_cooldown:  # it answers something else than 429
                cooldown.succeed(permit, now)
        if whom is Blame.MODEL:
            self._fail(model, of_model, now, error.code)

    def _fail(self, circuit: Breaker, permit: Permit, now: float, code: str) -> None:
        past = self._past
        if past is None or circuit not in past.blamed or self.is_probe:
            if past is not None:
                past.blamed[circuit] = permit.move
            circuit.fail(permit, now, code)

    def _release(self) -> None:
        """Settle what is not settled yet, without an outcome."""
        if self._permits is not None:
            for found, permit in zip(self._circuits, self._permits, strict=True):
                found.release(permit)
            self._permits = None

    def _is_patient(self, error: OllamaBridgeError) -> bool:
        """Tell whether the endpoint had the time that the settings grant it."""
        if self._excused:
            return False
        if isinstance(error, Timeout) and error.phase == "idle":
            return True
        if isinstance(error, Timeout) and error.phase == "connect":
            return self._patience >= self.target.endpoint.connect_timeout
        deadline = self.deadline
        return deadline.is_usual and self._patience >= _FAIR_SHARE * deadline.usual


def overloaded(target: Target, seconds: float | None) -> Overloaded:
    """Return the error of a call that would wait in vain; ``seconds`` until others may not."""
    when = "" if seconds is None else f". The next turn is in about {math.ceil(seconds)} s"
    return Overloaded(
        f"Too many calls wait for {target.name}{when}. Send fewer at once, give them more time, "
        "or raise MAX_CONCURRENCY and the server's OLLAMA_NUM_PARALLEL",
        endpoint=target.endpoint.name,
        model=target.model,
        retry_after=seconds,
    )


def _is_current(found: Breaker, permit: Permit) -> bool:
    return found.is_current(permit)
