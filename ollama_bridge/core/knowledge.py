"""What the process knows of all places: from its own calls, from others, from what servers say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import AuthenticationFailed, ModelNotFound, OllamaBridgeError
from .breaker import State
from .cooldown import SUFFIX, endpoint_of
from .events import QuotaLow
from .hub import Hub
from .names import canonical, is_remote
from .places import Place
from .sharing import Sharing
from .types import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .breaker import Breaker
    from .deadline import Clock
    from .events import Observer
    from .limiter import Ticket
    from .places import ModelPlace
    from .quota import Quota
    from .routing import Plan
    from .sharing import Home
    from .types import Endpoint

MISSING = 30.0
"""Seconds for which a model that a server did not have is taken not to be there."""
UNLISTED = 60.0
"""The same for one that it does not list; lists are read every 30 seconds."""
REFUSED = 60.0
"""Seconds for which an endpoint that did not accept the key is taken to be of no use, in health."""


class Knowledge(Hub):
    """All endpoints of the process, and what is known of them. Thread-safe."""

    def __init__(
        self,
        plan: Plan,
        *,
        clock: Clock,
        random: Callable[[], float],
        observe: Observer,
        home: Home,
    ) -> None:
        super().__init__(clock, observe)
        self.plan = plan
        self.home = home
        self.random = random
        self.sharing = Sharing(self)
        moved = self.sharing.moved if home.is_shared else _nobody_is_told
        self._places = {
            found.name: Place(found, random, self.tell, moved) for found in plan.endpoints
        }

    def place(self, endpoint: Endpoint) -> Place:
        return self._places[endpoint.name]

    def hear(self, target: Target | None) -> Ticket | None:
        """Begin to read what other processes know, where it is time or the target is a new one.

        Returns:
            What to wait with, None where there is nothing to wait for.
        """
        is_new = False
        if target is not None and self.home.is_shared:
            is_new = target.model not in self.place(target.endpoint).models
            if is_new:
                with self.lock:
                    self.place(target.endpoint).model(target.model)
        return self.home.hear(self.clock.monotonic(), at_once=is_new)

    def cooldown(self, endpoint: Endpoint) -> float:
        """Return the seconds for which an endpoint cools down, 0 if it does not."""
        return self.place(endpoint).cooldown.left(self.clock.monotonic())

    def may_repeat(self, target: Target) -> bool:
        """Take a token of an endpoint's retry budget; False where none is left."""
        with self.lock:
            return self.place(target.endpoint).budget.spend()

    def did_not_repeat(self, target: Target) -> None:
        """Give a token back that was taken for a request that was not sent."""
        with self.lock:
            self.place(target.endpoint).budget.refund(1)

    def can_repeat(self, target: Target) -> bool:
        """Tell whether an endpoint's retry budget has a token left."""
        return self.place(target.endpoint).budget.tokens >= 1.0

    def heed(self, target: Target, error: OllamaBridgeError) -> None:
        """Take note of what a server says of itself: it wants a pause, or has not got a model."""
        if error.status is None:
            return
        with self.lock:
            now = self.clock.monotonic()
            place = self.place(target.endpoint)
            seconds = place.pause_after(error, self.clock.wall())
            if seconds:
                error.retry_after = error.retry_after or seconds
                self._cool(place, now + seconds, error.code)
            elif isinstance(error, ModelNotFound):
                _lack(place.model(target.model), now)
            elif isinstance(error, AuthenticationFailed):
                place.refused_until = now + REFUSED
        self.report()

    def cool_down(self, name: str, seconds: float, code: str) -> None:
        """Leave an endpoint alone for so long, or longer where that is known already.

        It is what others have found out, as the database tells. So it gives way to what another
        process does in the same moment, as ``end_cooldown`` does: that may be the one probe of all.

        Raises:
            KeyError: there is no such endpoint.
        """
        with self.lock:
            now = self.clock.monotonic()
            self._places[name].cooldown.begin(now + seconds, code, now, is_told=True)
        self.report()

    def end_cooldown(self, name: str) -> None:
        """End a cooldown that the database has no more, and leave the circuits as they are.

        Raises:
            KeyError: there is no such endpoint.
        """
        with self.lock:
            cooldown = self._places[name].cooldown
            if not cooldown.passes:
                cooldown.reset(self.clock.monotonic(), is_stored=True)
        self.report()

    def learn_models(
        self, name: str, installed: frozenset[str] | None, loaded: frozenset[str] | None
    ) -> None:
        """Take note of the models that an endpoint has, by their canonical names.

        None for what it was not asked. A model with calls in flight is loaded, or about to be.
        """
        with self.lock:
            now = self.clock.monotonic()
            models = self._places[name].models
            asked = self._asked(name)
            is_new = any(target.model not in models for target in asked)
            for target in asked:
                found = self._places[name].model(target.model)
                named = canonical(target.model)
                if loaded is not None:
                    found.is_warm = named in loaded or found.limiter.in_flight > 0
                if installed is None:
                    continue
                if named not in installed and not is_remote(named):
                    found.missing_until, found.is_warm = now + UNLISTED, False
                elif found.missing_until:
                    found.missing_until, found.was_told = 0.0, False
        if is_new:  # others may have circuits for them
            self.home.hear(now, at_once=True)

    def learn_quota(self, name: str, quota: Quota) -> None:
        """Take note of an allowance, where nobody knows better, and warn of one that is low.

        One that is used up longer is waited for longer.
        """
        with self.lock:
            now, wall = self.clock.monotonic(), self.clock.wall()
            place, ends = self._places[name], quota.resets_at
            if quota.source != "counted":  # who tells of an account has accepted its key
                place.refused_until = 0.0
            if place.allowance.learn(quota, now, wall):
                if place.allowance.warns(wall):
                    self.tell(QuotaLow(name, quota.used, quota.source, quota.window, ends))
                waits = place.cooldown.is_of_quota and place.cooldown.state is State.OPEN
                if waits and quota.is_used_up and ends is not None and ends > wall:
                    self._cool(place, now + ends - wall, place.cooldown.last_error)
        self.report()

    def quotas(self) -> Mapping[str, Quota | None]:
        """Return what is known of the allowance of each endpoint, as long as it lasts."""
        with self.lock:
            wall = self.clock.wall()
            return {name: place.allowance.current(wall) for name, place in self._places.items()}

    def _asked(self, name: str) -> Sequence[Target]:
        """Return the targets at an endpoint that the settings name, or somebody asked for."""
        place = self._places[name]
        named = {target.model for target in self.plan.named_at(place.endpoint)}
        return [Target(place.endpoint, model) for model in named | place.models.keys()]

    def _cool(self, place: Place, until: float, code: str) -> None:
        def will(_: Breaker) -> None:
            place.cooldown.begin(until, code, self.clock.monotonic())

        if place.cooldown.begin(until, code, self.clock.monotonic()):
            self.sharing.insist(place.cooldown, will)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()

    def report(self) -> None:
        if self.is_pending:
            super().report()
            if self.sharing.untold:
                self.home.wake()

    def circuits(self) -> Iterator[Breaker]:
        """Iterate over all circuits, under the lock."""
        for place in self._places.values():
            yield place.breaker
            yield place.cooldown
            for found in place.models.values():
                yield found.breaker

    def circuit(self, name: str) -> Breaker | None:
        """Return the circuit of this name, under the lock; None where there is none, or no more."""
        place = self._places.get(endpoint_of(name))
        if place is None:
            return None
        endpoint, slash, model = name.partition("/")
        if slash:
            found = place.models.get(model)
            return None if found is None else found.breaker
        return place.cooldown if endpoint.endswith(SUFFIX) else place.breaker

    def after_fork(self) -> None:
        """In a forked child nothing is in flight either."""
        super().after_fork()
        for place in self._places.values():
            place.after_fork()


def _nobody_is_told(circuit: Breaker) -> None:
    """Take no note of a move: there are no other processes."""


def _lack(found: ModelPlace, now: float) -> None:
    found.missing_until, found.is_warm = now + MISSING, False
