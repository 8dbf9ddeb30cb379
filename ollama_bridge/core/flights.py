"""Calls that ask the same at the same time: one of them asks, the others wait for its answer.

Rules:

1. Of all calls with one key, one leads; who comes while it does, follows.
2. What the leader shares, all its followers have at once.
3. A leader that leaves without, for whatever reason, fails nobody: who has followed longest leads
   instead, and the others go on waiting.
4. An answer that is for the leader alone sends its followers away, to ask for themselves.
5. Whoever leaves, however, gives its seat back; also on an event loop that is closed.

The router's lock guards all of it. One process only: others find what was kept, see ``answers``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

from .limiter import Limiter

if TYPE_CHECKING:
    from types import TracebackType

    from .limiter import Ticket
    from .router import Router

T = TypeVar("T")


class Flight(Generic[T]):
    """One question under way. Its only slot is held by whoever leads.

    Attributes:
        is_streamed: whether the leader goes no faster than whoever reads its stream.
    """

    __slots__ = ("answer", "is_streamed", "turn")

    def __init__(self) -> None:
        self.turn = Limiter(1)
        self.answer: T | None = None
        self.is_streamed = False


class Flights(Generic[T]):
    """All questions under way, by key."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.under_way: dict[str, Flight[T]] = {}

    def after_fork(self) -> None:
        """In a forked child nobody leads."""
        self.under_way = {}


class Seat(Generic[T]):
    """One call's place among those that ask the same.

    Use it as a context manager. Nothing in here blocks, so that a generator which is being closed
    may leave.
    """

    __slots__ = ("_flight", "_flights", "_is_streamed", "_key", "ticket")

    ticket: Ticket

    def __init__(self, flights: Flights[T], key: str, *, is_streamed: bool) -> None:
        self._flights = flights
        self._key = key
        self._is_streamed = is_streamed
        router = flights.router
        with router.lock:
            flight = flights.under_way.get(key)
            if flight is None:
                flight = flights.under_way[key] = Flight()
            self._flight = flight
            # As many as like may wait, for ever, so nobody is refused.
            self.ticket = cast("Ticket", flight.turn.enter(router.clock.monotonic(), math.inf))
        router.report()
        self.look()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._flights.router.soon(self._leave)

    def __del__(self) -> None:
        """Leave, if an interrupt kept the block from doing so."""
        ticket = getattr(self, "ticket", None)
        if ticket is not None and (ticket.granted or ticket.waits):
            self._flights.router.soon(self._leave)

    @property
    def leads(self) -> bool:
        return self.ticket.granted

    @property
    def follows(self) -> bool:
        return self.ticket.waits

    @property
    def answer(self) -> T | None:
        """What the leader shares, None until then."""
        return self._flight.answer

    @property
    def is_held_up(self) -> bool:
        """Whether some reader decides how long the leader takes."""
        return self._flight.is_streamed

    def look(self) -> None:
        """Take note of who leads now."""
        if self.leads:
            self._flight.is_streamed = self._is_streamed

    def share(self, answer: T | None) -> None:
        """Give all followers the answer; None sends them away without."""
        router = self._flights.router
        with router.lock:
            if answer is None and not self.leads:
                return
            self._flight.answer = answer
            self._forget()
            for ticket in self._flight.turn.dismiss():
                router.wake(ticket)
        router.report()

    def quit(self) -> None:
        """Follow no longer, unless it is this one's turn; who comes now follows somebody else."""
        router = self._flights.router
        with router.lock:
            if self.follows:
                self._forget()
                self._leave()
        router.report()

    def _leave(self) -> None:
        router, turn = self._flights.router, self._flight.turn
        following = turn.leave(self.ticket, router.clock.monotonic())
        if following is not None:
            router.wake(following)
        elif not (turn.in_flight or turn.waiting):
            self._forget()

    def _forget(self) -> None:
        if self._flights.under_way.get(self._key) is self._flight:
            del self._flights.under_way[self._key]
