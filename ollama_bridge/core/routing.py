"""Where calls go, and the one lock that guards what is known about the places.

It is held over pure code only: never over a ``yield``, an ``await``, a callback or I/O. What is to
be reported is reported after it is released.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .breaker import Breaker, Mode, State
from .events import CircuitFollowed, CircuitOpened
from .places import Place
from .sharing import Sharing, wanted
from .types import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .deadline import Clock
    from .events import Event, Observer
    from .limiter import Ticket
    from .places import ModelPlace
    from .sharing import Home
    from .types import Endpoint

_SEVERITY = (State.CLOSED, State.HALF_OPEN, State.OPEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitFacts:
    """A circuit as it was when asked. ``retry_after`` is in seconds, None where not known."""

    name: str
    state: State
    mode: Mode
    failures: int
    generation: int
    retry_after: float | None
    last_error: str


class Router:
    """All endpoints of the process. Thread-safe."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        *,
        clock: Clock,
        random: Callable[[], float],
        observe: Observer,
        home: Home,
    ) -> None:
        self.home = home
        self.clock = clock
        self.random = random
        self.observe = observe
        self.lock: Any = threading.RLock()
        self._owed: deque[Callable[[], None]] = deque()
        self._news: list[Event] = []
        self._woken: deque[Ticket] = deque()
        self.sharing = Sharing(self)
        moved = self.sharing.moved if home.is_shared else _nobody_is_told
        self._places = {
            found.name: Place(found, random, self._news.append, moved) for found in endpoints
        }
        self._targets = [
            Target(place.endpoint, place.endpoint.model) for place in self._places.values()
        ]

    @property
    def default(self) -> Target:
        """Where a call goes that asks for nothing else."""
        return self._targets[0]

    def targets(self, model: str | None) -> Sequence[Target]:
        """Return the targets of a call, in the order in which they are tried."""
        if model is None:
            return self._targets
        return [Target(place.endpoint, model) for place in self._places.values()]

    def place(self, endpoint: Endpoint) -> Place:
        return self._places[endpoint.name]

    def hear(self, target: Target) -> Ticket | None:
        """Begin to read what other processes know, where it is time or the model is a new one.

        Returns:
            What to wait with, None where there is nothing to wait for.
        """
        is_new = self.home.is_shared and target.model not in self.place(target.endpoint).models
        if is_new:
            with self.lock:
                self.place(target.endpoint).model(target.model)
        return self.home.hear(self.clock.monotonic(), at_once=is_new)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()

    def soon(self, work: Callable[..., None], *args: object) -> None:
        """Do some work under the lock, now or as soon as this thread has left it.

        The collector may close an abandoned generator at any moment, also while this very thread
        is inside the lock. Its cleanup must neither wait for the lock nor see a half-made change.
        """
        if self.lock._is_owned():  # noqa: SLF001  # as threading.Condition asks
            self._owed.append(partial(work, *args))
            return
        with self.lock:
            work(*args)
        self.report()

    def tell(self, event: Event) -> None:
        """Take note, under the lock, of what is to be reported after it."""
        self._news.append(event)

    def wake(self, ticket: Ticket) -> None:
        """Take note, under the lock, that whoever waits with this ticket waits no more."""
        self._woken.append(ticket)

    def call(self, ticket: Ticket) -> None:
        """Call whoever waits with this ticket, or pass its slot on where nobody does any more."""
        if ticket.wake is None:  # it has not begun to wait, and will see that it need not
            return
        try:
            ticket.wake()
        except RuntimeError:  # its event loop is closed: the next one may have the slot
            with self.lock:
                following = ticket.leave(self.clock.monotonic())
                if following is not None:
                    self.wake(following)

    def report(self) -> None:
        """Do what is owed, wake who waits no more, and tell the observer what happened.

        To be called without the lock, whenever something may have changed under it.
        """
        while self._owed or self._news or self._woken:
            self._catch_up()
        if self.sharing.untold:
            self.home.wake()

    def circuits(self) -> Iterator[Breaker]:
        """Iterate over all circuits, under the lock."""
        for place in self._places.values():
            yield place.breaker
            for found in place.models.values():
                yield found.breaker

    def circuit(self, name: str) -> Breaker | None:
        """Return the circuit of this name, under the lock; None where there is none, or no more."""
        endpoint, slash, model = name.partition("/")
        place = self._places.get(endpoint)
        found = place.models.get(model) if place is not None and slash else place
        return None if found is None else found.breaker

    def named(self) -> Mapping[str, Target]:
        """Return the name of every circuit, with a target that must pass it.

        The names are "endpoint" and, once it was called, "endpoint/model".
        """
        with self.lock:
            targets: dict[str, Target] = {}
            for name, place in self._places.items():
                targets[name] = Target(place.endpoint, place.endpoint.model)
                for model in place.models:
                    targets[f"{name}/{model}"] = Target(place.endpoint, model)
            return targets

    def load(self) -> Mapping[tuple[str, str], tuple[int, int]]:
        """Return the calls in flight, and those that wait, by endpoint and model."""
        self.report()
        with self.lock:
            return {
                (name, model): (found.limiter.in_flight, found.limiter.waiting)
                for name, place in self._places.items()
                for model, found in place.models.items()
            }

    def facts(self, name: str) -> CircuitFacts:
        """Return how the circuit of this name is.

        Raises:
            KeyError: there is no such endpoint.
        """
        with self.lock:
            return _facts(self._under(name)[0], self.clock.monotonic())

    def worse(self, target: Target) -> CircuitFacts:
        """Return how the worse of a target's two circuits is, with the generations of both."""
        with self.lock:
            now = self.clock.monotonic()
            place = self.place(target.endpoint)
            both = place.breaker, place.model(target.model).breaker
            generation = sum(found.generation for found in both)
            return replace(_facts(max(both, key=_severity), now), generation=generation)

    def cooldown(self, endpoint: Endpoint) -> float:
        """Return the seconds for which an endpoint cools down, 0 if it does not."""
        return max(0.0, self.place(endpoint).cooldown_until - self.clock.monotonic())

    def reset(self, name: str) -> None:
        """Return a circuit to ``auto`` and closed.

        An endpoint's takes those of its models along, and ends a cooldown.

        Raises:
            KeyError: there is no such endpoint.
        """
        with self.lock:
            if name in self._places:
                self._places[name].cooldown_until = 0.0
            self._want(name, Mode.AUTO)
        self.report()

    def set_mode(self, name: str, mode: Mode) -> None:
        """Lay a mode over a circuit; an endpoint's applies to those of its models too.

        Raises:
            KeyError: there is no such endpoint.
        """
        with self.lock:
            self._want(name, mode)
            if mode is Mode.FORCED_OPEN:
                self._send_away(name)
        self.report()

    def after_fork(self) -> None:
        """In a forked child nobody holds the lock and nothing is in flight; keep what is known."""
        self.lock = threading.RLock()
        for place in self._places.values():
            place.after_fork()

    def _catch_up(self) -> None:
        with self.lock:
            while self._owed:
                self._owed.popleft()()
            news = self._news.copy()
            self._news.clear()
            for event in news:
                if isinstance(event, CircuitOpened | CircuitFollowed):
                    self._send_away(event.circuit)
        while (ticket := self._next_woken()) is not None:
            self.call(ticket)
        for event in news:
            self.observe(event)

    def _next_woken(self) -> Ticket | None:
        with self.lock:
            return self._woken.popleft() if self._woken else None

    def _send_away(self, circuit: str) -> None:
        """Let all who wait under a circuit look for themselves whether it still admits them."""
        for found in self._models_under(circuit):
            self._woken += found.limiter.dismiss()

    def _models_under(self, name: str) -> Sequence[ModelPlace]:
        endpoint, slash, model = name.partition("/")
        place = self._places[endpoint]
        return [place.model(model)] if slash else [*place.models.values()]

    def _want(self, name: str, mode: Mode) -> None:
        will = wanted(mode, self.clock.monotonic())
        for found in self._under(name):
            if self.home.is_shared:
                self.sharing.want(found, will)
            else:
                will(found)

    def _under(self, name: str) -> Sequence[Breaker]:
        of_models = [found.breaker for found in self._models_under(name)]
        return of_models if "/" in name else [self._places[name].breaker, *of_models]


def _nobody_is_told(circuit: Breaker) -> None:
    """Take no note of a move: there are no other processes."""


def _severity(found: Breaker) -> tuple[int, int]:
    return _SEVERITY.index(found.state), found.failures


def _facts(found: Breaker, now: float) -> CircuitFacts:
    return CircuitFacts(
        name=found.name,
        state=found.state,
        mode=found.mode,
        failures=found.failures,
        generation=found.generation,
        retry_after=found.retry_after(now),
        last_error=found.last_error,
    )
